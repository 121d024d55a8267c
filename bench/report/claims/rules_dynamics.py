"""The rules that judge the claims on the model itself: C4, C7 and C8."""

from dataclasses import replace

from bench.record import Record
from bench.report.claims.evidence import Arm, Evidence, by_layer, knockout_cost, knockout_costs, measured
from bench.report.claims.finding import DECIDES_NOTHING, Effect, Finding, Outcome, effect_of, more_seeds
from bench.report.published import Claim, Published
from bench.report.statistics import anova_p, holm, lower_bound, mean, upper_bound

EFFECTS = {  # of C8: the readings, each one number per layer, and the threshold of the range over layers that counts
    "half-life": "least_doublings",
    "alpha": "least_weight",
    "gate": "least_weight",
    "recurrent_share": "least_weight",
}
REGISTERED_READINGS = ("median gamma", "alpha", "gate", "recurrent_share")


# C4: parameters ------------------------------------------------------------------------------------------------------


def fewer_parameters(claim: Claim, evidence: Evidence, published: Published) -> Finding | None:
    """C4: the ratio under every convention. Counting needs no spread."""
    arms = [evidence.arm("paper", label, 1) for label in ("k_operators", "nanogpt_2023")]
    counted = [arm.records[0].cost.parameters for arm in arms if arm.records]
    if len(counted) < 2:
        return None
    ours, theirs = counted
    ratios = {
        "as published": theirs.n_params_without_positions / ours.n_params,
        "in all": theirs.n_params / ours.n_params,
        "live": theirs.n_live_params / ours.n_live_params,
    }
    off = abs(ratios["as published"] - claim.thresholds["ratio"])
    holds = off <= claim.thresholds["tolerance"] and min(ratios.values()) >= claim.thresholds["least"]
    return Finding(
        outcome="reproduced" if holds else "not reproduced",
        numbers=tuple(f"{name} {ratio:.2f}" for name, ratio in ratios.items()),
        effect=Effect(what="times fewer parameters", value=ratios["as published"], unit="times", n="counted"),
    )


# C7, C8: layers over training ----------------------------------------------------------------------------------------


def mixing_moves(claim: Claim, evidence: Evidence, published: Published) -> Finding | None:
    """C7: the recurrent path's share of the norms of what is mixed grows from the first evaluation to the last."""
    arm = evidence.arm("paper", "k_operators")
    changes = [_changes(record, "recurrent_share") for record in arm.done.values()]
    of_runs = [mean(layers) for layers in changes if layers]
    low, high = (lower_bound(of_runs), upper_bound(of_runs)) if of_runs else (None, None)
    if low is None or high is None or len(of_runs) < len(changes):
        return None
    layers = [mean(layer) for layer in zip(*changes, strict=True)]
    n_rising = sum(layer > 0 for layer in layers)
    outcome: Outcome = "inconclusive"
    if low > 0 and n_rising > len(layers) / 2:
        outcome = "reproduced"
    elif high <= 0:
        outcome = "not reproduced"
    weights = [_changes(record, "weight share") for record in arm.done.values()]
    other = [mean(layer) for layer in zip(*weights, strict=True)] if all(weights) else []
    return Finding(
        outcome=outcome,
        numbers=(
            f"recurrent share of norms {mean(of_runs):+.3f} over training (bounds {low:+.3f} to {high:+.3f}, "
            f"n = {len(of_runs)}), rises in {n_rising} of {len(layers)} layers: {_by_layer(layers)}".replace("-", "−"),
            f"recurrent share of weights, alpha / (alpha + gate): {_by_layer(other)} ({DECIDES_NOTHING})",
            *(_knocked_out(arm, path) for path in ("base", "recurrent")),
        ),
        seeds_needed=more_seeds(outcome, mean(of_runs), of_runs),
        effect=replace(effect_of("change of the recurrent share", of_runs, above=0.0), unit=""),
    )


def _changes(record: Record, reading: str) -> list[float]:
    first, last = by_layer(record, reading, first=True), by_layer(record, reading)
    return [after - before for before, after in zip(first, last, strict=True)]


