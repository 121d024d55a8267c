"""The rules that judge the claims on losses: C1, C2, C3, C5, C9 and C10. Those on the model itself: rules_dynamics.py;
C6: rules_forms.py.

Losses are in nats per token, and lower is better. A bound is a one-sided 95 % t bound. Between architectures, whose
losses at common seeds are not correlated, differences are Welch's; between variants of one they are paired by seed.
"""

import math
from collections.abc import Sequence

from bench.record import Record
from bench.report.claims.evidence import (
    Arm,
    Evidence,
    knockout_cost,
    measured,
    pairs,
    rise_at_a_distance,
    sampled_best,
    sweep_best,
)
from bench.report.claims.finding import (
    BOUNDS,
    DECIDES_NOTHING,
    Effect,
    Finding,
    Outcome,
    between,
    critical,
    differences,
    effect_of,
    equivalence,
    more_seeds,
    non_inferiority,
    signed,
    with_bounds,
)
from bench.report.claims.searches import alike_searched
from bench.report.published import Claim, Published
from bench.report.statistics import (
    Comparison,
    holm,
    lower_bound,
    mean,
    one_sample,
    paired_t,
    sample_sd,
    upper_bound,
    welch,
)
from bench.report.student import Difference

BASELINES = ("transformer", "transformer_rotary", "modern")  # of C10: better than each
REFERENCE_COUNTS = "kneser_ney"  # of C3: 6-gram counts


# C1, C2, C3: the published perplexities ------------------------------------------------------------------------------


def published_nats(published: Published, label: str) -> list[float]:
    """The published losses that stand beside a label, one for each distinct seed; runs of one seed are averaged."""
    figure = next(one for one in published.figure if label in one.arms)
    by_seed: dict[int, list[float]] = {}
    for run in figure.runs:
        by_seed.setdefault(run.seed, []).append(run.nats_per_token)
    if by_seed:
        return [mean(values) for values in by_seed.values()]
    assert figure.nats_per_token is not None
    return [figure.nats_per_token]


def against_published(claim: Claim, what: str, ours: Sequence[float], theirs: Sequence[float]) -> Finding | None:
    """Two one-sided tests of ours against published losses; a single one is taken as exact."""

    def compared(confidence: float) -> Comparison:
        return (
            welch(ours, theirs, confidence=confidence)
            if len(theirs) > 1
            else one_sample(ours, theirs[0], confidence=confidence)
        )

    margin, narrow, wide = claim.thresholds["margin"], compared(BOUNDS), compared(0.95)
    if narrow.interval is None or wide.interval is None:
        return None
    (low, high), n = narrow.interval, f"n = {len(ours)}" + (f" and {len(theirs)}" if len(theirs) > 1 else "")
    outcome = equivalence(narrow, margin)
    differs = "differs" if wide.interval[0] > 0 or wide.interval[1] < 0 else "no difference shown"
    return Finding(
        outcome=outcome,
        numbers=(
            f"{what} {signed(narrow.difference)} nats (90 % {between(low, high)}, {n})",
            critical(margin, max(abs(low), abs(high))),
            f"{differs} (95 % {between(*wide.interval)})",
        ),
        seeds_needed=more_seeds(outcome, margin - abs(narrow.difference), ours, theirs),
        registered=non_inferiority(low, high, margin),
        effect=Effect(
            what="ours minus published",
            value=narrow.difference,
            unit="nats",
            n=n.removeprefix("n = "),
            interval=narrow.interval,
            holds=(-margin, margin),
        ),
    )


def k_operators_perplexity(claim: Claim, evidence: Evidence, published: Published) -> Finding | None:
    """C1: ours against the published runs, Welch."""
    ours = evidence.arm("paper", "k_operators").values(sweep_best)
    if not ours:
        return None
    return against_published(claim, "sweep, best: ours minus theirs", ours, published_nats(published, "k_operators"))


