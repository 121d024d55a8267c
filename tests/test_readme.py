"""What the README shows is what the committed tables say."""

from pathlib import Path

ROOT = Path(__file__).parent.parent


def table_rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_every_cell_of_the_readmes_table_stands_in_the_committed_one():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.split("<!-- laptop-all-perplexity -->")[1].split("<!-- /laptop-all-perplexity -->")[0]
    committed = (ROOT / "results/tables/laptop-all-perplexity.md").read_text(encoding="utf-8")
    (header, *rows), (columns, *every) = ([cells(row) for row in table_rows(text)] for text in (shown, committed))
    places = [columns.index(name) for name in header]
    assert len(rows) > 5
    assert {"k_operators", "transformer", "modern", "lstm"} <= {row[0] for row in rows}
    kept = [[row[place] for place in places] for row in every]
    assert [row for row in rows[1:] if row not in kept] == []  # after the rule below the header


def test_every_file_the_readme_links_is_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [part.split(")")[0] for part in readme.split("](")[1:]]
    assert links
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []
