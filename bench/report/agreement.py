"""Whether runs made again have the committed numbers, and whether what they say of the comparison is the same."""

from bench.errors import count
from bench.record import Record, Result, run_name
from bench.report.answer import gap_text
from bench.report.claims.finding import signed
from bench.report.contrasts import Contrast, primary_contrast
from bench.report.runs import StoreResults


def agreement(ours: StoreResults, theirs: StoreResults, name: str) -> list[str]:
    """Lines on the runs that both stores have of an experiment, and on its primary comparison in both."""
    here = ours.experiment(name)
    if here is None or not here.done:
        return []
    committed = {record.run_id: record for one in theirs.experiments for record in one.done}
    both = [(record, committed[record.run_id]) for record in here.done if record.run_id in committed]
    lines = _records(both, len(here.done))
    there = theirs.experiment(name)
    mine, other = primary_contrast(here), None if there is None else primary_contrast(there)
    if mine is not None:
        lines.append(f"What came out: {mine.arm.label} against {mine.reference.label}: {gap_text(mine)}.")
    if mine is not None and other is not None:
        lines.append(_same_comparison(mine, other))
    return lines


def _records(both: list[tuple[Record, Record]], n_done: int) -> list[str]:
    """How many records are equal bit for bit; of the others the range of the differences, and the machines."""
    if not both:
        return ["None of these runs is among the committed ones: nothing to compare bit for bit."]
    differing = [(mine, theirs) for mine, theirs in both if not _equal(mine.result, theirs.result)]
    n_equal = len(both) - len(differing)
    lines = [f"{n_equal} of {count(len(both), 'record')} equal the committed ones, bit for bit."]
    if len(both) < n_done:
        lines.append(f"{count(n_done - len(both), 'run')} of yours are not among the committed ones.")
    if not differing:
        return lines
    gaps = [(mine.nats() or 0.0) - (theirs.nats() or 0.0) for mine, theirs in differing]
    named = ", ".join(
        f"{run_name(mine.label, mine.seed)} {signed(gap)}" for (mine, _), gap in zip(differing, gaps, strict=True)
    )
    lines.append(f"The others, yours minus committed, in nats per token: {named}.")
    unlike = {text for mine, theirs in differing for text in _machines(mine, theirs)}
    what = "; ".join(sorted(unlike)) or "nothing that a record names"
    return [*lines, f"What differs between the machines (yours, theirs): {what}."]


def _equal(mine: Result | None, theirs: Result | None) -> bool:
    """Whether every number that both measured is the same; an older record lacks some of today's."""
    if mine is None or theirs is None:
        return mine is theirs
    pairs = ((getattr(mine, name), getattr(theirs, name)) for name in Result.model_fields)
    return all(one == other for one, other in pairs if one is not None and other is not None)


def _machines(mine: Record, theirs: Record) -> list[str]:
    """The fields of both environments that differ, and may change bits."""
    ours, others = mine.environment, theirs.environment
    fields = {
        "instructions": (ours.instructions, others.instructions),
        "device": (ours.device_name, others.device_name),
        "threads": (ours.n_threads, others.n_threads),
        "torch": (ours.packages.get("torch"), others.packages.get("torch")),
        "platform": (ours.platform, others.platform),
    }
    return [f"{name} {one}, {other}" for name, (one, other) in fields.items() if one != other]


def _same_comparison(mine: Contrast, other: Contrast) -> str:
    """Whether the committed difference has the same sign and is within the interval of ours."""
    assert mine.comparison is not None
    assert other.comparison is not None
    ours, theirs = mine.comparison.difference, other.comparison.difference
    sign = "the same sign" if ours * theirs > 0 else "another sign"
    interval = mine.comparison.interval
    within = "no interval of yours to hold it against"
    if interval is not None:
        within = ("within" if interval[0] <= theirs <= interval[1] else "outside") + " your 95 % interval"
    return f"The committed difference is {signed(theirs)} nats: {sign}, and {within}."
