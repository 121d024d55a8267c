"""A store: the folder that holds records of runs, throughput measurements, and the tables made from them."""

import hashlib
import re
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.errors import ConfigError, RecordError, StoreError, UserError, first_problem, typed
from bench.files import could_be_made, named_folder, write_atomically, write_once
from bench.record import NO_SEED, PLAIN_NAME, Manifest, Recheck, Record, file_name, read, run_name, to_bytes

RUNS_DIR_VARIABLE = "BENCH_RUNS_DIR"
RUN_ID = re.compile(r"[0-9a-f]{12}")
ORIGINS = ("runs", "contributed", "replications")  # records: ours, other people's, and second ones of a run
THROUGHPUT = "throughput"
FOLDERS = (*ORIGINS, "experiments", "rechecks", THROUGHPUT)  # all that is written once and kept


class Store:
    """A folder of records: `runs/`, `experiments/`, `rechecks/`, and the tables made from them.

    Only `runs/` is averaged; `contributed/` and `replications/` hold other records that `bench merge` wrote.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def work_folder(self) -> Path:
        """The folder of everything except records: below BENCH_RUNS_DIR, else in the store, ignored by git."""
        named = named_folder(RUNS_DIR_VARIABLE)
        if named is None:
            return self.root / "work"
        root = self.root.resolve()  # two stores never share a run's folder
        return named / f"{root.name}-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"

    def run_folder(self, run_id: str) -> Path:
        """The folder of a run's checkpoints, step curve and log. ConfigError where `run_id` is not a run id."""
        if not RUN_ID.fullmatch(run_id):
            raise ConfigError(f"{run_id[:40]!r} is not a run id: those have 12 digits, 0-9 and a-f")
        folder = self.work_folder / run_id
        if folder.is_symlink():
            raise StoreError(f"{folder} is a link; a run folder must be in the store itself: remove the link")
        return folder

    def record_paths(self) -> list[Path]:
        """Every record file, sorted by name."""
        return self._paths("runs")

    def records_in(self, origin: str) -> tuple[list[Record], list[RecordError]]:
        """As `records`, for the folder of one of ORIGINS."""
        return _read_records(self._paths(origin))

    def statuses(self) -> dict[str, str]:
        """The status of every run that has a record that can be read, by run id."""
        return {one.run_id: one.status for one in self.records()[0]}

    def records(self) -> tuple[list[Record], list[RecordError]]:
        """All records that can be read, copies of one once, and an error for each file that cannot."""
        return _read_records(self.record_paths())

    def manifests(self) -> tuple[list[Manifest], list[RecordError]]:
        """The manifests of this store: one for each mode in which an experiment was launched."""
        return _read_all(self._paths("experiments"), lambda path: read(path, Manifest), RecordError)

    def rechecks(self) -> tuple[list[Recheck], list[RecordError]]:
        """Proofs that newer sources repeat older records."""
        return _read_all(self._paths("rechecks"), lambda path: read(path, Recheck), RecordError)

    def measurements(self) -> tuple[list["Measurements"], list["ThroughputError"]]:
        """Throughput by device, sorted by slug, and an error for each file that cannot be read."""
        return _read_all(self._paths(THROUGHPUT), _read_throughput, ThroughputError)

    def files_of(self, run_id: str) -> dict[Path, Record]:
        """The files that hold a record of this run, whatever their names."""
        found = {}
        for path in self.record_paths():
            with suppress(RecordError):
                if (recorded := read(path, Record)).run_id == run_id:
                    found[path] = recorded
        return found

    def take_record(self, run_id: str, folder: Path) -> Record | None:
        """Move the record of a run, and copies of it, out of this store into `folder`; None where it has none."""
        found = self.files_of(run_id)
        for path in found:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.move(path, folder / f"earlier-record-{len(list(folder.glob('earlier-record-*')))}.json")
        return next(iter(found.values()), None)

    def check_free(self, label: str, seed: int | None, run_id: str) -> None:
        """RecordError where a run's record file exists but cannot be read."""
        path = self.root / "runs" / file_name(label, seed, run_id)
        if path.exists():
            read(path, Record)

    def write_record(self, record: Record) -> Path:
        """Write a record; AlreadyDone where the run has one."""
        path = self._folder_for("runs", record.label) / record.file_name
        write_once(path, to_bytes(record))
        return path

    def write_manifest(self, manifest: Manifest) -> Path:
        """Write or replace the manifest of an experiment in its mode; the manifest of the other mode stays."""
        path = self._folder_for("experiments", manifest.name) / self._manifest_file(manifest)
        write_atomically(path, to_bytes(manifest))
        return path

    def write_recheck(self, recheck: Recheck) -> Path:
        """Write or replace a recheck; the kinds have separate files."""
        kind = {"repeated": "", "portable": "-portable", "sources compared": "-compared"}[recheck.kind]
        path = self.root / "rechecks" / f"{recheck.run_id}-{recheck.fingerprint[:12]}{kind}.json"
        write_atomically(path, to_bytes(recheck))
        return path

    def find_run_id(self, text: str) -> str:
        """The id of the one run with this id, start of an id, or label and seed (k_operators-s42). Else ConfigError."""
        records = self.records()[0]
        names = {one.run_id: run_name(one.label, one.seed) for one in records}
        modes: dict[str, str] = {one.run_id: one.mode for one in records}
        for manifest in self.manifests()[0]:
            for cell in manifest.cells:
                for seed, run_id in cell.run_ids.items():
                    names[run_id] = run_name(cell.label, None if seed == NO_SEED else int(seed))
                    modes.setdefault(run_id, "exact" if seed == NO_SEED else manifest.mode)
        found = [run_id for run_id, name in names.items() if name == text or run_id.startswith(text)]
        if len(found) == 1:
            return found[0]
        if not found and RUN_ID.fullmatch(text) and self.run_folder(text).is_dir():
            return text
        several = ", ".join(f"{run_id} ({names[run_id]}, mode {modes[run_id]})" for run_id in found)
        reason = f"matches several runs: {several}" if found else "is not a run of this store"
        raise ConfigError(f"{text!r} {reason}; `{typed('jobs', 'status', store=self.root)}` lists them")

    def check_writable(self) -> None:
        """StoreError where a record cannot be written here; leaves no file."""
        probe = self.root / "runs" / f".probe-{uuid.uuid4().hex}"
        try:
            write_once(probe, b"")  # as a record is
            probe.unlink()
        except OSError as error:
            raise StoreError(f"store {self.root} cannot be written: {error.strerror}; use another --store") from error

    def check_could_be_written(self) -> None:
        """StoreError where records or the files of runs could not be written; it makes nothing itself."""
        if not could_be_made(self.root / "runs"):
            raise StoreError(f"store {self.root} cannot be written; use another --store")
        if not could_be_made(self.work_folder):
            raise StoreError(f"run folder {self.work_folder} cannot be written; set {RUNS_DIR_VARIABLE}")

    def _paths(self, folder: str) -> list[Path]:
        """The JSON files in a folder of this store, sorted by name."""
        return sorted((self.root / folder).glob("*.json"))

    def _folder_for(self, folder: str, name: str) -> Path:
        """A folder of this store, for a file with `name` in its own. StoreError unless that is a plain name."""
        if not PLAIN_NAME.fullmatch(name):
            raise StoreError(f"{name[:40]!r} cannot be a file name: use letters, digits, '-', '_' and '.'")
        return self.root / folder

    def _manifest_file(self, manifest: Manifest) -> str:
        """The file name of a manifest: that of the one it replaces, else NAME.json or NAME.fast.json.

        Older versions wrote NAME.json in either mode; where that file is of the other mode, the name is NAME.MODE.json.
        """
        taken: dict[str, tuple[str, str]] = {}
        for path in self._paths("experiments"):
            with suppress(RecordError):  # a file that cannot be read is replaced
                found = read(path, Manifest)
                taken[path.name] = found.name, found.mode
        of_this_mode = [name for name, found in taken.items() if found == (manifest.name, manifest.mode)]
        plain, with_mode = f"{manifest.name}.json", f"{manifest.name}.{manifest.mode}.json"
        return next(iter(of_this_mode), plain if manifest.mode == "exact" and plain not in taken else with_mode)