def transformer_perplexity(claim: Claim, evidence: Evidence, published: Published) -> Finding | None:
    """C2: ours against the one published run, taken as exact; beside it, the public runs of the recipe."""
    ours = evidence.arm("paper", "nanogpt_2023").values(sampled_best)
    (theirs,) = published_nats(published, "nanogpt_2023")
    found = against_published(claim, f"sampled, best: ours minus {theirs}", ours, [theirs]) if ours else None
    if found is None:
        return None
    public = published_nats(published, "nanogpt")
    beside = welch(ours, public, confidence=0.95)
    assert beside.interval is not None
    return _with_number(
        found,
        f"public runs of the recipe {mean(public):.4f} ± {sample_sd(public) or 0:.4f} (n = {len(public)}): ours minus "
        f"them {signed(beside.difference)} (95 % {between(*beside.interval)}; {DECIDES_NOTHING})",
    )


def approaches(claim: Claim, evidence: Evidence, published: Published) -> Finding | None:
    """C3: K-Operators are not worse than nanoGPT by the margin, paired by seed, as registered."""
    k_operators, nanogpt = evidence.arm("paper", "k_operators"), evidence.arm("paper", "nanogpt_2023")
    ours, theirs = pairs(k_operators, nanogpt, sweep_best)
    compared = paired_t(ours, theirs, confidence=BOUNDS) if ours else None
    if compared is None or compared.interval is None:
        return None
    margin, (low, high) = claim.thresholds["margin"], compared.interval
    outcome = non_inferiority(low, high, margin)
    found = Finding(
        outcome=outcome,
        numbers=(
            f"sweep, best: K-Operators minus nanoGPT {signed(compared.difference)} nats (90 % {between(low, high)}, "
            f"n = {len(ours)} pairs)",
            critical(margin, high),
        ),
        seeds_needed=more_seeds(outcome, compared.difference - margin, differences(ours, theirs)),
        effect=effect_of("K-Operators minus nanoGPT", differences(ours, theirs), below=margin),
    )
    share = gain_share(evidence, ours, theirs)
    return found if share is None else _with_number(found, share)


def gain_share(evidence: Evidence, ours: Sequence[float], theirs: Sequence[float]) -> str | None:
    """The share of nanoGPT's gain over 6-gram counts that K-Operators have, with a t interval by the delta method."""
    experiment = evidence.experiment("paper")
    counts = None if experiment is None else experiment.cell(REFERENCE_COUNTS)
    if counts is None or not counts.done:
        return None
    floor = sweep_best(counts.done[0])
    gain, whole = floor - mean(ours), floor - mean(theirs)
    sd_ours, sd_theirs = sample_sd(ours) or 0.0, sample_sd(theirs) or 0.0
    share = gain / whole
    estimate = Difference.of(share, (sd_ours / abs(whole), len(ours)), (share * sd_theirs / abs(whole), len(theirs)))
    low, high = estimate.interval(0.95)
    return (
        f"{share:.0%} of nanoGPT's gain over 6-gram counts (95 % {low:.0%} to {high:.0%}; {DECIDES_NOTHING})"
        if math.isfinite(low)
        else None
    )


# C5: positions -------------------------------------------------------------------------------------------------------


def no_positions(claim: Claim, evidence: Evidence, published: Published) -> Finding | None:
    """C5: a table of positions does not help by the margin, though the order of the context matters at a distance."""
    plain, learned = evidence.arm("ablation", "k_operators", 5), evidence.arm("ablation", "learned-positions", 5)
    gains, margin = differences(*pairs(plain, learned, sweep_best)), claim.thresholds["margin"]
    low, high = (lower_bound(gains), upper_bound(gains)) if gains else (None, None)
    if low is None or high is None:
        return None
    rises = measured(plain, rise_at_a_distance)
    least_rise, most_rise = (lower_bound(rises), upper_bound(rises)) if rises else (None, None)
    outcome: Outcome = "inconclusive"
    if high < margin and least_rise is not None and least_rise > 0:
        outcome = "reproduced"
    elif low > margin or (most_rise is not None and most_rise <= 0):
        outcome = "not reproduced"
    numbers = [with_bounds("gain from learned positions", gains), critical(margin, high)]
    rise = "rise when the context is permuted, from the second quarter on"
    numbers.append(with_bounds(rise, rises) if rises else f"{rise}: not measured")
    averaged = measured(plain, lambda one: knockout_cost(one, "averaged kernels"))
    kernels = "cost of kernels that know only distances"
    numbers.append(with_bounds(kernels, averaged) if averaged else f"{kernels}: not measured")
    needed = more_seeds(outcome, mean(gains) - margin, gains) if rises else None
    effect = effect_of("gain from learned positions", gains, below=margin)
    return Finding(outcome=outcome, numbers=tuple(numbers), seeds_needed=needed, effect=effect)


