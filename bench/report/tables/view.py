"""The input of the tables of an experiment, and how they write labels and numbers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench.record import Record
from bench.report.contrasts import Contrast, contrasts
from bench.report.frame import LOSSES
from bench.report.notes import COMPARED, STALE, corpus_of, number
from bench.report.published import Figure, Published
from bench.report.runs import CellResults, Results, StoreResults, sweep_nats
from bench.report.statistics import Summary, perplexity, summarise
from bench.report.table import MINUS, NOTHING, Table

MODE, TRIAL = "mode", "trial"  # column names: the mode of the runs of a row; the label of a trial
Summaries = dict[tuple[str, str, str], Summary]  # key: label, protocol, selection


@dataclass(frozen=True, kw_only=True)
class View:
    """The input of the tables of one experiment in one mode; what several tables need is computed once."""

    experiment: Results
    store: StoreResults  # the store of the experiment
    published: Published
    committed: StoreResults | None = None  # another store to compare with
    replications: tuple[Record, ...] = ()  # second records of its runs, in no mean

    @cached_property
    def summaries(self) -> Summaries:
        """Mean and spread of the perplexities of each arm."""
        return summaries_of(self.experiment)

    @cached_property
    def cells(self) -> list[CellResults]:
        """The arms with a record; the others are one line of the notes."""
        return [cell for cell in self.experiment.cells if cell.records]

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

    def column(self, cell: CellResults, name: str, *, done: bool = False, alone: bool = False) -> list[Any]:
        """The values of a frame column over the runs of a cell; `alone`: only runs that did not share a GPU."""
        runs = self.experiment.frame
        chosen = runs["arm"] == cell.label
        if done:
            chosen &= runs["status"] == "done"
        if alone:
            chosen &= runs["shared_gpu"] == False  # noqa: E712  # a column, not a flag
        return [value for value in runs.loc[chosen, name].tolist() if value is not None]

    def count(self, cell: CellResults, name: str) -> str:
        """A count that is equal in all records of a cell, of any status."""
        return common(f"{n:,}" for n in self.column(cell, name))

    def arm(self, cell: CellResults) -> dict[str, str]:
        """The first columns of most tables: an arm and its n."""
        return {"arm": arm_label(self.experiment, cell), "n": n_of(self.experiment, cell)}

    def table(self, kind: str, rows: Sequence[dict[str, str]], notes: Sequence[str]) -> Table | None:
        """A table of this experiment; None if there is no row."""
        return Table.of(self.experiment.name, kind, self.experiment.manifest.question, rows, notes)


def summaries_of(experiment: Results) -> Summaries:
    """Mean and spread of the perplexities of each arm, by protocol and selection."""
    done = experiment.frame[experiment.frame["status"] == "done"]
    return {
        (str(label), *key): summarise([perplexity(nats) for nats in values])
        for label, runs in done.groupby("arm", sort=False)
        for column, key in LOSSES.items()
        if (values := runs[column].dropna().tolist())
    }


def summary_of(records: Iterable[Record], selection: str = "best") -> Summary | None:
    """Mean and spread of the sweep perplexities of records; None if no record has one."""
    values = [perplexity(nats) for nats in sweep_nats(records, selection)]
    return summarise(values) if values else None


def arm_label(experiment: Results, cell: CellResults) -> str:
    """The label of an arm, with `(synthetic)` for synthetic text."""
    return f"{cell.label} (synthetic)" if corpus_of(experiment, cell) == "synthetic" else cell.label


def mode_of(cell: CellResults) -> str:
    """The mode of the runs of a cell; `–` for a counted model, which has none."""
    return NOTHING if cell.fitted else common(record.mode for record in cell.records)


def n_of(experiment: Results, cell: CellResults) -> str:
    """Number of done runs, `3 of 5` if some are missing, with † or ‡ (bench.report.notes) for other sources."""
    run_ids = {record.run_id for record in cell.records}
    marks = (STALE if run_ids & experiment.stale else "") + (COMPARED if run_ids & experiment.compared else "")
    return f"{cell.n_text} {marks}".rstrip()


def marked(text: str, cell: CellResults, n: int | None = None) -> str:
    """`text`, a number over `n` runs of a cell (default: its done runs), with `(n of m)` if runs are missing."""
    return partial(text, len(cell.done) if n is None else n, len(cell.expected))


def partial(text: str, n: int, expected: int) -> str:
    """`text`, a number over `n` runs, with `(n of m)` if fewer than expected."""
    return text if text == NOTHING or n == expected else f"{text} ({n} of {expected})"


def mean_sd(cell: CellResults, summary: Summary | None) -> str:
    """`4.435 ± 0.054`, with `(n of m)` if runs are missing."""
    return marked(plain_mean_sd(summary), cell)


def plain_mean_sd(summary: Summary | None) -> str:
    """`4.435 ± 0.054`, or only the mean if there is no spread."""
    if summary is None:
        return NOTHING
    sd = "" if summary.sd is None else f" ± {number(summary.sd, like=summary.mean)}"
    return number(summary.mean) + sd


def interval(cell: CellResults, summary: Summary | None) -> str:
    """`4.368 to 4.501`, with `(n of m)` if runs are missing."""
    if summary is None or summary.interval is None:
        return NOTHING
    low, high = summary.interval
    return marked(f"{number(low, like=summary.mean)} to {number(high, like=summary.mean)}", cell)


def signed(value: float, digits: int = 4) -> str:
    """A difference with its sign, unless it is 0 after rounding."""
    text = f"{value:+.{digits}f}"
    return text.replace("-", MINUS) if float(text) else text[1:]


def signed_interval(interval: tuple[float, float] | None) -> str:
    """`−0.0048 to +0.0448`."""
    return NOTHING if interval is None else " to ".join(map(signed, interval))


def p_text(p: float | None) -> str:
    """A p-value with three decimals."""
    return NOTHING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def common(texts: Iterable[str]) -> str:
    """The one distinct text; `a / b` if there are several."""
    return " / ".join(sorted(set(texts))) or NOTHING


def published_perplexity(figures: Sequence[Figure]) -> str:
    """Published values with spread, protocol, selection and n."""
    texts = (f"{figure_text(each)} ({each.protocol}, {each.selection}; {each.n_text})" for each in figures)
    return "; ".join(texts) or NOTHING


def figure_text(figure: Figure) -> str:
    """A published value as printed."""
    spread = "" if figure.perplexity_sd is None else f" ± {figure.perplexity_sd}"
    up_to = "" if figure.perplexity_up_to is None else f" to {figure.perplexity_up_to}"
    return f"{figure.perplexity}{up_to}{spread}"


def published_parameters(figures: Sequence[Figure]) -> str:
    """Published parameter counts as printed."""
    printed = (figure for figure in figures if figure.parameters_printed is not None)
    texts = (f"{one.parameters_printed}{'' if one.counts_positions else ' without positions'}" for one in printed)
    return "; ".join(texts) or NOTHING


def ratio(value: float, of: float) -> str:
    """`value / of` with two decimals, or two significant digits below 0.1."""
    if not of:
        return NOTHING
    return f"{value / of:.2f}" if value >= 0.1 * of else f"{value / of:.2g}"


def trial_perplexity(cell: CellResults) -> float | None:
    """The perplexity of a trial on the seed of the first stage; None if that run is not done."""
    found = summary_of(record for record in cell.done if str(record.seed) == cell.expected[0])
    return None if found is None else found.mean
