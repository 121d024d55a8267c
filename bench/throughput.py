"""What `make bench` measured, from `throughput/<device>.json` of a store, and the table made of it.

A file is pytest-benchmark's own, of one session on one machine; numbers of two files are never set against each other.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.errors import UserError
from bench.report.notes import count
from bench.report.table import NOTHING, Table

FOLDER = "throughput"
Phase = Literal["training step", "forward", "evaluation", "generation", "growth"]
PHASES: tuple[Phase, ...] = get_args(Phase)  # in the order of the table
BASELINE = "nanoGPT"
AGAIN = "delete it and measure again: make bench"
REFERENCE_BACKEND = "mask"

Count = Annotated[int, Field(gt=0)]
Bytes = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class ThroughputError(UserError):
    """A file of measurements that cannot be read: cut, foreign or edited by hand."""

    exit_code = 1


class _Lenient(BaseModel):
    """Passes over keys that nothing here reads; refuses other types, NaN and infinite numbers."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


class Point(_Lenient):
    """One thing to measure."""

    phase: Phase
    model: str
    backend: str = ""  # the form of the recurrence; none for a Transformer
    decoding: str = ""  # generation alone: cached or recomputed
    context: Count
    batch_size: Count


class NotRun(Point):
    """A point that was predicted to need more memory than it may take."""

    predicted_bytes: Bytes
    free_bytes: Bytes


class Facts(Point):
    """What was filed with a measured point."""

    n_tokens: Count  # of one round
    seconds_per_step: Positive  # the median; a step is a training step, forward pass, evaluation or generated token
    dtype: str
    mode: str
    n_threads: Count
    device: str
    n_params: Count | None = None
    architecture: str = ""
    flops: Positive | None = None  # of the matrix products of a step
    share_of_floor: Positive | None = None
    matmul_gflops: Positive | None = None  # GFLOP/s, just before and after
    peak_bytes: Bytes | None = None


class Rounds(_Lenient):
    """Seconds of a round, over `rounds` rounds."""

    median: Positive
    min: Positive
    max: Positive
    rounds: Count


class Timed(_Lenient):
    """One benchmark."""

    facts: Facts = Field(alias="extra_info")
    stats: Rounds

    @property
    def tokens_per_second(self) -> float:
        """At the median round."""
        return self.facts.n_tokens / self.stats.median

    @property
    def seconds(self) -> tuple[float, float, float]:
        """Least, median and most seconds of a step."""
        steps = self.stats.median / self.facts.seconds_per_step
        return self.stats.min / steps, self.facts.seconds_per_step, self.stats.max / steps

    @property
    def terms(self) -> tuple[object, ...]:
        """What two measurements must share for a ratio of their speeds to mean something."""
        facts = self.facts
        point = (facts.phase, facts.decoding, facts.context, facts.batch_size)
        return *point, facts.dtype, facts.mode, facts.n_threads, facts.device


class Machine(_Lenient):
    """Where the session ran, and what was too large for it."""

    device: str
    device_name: str
    torch: str
    commit: str | None = None
    dirty: bool | None = None
    matmul_gflops: Positive | None = None
    does_not_fit: tuple[NotRun, ...] = ()


class _Session(_Lenient):
    machine_info: Machine
    benchmarks: tuple[Timed, ...]


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """One session on one machine, in the order of the table."""

    slug: str  # names the device's files
    machine: Machine
    timed: tuple[Timed, ...]
    not_run: tuple[NotRun, ...]

    @property
    def grows(self) -> bool:
        """Whether cost was measured as the sequence gets longer."""
        return any(one.facts.phase == "growth" for one in self.timed)


def read_throughput(root: Path) -> tuple[list[Measurements], list[ThroughputError]]:
    """The measurements below a store's root, sorted by device slug, and an error for each file that cannot be read."""
    found, errors = [], []
    for path in sorted((root / FOLDER).glob("*.json")):
        try:
            found.append(_read(path))
        except ThroughputError as error:
            errors.append(error)
    return found, errors


def throughput_table(measured: Measurements) -> Table:
    """One row a point, whether it ran or not."""
    rows = [(_order(one.facts), _timed_row(one, measured.timed)) for one in measured.timed]
    rows += [(_order(point), _row_not_run(point)) for point in measured.not_run]
    columns = ["phase", "model", "form", "context", "batch", "precision", "tokens/s", "seconds a step", "least to most"]
    columns += ["n", f"× {BASELINE}", f"× {REFERENCE_BACKEND}", "of floor", "peak MiB", "parameters"]
    return Table(
        experiment=FOLDER,
        kind=measured.slug,
        intro="How fast is each model on this machine, and each form of its recurrence?",
        columns=tuple(columns),
        n_left=3,
        rows=tuple(row for _, row in sorted(rows)),
        notes=tuple(_legend(measured)),
    )


def machine_text(measured: Measurements) -> str:
    """Device, threads and torch, in the words of the other tables."""
    threads = " or ".join(count(n, "thread") for n in sorted({one.facts.n_threads for one in measured.timed}))
    told = ", ".join(filter(None, (measured.machine.device, threads)))
    return f"{measured.machine.device_name} ({told}), torch {measured.machine.torch}"


def _read(path: Path) -> Measurements:
    try:
        return parse(path.read_bytes(), path)
    except OSError as error:
        raise ThroughputError(f"{path}: cannot be read: {error.strerror}; {AGAIN}") from error


