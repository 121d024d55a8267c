"""Running a record's run again, from the record only: `rerun`."""

from pathlib import Path

from bench import record
from bench.config import Run, read_config
from bench.errors import ConfigError, RecordError
from bench.record import Record


def run_of(recorded: Record) -> Run:
    """The run of a record, from the record only. RecordError where this suite has no such config."""
    try:
        config = read_config(recorded.config)
    except (ConfigError, ValueError) as error:
        raise RecordError(f"{recorded.file_name}: config: {error}") from error
    mode = "exact" if recorded.seed is None else recorded.mode  # an older suite fitted counted models in either mode
    return Run(label=recorded.label, config=config, seed=recorded.seed, mode=mode, replicate=recorded.replicate)


def record_differences(old: Record, new: Record) -> list[str]:
    """The numbers that differ, as text; empty where every number that both have is equal, bit for bit."""
    found = []
    if (old.status, old.stopped_at_step) != (new.status, new.stopped_at_step):
        found.append(f"{old.status} (stopped at {old.stopped_at_step}), now {new.status} ({new.stopped_at_step})")
    if (old.curve, old.diagnostics.first_train_nats) != (new.curve, new.diagnostics.first_train_nats):
        found.append("a number of the curve differs")
    if old.result is None or new.result is None:
        return found
    for name, before, after in (
        ("best, sweep", old.result.sweep.best, new.result.sweep.best),
        ("final, sweep", old.result.sweep.final, new.result.sweep.final),
    ):
        if before != after:
            found.append(
                f"{name}: {before.nats_per_token:.6f} nats at step {before.step}, "
                f"now {after.nats_per_token:.6f} at step {after.step}"
            )
    if old.result.parameters_sha256 != new.result.parameters_sha256:
        found.append("the final parameters differ in their bits")
    both = ((getattr(old.result, name), getattr(new.result, name)) for name in type(old.result).model_fields)
    if not found and any(before != after for before, after in both if before is not None and after is not None):
        found.append("a number of another protocol differs")  # an older record may lack what is measured now
    return found


def read_record(path: Path) -> Record:
    """The record in a file."""
    return record.read(path, Record)