def _by_layer(values: list[float]) -> str:
    return " ".join(f"{value:+.2f}" for value in values).replace("-", "−") if values else "not measured"


def _knocked_out(arm: Arm, path: str) -> str:
    """What removing a path costs, early in training and at its end."""
    costs = [cost for record in arm.done.values() if (cost := knockout_costs(record, path)) is not None]
    if not costs:
        return f"without the {path} path: not measured"
    early, late = (mean(values) for values in zip(*costs, strict=True))
    n = f"n = {len(costs)}; {DECIDES_NOTHING}"
    return f"without the {path} path {early:+.3f} nats early, {late:+.3f} at the end ({n})".replace("-", "−")


def layers_specialise(claim: Claim, evidence: Evidence, published: Published) -> Finding | None:
    """C8: within a run, layers differ by an amount that matters, in most of four readings, in whatever order."""
    arm = evidence.arm("paper", "k_operators")
    ranges = {name: measured(arm, lambda one, name=name: _range(one, name)) for name in EFFECTS}  # type: ignore[misc]
    if any(len(values) < 2 for values in ranges.values()):
        return None
    least = {name: claim.thresholds[threshold] for name, threshold in EFFECTS.items()}
    bounds = {name: (lower_bound(values) or 0.0, upper_bound(values) or 0.0) for name, values in ranges.items()}
    n_large = sum(low >= least[name] for name, (low, _) in bounds.items())
    n_small = sum(high < least[name] for name, (_, high) in bounds.items())
    outcome: Outcome = "inconclusive"
    if n_large >= claim.thresholds["least_readings"]:
        outcome = "reproduced"
    elif len(EFFECTS) - n_small < claim.thresholds["least_readings"]:
        outcome = "not reproduced"
    registered, adjusted = ordered_layers(claim, arm)
    return Finding(
        outcome=outcome,
        numbers=(
            f"the range over layers is large in {n_large} of {len(EFFECTS)} readings (n = {len(arm.done)})",
            *(
                f"{name.replace('_', ' ')} {mean(values):.2f} (bounds {bounds[name][0]:.2f} to {bounds[name][1]:.2f}, "
                f"large from {least[name]:g})"
                for name, values in ranges.items()
            ),
            f"layers differ by more than seeds do (analysis of variance), p after Holm: {adjusted}",
            *(_costs_by_layer(arm, path) for path in ("base", "recurrent")),
        ),
        registered=registered,
        effect=Effect(
            what="readings that differ between layers",
            value=n_large,
            unit=f"of {len(EFFECTS)}",
            n=f"{len(arm.done)}",
            holds=(claim.thresholds["least_readings"], None),
        ),
    )


def ordered_layers(claim: Claim, arm: Arm) -> tuple[Outcome, str]:
    """The rule registered before: layers differ by more than seeds do, whatever the size of the difference."""
    p_values = {}
    for name in REGISTERED_READINGS:
        by_run = [by_layer(record, name) for record in arm.done.values()]
        p = anova_p(list(zip(*by_run, strict=True))) if all(by_run) else None
        if p is not None:
            p_values[name] = p
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    n_found = sum(p < claim.thresholds["alpha"] for p in adjusted.values())
    outcome: Outcome = "inconclusive"
    if n_found >= claim.thresholds["least_readings"]:
        outcome = "reproduced"
    elif len(adjusted) == len(REGISTERED_READINGS) and not n_found:
        outcome = "not reproduced"
    return outcome, ", ".join(f"{name.replace('_', ' ')} {p:.2g}" for name, p in adjusted.items()) or "not measured"


def _range(record: Record, name: str) -> float | None:
    layers = by_layer(record, name)
    return max(layers) - min(layers) if layers else None


def _costs_by_layer(arm: Arm, path: str) -> str:
    """What knocking out a path in one layer costs, layer by layer."""
    costs: list[float] = []
    while layer := measured(arm, lambda one: knockout_cost(one, f"{path} {len(costs) + 1}")):
        costs.append(mean(layer))
    return f"cost in nats without the {path} path of one layer: {_by_layer(costs)}"