def parse(content: bytes, path: Path) -> Measurements:
    """The measurements in a file's bytes. ThroughputError names `path`, where they are from, and the reason."""
    if not path.stem.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise ThroughputError(f"{path}: a device's name is letters, digits, '.', '-' and '_'; rename it")
    try:
        session = _Session.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ThroughputError(f"{path}: {where + ': ' if where else ''}{first['msg']}; {AGAIN}") from error
    timed = sorted(session.benchmarks, key=lambda one: (_order(one.facts), one.terms))
    for one, other in pairwise(timed):
        if (one.terms, _order(one.facts)) == (other.terms, _order(other.facts)):
            told = ", ".join(filter(None, (one.facts.phase, one.facts.model, one.facts.backend, one.facts.decoding)))
            raise ThroughputError(f"{path}: {told} at context {one.facts.context} stands there twice; {AGAIN}")
    return Measurements(
        slug=path.stem,
        machine=session.machine_info,
        timed=tuple(timed),
        not_run=tuple(sorted(session.machine_info.does_not_fit, key=_order)),
    )


def _order(point: Point) -> tuple[int, int, int, str, str, str]:
    return (
        PHASES.index(point.phase),
        point.context,
        point.batch_size,
        point.model,
        point.backend,
        point.decoding,
    )


# --- cells ---


def _timed_row(one: Timed, beside: Sequence[Timed]) -> tuple[str, ...]:
    facts = one.facts
    least, median, most = one.seconds
    alike = [other for other in beside if other.terms == one.terms]
    baseline = [other for other in alike if other.facts.model == BASELINE]
    reference = [o for o in alike if (o.facts.model, o.facts.backend) == (facts.model, REFERENCE_BACKEND)]
    return (
        *_point_cells(facts),
        f"{facts.dtype}, {facts.mode}",
        digits(one.tokens_per_second, 3),
        digits(median),
        f"{digits(least, like=median)} to {digits(most, like=median)}" if one.stats.rounds > 1 else NOTHING,
        str(one.stats.rounds),
        _ratio(one, baseline),
        _ratio(one, reference),
        NOTHING if facts.share_of_floor is None else f"{100 * facts.share_of_floor:.1f} %",
        NOTHING if facts.peak_bytes is None else f"{facts.peak_bytes / 2**20:,.0f}",
        NOTHING if facts.n_params is None else f"{facts.n_params:,}",
    )


def _row_not_run(point: NotRun) -> tuple[str, ...]:
    told = f"does not fit (predicted {_gib(point.predicted_bytes)}, free {_gib(point.free_bytes)})"
    return *_point_cells(point), *[NOTHING] * 8, told, NOTHING


def _point_cells(point: Point) -> tuple[str, ...]:
    form = ", ".join(filter(None, (point.backend, point.decoding))) or NOTHING
    return point.phase, point.model, form, f"{point.context:,}", f"{point.batch_size:,}"


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GiB"


def _ratio(one: Timed, of: Sequence[Timed]) -> str:
    """Speed over that of the only one in `of`; nothing where there is none, or none to prefer."""
    if len(of) != 1:
        return NOTHING
    ratio = one.tokens_per_second / of[0].tokens_per_second
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def digits(value: float, n: int = 4, like: float | None = None) -> str:
    """A positive number with at least `n` digits and no exponent; one of a spread has the decimals of its median."""
    decimals = max(0, n - 1 - math.floor(math.log10(value if like is None else like)))
    return f"{value:,.{decimals}f}"


# --- legend ---


def _legend(measured: Measurements) -> list[str]:
    notes = [
        "tokens/s: the tokens of a round over its median seconds; seconds a step: of one training step, forward pass, "
        "evaluation or generated token, the median over n rounds, and the least to the most of them. In growth, a step "
        "is a forward and a backward pass of the part named.",
        f"× {BASELINE}, × {REFERENCE_BACKEND}: tokens/s over those of {BASELINE}, and over those of the same model "
        f"with the {REFERENCE_BACKEND} backend, in the same phase, at the same context, batch and precision. Every "
        "number is of one session on one machine: no ratio is formed between two, and runs packed onto one device "
        "never enter.",
        "of floor: the seconds that the model's matrix products take at the rate that the machine reached around the "
        "measurement, over the seconds taken. peak MiB: the most memory taken, above what was held before. A point "
        "that does not fit was predicted to take more than a safe share of the free memory, and was not run.",
        f"Measured on {machine_text(measured)}; {_commit_text(measured.machine)}.",
    ]
    rates = _rates_text(measured)
    return [*notes, f"Matrix products ran at {rates}."] if rates else notes


def _commit_text(machine: Machine) -> str:
    if machine.commit is None:
        return "commit unknown"
    return f"commit {machine.commit[:12]}" + (" with changes (dirty)" if machine.dirty else "")


def _rates_text(measured: Measurements) -> str:
    """The rates behind the floors by precision; the session's one where the measurements carry none."""
    rates: dict[str, list[float]] = defaultdict(list)
    for one in measured.timed:
        if one.facts.matmul_gflops is not None:
            rates[one.facts.dtype].append(one.facts.matmul_gflops)
    if not rates and measured.machine.matmul_gflops is not None:
        return f"{digits(measured.machine.matmul_gflops, 3)} GFLOP/s"
    ranges = {dtype: dict.fromkeys((digits(min(each), 3), digits(max(each), 3))) for dtype, each in rates.items()}
    return "; ".join(f"{' to '.join(each)} GFLOP/s in {dtype}" for dtype, each in sorted(ranges.items()))
