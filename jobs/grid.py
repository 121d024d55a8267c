"""Which runs of an experiment are to be done: the grid without runs that have a record and without filtered ones."""

from fnmatch import fnmatch

from bench.config import Run
from bench.errors import ConfigError
from bench.experiments.grid import Experiment
from bench.sources import fingerprint
from bench.store import Store

RETRIES = {"failed": {"failed", "oom", "timeout", "cancelled", "io_error"}, "oom": {"oom"}, "diverged": {"diverged"}}


def select(experiment: Experiment, pattern: str | None) -> list[Run]:
    """The runs of an experiment that a `-k` pattern keeps: each word must occur in the run's name; `!word` must not.

    `*` and `?` match as in a shell. ConfigError where nothing is left.
    """
    kept = experiment.runs()
    for word in (pattern or "").split():
        kept = [run for run in kept if fnmatch(run.name, f"*{word.removeprefix('!')}*") != word.startswith("!")]
    if not kept:
        names = ", ".join(dict.fromkeys(run.label for run in experiment.runs()))
        raise ConfigError(f"-k {pattern!r} leaves no run of {experiment.name}; its labels are {names}")
    return kept


def missing(runs: list[Run], statuses: dict[str, str], retry: str | None) -> list[Run]:
    """Those without a record, and those whose record has a status that `retry` names."""
    if retry is not None and retry not in RETRIES:
        raise ConfigError(f"--retry {retry}: there are {', '.join(RETRIES)}")
    again = RETRIES[retry] if retry else set()
    return [run for run in runs if run.run_id not in statuses or statuses[run.run_id] in again]


def set_aside(run: Run, store: Store) -> None:
    """Move the record of a run that will be retried into its run folder.

    A run that diverged, or whose sources were mended since, starts from step 0; any other from its checkpoint.
    """
    folder = store.run_folder(run.run_id)
    earlier = store.take_record(run.run_id, folder)
    if earlier is None:
        return
    mended = earlier.sources.fingerprint != fingerprint(run.config.architecture)
    if mended or earlier.status == "diverged":
        for checkpoint in folder.glob("checkpoint-*"):
            checkpoint.unlink()
