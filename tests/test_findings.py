"""Each number with three or more decimals in README and FINDINGS is in a committed table."""

import re
from pathlib import Path

import pytest

RESULTS = Path(__file__).parent.parent / "results"
# perplexities, nats, shares; not sizes or versions
REPORTED = re.compile(r"(?<![\w.,])[−+]?\d+\.\d{3,}(?: ± \d+\.\d+)?")
TABLE_LINK = re.compile(r"\(tables/([\w-]+)\.md\)")


def unsupported(text: str, tables: str) -> list[str]:
    """The reported numbers that are in no cell or line of the tables."""
    reported = REPORTED.findall(text)
    return [number for number in reported if not re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", tables)]


def test_the_numbers_of_every_finding_are_in_the_tables_that_it_links():
    findings = (RESULTS / "FINDINGS.md").read_text(encoding="utf-8")
    paragraphs = [part for part in re.split(r"\n(?=\d\. )", findings) if TABLE_LINK.search(part)]
    assert len(paragraphs) > 5
    for paragraph in paragraphs:
        linked = TABLE_LINK.findall(paragraph)
        tables = "\n".join((RESULTS / "tables" / f"{name}.md").read_text(encoding="utf-8") for name in linked)
        assert unsupported(paragraph, tables) == [], linked


def test_every_number_of_the_readmes_first_screen_is_in_a_table():
    first_screen = (RESULTS.parent / "README.md").read_text(encoding="utf-8").split("## What is compared")[0]
    tables = "\n".join(path.read_text(encoding="utf-8") for path in (RESULTS / "tables").glob("*.md"))
    assert len(REPORTED.findall(first_screen)) > 20
    assert unsupported(first_screen, tables) == []


@pytest.mark.parametrize("text", ["4.401 ± 0.010", "−0.0079", "0.1234", "14.401"])
def test_a_number_that_is_in_no_table_is_found(text):
    assert unsupported(f"It reaches {text}.", "| 4.401 ± 0.009 | −0.0078 | 0.12345 | 4.401 |") == [text]
