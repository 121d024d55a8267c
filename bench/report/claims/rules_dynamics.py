"""The rules that judge the claims on the model itself: C4, C6, C7 and C8."""

from collections.abc import Callable
from statistics import median

from bench.record import Record
from bench.report.claims.evidence import Evidence, by_layer
from bench.report.claims.rules import Finding, Outcome, more_seeds, short_of
from bench.report.published import Claim, Published
from bench.report.runs import CellResults
from bench.report.statistics import anova_p, holm, lower_bound, mean, upper_bound

READINGS = ("median gamma", "alpha", "gate", "recurrent_share")  # of C8, each one number a layer


# C4: parameters ------------------------------------------------------------------------------------------------------


def fewer_parameters(claim: Claim, evidence: Evidence, published: Published) -> Finding:
    """C4: the ratio under every convention. Counting needs no seeds."""
    arms = [evidence.arm("paper", label) for label in ("k_operators", "nanogpt_2023")]
    counted = [next(iter(arm.cell.records), None) if arm.cell else None for arm in arms]
    if counted[0] is None or counted[1] is None:
        return Finding(outcome="not run", numbers=())
    ours, theirs = (record.cost.parameters for record in counted if record is not None)
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
    )


# C6: backends --------------------------------------------------------------------------------------------------------


def interchangeable(claim: Claim, evidence: Evidence, published: Published) -> Finding:
    """C6: mask and block train alike, and at the longest context one is faster while the other needs less memory."""
    experiment = evidence.experiment("backends")
    cells = {} if experiment is None else {key: cell for cell in experiment.cells if (key := _form(cell)) is not None}
    contexts = sorted({context for _, context in cells if {("mask", context), ("block", context)} <= cells.keys()})
    expected = 0 if experiment is None else len(experiment.cells)
    if not cells:
        return Finding(outcome="not run", numbers=())
    if len(cells) < expected or any(len(cell.done) < claim.thresholds["min_seeds"] for cell in cells.values()):
        n = sum(len(cell.done) for cell in cells.values())
        return Finding(outcome="inconclusive", numbers=(f"{n} runs done",))
    apart = max(_apart(cells["mask", context], cells["block", context]) for context in contexts)
    mask, block = cells["mask", contexts[-1]], cells["block", contexts[-1]]
    faster = _median(mask, lambda one: one.cost.tokens_per_second or 0.0) > _median(
        block, lambda one: one.cost.tokens_per_second or 0.0
    )
    leaner = _median(mask, lambda one: one.cost.peak_bytes) < _median(block, lambda one: one.cost.peak_bytes)
    holds = apart <= claim.thresholds["loss_tolerance"] and faster != leaner
    sizes = {
        name: (_median(cell, lambda one: one.cost.tokens_per_second or 0.0), _median(cell, _mebibytes))
        for name, cell in (("mask", mask), ("block", block))
    }
    return Finding(
        outcome="reproduced" if holds else "not reproduced",
        numbers=(
            f"training losses at most {apart:.1e} nats apart",
            *(
                f"{name} at {contexts[-1]}: {speed:,.0f} tokens/s, {size:,.0f} MiB"
                for name, (speed, size) in sizes.items()
            ),
        ),
    )


def _form(cell: CellResults) -> tuple[str, int] | None:
    """The backend and the context of a cell's runs."""
    if not cell.done:
        return None
    config = cell.done[0].config
    return config["model"]["backend"], config["context"]


def _apart(one: CellResults, other: CellResults) -> float:
    """The largest difference of two cells' training losses, step by step at equal seeds."""
    theirs = {record.seed: record.diagnostics.first_train_nats for record in other.done}
    return max(
        abs(a - b)
        for record in one.done
        if record.seed in theirs
        for a, b in zip(record.diagnostics.first_train_nats, theirs[record.seed], strict=True)
    )


def _median(cell: CellResults, reading: Callable[[Record], float]) -> float:
    return median(reading(record) for record in cell.done)


def _mebibytes(record: Record) -> float:
    return record.cost.peak_bytes / 2**20


# C7, C8: layers over training ----------------------------------------------------------------------------------------


def mixing_moves(claim: Claim, evidence: Evidence, published: Published) -> Finding:
    """C7: the recurrent path's share of what is mixed grows from the first evaluation to the last."""
    arm = evidence.arm("paper", "k_operators")
    if (early := short_of(claim, arm)) is not None:
        return early
    changes = [_changes(record) for record in arm.done.values()]
    if not all(changes):
        return Finding(outcome="inconclusive", numbers=("runs without readings of the paths",))
    of_runs = [mean(layers) for layers in changes]
    low, high = lower_bound(of_runs), upper_bound(of_runs)
    assert low is not None
    assert high is not None
    layers = [mean(layer) for layer in zip(*changes, strict=True)]
    n_rising = sum(layer > 0 for layer in layers)
    outcome: Outcome = "inconclusive"
    if low > 0 and n_rising > len(layers) / 2:
        outcome = "reproduced"
    elif high <= 0:
        outcome = "not reproduced"
    return Finding(
        outcome=outcome,
        numbers=(
            f"recurrent share {mean(of_runs):+.3f} over training (bounds {low:+.3f} to {high:+.3f}, "
            f"n = {len(of_runs)})".replace("-", "−"),
            f"rises in {n_rising} of {len(layers)} layers",
        ),
        seeds_needed=more_seeds(outcome, mean(of_runs), of_runs),
    )


def _changes(record: Record) -> list[float]:
    first, last = by_layer(record, "recurrent_share", first=True), by_layer(record, "recurrent_share")
    return [after - before for before, after in zip(first, last, strict=True)]


def layers_specialise(claim: Claim, evidence: Evidence, published: Published) -> Finding:
    """C8: layers differ by more than seeds do, in most of four readings."""
    arm = evidence.arm("paper", "k_operators")
    if (early := short_of(claim, arm)) is not None:
        return early
    p_values = {}
    for name in READINGS:
        by_run = [by_layer(record, name) for record in arm.done.values()]
        p = anova_p(list(zip(*by_run, strict=True))) if all(by_run) else None
        if p is not None:
            p_values[name] = p
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    found = [name for name, p in adjusted.items() if p < claim.thresholds["alpha"]]
    outcome: Outcome = "inconclusive"
    if len(found) >= claim.thresholds["least_readings"]:
        outcome = "reproduced"
    elif len(adjusted) == len(READINGS) and not found:
        outcome = "not reproduced"
    return Finding(
        outcome=outcome,
        numbers=(
            f"layers differ in {len(found)} of {len(READINGS)} readings (n = {len(arm.done)})",
            *(f"{name}: p {p:.2g} after Holm" for name, p in adjusted.items()),
        ),
    )
