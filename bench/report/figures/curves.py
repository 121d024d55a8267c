"""Training curves: validation perplexity over the steps, of the whole run and, enlarged, of its second half."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from bench.report import arms
from bench.report.figures import drawing
from bench.report.published import Published
from bench.report.runs import CellResults, Results
from bench.report.series import Series, over_seeds, validation_nats
from bench.report.statistics import perplexity

NEAR = 1.35  # upper end of the enlarged view, relative to the lowest perplexity


@dataclass(frozen=True, kw_only=True)
class _Curve:
    cell: CellResults
    series: Series
    line_style: dict[str, Any]


def curves(experiment: Results, published: Published) -> list[drawing.Drawn]:
    """One or more figures with at most eight lines each."""
    known = {cell.label: series for cell in arms.trained(experiment) if (series := _series(cell)) is not None}
    # trials are in the figure of the expected best of k; folds would be a figure each
    grouped = [cell for cells in (*experiment.trials.values(), *experiment.folds.values()) for cell in cells]
    cells = [cell for cell in arms.trained(experiment) if cell.label in known and cell not in grouped]
    figures = [lines for chosen, reference in _sets(experiment, cells) for lines in _lines(chosen, reference, known)]
    return [_drawn(experiment, lines, number) for number, lines in enumerate(figures, 1)]


def _series(cell: CellResults) -> Series | None:
    """None where there is no curve: a single evaluation is a point."""
    series = over_seeds(
        {step: perplexity(nats) for step, nats in validation_nats(record).items()} for record in cell.done
    )
    return series if series is not None and len(series.steps) > 1 else None


def _sets(experiment: Results, cells: Sequence[CellResults]) -> list[tuple[list[CellResults], CellResults | None]]:
    """The groups of curves, each with its reference: models, variants of K-Operators, learning rates."""
    full, reference = arms.full_model(experiment), experiment.reference
    families = [group for group in arms.by_rate(cells) if arms.has_rates(group)]
    at_full_rate = full is not None and reference is not None and arms.learning_rate(full)
    with_siblings = [cell for group in families for cell in group if arms.learning_rate(cell) != at_full_rate]
    left = [cell for cell in cells if cell not in with_siblings]
    changed = [cell for cell in arms.variants(experiment) if cell in left]
    models = [cell for cell in left if cell not in changed]
    sets = [(models, reference)] if models and not (changed and models == [full]) else []
    sets += [([cell for cell in left if cell is full or cell in changed], full)] if changed else []
    for group in families:
        usual = next((cell for cell in group if arms.learning_rate(cell) == at_full_rate), None)
        sets.append((group, usual))
    return sets


def _lines(cells: Sequence[CellResults], reference: CellResults | None, known: dict[str, Series]) -> list[list[_Curve]]:
    """The lines of one or more figures, the reference in each."""

    def curve(cell: CellResults, look: dict[str, Any]) -> _Curve:
        return _Curve(cell=cell, series=known[cell.label], line_style=look)

    first = [curve(cell, drawing.REFERENCE) for cell in cells if cell is reference]
    others = [cell for cell in cells if cell is not reference]
    n_figures = max(1, -(-len(others) // drawing.N_LOOKS))
    per_figure = max(1, -(-len(others) // n_figures))
    return [
        first
        + [curve(cell, drawing.line_style(index)) for index, cell in enumerate(others[start : start + per_figure])]
        for start in range(0, max(1, len(others)), per_figure)
    ]


def _drawn(experiment: Results, lines: Sequence[_Curve], number: int) -> drawing.Drawn:
    last = max(line.series.steps[-1] for line in lines)
    few = arms.seeds_text((line.series.n for line in lines), "band: minimum to maximum")
    has_reference = lines[0].line_style is drawing.REFERENCE
    figure = drawing.new_figure(3.0 + 0.17 * -(-len(lines) // 2))
    whole, near = drawing.panels_of(figure, 2)
    for line in lines:
        for axes in (whole, near):
            drawing.draw_series(axes, line.series, line.line_style)
    cut = _finish(whole, near, lines, last)
    drawing.legend(figure, [line.line_style for line in lines], [line.cell.label for line in lines])
    drawing.note(figure, few)
    return drawing.drawn_of(
        experiment,
        "curves",
        figure,
        number=number,
        title="validation perplexity while training" + (f" ({number})" if number > 1 else ""),
        caption=(
            "Sweep perplexity of the validation text at each evaluation after step 0; left the whole run, right its "
            f"second half from nearer by. Lines: {few}."
            + (" Thick, without markers: the arm that the others are held against." if has_reference else "")
            + (f" Values more than {NEAR - 1:.0%} above the lowest are left out on the right." if cut else "")
            + arms.unfinished(line.cell for line in lines)
        ),
        alt=f"Curves of validation perplexity over training steps for {', '.join(line.cell.label for line in lines)}.",
    )


def _finish(whole: Axes, near: Axes, lines: Sequence[_Curve], last: int) -> bool:
    """Axes and units; whether the near view leaves something out."""
    drawing.step_axis(whole, "whole run")
    drawing.step_axis(near, "second half")
    whole.set_ylabel("perplexity (log scale)")
    whole.set_yscale("log")
    drawing.log_ticks(whole.yaxis, (1, 1.5, 2, 3, 4, 5, 6, 8))
    near.set_ylabel("perplexity")
    late = [
        (low, high)
        for line in lines
        for step, low, high in zip(line.series.steps, line.series.low, line.series.high, strict=True)
        if step >= last / 2
    ]
    least, most = min(low for low, _ in late), max(high for _, high in late)
    top = min(most, least * NEAR)
    near.set_xlim(last / 2, last * 1.02)
    near.set_ylim(least - 0.04 * (top - least + 0.01), top + 0.04 * (top - least + 0.01))
    return top < most
