"""`bench export`: curves and results of records in long form, one number a row, for other programs to plot."""

import json
from collections.abc import Iterable
from typing import Any

from bench.record import Record, Result
from bench.report.frame import as_csv

SELECTIONS = ("best", "final")
FORMATS = ("csv", "json")


def long_form(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Rows of run_id, label, seed, replicate, mode, status, quantity, step, value; a loss is in nats per token."""
    rows = []
    for record in sorted(records, key=lambda one: (one.label, one.seed or 0, one.replicate, one.run_id)):
        run = {name: getattr(record, name) for name in ("run_id", "label", "seed", "replicate", "mode", "status")}
        rows += [
            run | {"quantity": quantity, "step": step, "value": value}
            for quantity, step, value in (*curves(record), *results(record.result), *costs(record))
            if value is not None
        ]
    return rows


def curves(record: Record) -> Iterable[tuple[str, int, float | None]]:
    """Quantity, step and value of each evaluation: the losses, and what the model's readings hold in single numbers.

    `alpha.2` is the reading `alpha` of layer 2; a reading of more numbers than that, such as a kernel, is left out.
    """
    for one in record.curve:
        yield "val_nats_per_token", one.step, one.val_nats_per_token
        yield "train_nats_per_token", one.step, one.train_nats_per_token
        for name, value in record.diagnostics.by_step.get(one.step, {}).items():
            parts = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
            for part, number in (("", value), *parts):
                if isinstance(number, int | float):
                    yield f"{name}.{part}".rstrip("."), one.step, number


def results(result: Result | None) -> Iterable[tuple[str, int | None, float]]:
    """Quantity, step and value of each loss that is reported."""
    if result is None:
        return
    for protocol in ("sweep", "sampled", "strided"):
        measured = getattr(result, protocol)
        if measured is None:
            continue
        for selection in SELECTIONS:
            one = getattr(measured, selection)
            yield f"{protocol}_{selection}_nats_per_token", one.step, one.nats_per_token
        if measured.cross_fitted is not None:
            yield f"{protocol}_cross_fitted_nats_per_token", None, measured.cross_fitted.nats_per_token
    if result.test is not None:
        yield "test_nats_per_token", result.test.step, result.test.nats_per_token


def costs(record: Record) -> Iterable[tuple[str, None, float | None]]:
    """Sizes and times; no times of a run that shared a GPU."""
    yield "n_params", None, record.cost.parameters.n_params
    yield "n_live_params", None, record.cost.parameters.n_live_params
    if not record.fitted and not record.packed:
        yield "train_seconds", None, record.cost.train_seconds
        yield "tokens_per_second", None, record.cost.tokens_per_second


def export(records: Iterable[Record], form: str) -> str:
    """The rows as CSV, or as a JSON list with one row a line."""
    rows = long_form(records)
    if form == "json":
        return "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"
    import pandas as pd

    return as_csv(pd.DataFrame(rows, columns=list(rows[0]) if rows else [], dtype=object))
