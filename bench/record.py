"""The record: the JSON file of a run, and the only data that running and reporting share.

Nothing here imports torch or `models`, so tables are made without them.
"""

import hashlib
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from bench.errors import RecordError, first_problem
from bench.plain import PlainConfig, PlainReadings

SCHEMA_VERSION: Final = 1
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")  # of labels and experiments
NO_SEED = "fitted"  # in place of a seed, for a model without one
Status = Literal["done", "diverged", "oom", "failed", "timeout", "cancelled", "io_error"]
FINAL_STATUSES = ("done", "diverged")  # a diverged run is a result; a failed one is run again


class Strict(BaseModel):
    """Refuses unknown keys, NaN and infinite numbers; and other types, where it is read from a file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CorpusFacts(Strict):
    """The text of a run; `entropy_rate_nats` where it is known exactly (synthetic text)."""

    name: str
    sha256: str
    vocab_size: int
    n_train_tokens: int
    n_val_tokens: int
    entropy_rate_nats: float | None


class Sources(Strict):
    """The code of a run. `fingerprint` is over the syntax trees of the files that decide this run's numbers."""

    commit: str | None
    dirty: bool | None
    fingerprint: str


class Environment(Strict):
    """The machine and the software, without a name, a user or a path."""

    device: str  # "cpu" or "cuda"
    device_name: str
    n_threads: int
    platform: str
    python: str
    packages: dict[str, str]
    instructions: str | None = None  # the CPU's vector instructions that torch uses, e.g. AVX512
    cuda: str | None = None  # the version torch was built with
    processor: str | None = None  # of a CPU: vendor, family, model and stepping, since makers reuse names
    settings: dict[str, str] | None = None  # variables that were set and can move a number, e.g. MKL_CBWR

    def changes(self, now: "Environment") -> list[str]:
        """What differs in `now`, one text each; what one of them lacks, since it is older, is not known to differ."""
        before, after = self.model_dump(), now.model_dump()
        set_then, set_now = before.pop("settings"), after.pop("settings") or {}
        later = [key for key in ("instructions", "processor") if None in (before[key], after[key])]
        differ = [key for key in before if before[key] != after[key] and key not in later]
        found = [f"{key}: {before[key]} then, {after[key]} now" for key in differ]
        if set_then is None:  # an older record: only what is set now is known
            return found + [f"{key}: not recorded then, {value} now" for key, value in sorted(set_now.items())]
        names = sorted(set_then.keys() | set_now.keys())
        values = [(name, *(some.get(name, "not set") for some in (set_then, set_now))) for name in names]
        return found + [f"{name}: {then} then, {value} now" for name, then, value in values if then != value]


class Attempt(Strict):
    """One process that worked on the run, from the step it found to the step it left."""

    started_at: str  # UTC, for information only
    first_step: int
    last_step: int
    train_seconds: float
    environment: Environment
    peak_bytes: int | None = None  # of this process
    runs_per_gpu: int | None = None  # runs that might share its GPU, itself included; None: on a CPU, or not known


class HalfSum(Strict):
    """Sum of the losses over one half of the validation windows."""

    nats: float
    n_tokens: int


class Evaluation(Strict):
    """One sweep over the validation text after `step` updates."""

    step: int
    val_nats_per_token: float
    first_half: HalfSum  # the first ceil(n/2) windows
    second_half: HalfSum
    train_nats_per_token: float | None  # mean over the steps since the evaluation before; None at step 0


class Measurement(Strict):
    """A validation loss under one protocol, of the weights after `step` updates."""

    step: int
    nats_per_token: float
    n_tokens: int


class CrossFitted(Strict):
    """Plain mean of two half-text losses: each half scored at the step that was best on the other half."""

    nats_per_token: float
    step_chosen_on_first_half: int
    step_chosen_on_second_half: int


class ProtocolResult(Strict):
    """`best` is the evaluation with the lowest sweep loss, as both published systems report; `final` the last step."""

    best: Measurement
    final: Measurement
    cross_fitted: CrossFitted | None  # only for the sweep


class Permuted(Strict):
    """Losses of the second halves of the sweep's windows, in context and with the tokens before in a random order."""

    step: int
    nats_per_token: float
    nats_per_token_permuted: float
    n_tokens: int


