"""What a form of the recurrence costs in training as the context grows: time per token and peak memory."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from bench.record import Record
from bench.report.arms import config_of, model_of, seeds_text, trained, unfinished
from bench.report.figures.drawing import WIDTH, Drawn, finished, legend, log_ticks, look, note, plain, small_style
from bench.report.runs import CellResults, Results
from bench.report.statistics import mean

EXPERIMENT = "backends"
USUAL = ("chunked", "mask", "block")  # in the order of their looks, as in the growth figure

Values = dict[int, list[float]]  # over seeds, by context


def backends(experiment: Results) -> list[Drawn]:
    """At most one figure, of the experiment that trains each form at each context."""
    cells = trained(experiment) if experiment.name == EXPERIMENT else []
    forms: dict[str, list[CellResults]] = defaultdict(list)
    for cell in cells:
        forms[str(model_of(cell).get("backend"))].append(cell)
    names = [name for name in USUAL if name in forms] + sorted(set(forms) - set(USUAL))
    contexts = sorted({int(config_of(cell).get("context", 0)) for cell in cells})
    measured = [
        (title, unit, [_by_context(forms[name], read) for name in names])
        for title, unit, read in (("time per token", "µs", _microseconds), ("peak memory", "MiB", _mebibytes))
    ]
    panels = [panel for panel in measured if any(panel[2])]  # an axis that is logarithmic cannot be empty
    if len(contexts) < 2 or not panels:
        return []
    few = seeds_text((len(cell.done) for cell in cells), "bar: least to most")
    machines = ", ".join(sorted({plain(record.environment.device_name) for cell in cells for record in cell.done}))
    looks = [look(index) for index in range(len(names))]
    with small_style():
        figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
        for axes, (title, unit, values) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for by_context, one in zip(values, looks, strict=True):
                _draw(axes, by_context, one)
            _finish(axes, title, unit, contexts)
        legend(figure, looks, names, ncols=3)
        note(figure, few)
        return [
            finished(
                figure,
                name=f"{experiment.name}-cost",
                title=f"{experiment.name}: what each form of the recurrence costs in training",
                caption=(
                    "Seconds of training steps over training tokens, and the most memory that the process held, both "
                    f"axes logarithmic. On {machines}; {few}. Times of runs "
                    f"that shared a GPU are left out.{unfinished(cells)}"
                ),
                alt=f"Time per token and peak memory of training against the context for {', '.join(names)}.",
            )
        ]


def _microseconds(record: Record) -> float | None:
    """A token, backward pass and update included."""
    n_tokens, seconds = record.cost.n_train_tokens, record.cost.train_seconds
    return None if record.packed or not n_tokens or seconds <= 0 else 1e6 * seconds / n_tokens


def _mebibytes(record: Record) -> float | None:
    return record.cost.peak_bytes / 2**20 or None


def _by_context(cells: Sequence[CellResults], read: Callable[[Record], float | None]) -> Values:
    values = {
        int(config_of(cell)["context"]): [value for one in cell.done if (value := read(one)) is not None]
        for cell in cells
    }
    return {context: values[context] for context in sorted(values) if values[context]}


def _draw(axes: Axes, values: Values, looks: dict[str, Any]) -> None:
    means = [mean(one) for one in values.values()]
    below = [middle - min(one) for middle, one in zip(means, values.values(), strict=True)]
    above = [max(one) - middle for middle, one in zip(means, values.values(), strict=True)]
    axes.errorbar(list(values), means, (below, above), capsize=3, elinewidth=1, **looks)


def _finish(axes: Axes, title: str, unit: str, contexts: Sequence[int]) -> None:
    axes.set_title(title, loc="left")
    axes.set_xscale("log", base=2)
    axes.set_xticks(contexts, [f"{context:,}" for context in contexts])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("context (tokens)")
    axes.set_ylabel(f"{unit} (log scale)")
    axes.set_yscale("log")
    log_ticks(axes.yaxis)
