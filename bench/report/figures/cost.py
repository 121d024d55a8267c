"""The training cost of each form of the recurrence by context: time per token and peak memory."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from bench.record import Record
from bench.report.arms import config_of, model_of, seeds_text, trained
from bench.report.figures import drawing
from bench.report.figures.looks import line_style
from bench.report.published import Published
from bench.report.runs import CellResults, Results

EXPERIMENT = "backends"
USUAL = ("chunked", "mask", "block")  # in the order of their looks, as in the growth figure

Values = dict[int, list[float]]  # over seeds, by context


def cost(experiment: Results, published: Published) -> Iterator[drawing.Drawn]:
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
        return
    few = seeds_text((len(cell.done) for cell in cells), "bar: minimum to maximum")
    machines = sorted({drawing.plain(record.environment.device_name) for cell in cells for record in cell.done})
    looks = [line_style(index) for index in range(len(names))]
    figure, grid = drawing.figure_of(len(panels), len(panels), row=2.8, around=0.5)
    for axes, (title, unit, values) in zip(grid, panels, strict=True):
        for by_context, one in zip(values, looks, strict=True):
            drawing.draw_spread(axes, list(by_context), list(by_context.values()), one)
        drawing.context_axis(axes, title, contexts)
        axes.set_xlabel("context (tokens)")
        axes.set_ylabel(f"{unit} (log scale)")
        axes.set_yscale("log")
        drawing.log_ticks(axes.yaxis)
    drawing.legend(figure, looks, names, ncols=3)
    drawing.note(figure, few)
    yield drawing.drawn_of(
        experiment,
        "cost",
        figure,
        cells,
        title="what each form of the recurrence costs in training",
        caption=(
            "Seconds of training steps over training tokens, and the peak memory of the process, both axes "
            f"logarithmic. On {', '.join(machines)}; {few}. Times of runs that shared a GPU are left out."
        ),
        alt=f"Time per token and peak memory of training against the context for {', '.join(names)}.",
    )


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