# C9: a wrong learning rate -------------------------------------------------------------------------------------------


def survives(claim: Claim, evidence: Evidence, published: Published) -> Finding | None:
    """C9: ten times the learning rate costs little thanks to the refinement, and eta falls with the rate."""
    right, wrong = evidence.arm("stress", "refine-lr1", 5), evidence.arm("stress", "refine-lr10", 5)
    if wrong.n_diverged:
        return Finding(outcome="not reproduced", numbers=(wrong.state,))
    cost = differences(*pairs(wrong, right, sweep_best))
    low, high = (lower_bound(cost), upper_bound(cost)) if cost else (None, None)
    if low is None or high is None:
        return None
    within = claim.thresholds["survives_within"]
    outcomes = [non_inferiority(low, high, within)]
    numbers = [with_bounds("ten times the rate costs", cost), critical(within, high)]
    for variant in ("plain", "frozen"):
        outcome, number = _advantage(claim, wrong, evidence.arm("stress", f"{variant}-lr10", 5))
        outcomes.append(outcome)
        numbers.append(number)
    first = together(outcomes)
    second, of_eta = eta_falls(evidence)
    halves = f"first half, it survives: {first}", f"second half, eta falls with the rate: {second}"
    return Finding(
        outcome=together([first, second]),
        numbers=(halves[0], *numbers, halves[1], *of_eta),
        effect=effect_of("cost of ten times the rate", cost, below=within),
    )


def eta_falls(evidence: Evidence) -> tuple[Outcome, list[str]]:
    """Whether log eta falls from the right rate to ten times the rate; eta and |eta step| / |h| at each rate."""
    arms = {factor: evidence.arm("stress", f"refine-lr{factor}", 5) for factor in ("0.1", "1", "3", "10")}
    etas = {factor: measured(arm, _eta) for factor, arm in arms.items()}
    changes = [math.log(b) - math.log(a) for a, b in zip(*pairs_of(arms["1"], arms["10"]), strict=True)]
    numbers = [
        f"eta at {factor} times the rate {mean(values):.4f} (n = {len(values)}), its step {_step(arms[factor])}"
        for factor, values in etas.items()
        if values
    ]
    low, high = (lower_bound(changes), upper_bound(changes)) if changes else (None, None)
    if low is None or high is None:
        return "inconclusive", [*numbers, "eta: not measured"]
    return non_inferiority(low, high, 0.0), [*numbers, with_bounds("log of eta, ten times minus once", changes, "")]


def pairs_of(right: Arm, wrong: Arm) -> tuple[list[float], list[float]]:
    """eta at each seed where both arms have it."""
    common = [seed for seed in right.done if seed in wrong.done]
    found = [(_eta(right.done[seed]), _eta(wrong.done[seed])) for seed in common]
    both = [(a, b) for a, b in found if a and b]
    return [a for a, _ in both], [b for _, b in both]


def _eta(record: Record) -> float | None:
    by_step = record.diagnostics.by_step
    return by_step[max(by_step)].get("eta") if by_step else None


def _step(arm: Arm) -> str:
    """What the last refinement moves: the mean of |eta (stack(h) - h)| / |h| at the last evaluation."""
    ratios = [
        by_step[max(by_step)]["refinement_step_ratio"][-1]
        for one in arm.done.values()
        if (by_step := one.diagnostics.by_step) and by_step[max(by_step)].get("refinement_step_ratio")
    ]
    return f"{mean(ratios):.4f} of |h|" if ratios else "not measured"


def _advantage(claim: Claim, refined: Arm, other: Arm) -> tuple[Outcome, str]:
    """By how much the other arm is worse at the wrong rate; one that diverged at most seeds is worse for certain."""
    if 2 * other.n_diverged > other.n_planned:
        return "reproduced", other.state
    gains = differences(*pairs(other, refined, sweep_best))
    low, high = (lower_bound(gains), upper_bound(gains)) if gains else (None, None)
    if low is None or high is None:
        return "inconclusive", other.state
    lost = f", {other.n_diverged} diverged" if other.n_diverged else ""
    number = with_bounds(f"advantage over {other.label}{lost}", gains)
    if high < claim.thresholds["margin"] and not lost:
        return "not reproduced", number  # better by less than the margin, if at all
    return ("reproduced" if low > 0 else "inconclusive"), number


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """Reproduced where every part is, not reproduced where one is not."""
    if all(outcome == "reproduced" for outcome in outcomes):
        return "reproduced"
    return "not reproduced" if "not reproduced" in outcomes else "inconclusive"