class Knockouts(Strict):
    """Losses of the weights after `step` updates without parts of the model, by part; `none` is the complete model.

    On every fourth window of the sweep; None where a loss is not finite.
    """

    step: int
    n_tokens: int
    nats_per_token: dict[str, float | None]


class Result(Strict):
    """The measurements of a run. `window_nats` holds each window's mean loss at the steps reported, by step.

    What older records lack is None.
    """

    sweep: ProtocolResult
    sampled: ProtocolResult
    strided: ProtocolResult
    window_nats: dict[int, list[float]]
    parameters_sha256: str  # of the final parameters: equal for equal bits
    permuted: Permuted | None = None  # of the best step
    permuted_rise: list[float] | None = None  # of `permuted`, by distance from the tokens in random order
    knockouts: Knockouts | None = None  # of the best step; None for a model without such parts
    test: Measurement | None = None  # the sweep over the test text at the best step; None for a corpus without one


class Parameters(Strict):
    """Counts under each convention; `parts` sums to `n_params`."""

    n_params: int
    n_live_params: int  # without entries that never affect the output
    n_params_without_positions: int
    parts: dict[str, int]


class Cost(Strict):
    """The cost of a run. Times exclude evaluation and set-up; those of a `packed` run are not throughput."""

    train_seconds: float
    tokens_per_second: float | None
    peak_bytes: int
    n_train_tokens: int
    train_flops: float  # 3 x forward, from the model's closed form
    parameters: Parameters
    forward_macs_per_token: int | None = None  # closed form, at the run's context
    state_bytes: int | None = None  # what decoding stores for one text at the end of its window, float32
    activation_bytes: int | None = None  # what is stored for the backward pass of one window, float32


class Diagnostics(Strict):
    """`first_train_nats`: losses of the first 20 steps in exact mode, which `recheck` repeats on a like machine, and
    `first_portable_train_nats` on any x86 CPU: they were taken under the settings of bench/portable.py.
    """

    first_train_nats: list[float]
    by_step: dict[int, PlainReadings]  # the model's own readings at each evaluation
    first_fast_train_nats: list[float] = []  # of the first 20 compiled steps of a `fast` run
    first_portable_train_nats: list[float] = []  # of up to 20 steps; older records have none


class Record(Strict):
    """One run."""

    schema_version: Literal[1]
    protocol_version: int  # hashed into the run id: raised when a changed rule would change a number
    run_id: str
    label: str
    seed: int | None
    replicate: int
    mode: Literal["exact", "fast"]
    status: Status
    stopped_at_step: int | None  # where a run that is not done ended
    error: str | None  # one line
    config: PlainConfig  # every field, defaults included
    corpus: CorpusFacts
    sources: Sources
    environment: Environment  # of the last attempt
    attempts: list[Attempt]
    curve: list[Evaluation]
    result: Result | None  # None unless done
    diagnostics: Diagnostics
    cost: Cost

    @property
    def packed(self) -> bool:
        """Whether it shared a GPU with other runs at any time: its times are then no throughput."""
        return any((attempt.runs_per_gpu or 1) > 1 for attempt in self.attempts)

    def as_packed(self) -> "Record":
        """The same record, marked as of a run that shared its GPU."""
        attempts = [
            attempt.model_copy(update={"runs_per_gpu": max(attempt.runs_per_gpu or 1, 2)}) for attempt in self.attempts
        ]
        return self.model_copy(update={"attempts": attempts})

    @property
    def fitted(self) -> bool:
        """Whether the model was fitted by counting instead of trained: it has no seed, and its loss is exact."""
        return self.seed is None

    def with_portable(self, nats: list[float]) -> "Record":
        """The same record with its first losses under portable settings."""
        diagnostics = self.diagnostics.model_copy(update={"first_portable_train_nats": nats})
        return self.model_copy(update={"diagnostics": diagnostics})

    def nats(self, protocol: str = "sweep", selection: str = "best") -> float | None:
        """A validation loss in nats per token; None where it was not measured."""
        measured = None if self.result is None else getattr(getattr(self.result, protocol), selection)
        return None if measured is None else float(measured.nats_per_token)

    @property
    def file_name(self) -> str:
        """The name of the record's file, for people; nothing parses it."""
        return file_name(self.label, self.seed, self.run_id)


