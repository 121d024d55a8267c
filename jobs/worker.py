"""The process that does one run: given a run id and a store, it finds the rest on disk.

`python -m jobs.worker RUN_ID --store FOLDER` prints to its log and exits 0 (a result, be it diverged), 1 (failed),
2 (the user's to mend) or 130 (stopped, state saved).
"""

import argparse
import json
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

from bench.cli import pick_device, run_guarded
from bench.config import Run, read_run, to_json
from bench.errors import EXIT_FAILED, ConfigError, EditedSources, UserError
from bench.files import wait_for, write_atomically
from bench.record import FINAL_STATUSES
from bench.sources import fingerprint
from bench.store import Store
from jobs.layout import CAUSE_FILE, LAUNCHER_GONE, RUN_FILE

RUN_FILE_SECONDS = 10.0  # until a file written elsewhere must have appeared
PARENT_CHECK_SECONDS = 1.0


def write_run(run: Run, store: Store, *, any_sources: bool = False) -> Path:
    """Put what a worker needs to know into the run's folder, and return that folder.

    The sources of this moment are noted, and a worker that finds others refuses, unless `any_sources`.
    """
    folder = store.run_folder(run.run_id)
    content = {**to_json(run), "sources": None if any_sources else fingerprint(run.config.architecture)}
    write_atomically(folder / RUN_FILE, json.dumps(content, indent=1).encode())
    return folder


def find_run(run_id: str, store: Store) -> Run:
    """The run that `write_run` left. ConfigError where there is none or it is another; EditedSources where the sources
    are not those of that time.
    """
    path = store.run_folder(run_id) / RUN_FILE
    try:
        content = json.loads(wait_for(lambda: path.read_text(encoding="utf-8"), RUN_FILE_SECONDS))
        sources = content.pop("sources", None)
        run = read_run(content)
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; launch the run again") from error
    if run.run_id != run_id:
        raise ConfigError(f"{path} describes run {run.run_id}; launch the run again")
    if sources not in (None, fingerprint(run.config.architecture)):
        raise EditedSources(
            f"the sources of {run.config.architecture} were edited after {run.name} was launched, and would give other "
            "numbers; launch it again, or restore them, or launch with --any-sources"
        )
    return run


def note_cause(run_id: str, store: Store, cause: str) -> None:
    """Leave in the run's folder what ended its last attempt, for `jobs why`."""
    with suppress(OSError):  # an error in writing it must not hide the cause itself
        (store.run_folder(run_id) / CAUSE_FILE).write_text(cause, encoding="utf-8")


def work() -> int:
    """Do the run that the arguments name; where an error of ours ends it, leave its class name for `jobs why`."""
    parser = argparse.ArgumentParser(prog="python -m jobs.worker")
    parser.add_argument("run_id")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--device", default=None)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--checkpoint-seconds", type=float, default=60.0)
    parser.add_argument("--runs-per-gpu", type=int, default=1, help="how many share its GPU; for the record")
    parser.add_argument("--parent", type=int, default=None, help="stop, state saved, when this process is gone")
    arguments = parser.parse_args()
    store = Store(arguments.store)
    with suppress(OSError):  # not there, or no file
        (store.run_folder(arguments.run_id) / CAUSE_FILE).unlink()
    if arguments.parent is not None:
        threading.Thread(
            target=_stop_without_parent, args=(arguments.parent, arguments.run_id, store), daemon=True
        ).start()
    try:
        return _execute(arguments, store)
    except UserError as error:
        note_cause(arguments.run_id, store, type(error).__name__)
        raise


def _execute(arguments: argparse.Namespace, store: Store) -> int:
    from bench.run import Settings, execute

    settings = Settings(
        device=pick_device(arguments.device),
        n_threads=arguments.threads,
        data_dir=arguments.data_dir,
        checkpoint_seconds=arguments.checkpoint_seconds,
        runs_per_gpu=arguments.runs_per_gpu,
    )
    finished = execute(find_run(arguments.run_id, store), store, settings)
    print(f"{finished.status}{': ' + finished.error if finished.error else ''}", flush=True)
    return 0 if finished.status in FINAL_STATUSES else EXIT_FAILED


def _stop_without_parent(parent: int, run_id: str, store: Store) -> None:
    """A launcher that was killed cannot stop its workers, so each checks for itself."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    note_cause(run_id, store, LAUNCHER_GONE)
    with suppress(OSError):  # the reader may be gone, or the disk full
        print("the launcher is gone", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    run_guarded(work)