Item = TypeVar("Item")
ReadError = TypeVar("ReadError", bound=UserError)


def _read_all(
    paths: list[Path], read_one: Callable[[Path], Item], error_type: type[ReadError]
) -> tuple[list[Item], list[ReadError]]:
    items, errors = [], []
    for path in paths:
        try:
            items.append(read_one(path))
        except error_type as error:
            errors.append(error)
    return items, errors


def _read_records(paths: list[Path]) -> tuple[list[Record], list[RecordError]]:
    found, errors = _read_all(paths, lambda path: read(path, Record), RecordError)
    kept: list[Record] = []
    of_run: dict[str, list[Record]] = {}
    for one in found:
        if one not in of_run.setdefault(one.run_id, []):
            of_run[one.run_id].append(one)
            kept.append(one)
    return kept, errors


# --- throughput/: measurements of `make bench`, one file of pytest-benchmark per session on one machine ---

Phase = Literal["training step", "forward", "evaluation", "generation", "growth"]
PHASES: tuple[Phase, ...] = get_args(Phase)  # in the order of the table
AGAIN = "delete it and measure again: make bench"
PUBLISHED_FORMS = ("mask, as published", "block, as published")  # measured in turn, for C6
PRECISIONS = ("float32", "bfloat16")  # of them: without autocast, and under it

