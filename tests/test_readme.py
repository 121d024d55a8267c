"""What the README shows is what the committed tables say."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("name", "arms"),
    [
        ("paper-perplexity", {"k_operators", "nanogpt", "nanogpt_2023", "kneser_ney"}),
        ("laptop-all-perplexity", {"k_operators", "transformer", "modern", "lstm"}),
    ],
)
def test_every_cell_of_the_readmes_tables_stands_in_the_committed_one(name, arms):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]
    committed = (ROOT / f"results/tables/{name}.md").read_text(encoding="utf-8")
    (header, *rows), (columns, *every) = (
        [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines() if row.startswith("|")]
        for text in (shown, committed)
    )
    places = [columns.index(column) for column in header]
    assert arms <= {row[0] for row in rows}
    kept = [[row[place] for place in places] for row in every]
    assert [row for row in rows[1:] if row not in kept] == []  # after the rule below the header


def test_every_file_the_readme_links_is_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [part.split(")")[0] for part in readme.split("](")[1:]]
    assert links
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []
