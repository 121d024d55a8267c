"""A store: the folder that holds the records of some runs and the tables made from them."""

import hashlib
import os
import re
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from bench.errors import ConfigError, RecordError, StoreError
from bench.files import write_atomically, write_once
from bench.record import (
    NO_SEED,
    PLAIN_NAME,
    Content,
    Manifest,
    Recheck,
    Record,
    file_name,
    read,
    run_name,
    to_bytes,
)

RUNS_DIR_VARIABLE = "BENCH_RUNS_DIR"
RUN_ID = re.compile(r"[0-9a-f]{12}")
ORIGINS = ("runs", "contributed", "replications")  # records: ours, other people's, and second ones of a run
FOLDERS = (*ORIGINS, "experiments", "rechecks", "throughput")  # all that is written once and kept


class Store:
    """A folder of records: `runs/`, `experiments/`, `rechecks/`, and the tables made from them.

    Only `runs/` is averaged; `contributed/` and `replications/` hold what `bench merge` put beside it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def work_folder(self) -> Path:
        """Where what is no record lies: below BENCH_RUNS_DIR, else here, ignored by git."""
        named = os.environ.get(RUNS_DIR_VARIABLE)
        if not named:
            return self.root / "work"
        root = self.root.resolve()  # two stores never share a run's folder
        return Path(named) / f"{root.name}-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"

    def run_folder(self, run_id: str) -> Path:
        """Where a run's checkpoints, step curve and log live. ConfigError where `run_id` is no run's id."""
        if not RUN_ID.fullmatch(run_id):
            raise ConfigError(f"{run_id[:40]!r} is no run id: they have 12 digits, 0-9 and a-f")
        folder = self.work_folder / run_id
        if folder.is_symlink():
            raise StoreError(f"{folder} is a link; run folders must lie in the store themselves: remove it")
        return folder

    def record_paths(self) -> list[Path]:
        """Every record file, sorted by name."""
        return sorted((self.root / "runs").glob("*.json"))

    def records_in(self, origin: str) -> tuple[list[Record], list[RecordError]]:
        """As `records`, of the folder of one of ORIGINS."""
        return self._read_all(sorted((self.root / origin).glob("*.json")), Record)

    def statuses(self) -> dict[str, str]:
        """The status of every run that has a record that can be read, by run id."""
        return {one.run_id: one.status for one in self.records()[0]}

    def records(self) -> tuple[list[Record], list[RecordError]]:
        """All records that can be read, and an error for each that cannot."""
        return self._read_all(self.record_paths(), Record)

    def manifests(self) -> tuple[list[Manifest], list[RecordError]]:
        """The experiments of this store, one manifest for each mode that they were launched in."""
        return self._read_all(sorted((self.root / "experiments").glob("*.json")), Manifest)

    def rechecks(self) -> tuple[list[Recheck], list[RecordError]]:
        """Proofs that an older record stands under newer sources."""
        return self._read_all(sorted((self.root / "rechecks").glob("*.json")), Recheck)

    def take_record(self, run_id: str, folder: Path) -> Record | None:
        """Move the record of a run out of this store into `folder`, and return it; None where it has none."""
        for path in self.record_paths():
            with suppress(RecordError):
                recorded = read(path, Record)
                if recorded.run_id == run_id:
                    folder.mkdir(parents=True, exist_ok=True)
                    shutil.move(path, folder / f"earlier-record-{len(list(folder.glob('earlier-record-*')))}.json")
                    return recorded
        return None

    def check_free(self, label: str, seed: int | None, run_id: str) -> None:
        """RecordError where the place of a run's record is taken by a file that cannot be read as one."""
        path = self.root / "runs" / file_name(label, seed, run_id)
        if path.exists():
            read(path, Record)

    def write_record(self, record: Record) -> Path:
        """Write a record once; AlreadyDone where the run has one."""
        path = self._path("runs", record.label) / record.file_name
        write_once(path, to_bytes(record))
        return path

    def write_manifest(self, manifest: Manifest) -> Path:
        """Write or replace the manifest of an experiment in a mode; the one of its other mode stays."""
        path = self._path("experiments", manifest.name) / self._manifest_file(manifest)
        write_atomically(path, to_bytes(manifest))
        return path

    def write_recheck(self, recheck: Recheck) -> Path:
        """Write or replace a recheck; one of each kind stands beside the other."""
        kind = "" if recheck.kind == "repeated" else "-compared"
        path = self.root / "rechecks" / f"{recheck.run_id}-{recheck.fingerprint[:12]}{kind}.json"
        write_atomically(path, to_bytes(recheck))
        return path

    def find_run_id(self, wanted: str) -> str:
        """The id of a run named by its id, the start of it, or label and seed (k_operators-s42). Else ConfigError."""
        records = self.records()[0]
        names = {one.run_id: run_name(one.label, one.seed) for one in records}
        modes: dict[str, str] = {one.run_id: one.mode for one in records}
        for manifest in self.manifests()[0]:
            for cell in manifest.cells:
                for seed, run_id in cell.run_ids.items():
                    names[run_id] = run_name(cell.label, None if seed == NO_SEED else int(seed))
                    modes.setdefault(run_id, "exact" if seed == NO_SEED else manifest.mode)
        found = [run_id for run_id, name in names.items() if name == wanted or run_id.startswith(wanted)]
        if len(found) == 1:
            return found[0]
        if not found and RUN_ID.fullmatch(wanted) and self.run_folder(wanted).is_dir():
            return wanted
        several = ", ".join(f"{run_id} ({names[run_id]}, mode {modes[run_id]})" for run_id in found)
        why = f"is several runs: {several}" if found else "is no run of this store"
        raise ConfigError(f"{wanted!r} {why}; `python -m jobs status --store {self.root}` lists them")

    def check_writable(self) -> None:
        """StoreError where a record could not be written here; leaves nothing behind."""
        probe = self.root / "runs" / f".probe-{uuid.uuid4().hex}"
        try:
            write_once(probe, b"")  # as a record is
            probe.unlink()
        except OSError as error:
            raise StoreError(
                f"store {self.root} cannot be written: {error.strerror}; name another with --store"
            ) from error

    def _path(self, folder: str, name: str) -> Path:
        """A folder of this store, for a file called after `name`. StoreError where that is no plain name."""
        if not PLAIN_NAME.fullmatch(name):
            raise StoreError(f"{name[:40]!r} cannot name a file: letters, digits, '-', '_' and '.', please")
        return self.root / folder

    def _manifest_file(self, manifest: Manifest) -> str:
        """The name of a manifest's file: of the one that it replaces, else NAME.json or NAME.fast.json.

        An older suite wrote NAME.json in either mode; where such a file is of the other mode, ours is NAME.MODE.json.
        """
        taken: dict[str, tuple[str, str]] = {}
        for path in sorted((self.root / "experiments").glob("*.json")):
            with suppress(RecordError):  # what cannot be read is replaced
                found = read(path, Manifest)
                taken[path.name] = found.name, found.mode
        of_this_mode = [name for name, found in taken.items() if found == (manifest.name, manifest.mode)]
        plain = f"{manifest.name}.json" if manifest.mode == "exact" else f"{manifest.name}.{manifest.mode}.json"
        return next(iter(of_this_mode), plain if plain not in taken else f"{manifest.name}.{manifest.mode}.json")

    def _read_all(self, paths: list[Path], kind: type[Content]) -> tuple[list[Content], list[RecordError]]:
        contents, errors = [], []
        for path in paths:
            try:
                contents.append(read(path, kind))
            except RecordError as error:
                errors.append(error)
        return contents, errors
