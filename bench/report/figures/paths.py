"""The paths inside K-Operators during training: the share of the recurrence, and both weights."""

from collections.abc import Iterator

from bench.report.arms import seeds_text
from bench.report.figures import drawing
from bench.report.figures.gamma import few_steps, model_over_time
from bench.report.published import Published
from bench.report.runs import Results
from bench.report.series import n_layers, of_layer, over_seeds

PANELS = (  # reading, title, what it is
    (
        "recurrent_share",
        "share of recurrence",
        "the L2 norm of what the recurrent path adds, over the sum of both paths' norms; mean over the positions of "
        "fixed validation windows",
    ),
    ("gate", "gate of the base", "the learned weight of the base path, dimensionless"),
    ("alpha", "alpha of recurrence", "the learned weight of the recurrent path, dimensionless"),
)


def paths(experiment: Results, published: Published) -> Iterator[drawing.Drawn]:
    """The share of the recurrent path, and the weights of both paths, in the full model."""
    full = model_over_time(experiment)
    if full is None:
        return
    names = [name for name, _, _ in PANELS]
    layers = range(n_layers(full.done, *names))
    found = {name: [over_seeds(of_layer(one, name, layer) for one in full.done) for layer in layers] for name in names}
    panels = [panel for panel in PANELS if any(found[panel[0]])]
    if not panels:
        return
    shown = [series.n for name, _, _ in panels for series in found[name] if series is not None]
    few = seeds_text(shown, "band: minimum to maximum")
    figure = drawing.new_figure(2.9)
    for axes, (name, title, _) in zip(drawing.panels_of(figure, len(panels)), panels, strict=True):
        for layer, series in enumerate(found[name]):
            if series is not None:
                drawing.draw_series(axes, series, drawing.line_style(layer))
        few_steps(axes, title)
        axes.set_ylim(0, None if name == "alpha" else 1.02)
    drawing.legend(
        figure, [drawing.line_style(layer) for layer in layers], [f"layer {layer + 1}" for layer in layers], ncols=4
    )
    drawing.note(figure, few)
    yield drawing.drawn_of(
        experiment,
        "paths",
        figure,
        title="which path mixes positions",
        caption=(
            f"Of {full.label}, by layer over the steps. "
            f"{' '.join(f'{title.capitalize()}: {meaning}.' for _, title, meaning in panels)} Lines: {few}."
        ),
        alt=f"Lines of {', '.join(title for _, title, _ in panels)} over training steps for each layer.",
    )
