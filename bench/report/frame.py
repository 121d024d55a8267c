"""The tidy frame behind the tables: one row per run of an experiment, written as `runs.csv`.

A run of two experiments has a row in each. A run without a record has a row with status `not run`.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from bench.record import Record
from bench.report.mixing import seed_text
from bench.report.table import csv_text

if TYPE_CHECKING:
    import pandas as pd

LOSSES = {  # column -> (protocol, selection)
    f"{protocol}_{selection}_nats_per_token": (protocol, selection)
    for protocol in ("sweep", "sampled", "strided")
    for selection in ("best", "final", "cross_fitted")
    if protocol == "sweep" or selection != "cross_fitted"
}
COUNTED = ("n_train_tokens", "train_flops", "forward_macs_per_token", "state_bytes", "activation_bytes", "peak_bytes")
PARAMETERS = ("n_params", "n_live_params", "n_params_without_positions")
CELL = ("experiment", "mode", "arm", "group", "seed", "status")  # the columns that a run without a record has too
COLUMNS = (
    *CELL, "replicate", "stopped_at_step", "origin", "run_id", "sources", "commit", "dirty", "corpus", "corpus_sha256",
    "architecture", "learning_rate", "n_steps", "context", *LOSSES, "best_step", *PARAMETERS, *COUNTED,
    "train_seconds", "seconds_per_step", "tokens_per_second", "shared_gpu", "device", "device_name", "n_threads",
    "torch",
)  # fmt: skip


def frame_of(rows: Iterable[dict[str, Any]]) -> "pd.DataFrame":
    """The rows as a frame of Python objects; a missing value is None."""
    import pandas as pd

    return pd.DataFrame([[row.get(column) for column in COLUMNS] for row in rows], columns=COLUMNS, dtype=object)


def record_row(record: Record) -> dict[str, Any]:
    """The values of one record by column. A fitted model has no training steps, so it has no training cost."""
    training, cost, environment = record.config.get("training") or {}, record.cost, record.environment
    n_steps = training.get("n_steps")
    timed = record.status == "done" and not record.packed
    return {
        "mode": record.mode,
        "seed": seed_text(record),
        "status": status_of(record),
        "replicate": record.replicate,
        "stopped_at_step": record.stopped_at_step,
        "run_id": record.run_id,
        "commit": record.sources.commit,
        "dirty": record.sources.dirty,
        "corpus": record.corpus.name,
        "corpus_sha256": record.corpus.sha256,
        "architecture": record.config.get("architecture"),
        "learning_rate": training.get("learning_rate"),
        "n_steps": n_steps,
        "context": record.config.get("context"),
        **{column: record.nats(*where) for column, where in LOSSES.items()},
        "best_step": None if record.result is None else record.result.sweep.best.step,
        **{name: getattr(cost.parameters, name) for name in PARAMETERS},
        **{name: None if record.fitted else getattr(cost, name) for name in COUNTED},
        "train_seconds": None if record.fitted else cost.train_seconds,
        "seconds_per_step": cost.train_seconds / n_steps if n_steps and timed else None,
        "tokens_per_second": cost.tokens_per_second,
        "shared_gpu": record.packed,
        "device": environment.device,
        "device_name": environment.device_name,
        "n_threads": environment.n_threads,
        "torch": environment.packages.get("torch"),
    }


def status_of(record: Record) -> str:
    """The status of a run; a run that is done has a result."""
    return "without a result" if record.status == "done" and record.result is None else record.status


def as_csv(runs: "pd.DataFrame") -> str:
    """A frame as CSV: floats with all digits, missing values as empty cells."""
    import pandas as pd

    rows = [[csv_text(value) if isinstance(value, str) else value for value in row] for row in runs.to_numpy()]
    text: str = pd.DataFrame(rows, columns=runs.columns, dtype=object).to_csv(index=False, lineterminator="\n")
    return text
