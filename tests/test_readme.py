"""What the README shows is what the committed tables say."""

from pathlib import Path

ROOT = Path(__file__).parent.parent


def table_rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def test_the_readmes_table_is_the_committed_one():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.split("<!-- laptop-perplexity -->")[1].split("<!-- /laptop-perplexity -->")[0]
    committed = (ROOT / "results/tables/laptop-perplexity.md").read_text(encoding="utf-8")
    assert table_rows(shown) == table_rows(committed)


def test_every_file_the_readme_links_is_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [part.split(")")[0] for part in readme.split("](")[1:]]
    assert links
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []
