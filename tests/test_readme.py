"""What the README shows is what the committed records and tables say."""

import csv
from pathlib import Path

import pytest

from bench.report.answer import bullets, status
from bench.report.claims.verdicts import judge
from bench.report.published import load_published
from bench.report.runs import read_results
from bench.report.table import NOTHING
from bench.store import Store

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
SHOWN = {"paper-results": "paper", "laptop-all-results": "laptop-all"}
COLUMNS = ("model", "perplexity", "n", "difference", "95 % interval", "parameters", "learning rate")


def block(name: str) -> str:
    """What the README has between two marks."""
    text = README.read_text(encoding="utf-8")
    return text.split(f"<!-- {name} -->\n")[1].split(f"<!-- /{name} -->")[0]


def expected_answer() -> str:
    """The answers and the status, in Markdown."""
    ours, published = read_results(Store(ROOT / "results")), load_published()
    verdicts = judge(ours, published)
    lines = [one.markdown for one in bullets(ours, published, verdicts)]
    return "\n".join(lines) + f"\n\n{status(ours, verdicts)}\n"


def expected_table(name: str) -> str:
    """The committed table of results in fewer columns, each perplexity with a link to the lines of its runs."""
    table = (ROOT / f"results/tables/{name}.md").read_text(encoding="utf-8")
    lines_of = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    columns, _, *cells = [[cell.strip() for cell in line] for line in lines_of]
    rows = [dict(zip(columns, row, strict=True)) for row in cells]
    lines = lines_of_runs(SHOWN[name])
    text = [f"| {' | '.join(COLUMNS)} |", f"|:--{'|--:' * (len(COLUMNS) - 1)}|"]
    for row in rows:
        first, last = lines[row["arm"], row["mode"]]
        row["perplexity"] = f"[{row['perplexity']}](results/runs.csv?plain=1#L{first}-L{last})"
        text.append(f"| {' | '.join(row[column] for column in COLUMNS)} |")
    return "\n".join(text) + "\n"


def lines_of_runs(experiment: str) -> dict[tuple[str, str], tuple[int, int]]:
    """The first and the last line in runs.csv of the done runs of an arm in a mode."""
    found: dict[tuple[str, str], list[int]] = {}
    with (ROOT / "results/runs.csv").open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            if (row["experiment"], row["origin"], row["status"]) == (experiment, "runs", "done"):
                found.setdefault(
                    (row["arm"], NOTHING if row["architecture"] in ("ngram", "kneser_ney") else row["mode"]), []
                ).append(number)
    return {arm: (min(numbers), max(numbers)) for arm, numbers in found.items()}


def test_the_answers_and_the_status_are_those_of_the_records():
    assert block("answer") == expected_answer()


@pytest.mark.parametrize("name", SHOWN)
def test_the_tables_of_results_are_the_committed_ones(name):
    assert block(name) == expected_table(name)


def test_it_is_short_and_every_file_it_links_is_there():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    links = [part.split(")")[0] for part in text.split("](")[1:]]
    assert links
    files = [link.split("?")[0].split("#")[0] for link in links if not link.startswith("http")]
    assert [file for file in files if not (ROOT / file).exists()] == []
