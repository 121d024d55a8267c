"""Forest plot of the preprint's claims: the effect that decides each, with its interval, against its margin."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.axes import Axes

from bench.report.claims.evidence import Evidence
from bench.report.claims.finding import Effect
from bench.report.claims.registered import RULES
from bench.report.claims.verdicts import Verdict, judge
from bench.report.figures import drawing
from bench.report.figures.looks import HOLLOW, INK, OUTCOMES
from bench.report.published import Published
from bench.report.runs import StoreResults

NATS = "nats"  # the unit of the axis; effects in other units are words
BELOW = 0.28  # rows: how far the laptop's effect is below


def claims(ours: StoreResults, published: Published) -> Iterator[drawing.Drawn]:
    """At most one figure, with a row for each claim; none where no effect is known."""
    verdicts = judge(ours, published)
    effects = [one for verdict in verdicts for one in (verdict.effect, verdict.effect_at_laptop_size) if one]
    if not effects:
        return
    figure = drawing.new_figure(1.2 + 0.4 * len(verdicts), drawing.WIDE)
    _draw(figure.subplots(), verdicts, [_n_of(verdict, ours) for verdict in verdicts], effects)
    drawing.note(figure, "shaded: where the claim holds; bar: both one-sided 95 % bounds, of C10 the 95 % interval\n"
                 "hollow: at laptop size, which decides nothing")  # fmt: skip
    texts = [f"{one.claim.id} {one.outcome}, {_words(one.effect) or 'no number yet'}" for one in verdicts]
    yield drawing.finished(
        figure,
        name="claims",
        title="The claims of the preprint",
        caption=(
            "The number that decides each claim, with its interval, in nats per token. Shaded: where the claim holds. "
            "Right: the outcome, and how many of the planned runs are in (n). Hollow: what the same rule reads at "
            f"laptop size, which decides nothing. {'; '.join(texts)}."
        ),
        alt=f"A row for each claim: {'; '.join(f'{one.claim.id} {one.outcome}' for one in verdicts)}.",
    )


def _n_of(verdict: Verdict, ours: StoreResults) -> str:
    """`n = 10 of 20`: the planned runs that are in, and all of them."""
    arms = [Evidence(ours).arm(*planned) for planned in RULES[verdict.claim.id].arms]
    return f"n = {sum(arm.n_in for arm in arms)} of {sum(arm.n_planned for arm in arms)}"


def _words(effect: Effect | None) -> str:
    """`9.36 times fewer parameters`, or `K-Operators minus nanoGPT +0.0194 nats`."""
    if effect is None:
        return ""
    counted = effect.unit not in ("", NATS)
    return f"{effect} {effect.what.removeprefix(effect.unit).strip()}" if counted else f"{effect.what} {effect}"


def _draw(axes: Axes, verdicts: Sequence[Verdict], counts: Sequence[str], effects: Sequence[Effect]) -> None:
    ends = [end for one in effects if one.unit == NATS for end in (one.value, *(one.interval or ()), *one.holds) if end]
    low, high = min(ends, default=-1.0), max(ends, default=1.0)
    axes.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    heights = list(range(len(verdicts), 0, -1))
    axes.axvline(0, color=INK, linewidth=1, alpha=0.5, zorder=0)
    for height, one in zip(heights, verdicts, strict=True):
        look: dict[str, Any] = {"color": OUTCOMES.get(one.outcome, INK)}
        _draw_bounds(axes, height, one.effect or one.effect_at_laptop_size)
        _draw_effect(axes, height, one.effect, look)
        _draw_effect(
            axes,
            height - (BELOW if one.effect else 0),
            one.effect_at_laptop_size,
            look | HOLLOW | {"elinewidth": 0.8, "capsize": 2},
        )
        if words := _in_words(one):
            place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 8}
            axes.text(0.02, height, drawing.plain(words.replace("−", "-")).replace("; ", "\n"), **place)
    axes.set_ylim(0.4, len(verdicts) + 0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("nats per token")
    axes.set_yticks(heights, [drawing.short(f"{one.claim.id}  {one.claim.short}") for one in verdicts])
    outcomes = axes.secondary_yaxis("right")
    outcomes.set_yticks(heights, [f"{one.outcome}\n{n}" for one, n in zip(verdicts, counts, strict=True)], fontsize=8)
    for label, one in zip(outcomes.get_yticklabels(), verdicts, strict=True):
        label.set_color(OUTCOMES.get(one.outcome, INK))
    for axis in (axes, outcomes):
        axis.tick_params(axis="y", length=0)
    outcomes.spines["right"].set_visible(False)


def _draw_bounds(axes: Axes, height: float, effect: Effect | None) -> None:
    if effect is not None and effect.unit == NATS and effect.holds != (None, None):
        low, high = (edge if end is None else end for edge, end in zip(axes.get_xlim(), effect.holds, strict=True))
        axes.fill_between(
            [low, high], height - 0.42, height + 0.42, color=OUTCOMES["reproduced"], alpha=0.15, linewidth=0
        )


def _draw_effect(axes: Axes, height: float, effect: Effect | None, look: dict[str, Any]) -> None:
    if effect is not None and effect.unit == NATS and math.isfinite(effect.value):
        low, high = effect.interval or (effect.value, effect.value)
        reach = ([effect.value - low], [high - effect.value])
        axes.errorbar(
            [effect.value], [height], xerr=reach, **drawing.BARS | {"marker": "o", "linestyle": "none"} | look
        )


def _in_words(verdict: Verdict) -> str:
    """The effects that are in other units than the axis, or why there is none."""
    effects = (verdict.effect, verdict.effect_at_laptop_size)
    if not any(effects):
        return "no run yet" if verdict.outcome == "not started" else "too few runs"
    here, there = (_words(one) if one is not None and one.unit != NATS else "" for one in effects)
    return "; ".join(filter(None, (here, there and f"at laptop size {verdict.effect_at_laptop_size}")))
