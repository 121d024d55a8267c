"""How long runs take, as measured: what the time limit of a job is made from."""

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from bench.config import Run, RunConfig, read_config, to_json
from bench.errors import UserError
from bench.files import write_atomically
from bench.record import Record
from bench.store import Store
from jobs.layout import MEASURED_FOLDER
from jobs.site import LEAST_TIMEOUT_MINUTES

if TYPE_CHECKING:
    from jobs.submission import Submission

UNTRAINED_SECONDS = 5.0  # a worker's start, which is all that a fitted model costs
MARGIN = 1.5  # of a time limit over the time measured: nodes differ, and file systems have bad days
START_MINUTES = 5  # of a job: its modules, Python, torch, the compiler
UNMEASURED_TIMEOUT_MINUTES = 240  # where nothing has been measured; a run that needs more is requeued


def measured_seconds(runs: Iterable[Run], stores: Iterable[Store], device: str) -> dict[str, float]:
    """Seconds that each run takes on a device, by run id, where it is known.

    Known from `--measure`, else from the longest done run of the same config, mode and kind of device that did not
    share its GPU.
    """
    known: dict[tuple[str, str], float] = {}
    stores = list(stores)
    records = [one for store in stores for one in store.records()[0] if _tells(one, device)]
    for one in records:
        try:
            key = _key(read_config(one.config), one.mode, device)
        except UserError:
            continue  # of a config that this version no longer has
        known[key] = max(known.get(key, 0.0), one.cost.train_seconds)
    found: dict[str, float] = {}
    for run in runs:
        key = _key(run.config, run.mode, device)
        noted = (_read(_path(store, *key)) for store in stores)
        seconds = next((one for one in noted if one is not None), known.get(key))
        if run.config.training is None:
            seconds = UNTRAINED_SECONDS
        if seconds is not None:
            found[run.run_id] = seconds
    return found


def note_seconds(run: Run, submission: "Submission", store: Store) -> str:
    """Time some steps of a run on this node, and write down what the whole will take. In words for the log."""
    import torch

    from jobs.probe import probe

    torch.set_num_threads(submission.n_threads)
    seconds = probe(run, submission.device, Path(submission.data_dir) if submission.data_dir else None)
    content = {"seconds": seconds, "n_threads": submission.n_threads}
    write_atomically(_path(store, *_key(run.config, run.mode, submission.device)), json.dumps(content).encode())
    return f"{run.name}: {seconds:.0f} s"


def timeout_minutes(seconds: float | None) -> int:
    """The time limit of a job whose runs take `seconds` (None: not known), in whole minutes."""
    if seconds is None:
        return UNMEASURED_TIMEOUT_MINUTES
    return max(math.ceil(MARGIN * seconds / 60) + START_MINUTES, LEAST_TIMEOUT_MINUTES)


def schedule_seconds(seconds: list[float], n_slots: int) -> float:
    """When the last run ends if each free slot takes the next one."""
    free_at = [0.0] * n_slots
    for one in seconds:
        first = min(range(n_slots), key=free_at.__getitem__)
        free_at[first] += one
    return max(free_at)


def _tells(record: Record, device: str) -> bool:
    alone = not record.packed and record.environment.device == device
    return alone and record.status == "done" and record.cost.train_seconds > 0


def _key(config: RunConfig, mode: str, device: str) -> tuple[str, str]:
    content = json.dumps([to_json(config), mode], sort_keys=True)
    return device, hashlib.sha256(content.encode()).hexdigest()[:12]


def _path(store: Store, device: str, key: str) -> Path:
    return store.work_folder / MEASURED_FOLDER / f"{device}-{key}.json"


def _read(path: Path) -> float | None:
    try:
        seconds = float(json.loads(path.read_bytes())["seconds"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None
