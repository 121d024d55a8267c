"""Wrong learning rates: what eta does about them, and whether refinement, with eta learned or frozen, helps."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bench.report.arms import (
    K_OPERATORS,
    RATES,
    config_of,
    full_model,
    learning_rate,
    model_of,
    seeds_text,
    trained,
    unfinished,
    without,
)
from bench.report.figures.drawing import (
    REFERENCE,
    Drawn,
    draw_series,
    draw_spread,
    drawn_of,
    legend,
    line_style,
    new_figure,
    note,
    panels_of,
    step_axis,
)
from bench.report.published import Published
from bench.report.runs import CellResults, Results, sweep_nats
from bench.report.series import over_seeds, scalar

FORMS = {"learned": "eta learned", "frozen": "eta frozen", "plain": "no refinement"}
LOSS_LOOKS = dict(
    zip(FORMS, (REFERENCE | {"marker": "o", "linewidth": 1.3}, line_style(1), line_style(2)), strict=True)
)


@dataclass(frozen=True, kw_only=True)
class _RateArm:
    """An arm as its form and its learning rate, in multiples of the usual one."""

    cell: CellResults
    form: str  # a key of FORMS
    multiple: float


def eta(experiment: Results, published: Published) -> list[Drawn]:
    """At most one figure; none where no arm differs from the full model only in its learning rate."""
    arms = _arms(experiment)
    if len({arm.multiple for arm in arms if arm.form == "learned"}) < 2:
        return []
    with_eta = [arm for arm in arms if arm.form == "learned" and over_seeds(scalar(r, "eta") for r in arm.cell.done)]
    few = seeds_text((len(arm.cell.done) for arm in arms), "bands and bars: minimum to maximum")
    figure = new_figure(3.5)
    panels = panels_of(figure, 2 if with_eta else 1)
    forms = [form for form in FORMS if any(arm.form == form for arm in arms)]
    if with_eta:
        _draw_eta(panels[0], with_eta)
    _draw_losses(panels[-1], arms)
    legend(figure, [LOSS_LOOKS[form] for form in forms], [FORMS[form] for form in forms], ncols=3)
    note(figure, few)
    return [
        drawn_of(
            experiment,
            "eta",
            figure,
            title="refinement under wrong learning rates",
            caption=(
                ("Left: eta, the weight of the refinement step, over the training steps. Right: " if with_eta else "")
                + "best validation loss (sweep) against the learning rate in multiples of the usual one, with "
                "refinement and eta learned, with eta frozen, and without refinement. "
                f"Here {few}.{unfinished(arm.cell for arm in arms)}"
            ),
            alt=(
                "Eta over the steps for each learning rate, and validation loss against the learning rate for "
                f"{', '.join(FORMS[form] for form in forms)}."
            ),
        )
    ]


def _arms(experiment: Results) -> list[_RateArm]:
    """Those that differ from the full model in nothing but learning rate and refinement, from the lowest rate."""
    full = full_model(experiment)
    usual = None if full is None else learning_rate(full)
    if full is None or usual is None or experiment.reference is None:
        return []
    forms: dict[tuple[str, int], list[CellResults]] = defaultdict(list)
    for cell in trained(experiment):
        if config_of(cell).get("architecture") == K_OPERATORS and _core(cell) == _core(full):
            forms[_form(cell), _n_refinements(cell) or 0].append(cell)
    return [
        _RateArm(cell=cell, form=form, multiple=(learning_rate(cell) or usual) / usual)
        for (form, n_refinements), cells in forms.items()
        # an ablation of the number of refinements has one learning rate for each
        if form == "plain" or n_refinements == (_n_refinements(full) or 1)
        for cell in sorted(cells, key=lambda cell: learning_rate(cell) or 0.0)
    ]


def _core(cell: CellResults) -> str:
    """What must be equal."""
    return without(config_of(cell), training=RATES, model=("refine_steps", "eta"))


def _n_refinements(cell: CellResults) -> int | None:
    found = model_of(cell).get("refine_steps")
    return found if isinstance(found, int) else None


def _form(cell: CellResults) -> str:
    if _n_refinements(cell) == 0:
        return "plain"
    return "frozen" if model_of(cell).get("eta") == "frozen" else "learned"  # older records lack eta: learned


def _draw_eta(axes: Axes, arms: Sequence[_RateArm]) -> None:
    """Each line is labelled with its multiple at its end, instead of a legend."""
    others = [arm for arm in arms if arm.multiple != 1]
    for arm in arms:
        series = over_seeds(scalar(record, "eta") for record in arm.cell.done)
        if series is not None:
            draw_series(axes, series, REFERENCE if arm.multiple == 1 else line_style(others.index(arm)))
    looks = [REFERENCE if arm.multiple == 1 else line_style(others.index(arm)) for arm in arms]
    samples = [axes.plot([], [], **one)[0] for one in looks]
    axes.legend(samples, [f"rate × {arm.multiple:g}" for arm in arms], handlelength=3, fontsize=8)
    step_axis(axes, "eta")
    axes.set_ylabel("eta")
    axes.margins(y=0.1)


def _draw_losses(axes: Axes, arms: Sequence[_RateArm]) -> None:
    for form, looks in LOSS_LOOKS.items():
        chosen = [arm for arm in arms if arm.form == form]
        if chosen:
            nats = [sweep_nats(arm.cell.done) for arm in chosen]
            draw_spread(axes, [arm.multiple for arm in chosen], nats, looks)
    axes.set_title("best loss", loc="left")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted({arm.multiple for arm in arms})))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"×{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("learning rate / usual")
    axes.set_ylabel("nats per token")
