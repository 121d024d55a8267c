"""The counts, steps and sizes in jobs/README.md are those of the experiments."""

import re

import pytest

from bench.experiments import EXPERIMENTS, find_experiment
from bench.experiments.grid import Cell
from bench.experiments.search import N_FINALISTS, STAGE_2_SEEDS
from models import build
from tests.command_line import ROOT

TEXT = (ROOT / "jobs" / "README.md").read_text(encoding="utf-8")
BYTES_PER_PARAMETER = 2 * 16  # two checkpoints


def rows() -> list[list[str]]:
    """The cells of the table of costs."""
    table = TEXT[TEXT.index("| experiment | runs |") :].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def number(pattern: str, text: str) -> int:
    """The number in a text; 0 where there is none."""
    found = re.search(pattern, text)
    return int(found[1].replace(",", "")) if found else 0


def cells_of(first: str) -> list[Cell]:
    """The trained cells that a row is about: all of its experiment, or those of the labels that it names."""
    name, *labels = re.findall("`([^`]+)`", first)
    return [
        cell for cell in find_experiment(name).cells if cell.config.training and cell.label in (labels or [cell.label])
    ]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_row_has_the_runs_steps_and_disk_of_its_experiment(row):
    cells = cells_of(row[0])
    n_runs, n_steps = number(r"^([\d,]+)", row[1]), number(r"\(([\d,]+) steps", row[2])
    assert n_runs == sum(len(cell.seeds) for cell in cells)
    steps = {cell.config.training.n_steps for cell in cells if cell.config.training}
    assert steps == ({n_steps} if n_steps else steps)
    largest = max(sum(one.numel() for one in build(cell.config.model).parameters()) for cell in cells)
    megabytes = largest * BYTES_PER_PARAMETER / 1e6
    assert number(r"^([\d,]+) MB", row[3]) == (round(megabytes) if megabytes > 1 else 0)


def test_the_table_has_every_experiment_and_its_fitted_models():
    fitted = {}
    for first, runs, *_ in rows():
        name = re.findall("`([^`]+)`", first)[0]
        fitted[name] = fitted.get(name, 0) + number(r"and (\d+) fitted", runs)
    assert fitted == {
        name: sum(cell.config.training is None for cell in find_experiment(name).cells)
        for name in (*EXPERIMENTS, "tuning")
    }


def test_the_second_stage_of_the_search_has_the_runs_that_it_says():
    [tuning] = [row for row in rows() if row[0] == "`tuning`"]
    families = {cell.group for cell in find_experiment("tuning").cells}
    assert number(r"then (\d+)", tuning[1]) == len(families) * N_FINALISTS * len(STAGE_2_SEEDS)