def file_name(label: str, seed: int | None, run_id: str) -> str:
    """The name of a run's record file."""
    return f"{run_name(label, seed)}-{run_id}.json"


def run_name(label: str, seed: int | None) -> str:
    """The name of a run for people; never parsed."""
    return f"{label}-{NO_SEED}" if seed is None else f"{label}-s{seed}"


class ManifestCell(Strict):
    """Runs of an experiment that differ only in seed. `run_ids` by seed; "fitted" means no seed."""

    label: str
    run_ids: dict[str, str]
    group: str | None = None  # the arm that a tuning trial or a replicate belongs to


class Manifest(Strict):
    """The runs of an experiment: written by `launch` before it runs anything."""

    schema_version: Literal[1]
    name: str
    question: str
    corpus: str
    mode: Literal["exact", "fast"]
    cells: list[ManifestCell]
    claim_rules_sha256: str | None  # of the rules in force when it was launched
    reference: str | None = None  # the arm that differences are taken to
    remark: str | None = None  # about its runs, where records lack it; tables show it
    superseded: bool = False  # by another design, as the remark says: two tables and no figure are kept
    shared_gpu: bool = False  # its runs shared a GPU, also where their records lack it
    chosen_by: dict[str, list[str]] | None = None  # ids of the runs whose records chose its cells, by family

    @property
    def run_ids(self) -> list[str]:
        """The ids of all its runs, cell by cell."""
        return [run_id for cell in self.cells for run_id in cell.run_ids.values()]


RecheckKind = Literal["repeated", "portable", "sources compared"]  # the last is the weakest


class Recheck(Strict):
    """The first steps of a record under other sources; `equal`: whether they have the same bits.

    `repeated`: compared with the record. Where the machine is of another kind than the record's: `portable`, compared
    with the record's losses under portable settings; else `sources compared`, with the sources of the record's commit,
    which ran the first steps on this machine, too.
    """

    schema_version: Literal[1]
    run_id: str
    fingerprint: str  # of the other sources
    first_train_nats: list[float]  # empty for a fitted model, which was fitted again and compared completely
    equal: bool
    environment: Environment
    kind: RecheckKind = "repeated"
    commit: str | None = None  # whose sources were compared
    seed: int | None = None  # of the run that compared them, which serves every seed of its config


_SEAL = b', "sha256": "'  # between a file's content and, as its last key, the sha256 of those bytes


def to_bytes(content: Strict) -> bytes:
    """JSON with, as its last key, the sha256 of the bytes before that key."""
    body = json.dumps(json.loads(content.model_dump_json()), allow_nan=False).encode().removesuffix(b"}")
    return body + _SEAL + hashlib.sha256(body).hexdigest().encode() + b'"}\n'


Content = TypeVar("Content", bound=Strict)


def read(path: Path, kind: type[Content]) -> Content:
    """The `kind` (Record, Manifest, Recheck) in the file at `path`. RecordError names the file and the reason."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from error
    return parse(content, path, kind)


def seal_of(content: bytes) -> str:
    """The sha256 at the end of a file that `parse` has read."""
    return content.rpartition(_SEAL)[2][:64].decode()


def parse(content: bytes, path: Path | str, kind: type[Content]) -> Content:
    """The `kind` in a file's bytes. RecordError names `path`, where they are from, and the reason."""
    name = kind.__name__.lower()
    body, seal, rest = content.rpartition(_SEAL)
    if not seal:
        raise RecordError(f"{path}: not a {name} of this suite, or cut; restore it, or delete it and run again")
    if rest != hashlib.sha256(body).hexdigest().encode() + b'"}\n':
        raise RecordError(f"{path}: its content is not what was written (sha256 differs); restore it, or delete it")
    try:
        return kind.model_validate_json(body + b"}", strict=True)
    except ValidationError as error:
        with suppress(ValueError, AttributeError):
            if (found := from_json(body + b"}").get("schema_version")) != SCHEMA_VERSION:
                raise RecordError(f"{path}: schema version {found}, this suite reads {SCHEMA_VERSION}") from error
            raise RecordError(f"{path}: {': '.join(first_problem(error))}") from error
        raise RecordError(f"{path}: sealed, but not a {name} of this suite") from error