# C10: the matched budget ---------------------------------------------------------------------------------------------


def matched_advantage(claim: Claim, evidence: Evidence, published: Published) -> Finding | None:
    """C10: better than each Transformer of as many parameters: each at 5 %, so that all are at 5 % (Berger 1982)."""
    ours_arm = evidence.arm("matched", "k_operators", 10)
    ours = ours_arm.values(sweep_best)
    outcomes: list[Outcome] = []
    effects: list[Effect] = []
    numbers, needed = [], []
    for family in BASELINES:
        arm = evidence.arm("matched", f"{family}-params", 10 if family == "transformer" else 5)
        theirs = arm.values(sweep_best)
        outcome, effect = better(claim, arm.label, ours, theirs)
        if effect is None or effect.interval is None:
            return None
        outcomes.append(outcome)
        effects.append(effect)
        numbers.append(f"{effect.what} {effect} (95 % {between(*effect.interval)}, n = {effect.n})")
        needed.append(more_seeds(outcome, mean(ours) - mean(theirs), ours, theirs, alpha=0.05))
    numbers += others(evidence, ours_arm)
    alike, searched = alike_searched(evidence, ("k_operators", *BASELINES), int(claim.thresholds["min_trials"]))
    outcome = together(outcomes) if alike else "inconclusive"
    seeds = max((one for one in needed if one), default=None) if outcome == "inconclusive" and alike else None
    worst = max(effects, key=lambda one: one.value)
    return Finding(outcome=outcome, numbers=(*numbers, searched), seeds_needed=seeds, effect=worst)


def better(claim: Claim, label: str, ours: Sequence[float], theirs: Sequence[float]) -> tuple[Outcome, Effect | None]:
    """Whether ours are better than a baseline by Welch's test; better by surely less than the margin is not better."""
    if len(ours) < 2 or len(theirs) < 2:
        return "inconclusive", None
    wide, narrow = welch(ours, theirs), welch(ours, theirs, confidence=BOUNDS)
    if wide.interval is None or narrow.interval is None:
        return "inconclusive", None
    effect = Effect(
        what=f"K-Operators minus {label}",
        value=wide.difference,
        unit="nats",
        n=f"{wide.n_a} and {wide.n_b}",
        interval=wide.interval,
        holds=(None, 0.0),
    )
    if wide.interval[0] > 0 or -narrow.interval[0] < claim.thresholds["margin"]:
        return "not reproduced", effect
    return ("reproduced" if wide.interval[1] < 0 else "inconclusive"), effect


def others(evidence: Evidence, ours_arm: Arm) -> list[str]:
    """Every other arm of the experiment, in one line, with p-values of Welch's test adjusted together."""
    experiment = evidence.experiment("matched")
    assert experiment is not None
    primary = {ours_arm.label, *(evidence.arm("matched", f"{family}-params").label for family in BASELINES)}
    model = next(iter(ours_arm.done.values())).config["architecture"]
    found = {}
    for cell in experiment.cells:
        arm = Arm(label=cell.label, cell=cell, n_planned=len(cell.expected))
        same = all(one.config["architecture"] == model for one in arm.done.values())
        if cell.fitted or cell.label in primary or same or arm.n_in < arm.n_planned:
            continue
        compared = welch(ours_arm.values(sweep_best), arm.values(sweep_best))
        if compared.p_value is not None:
            found[cell.label] = compared
    adjusted = holm([one.p_value or 0.0 for one in found.values()])
    each = [
        f"{label} {signed(one.difference)} (p {p:.3f})" for (label, one), p in zip(found.items(), adjusted, strict=True)
    ]
    return [f"minus the others, p after Holm: {', '.join(each)}"] if each else []


def _with_number(found: Finding, number: str) -> Finding:
    return Finding(**{**vars(found), "numbers": (*found.numbers, number)})
