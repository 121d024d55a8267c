"""Which arms of an experiment are baselines, variants or trials, by the configs of their runs and not by labels."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from bench.report.runs import CellResults, Results

K_OPERATORS = "k_operators"
RATES = ("learning_rate", "final_learning_rate")  # the second is derived from the first


def trained(experiment: Results) -> list[CellResults]:
    """Cells of trained models with at least one done run."""
    return [cell for cell in experiment.cells if cell.done and not cell.fitted]


def config_of(cell: CellResults) -> dict[str, Any]:
    """The config that all runs of a cell share."""
    return cell.records[0].config


def model_of(cell: CellResults) -> dict[str, Any]:
    """The `model` part of the config; empty if there is none."""
    model = config_of(cell).get("model")
    return model if isinstance(model, dict) else {}


def learning_rate(cell: CellResults) -> float | None:
    """The peak learning rate; None for a fitted model."""
    rate = (config_of(cell).get("training") or {}).get("learning_rate")
    return float(rate) if isinstance(rate, int | float) and rate > 0 else None


def without(config: dict[str, Any], *, training: Iterable[str] = (), model: Iterable[str] = ()) -> str:
    """A config as JSON without the given fields: equal for arms that differ only in these."""
    left_out = {"training": set(training), "model": set(model)}
    kept = {
        key: {name: item for name, item in value.items() if name not in left_out.get(key, ())}
        if isinstance(value, dict)
        else value
        for key, value in config.items()
    }
    return json.dumps(kept, sort_keys=True)


def by_rate(cells: Sequence[CellResults]) -> list[list[CellResults]]:
    """Groups of cells that differ only in learning rate, each from the lowest rate to the highest."""
    groups: dict[str, list[CellResults]] = defaultdict(list)
    for cell in cells:
        groups[without(config_of(cell), training=RATES)].append(cell)
    return [sorted(group, key=lambda cell: learning_rate(cell) or 0.0) for group in groups.values()]


def has_rates(group: Sequence[CellResults]) -> bool:
    """Whether the cells have more than one learning rate."""
    return len({learning_rate(cell) for cell in group}) > 1


def full_model(experiment: Results) -> CellResults | None:
    """The K-Operators arm that others are variants of: the reference arm if it is one, else the first."""
    found = [cell for cell in _arms(experiment) if config_of(cell).get("architecture") == K_OPERATORS]
    return next((cell for cell in found if cell is experiment.reference), found[0] if found else None)


def variants(experiment: Results) -> list[CellResults]:
    """The other K-Operators arms, without those that a wrong learning rate tells apart."""
    wrong = at_other_rates(experiment)
    return [cell for cell in _beside_the_full_model(experiment) if cell not in wrong]


def at_other_rates(experiment: Results) -> list[CellResults]:
    """K-Operators arms at another learning rate than the full model, of a group of several rates.

    An arm that is at another rate by itself had its rate searched for it.
    """
    full = full_model(experiment)
    of_many_rates = _of_many_rates(trained(experiment))
    return [
        cell
        for cell in _beside_the_full_model(experiment)
        if full is not None and cell in of_many_rates and learning_rate(cell) != learning_rate(full)
    ]


def _beside_the_full_model(experiment: Results) -> list[CellResults]:
    full = full_model(experiment)
    return [
        cell
        for cell in trained(experiment)
        if full is not None and cell is not full and config_of(cell).get("architecture") == K_OPERATORS
    ]


def _of_many_rates(cells: Sequence[CellResults]) -> list[CellResults]:
    return [cell for group in by_rate(cells) if has_rates(group) for cell in group]


def principal(experiment: Results) -> list[CellResults]:
    """One arm per compared model: for K-Operators the full model."""
    full = full_model(experiment)
    return [cell for cell in _arms(experiment) if cell is full or config_of(cell).get("architecture") != K_OPERATORS]


def _arms(experiment: Results) -> list[CellResults]:
    """Trained cells that are not trials or replicates and, without a reference arm, not one of several rates."""
    cells = [cell for cell in trained(experiment) if cell.group is None]
    if experiment.reference is not None:
        return cells
    of_many_rates = _of_many_rates(cells)
    return [cell for cell in cells if cell not in of_many_rates]


def unfinished(cells: Iterable[CellResults]) -> str:
    """A sentence for captions that lists the arms with missing runs; empty if all are done."""
    texts = [f"{cell.label} {cell.n_text}" for cell in cells if len(cell.done) < len(cell.expected)]
    return f" Not all runs are done: {'; '.join(texts)}." if texts else ""


def seeds_text(counts: Iterable[int], spread: str) -> str:
    """`mean of n = 3 to 5 seeds; ` and `spread`; for single runs `n = 1 seed`, without a spread."""
    numbers = sorted(set(counts))
    few = " to ".join(f"{n:,}" for n in dict.fromkeys((numbers[0], numbers[-1])))
    return "n = 1 seed" if numbers[-1] == 1 else f"mean of n = {few} seeds; {spread}"
