"""An experiment as its tables see it, and the words that their cells share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench.record import Record
from bench.report.arms import trials
from bench.report.contrasts import Contrast, contrasts
from bench.report.frame import LOSSES
from bench.report.notes import COMPARED, STALE, corpus_of, number
from bench.report.published import Figure, Published
from bench.report.runs import CellResults, Results, StoreResults, sweep_nats
from bench.report.statistics import Summary, perplexity, summarise
from bench.report.table import MINUS, NOTHING, Table

MODE, TRIAL = "mode", "trial"  # headings: of the mode of a row's runs, and of the cell where the first names its group
Summaries = dict[tuple[str, str, str], Summary]  # by label, protocol, selection


@dataclass(frozen=True, kw_only=True)
class View:
    """The input of the tables of one experiment; shared values are computed once."""

    experiment: Results
    store: StoreResults  # where the experiment is from
    published: Published
    committed: StoreResults | None = None  # another store, whose values are shown as well
    replications: tuple[Record, ...] = ()  # second records of its runs, which enter no mean

    @cached_property
    def summaries(self) -> Summaries:
        """Mean and spread of the perplexities of each arm."""
        return summaries_of(self.experiment)

    @cached_property
    def contrasts(self) -> tuple[Contrast, ...]:
        """Each arm against the reference arm."""
        return contrasts(self.experiment)

    @cached_property
    def published_beside(self) -> dict[str, list[Figure]]:
        """The published figures of each arm."""
        return {
            cell.label: self.published.beside(self.experiment.name, corpus_of(self.experiment, cell), cell.label)
            for cell in self.experiment.cells
        }

    @cached_property
    def trials(self) -> dict[str, list[CellResults]]:
        """The trials of a search, by the arm that they belong to."""
        return trials(self.experiment)

    def column(self, cell: CellResults, name: str, *, done: bool = False, alone: bool = False) -> list[Any]:
        """A column of the frame at the runs of a cell that have a value; `alone`: only runs with a GPU of their own."""
        runs = self.experiment.frame
        chosen = runs["arm"] == cell.label
        if done:
            chosen &= runs["status"] == "done"
        if alone:
            chosen &= runs["shared_gpu"] == False  # noqa: E712  # a column, not a flag
        return [value for value in runs.loc[chosen, name].tolist() if value is not None]

    def count(self, cell: CellResults, name: str) -> str:
        """A column of counts that all records of a cell share, whatever their status."""
        return common(f"{n:,}" for n in self.column(cell, name))

    def table(
        self, kind: str, columns: Sequence[str], n_left: int, rows: Sequence[Sequence[str]], notes: Sequence[str]
    ) -> Table:
        """A table of this experiment."""
        return Table(
            experiment=self.experiment.name,
            kind=kind,
            intro=self.experiment.manifest.question,
            columns=tuple(columns),
            n_left=n_left,
            rows=tuple(map(tuple, rows)),
            notes=tuple(notes),
        )


def summaries_of(experiment: Results) -> Summaries:
    """Mean and spread of the perplexities of each arm, by protocol and selection."""
    frame = experiment.frame
    done = frame[frame["status"] == "done"]
    return {
        (str(label), *where): summarise([perplexity(nats) for nats in values])
        for label, runs in done.groupby("arm", sort=False)
        for column, where in LOSSES.items()
        if (values := runs[column].dropna().tolist())
    }


def summary_of(records: Iterable[Record], selection: str = "best") -> Summary | None:
    """The sweep perplexities of some records; None where none has one."""
    values = [perplexity(nats) for nats in sweep_nats(records, selection)]
    return summarise(values) if values else None


def arm_label(experiment: Results, cell: CellResults) -> str:
    """The arm's label, and whether it read synthetic text."""
    return f"{cell.label} (synthetic)" if corpus_of(experiment, cell) == "synthetic" else cell.label


def mode_of(cell: CellResults) -> str:
    """The mode of a cell's runs; nothing for a counted model, which has none."""
    return NOTHING if cell.fitted else common(record.mode for record in cell.records)


def n_of(experiment: Results, cell: CellResults) -> str:
    """How many runs are done, of how many; with a dagger where other sources made one, double where it was compared."""
    run_ids = {record.run_id for record in cell.records}
    marks = (STALE if run_ids & experiment.stale else "") + (COMPARED if run_ids & experiment.compared else "")
    return f"{cell.n_text} {marks}".rstrip()


def marked(text: str, cell: CellResults, n: int | None = None) -> str:
    """`text`, a number over `n` runs of a cell, by default all done ones; with `(n of m)` where runs are missing."""
    n = len(cell.done) if n is None else n
    return text if text == NOTHING or n == len(cell.expected) else f"{text} ({n} of {len(cell.expected)})"


def mean_sd(cell: CellResults, summary: Summary | None) -> str:
    """`4.435 ± 0.054`, and of how many runs where some are lost."""
    return marked(plain_mean_sd(summary), cell)


def plain_mean_sd(summary: Summary | None) -> str:
    """`4.435 ± 0.054`, or the mean alone where there is no spread."""
    if summary is None:
        return NOTHING
    sd = "" if summary.sd is None else f" ± {number(summary.sd, like=summary.mean)}"
    return number(summary.mean) + sd


def interval(cell: CellResults, summary: Summary | None) -> str:
    """`4.368 to 4.501`, and of how many runs where some are lost."""
    if summary is None or summary.interval is None:
        return NOTHING
    low, high = summary.interval
    return marked(f"{number(low, like=summary.mean)} to {number(high, like=summary.mean)}", cell)


def signed(value: float, digits: int = 4) -> str:
    """A difference, with the minus of numbers; what rounds to 0 has none."""
    text = f"{value:.{digits}f}"
    return f"{MINUS if float(text) < 0 else ''}{text.removeprefix('-')}"


def p_text(p: float | None) -> str:
    """A p-value with three decimals."""
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def common(texts: Iterable[str]) -> str:
    """The text that all share; all of them where they differ."""
    return " / ".join(sorted(set(texts))) or NOTHING


def published_perplexity(figures: Sequence[Figure]) -> str:
    """Published values with their spread, protocol and n."""
    return (
        "; ".join(f"{figure_text(each)} ({each.protocol}, {each.selection}; {each.n_text})" for each in figures)
        or NOTHING
    )


def figure_text(figure: Figure) -> str:
    """A published value as it was printed."""
    spread = "" if figure.perplexity_sd is None else f" ± {figure.perplexity_sd}"
    up_to = "" if figure.perplexity_up_to is None else f" to {figure.perplexity_up_to}"
    return f"{figure.perplexity}{up_to}{spread}"


def published_parameters(figures: Sequence[Figure]) -> str:
    """Published parameter counts as they were printed."""
    printed = (figure for figure in figures if figure.parameters_printed is not None)
    texts = (f"{one.parameters_printed}{'' if one.counts_positions else ' without positions'}" for one in printed)
    return "; ".join(texts) or NOTHING


def ratio(value: float, of: float) -> str:
    """`value / of` with two decimals, or two digits where it is small."""
    if not of:
        return NOTHING
    return f"{value / of:.2f}" if value >= 0.1 * of else f"{value / of:.2g}"


def trial_perplexity(cell: CellResults) -> float | None:
    """Of the trial's first done run: a trial has one."""
    found = summary_of(cell.done[:1])
    return None if found is None else found.mean