Count = Annotated[int, Field(gt=0)]
Bytes = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class ThroughputError(UserError):
    """A file of measurements that cannot be read: cut, foreign or edited by hand."""

    exit_code = 1


class _Lenient(BaseModel):
    """Ignores unknown keys; refuses other types, NaN and infinite numbers."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


class Point(_Lenient):
    """One measurement to make."""

    phase: Phase
    model: str
    backend: str = ""  # the form of the recurrence; none for a Transformer
    decoding: str = ""  # only for generation: cached or recomputed
    context: Count
    batch_size: Count


class NotRun(Point):
    """A point whose predicted memory is more than what is free."""

    predicted_bytes: Bytes
    free_bytes: Bytes


class Facts(Point):
    """The facts stored with a measured point."""

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
    losses: tuple[float, ...] = ()  # nats per token of each step, where two forms are compared


class Rounds(_Lenient):
    """Seconds of a round, over `rounds` rounds."""

    median: Positive
    min: Positive
    max: Positive
    rounds: Count
    data: tuple[Positive, ...] = ()  # of each round


class Timed(_Lenient):
    """One benchmark."""

    facts: Facts = Field(alias="extra_info")
    stats: Rounds

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of the median round."""
        return self.facts.n_tokens / self.stats.median

    @property
    def seconds(self) -> tuple[float, float, float]:
        """Minimum, median and maximum seconds of a step."""
        steps = self.stats.median / self.facts.seconds_per_step
        return self.stats.min / steps, self.facts.seconds_per_step, self.stats.max / steps

    @property
    def terms(self) -> tuple[object, ...]:
        """The values that two measurements must share for a ratio of their speeds."""
        facts = self.facts
        point = (facts.phase, facts.decoding, facts.context, facts.batch_size)
        return *point, facts.dtype, facts.mode, facts.n_threads, facts.device


class MeasuredMachine(_Lenient):
    """The machine of the session, and the points that do not fit its memory."""

    device: str
    device_name: str
    torch: str
    commit: str | None = None
    dirty: bool | None = None
    matmul_gflops: Positive | None = None
    does_not_fit: tuple[NotRun, ...] = ()


class _Session(_Lenient):
    machine_info: MeasuredMachine
    benchmarks: tuple[Timed, ...]


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """One session on one machine, in the order of the table."""

    slug: str  # names the device's files
    machine: MeasuredMachine
    timed: tuple[Timed, ...]
    not_run: tuple[NotRun, ...]

    @property
    def grows(self) -> bool:
        """Whether the cost at growing sequence lengths was measured."""
        return any(one.facts.phase == "growth" for one in self.timed)


def _read_throughput(path: Path) -> Measurements:
    try:
        return parse_throughput(path.read_bytes(), path)
    except OSError as error:
        raise ThroughputError(f"{path}: cannot be read: {error.strerror}; {AGAIN}") from error


def parse_throughput(content: bytes, path: Path) -> Measurements:
    """The measurements in a file's bytes. ThroughputError names `path`, their source, and the reason."""
    if not path.stem.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise ThroughputError(f"{path}: a device's name may have letters, digits, '.', '-' and '_'; rename it")
    try:
        session = _Session.model_validate_json(content)
    except ValidationError as error:
        raise ThroughputError(f"{path}: {': '.join(filter(None, first_problem(error)))}; {AGAIN}") from error
    timed = sorted(session.benchmarks, key=lambda one: (order_of(one.facts), one.terms))
    for one, other in pairwise(timed):
        if (one.terms, order_of(one.facts)) == (other.terms, order_of(other.facts)):
            text = ", ".join(filter(None, (one.facts.phase, one.facts.model, one.facts.backend, one.facts.decoding)))
            raise ThroughputError(f"{path}: {text} at context {one.facts.context} is in it twice; {AGAIN}")
    return Measurements(
        slug=path.stem,
        machine=session.machine_info,
        timed=tuple(timed),
        not_run=tuple(sorted(session.machine_info.does_not_fit, key=order_of)),
    )


def order_of(point: Point) -> tuple[int, int, int, str, str, str]:
    """The place of a point in the table of throughput."""
    return (PHASES.index(point.phase), point.context, point.batch_size, point.model, point.backend, point.decoding)
