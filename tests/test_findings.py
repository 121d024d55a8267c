"""Each number of three decimals or more that README and FINDINGS report stands in a committed table."""

import re
from pathlib import Path

import pytest

RESULTS = Path(__file__).parent.parent / "results"
REPORTED = re.compile(
    r"(?<![\w.,])[−+]?\d+\.\d{3,}(?: ± \d+\.\d+)?"
)  # perplexities, nats, shares; not sizes or versions
TABLE_LINK = re.compile(r"\(tables/([\w-]+)\.md\)")


def findings() -> str:
    return (RESULTS / "FINDINGS.md").read_text(encoding="utf-8")


def unsupported(text: str, tables: str) -> list[str]:
    """The reported numbers that are in no cell or line of the tables."""
    return [
        number for number in REPORTED.findall(text) if not re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", tables)
    ]


def test_every_finding_stands_on_the_tables_that_it_links():
    paragraphs = [part for part in re.split(r"\n(?=\d\. )", findings()) if TABLE_LINK.search(part)]
    assert len(paragraphs) > 5
    for paragraph in paragraphs:
        linked = TABLE_LINK.findall(paragraph)
        tables = "\n".join((RESULTS / "tables" / f"{name}.md").read_text(encoding="utf-8") for name in linked)
        assert unsupported(paragraph, tables) == [], linked


def test_every_number_of_the_readmes_first_screen_stands_in_a_table():
    first_screen = (RESULTS.parent / "README.md").read_text(encoding="utf-8").split("**Reproduce it**")[0]
    tables = "\n".join(path.read_text(encoding="utf-8") for path in (RESULTS / "tables").glob("*.md"))
    assert len(REPORTED.findall(first_screen)) > 20
    assert unsupported(first_screen, tables) == []


@pytest.mark.parametrize("text", ["4.401 ± 0.010", "−0.0079", "0.1234", "14.401"])
def test_a_number_from_nowhere_is_found_out(text):
    assert unsupported(f"It reaches {text}.", "| 4.401 ± 0.009 | −0.0078 | 0.12345 | 4.401 |") == [text]
