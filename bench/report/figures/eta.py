"""Wrong learning rates: what eta does about them, and whether refinement, with eta learned or frozen, helps."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bench.report import arms
from bench.report.families import K_OPERATORS
from bench.report.figures import drawing
from bench.report.figures.looks import HOLLOW, of_family, of_layers
from bench.report.published import Published
from bench.report.runs import CellResults, Results, sweep_nats
from bench.report.series import over_seeds, scalar

FORMS = {"learned": "eta learned", "frozen": "eta frozen", "plain": "no refinement"}
LOOK = of_family(K_OPERATORS)
LOSS_LOOKS = {
    "learned": LOOK,
    "frozen": LOOK | HOLLOW | {"marker": "s", "linestyle": "--"},
    "plain": LOOK | HOLLOW | {"marker": "^", "linestyle": ":"},
}


@dataclass(frozen=True, kw_only=True)
class _RateArm:
    """An arm as its form and its learning rate, in multiples of the usual one."""

    cell: CellResults
    form: str  # a key of FORMS
    multiple: float


def eta(experiment: Results, published: Published) -> Iterator[drawing.Drawn]:
    """At most one figure; none where no arm differs from the full model only in its learning rate."""
    at_rates = _arms(experiment)
    if len({arm.multiple for arm in at_rates if arm.form == "learned"}) < 2:
        return
    with_eta = [
        arm for arm in at_rates if arm.form == "learned" and over_seeds(scalar(r, "eta") for r in arm.cell.done)
    ]
    few = arms.seeds_text((len(arm.cell.done) for arm in at_rates), "bands and bars: minimum to maximum")
    n = 2 if with_eta else 1
    figure, panels = drawing.figure_of(n, n, row=2.8, around=0.7)
    forms = [form for form in FORMS if any(arm.form == form for arm in at_rates)]
    if with_eta:
        _draw_eta(panels[0], with_eta)
    _draw_losses(panels[-1], at_rates)
    drawing.legend(figure, [LOSS_LOOKS[form] for form in forms], [FORMS[form] for form in forms], ncols=3)
    drawing.note(figure, few)
    yield drawing.drawn_of(
        experiment,
        "eta",
        figure,
        [arm.cell for arm in at_rates],
        title="refinement under wrong learning rates",
        caption=(
            ("Left: eta, the weight of the refinement step, over the training steps. Right: " if with_eta else "")
            + "best validation loss (sweep) against the learning rate in multiples of the usual one, with "
            "refinement and eta learned, with eta frozen, and without refinement. "
            f"Here {few}."
        ),
        alt=(
            "Eta over the steps for each learning rate, and validation loss against the learning rate for "
            f"{', '.join(FORMS[form] for form in forms)}."
        ),
    )


def _arms(experiment: Results) -> list[_RateArm]:
    """Those that differ from the full model in nothing but learning rate and refinement, from the lowest rate."""
    full = arms.full_model(experiment)
    usual = None if full is None else arms.learning_rate(full)
    if full is None or usual is None or experiment.reference is None:
        return []
    forms: dict[tuple[str, int], list[CellResults]] = defaultdict(list)
    for cell in arms.trained(experiment):
        if arms.config_of(cell).get("architecture") == arms.K_OPERATORS and _core(cell) == _core(full):
            forms[_form(cell), _n_refinements(cell) or 0].append(cell)
    return [
        _RateArm(cell=cell, form=form, multiple=(arms.learning_rate(cell) or usual) / usual)
        for (form, n_refinements), cells in forms.items()
        # an ablation of the number of refinements has one learning rate for each
        if form == "plain" or n_refinements == (_n_refinements(full) or 1)
        for cell in sorted(cells, key=lambda cell: arms.learning_rate(cell) or 0.0)
    ]


def _core(cell: CellResults) -> str:
    """What must be equal."""
    return arms.without(arms.config_of(cell), training=arms.RATES, model=("refine_steps", "eta"))


def _n_refinements(cell: CellResults) -> int | None:
    found = arms.model_of(cell).get("refine_steps")
    return found if isinstance(found, int) else None


def _form(cell: CellResults) -> str:
    if _n_refinements(cell) == 0:
        return "plain"
    return "frozen" if arms.model_of(cell).get("eta") == "frozen" else "learned"  # older records lack eta: learned


def _draw_eta(axes: Axes, at_rates: Sequence[_RateArm]) -> None:
    """Each line is labelled with its multiple at its end, instead of a legend."""
    looks: list[dict[str, Any]] = [{"color": color} for color in of_layers(len(at_rates))]
    for arm, look in zip(at_rates, looks, strict=True):
        series = over_seeds(scalar(record, "eta") for record in arm.cell.done)
        if series is not None:
            drawing.draw_series(axes, series, look)
    samples = [axes.plot([], [], **one)[0] for one in looks]
    axes.legend(samples, [f"rate × {arm.multiple:g}" for arm in at_rates], handlelength=3, fontsize=8)
    drawing.step_axis(axes, "eta")
    axes.set_ylabel("eta")
    axes.margins(y=0.1)


def _draw_losses(axes: Axes, at_rates: Sequence[_RateArm]) -> None:
    for form, looks in LOSS_LOOKS.items():
        chosen = [arm for arm in at_rates if arm.form == form]
        if chosen:
            nats = [sweep_nats(arm.cell.done) for arm in chosen]
            drawing.draw_spread(axes, [arm.multiple for arm in chosen], nats, looks)
    axes.set_title("best loss", loc="left")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted({arm.multiple for arm in at_rates})))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"×{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("learning rate / usual")
    axes.set_ylabel("nats per token")
