"""How fast memory fades inside K-Operators while it trains: the quantiles of gamma by layer."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bench.report.arms import full_model, model_of, seeds_text, variants
from bench.report.figures.drawing import ROUND, Drawn, drawn_of, line_style, log_ticks, new_figure, note, step_axis
from bench.report.published import Published
from bench.report.runs import CellResults, Results
from bench.report.series import Series, gamma_quantile, n_layers, over_seeds

MAX_SPECTRA = 4  # figures of gamma an experiment
NEAREST_TO_1 = 1e-6  # of 1 - gamma: float32 rounds what is closer
FEWEST_EVALUATIONS = 3  # below it there is no course to show


def gamma(experiment: Results, published: Published) -> list[Drawn]:
    """A figure for the full model, and for each variant with other bounds of gamma."""
    full = model_over_time(experiment)
    if full is None:
        return []
    seen, chosen = [], []
    for cell in (full, *variants(experiment)):
        bounds = [model_of(cell).get(name) for name in ("gamma_min", "gamma_max")]
        if bounds not in seen:
            seen.append(bounds)
            chosen.append(cell)
    drawn = (_spectrum(experiment, cell, number) for number, cell in enumerate(chosen[:MAX_SPECTRA], 1))
    return [figure for figure in drawn if figure is not None]


def model_over_time(experiment: Results) -> CellResults | None:
    """The full model, where one of its runs was evaluated often enough."""
    full = full_model(experiment)
    return full if full and any(len(record.curve) >= FEWEST_EVALUATIONS for record in full.done) else None


def _spectrum(experiment: Results, cell: CellResults, number: int) -> Drawn | None:
    layers = range(n_layers(cell.done, "gamma_quantiles", "gamma_min_median_max"))
    spectra = [
        [over_seeds(gamma_quantile(one, layer, which) for one in cell.done) for which in range(5)] for layer in layers
    ]
    medians = [spectrum[2] for spectrum in spectra if spectrum[2] is not None]
    if not medians:
        return None
    few = seeds_text((series.n for series in medians), "dotted: minimum and maximum over seeds")
    n_columns = 2 if len(layers) in (2, 4) else min(3, len(layers))
    n_rows = -(-len(layers) // n_columns)
    has_quartiles = any(spectrum[1] is not None for spectrum in spectra)
    figure = new_figure(1.0 + 1.5 * n_rows)
    panels = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False).flat
    for layer, axes in enumerate(panels):
        if layer < len(layers):
            _draw_spectrum(axes, spectra[layer])
            _finish(axes, layer, layer % n_columns == 0, layer + n_columns >= len(layers))
        else:
            axes.set_visible(False)
    shown = f"{'dark: quartiles; ' if has_quartiles else ''}light: minimum to maximum"
    note(figure, f"line: median of channels, {few}\n{shown} channel")
    return drawn_of(
        experiment,
        "gamma",
        figure,
        number=number,
        title=f"decay rates gamma of {cell.label}",
        caption=(
            "How much of its memory each rank channel keeps from one token to the next, by layer over the steps, on an "
            "axis that is logarithmic in 1 - gamma: 0.99 fades over about 100 tokens, 0.999 over 1,000. "
            f"Line: median over channels, {few}. Bands over channels, of the mean over seeds: {shown}."
        ),
        alt=f"Bands of the quantiles of gamma over training steps, a panel for each of {len(layers)} layers.",
    )


def _draw_spectrum(axes: Axes, spectrum: Sequence[Series | None]) -> None:
    for (first, last), shade in (((0, 4), 0.85), ((1, 3), 0.65)):
        low, high = spectrum[first], spectrum[last]
        if low is not None and high is not None and low.steps == high.steps:
            axes.fill_between(low.steps, _tokens(low.middle), _tokens(high.middle), color=str(shade), linewidth=0)
    median = spectrum[2]
    if median is not None:
        axes.plot(median.steps, _tokens(median.middle), color=line_style(0)["color"])
        for ends in (median.low, median.high) if median.n > 1 else ():
            axes.plot(median.steps, _tokens(ends), color=line_style(0)["color"], linestyle=":", linewidth=1)


def _tokens(gammas: Sequence[float]) -> list[float]:
    """1 / (1 - gamma): over how many tokens a memory fades to 1 / e, roughly."""
    return [1 / max(1 - gamma, NEAREST_TO_1) for gamma in gammas]


def _finish(axes: Axes, layer: int, is_left: bool, is_lowest: bool) -> None:
    few_steps(axes, f"layer {layer + 1}", is_lowest=is_lowest)
    axes.set_yscale("log")
    log_ticks(axes.yaxis)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda tokens, _: f"{1 - 1 / tokens:.6g}"))
    if is_left:
        axes.set_ylabel("gamma")


def few_steps(axes: Axes, title: str, *, is_lowest: bool = True) -> None:
    """A narrow panel over training steps; labels below it only where no panel is."""
    step_axis(axes, title)
    axes.xaxis.set_major_locator(MaxNLocator(3, steps=ROUND))
    if is_lowest:
        axes.tick_params(labelbottom=True)
    else:
        axes.set_xlabel("")
