"""`bench list`: the experiments, their questions, and how much of each has a record."""

from dataclasses import dataclass

from bench.config import MODES, Mode
from bench.errors import ConfigError, count, typed
from bench.experiments import EXPERIMENTS, FROM_RECORDS, find_experiment
from bench.experiments.grid import Cell, Experiment
from bench.experiments.search import Recorded
from bench.store import Store

INDENT = "    "


@dataclass(frozen=True, kw_only=True)
class Listed:
    """An experiment in the mode in which most of its runs are done."""

    experiment: Experiment
    mode: Mode
    statuses: dict[str, str]  # of the store, by run id

    def n_done(self, *cells: Cell) -> int:
        """How many runs of these cells are done."""
        ids = (cell.run(seed, self.mode).run_id for cell in cells for seed in cell.seeds)
        return sum(self.statuses.get(run_id) == "done" for run_id in ids)

    @property
    def summary(self) -> str:
        """`laptop: 5 of 6 runs done`, with the mode where there is a choice, and the question."""
        cells = self.experiment.cells
        mode = "" if self.experiment.only_mode else f" in mode {self.mode}"
        n_runs = sum(len(cell.seeds) for cell in cells)
        done = f"{self.n_done(*cells):,} of {count(n_runs, 'run')} done{mode}, {count(len(cells), 'cell')}"
        return f"{self.experiment.name}: {done}\n{INDENT}{self.experiment.question}"


def listing(store: Store, name: str | None = None) -> str:
    """Every experiment in two lines; of one that is named, its cells as well."""
    statuses = store.statuses() if store.root.is_dir() else {}
    if name is None:
        lines = [_lines(one, store, statuses) for one in (*EXPERIMENTS, *FROM_RECORDS)]
        return "\n".join([*lines, f"The cells of one: {typed('bench', 'list', 'laptop', store=store.root)}"])
    found = _find(name, store, statuses)
    width = max(len(cell.label) for cell in found.experiment.cells)
    cells = (
        f"{INDENT}{cell.label:{width}}  {found.n_done(cell)} of {len(cell.seeds)}  {_seeds(cell)}"
        for cell in found.experiment.cells
    )
    return "\n".join([found.summary, *cells])


def _find(name: str, store: Store, statuses: dict[str, str]) -> Listed:
    found = []
    for mode in MODES:
        experiment = find_experiment(name, Recorded(store, mode))
        if experiment.only_mode in (None, mode):
            found.append(Listed(experiment=experiment, mode=mode, statuses=statuses))
    return max(found, key=lambda one: one.n_done(*one.experiment.cells))


def _lines(name: str, store: Store, statuses: dict[str, str]) -> str:
    try:
        return _find(name, store, statuses).summary
    except ConfigError as error:  # its cells wait for the records of another experiment
        return f"{name}: not yet\n{INDENT}{str(error).partition(', and ')[0]}"


def _seeds(cell: Cell) -> str:
    return "fitted, no seed" if cell.seeds == (None,) else f"seeds {', '.join(map(str, cell.seeds))}"
