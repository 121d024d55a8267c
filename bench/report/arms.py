"""Which arms of an experiment belong together, by the configs of their runs: labels do not matter."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from bench.report.runs import CellResults, Results

K_OPERATORS = "k_operators"
RATES = ("learning_rate", "final_learning_rate")  # the last follows the peak


def trained(experiment: Results) -> list[CellResults]:
    """The cells with a run that is done, without fitted models."""
    return [cell for cell in experiment.cells if cell.done and not cell.fitted]


def config_of(cell: CellResults) -> dict[str, Any]:
    """What all runs of the cell share."""
    return cell.records[0].config


def model_of(cell: CellResults) -> dict[str, Any]:
    """Of its config, the model's part."""
    model = config_of(cell).get("model")
    return model if isinstance(model, dict) else {}


def learning_rate(cell: CellResults) -> float | None:
    """The peak; None for a fitted model."""
    rate = (config_of(cell).get("training") or {}).get("learning_rate")
    return float(rate) if isinstance(rate, int | float) and rate > 0 else None


def without(config: dict[str, Any], *, training: Iterable[str] = (), model: Iterable[str] = ()) -> str:
    """A config as text, less some of its fields: equal for arms that differ in nothing else."""
    cut = {"training": set(training), "model": set(model)}
    kept = {
        key: {name: item for name, item in value.items() if name not in cut.get(key, ())}
        if isinstance(value, dict)
        else value
        for key, value in config.items()
    }
    return json.dumps(kept, sort_keys=True)


def by_rate(cells: Sequence[CellResults]) -> list[list[CellResults]]:
    """Cells that differ in nothing but their learning rate, from the lowest; one without such a sibling by itself."""
    groups: dict[str, list[CellResults]] = defaultdict(list)
    for cell in cells:
        groups[without(config_of(cell), training=RATES)].append(cell)
    return [sorted(group, key=lambda cell: learning_rate(cell) or 0.0) for group in groups.values()]


def has_rates(group: Sequence[CellResults]) -> bool:
    """Whether there is more than one learning rate among them."""
    return len({learning_rate(cell) for cell in group}) > 1


def full_model(experiment: Results) -> CellResults | None:
    """The K-Operators arm that others are variants of: the reference where it is one, else the first."""
    found = [cell for cell in _arms(experiment) if config_of(cell).get("architecture") == K_OPERATORS]
    return next((cell for cell in found if cell is experiment.reference), found[0] if found else None)


def variants(experiment: Results) -> list[CellResults]:
    """K-Operators arms other than the full model, trained at its learning rate."""
    full = full_model(experiment)
    if full is None:
        return []
    return [
        cell
        for cell in trained(experiment)
        if cell is not full
        and config_of(cell).get("architecture") == K_OPERATORS
        and learning_rate(cell) == learning_rate(full)
    ]


def principal(experiment: Results) -> list[CellResults]:
    """One arm for each model that is compared: of K-Operators only the full model."""
    full = full_model(experiment)
    return [cell for cell in _arms(experiment) if cell is full or config_of(cell).get("architecture") != K_OPERATORS]


def _arms(experiment: Results) -> list[CellResults]:
    """Trained cells that are no trial or replicate of an arm, nor, without a reference, one of several rates."""
    cells = [cell for cell in trained(experiment) if cell.group is None]
    if experiment.reference is not None:
        return cells
    of_many_rates = [cell for group in by_rate(cells) if has_rates(group) for cell in group]
    return [cell for cell in cells if cell not in of_many_rates]


def trials(results: Results) -> dict[str, list[CellResults]]:
    """The cells of each group whose configs differ: the trials of a search, by the arm that they belong to."""
    groups: dict[str, list[CellResults]] = defaultdict(list)
    for cell in results.cells:
        if cell.group is not None:
            groups[cell.group].append(cell)
    configs = {group: [config_of(cell) for cell in cells if cell.records] for group, cells in groups.items()}
    return {group: cells for group, cells in groups.items() if any(one != configs[group][0] for one in configs[group])}


def unfinished(cells: Iterable[CellResults]) -> str:
    """A sentence on the runs that a figure cannot show; nothing where all are done."""
    texts = [f"{cell.label} {cell.n_text}" for cell in cells if len(cell.done) < len(cell.expected)]
    return f" Not all runs are done: {'; '.join(texts)}." if texts else ""


def seeds_text(counts: Iterable[int], spread: str) -> str:
    """`mean of n = 3 to 5 seeds; ` and what shows their spread; of single runs `n = 1 seed`, which has none."""
    numbers = sorted(set(counts))
    few = " to ".join(f"{n:,}" for n in dict.fromkeys((numbers[0], numbers[-1])))
    return "n = 1 seed" if numbers[-1] == 1 else f"mean of n = {few} seeds; {spread}"
