"""Each number with three or more decimals in README and FINDINGS is in a committed table, and each count is right."""

import re
from pathlib import Path

import pytest

from bench.experiments import find_experiment
from bench.experiments.matched import ALL_AXES, AXES, FAMILIES
from bench.experiments.search import N_FINALISTS, N_TRIALS, STAGE_2_SEEDS
from bench.report.claims.verdicts import judge
from bench.report.published import load_published
from bench.report.runs import read_results
from bench.store import Store

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


WORDS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def test_the_claims_that_the_findings_count_and_name_are_those_of_the_records():
    findings = " ".join((RESULTS / "FINDINGS.md").read_text(encoding="utf-8").split())
    verdicts = judge(read_results(Store(RESULTS)), load_published())
    ids = {
        outcome: {one.claim.id for one in verdicts if one.outcome == outcome}
        for outcome in ("reproduced", "not reproduced", "inconclusive", "pending", "not started")
    }
    n_decided = len(ids["reproduced"]) + len(ids["not reproduced"])
    assert f"**{WORDS[n_decided].capitalize()} of {WORDS[len(verdicts)]} claims are decided**" in findings
    after = findings.split("claims are decided**")[1].split("The rules were changed")[0]
    reproduced, others = after.split("Not reproduced:")
    lost, undecided = others.split(". ", 1)
    named = [set(re.findall(r"C\d+", part)) for part in (reproduced, lost, undecided)]
    assert named == [
        ids["reproduced"],
        ids["not reproduced"],
        ids["inconclusive"] | ids["pending"] | ids["not started"],
    ]


def test_the_runs_that_the_findings_miss_are_those_of_the_experiments():
    findings = (RESULTS / "FINDINGS.md").read_text(encoding="utf-8")
    counts = {name: int(n) for name, n in re.findall(r"`([\w-]+)` \((\d+)(?: runs)?\)", findings)}
    assert counts.pop("tuning") == len(FAMILIES) * (N_TRIALS + N_FINALISTS * len(STAGE_2_SEEDS))
    n_arms = len(FAMILIES) + (len(AXES) - 1) * len(ALL_AXES)
    assert counts.pop("matched") == 2 * 10 + (n_arms - 2) * 5  # two headline arms have ten seeds, the others five
    assert counts == {name: len(find_experiment(name).runs()) for name in ("ablation", "stress")}


@pytest.mark.parametrize("text", ["4.401 ± 0.010", "−0.0079", "0.1234", "14.401"])
def test_a_number_that_is_in_no_table_is_found(text):
    assert unsupported(f"It reaches {text}.", "| 4.401 ± 0.009 | −0.0078 | 0.12345 | 4.401 |") == [text]
