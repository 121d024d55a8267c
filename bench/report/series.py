"""Readings by step of the runs of a cell, summarised over seeds."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench.record import Record
from bench.report.statistics import mean

Readings = dict[int, float]  # of one run: step -> value


@dataclass(frozen=True, kw_only=True)
class Series:
    """A value by step over n runs: mean, minimum and maximum."""

    n: int
    steps: tuple[int, ...]
    middle: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def over_seeds(runs: Iterable[Readings]) -> Series | None:
    """The summary at the steps that all runs with readings have; None if there is no such step."""
    known = [readings for readings in runs if readings]
    if not known:
        return None
    steps = sorted(set.intersection(*(set(readings) for readings in known)))
    if not steps:
        return None
    values = [[readings[step] for readings in known] for step in steps]
    return Series(
        n=len(known),
        steps=tuple(steps),
        middle=tuple(mean(at_step) for at_step in values),
        low=tuple(min(at_step) for at_step in values),
        high=tuple(max(at_step) for at_step in values),
    )


def validation_nats(record: Record) -> Readings:
    """Validation losses by step, without step 0, where no model is better than guessing."""
    return {one.step: one.val_nats_per_token for one in record.curve if one.step > 0}


def scalar(record: Record, name: str) -> Readings:
    """A reading with one number per step, such as eta; empty if the record has none."""
    return _read(record, lambda readings: number(readings.get(name)))


def of_layer(record: Record, name: str, layer: int) -> Readings:
    """One layer of a reading with one number per layer."""
    return _read(record, lambda readings: number(item(readings.get(name), layer)))


def over_layers(record: Record, name: str) -> Readings:
    """The mean over layers (or refinements) of a reading; a single number is returned as it is."""

    def read(readings: dict[str, object]) -> float | None:
        value = readings.get(name)
        known = [n for one in (value if isinstance(value, list) else [value]) if (n := number(one)) is not None]
        return mean(known) if known else None

    return _read(record, read)


def gamma_quantile(record: Record, layer: int, which: int) -> Readings:
    """Gamma's minimum, quartiles and maximum (which = 0 to 4); older records have no lower and upper quartile."""

    def read(readings: dict[str, object]) -> float | None:
        quantiles = item(readings.get("gamma_quantiles"), layer)
        if quantiles is not None:
            return number(item(quantiles, which))
        three = item(readings.get("gamma_min_median_max"), layer)
        return number(item(three, which // 2)) if which % 2 == 0 else None

    return _read(record, read)


def n_layers(records: Sequence[Record], *names: str) -> int:
    """The number of layers: the length of the longest list among the readings with these names."""
    by_step = (readings for record in records for readings in record.diagnostics.by_step.values())
    found = (readings.get(name) for readings in by_step for name in names)
    return max((len(each) for each in found if isinstance(each, list)), default=0)


def number(value: object) -> float | None:
    """`value` if it is a finite number, else None: readings in a record may have any type."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def item(values: object, index: int) -> object:
    """`values[index]`; None if `values` is not a list or is shorter."""
    return values[index] if isinstance(values, list) and index < len(values) else None


def _read(record: Record, read: Callable[[dict[str, object]], float | None]) -> Readings:
    found = {step: read(readings) for step, readings in sorted(record.diagnostics.by_step.items())}
    return {step: value for step, value in found.items() if value is not None}
