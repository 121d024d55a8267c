"""The table of throughput: what `make bench` measured on one machine. Numbers of two machines are never compared."""

import math
from collections import defaultdict
from collections.abc import Sequence

from bench.report.notes import machine_text
from bench.report.table import NOTHING, Table
from bench.store import PUBLISHED_FORMS, THROUGHPUT, MeasuredMachine, Measurements, NotRun, Point, Timed, order_of

BASELINE = "nanoGPT"
REFERENCE_BACKEND = "mask"
AS_PUBLISHED = (
    "as published: with the operations of the released code, eager, the whole batch at once; both forms in turn, round "
    "by round, the second over the first under × mask. bfloat16: under autocast. A forward pass is without gradients."
)


def throughput_table(measured: Measurements) -> Table:
    """One row per point, also if it did not fit into memory."""
    rows = [(order_of(one.facts), _timed_row(one, measured.timed)) for one in measured.timed]
    rows += [(order_of(point), _row_not_run(point)) for point in measured.not_run]
    columns = ["phase", "model", "form", "context", "batch", "precision", "tokens/s", "seconds per step"]
    columns += [
        "minimum to maximum",
        "n",
        f"× {BASELINE}",
        f"× {REFERENCE_BACKEND}",
        "of floor",
        "peak MiB",
        "parameters",
    ]
    return Table(
        experiment=THROUGHPUT,
        kind=measured.slug,
        intro="How fast is each model, and each form of its recurrence, on this machine?",
        columns=tuple(columns),
        rows=tuple(row for _, row in sorted(rows)),
        notes=tuple(_legend(measured)),
    )


def _timed_row(one: Timed, timed: Sequence[Timed]) -> tuple[str, ...]:
    facts = one.facts
    lowest, median, highest = one.seconds
    alike = [other for other in timed if other.terms == one.terms]
    baseline = [other for other in alike if other.facts.model == BASELINE]
    mask = PUBLISHED_FORMS[0] if facts.backend in PUBLISHED_FORMS else REFERENCE_BACKEND
    reference = [other for other in alike if (other.facts.model, other.facts.backend) == (facts.model, mask)]
    return (
        *_point_cells(facts),
        f"{facts.dtype}, {facts.mode}",
        digits(one.tokens_per_second, 3),
        digits(median),
        f"{digits(lowest, like=median)} to {digits(highest, like=median)}" if one.stats.rounds > 1 else NOTHING,
        str(one.stats.rounds),
        _ratio(one, baseline),
        _ratio(one, reference),
        NOTHING if facts.share_of_floor is None else f"{100 * facts.share_of_floor:.1f} %",
        NOTHING if facts.peak_bytes is None else f"{facts.peak_bytes / 2**20:,.0f}",
        NOTHING if facts.n_params is None else f"{facts.n_params:,}",
    )


def _row_not_run(point: NotRun) -> tuple[str, ...]:
    text = f"does not fit (predicted {_gib(point.predicted_bytes)}, free {_gib(point.free_bytes)})"
    return *_point_cells(point), *[NOTHING] * 8, text, NOTHING


def _point_cells(point: Point) -> tuple[str, ...]:
    form = ", ".join(filter(None, (point.backend, point.decoding))) or NOTHING
    return point.phase, point.model, form, f"{point.context:,}", f"{point.batch_size:,}"


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GiB"


def _ratio(one: Timed, of: Sequence[Timed]) -> str:
    """Speed over that of the only one in `of`; `–` if there is not exactly one."""
    if len(of) != 1:
        return NOTHING
    ratio = one.tokens_per_second / of[0].tokens_per_second
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def digits(value: float, n: int = 4, like: float | None = None) -> str:
    """A positive number with at least `n` digits and no exponent; a range has the decimals of its median `like`."""
    decimals = max(0, n - 1 - math.floor(math.log10(value if like is None else like)))
    return f"{value:,.{decimals}f}"


# --- legend ---


def _legend(measured: Measurements) -> list[str]:
    notes = [
        "tokens/s: the tokens of a round over its median seconds; seconds per step: of one training step, forward "
        "pass, evaluation or generated token, the median over n rounds, and their minimum to maximum. In growth, a "
        "step is a forward and a backward pass of the part named.",
        f"× {BASELINE}, × {REFERENCE_BACKEND}: tokens/s over those of {BASELINE}, and over those of the same model "
        f"with the {REFERENCE_BACKEND} backend, in the same phase, at the same context, batch and precision. Every "
        "number is of one session on one machine: no ratio is between two machines, and runs that share a device are "
        "left out.",
        "of floor: the seconds that the matrix products of the model take at the rate that the machine reached "
        "before and after the measurement, over the seconds measured. peak MiB: the maximum memory used, above "
        "what was in use before. A point that does not fit was predicted to need more than a safe share of the "
        "free memory, and was not run.",
        *([AS_PUBLISHED] if any(one.facts.backend in PUBLISHED_FORMS for one in measured.timed) else []),
        f"Measured on {machine_text(measured)}; {_commit_text(measured.machine)}.",
    ]
    rates = _rates_text(measured)
    return [*notes, f"Matrix products ran at {rates}."] if rates else notes


def _commit_text(machine: MeasuredMachine) -> str:
    if machine.commit is None:
        return "commit unknown"
    return f"commit {machine.commit[:12]}" + (" with changes (dirty)" if machine.dirty else "")


def _rates_text(measured: Measurements) -> str:
    """The rates behind the floors by precision; the one of the session if the measurements have none."""
    rates: dict[str, list[float]] = defaultdict(list)
    for one in measured.timed:
        if one.facts.matmul_gflops is not None:
            rates[one.facts.dtype].append(one.facts.matmul_gflops)
    if not rates and measured.machine.matmul_gflops is not None:
        return f"{digits(measured.machine.matmul_gflops, 3)} GFLOP/s"
    ranges = {dtype: dict.fromkeys((digits(min(each), 3), digits(max(each), 3))) for dtype, each in rates.items()}
    return "; ".join(f"{' to '.join(each)} GFLOP/s in {dtype}" for dtype, each in sorted(ranges.items()))
