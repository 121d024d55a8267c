"""The rules that judge the claims on losses: C1, C2, C3, C5, C9 and C10. Those on the model itself: rules_dynamics.py.

Losses are in nats a token, and lower is better. A bound is a one-sided 95 % t bound: the ends of a 90 % interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bench.report.claims.evidence import Arm, Evidence, pairs, rise_when_permuted, sampled_best, sweep_best
from bench.report.published import Claim, Published
from bench.report.statistics import (
    Comparison,
    holm,
    lower_bound,
    mean,
    non_inferiority,
    one_sample,
    paired_t,
    sample_sd,
    upper_bound,
    welch,
)
from bench.report.student import seeds_needed

Outcome = Literal["reproduced", "not reproduced", "inconclusive", "not run"]
BOUNDS = 0.9  # confidence of the interval whose ends are the two one-sided bounds at 95 %


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a rule found: the outcome, the numbers behind it, and how many seeds an arm would decide what is open.

    `partial` says of how many launched runs it knows, where some have no result yet.
    """

    outcome: Outcome
    numbers: tuple[str, ...]
    seeds_needed: int | None = None
    partial: str | None = None


def signed(value: float) -> str:
    """Nats with their sign."""
    return f"{value:+.4f}".replace("-", "−")


def told(what: str, difference: float, low: float | None, high: float | None, n: str) -> str:
    """`what −0.0123 nats (bounds −0.0200 to −0.0046, n = 5)`."""
    between = "no bounds" if low is None or high is None else f"bounds {signed(low)} to {signed(high)}"
    return f"{what} {signed(difference)} nats ({between}, {n})"


def against_margin(low: float, high: float, margin: float) -> Outcome:
    """Reproduced where the difference is surely below the margin; not reproduced where it is surely above."""
    if high < margin:
        return "reproduced"
    return "not reproduced" if low > margin else "inconclusive"


def short_of(claim: Claim, *arms: Arm) -> Finding | None:
    """What stands before a judgement: nothing run, runs without a result, or too few seeds. None: go on."""
    state = tuple(arm.state for arm in arms)
    if not any(arm.done or arm.n_diverged for arm in arms):
        return Finding(outcome="not run", numbers=())
    fewest = int(claim.thresholds["min_seeds"])
    if any(arm.n_open or len(arm.done) < 2 or len(arm.done) + arm.n_diverged < fewest for arm in arms):
        open_arms = [f"{len(arm.done)} of {arm.n_expected}" for arm in arms if arm.n_open]
        partial = f"{', '.join(dict.fromkeys(open_arms))} seeds" if open_arms else None
        return Finding(outcome="inconclusive", numbers=state, seeds_needed=fewest, partial=partial)
    return None


def spoilt(finding: Finding, *arms: Arm) -> Finding:
    """A claim about every seed is not reproduced while one diverged."""
    n = sum(arm.n_diverged for arm in arms)
    if not n:
        return finding
    outcome = "inconclusive" if finding.outcome == "reproduced" else finding.outcome
    return replace(finding, outcome=outcome, numbers=(*finding.numbers, f"{n} diverged"))


def all_diverged(*arms: Arm) -> Finding | None:
    """An arm without one survivor reproduces nothing."""
    lost = [arm for arm in arms if arm.n_expected and arm.n_diverged == arm.n_expected]
    return Finding(outcome="not reproduced", numbers=tuple(arm.state for arm in lost)) if lost else None


def more_seeds(outcome: Outcome, gap: float, ours: Sequence[float], theirs: Sequence[float] = ()) -> int | None:
    """Seeds an arm for a power of 80 %, one-sided, were gap and spread as measured; None where it is decided."""
    sd_a, sd_b = sample_sd(ours), sample_sd(theirs) if len(theirs) > 1 else 0.0
    if outcome != "inconclusive" or not sd_a or sd_b is None:
        return None
    return seeds_needed(abs(gap), sd_a, sd_b, power=0.8, alpha=0.1)


def judged(claim: Claim, what: str, compared: Comparison, ours: Sequence[float], theirs: Sequence[float]) -> Finding:
    """A comparison at a confidence of BOUNDS against the claim's margin."""
    margin, n = claim.thresholds["margin"], f"n = {compared.n_a}" + (f" and {compared.n_b}" if compared.n_b else "")
    if compared.interval is None:
        return Finding(outcome="inconclusive", numbers=(told(what, compared.difference, None, None, n),))
    low, high = compared.interval
    outcome = against_margin(low, high, margin)
    return Finding(
        outcome=outcome,
        numbers=(told(what, compared.difference, low, high, n), f"margin {margin}"),
        seeds_needed=more_seeds(outcome, compared.difference - margin, ours, theirs),
    )


# C1, C2, C3: the published perplexities ------------------------------------------------------------------------------


def published_nats(published: Published, label: str) -> list[float]:
    """The published losses that stand beside a label, one a distinct seed; runs of one seed are averaged."""
    figure = next(one for one in published.figure if label in one.arms)
    by_seed: dict[int, list[float]] = {}
    for run in figure.runs:
        by_seed.setdefault(run.seed, []).append(run.nats_per_token)
    if by_seed:
        return [mean(values) for values in by_seed.values()]
    assert figure.nats_per_token is not None
    return [figure.nats_per_token]


def k_operators_perplexity(claim: Claim, evidence: Evidence, published: Published) -> Finding:
    """C1: ours against the published runs, Welch."""
    arm = evidence.arm("paper", "k_operators")
    if (early := all_diverged(arm) or short_of(claim, arm)) is not None:
        return early
    ours, theirs = arm.values(sweep_best), published_nats(published, "k_operators")
    compared = welch(ours, theirs, confidence=BOUNDS)
    return spoilt(judged(claim, "sweep, best: ours less theirs", compared, ours, theirs), arm)


def transformer_perplexity(claim: Claim, evidence: Evidence, published: Published) -> Finding:
    """C2: ours against the one published run, taken as exact."""
    arm = evidence.arm("paper", "nanogpt_2023")
    if (early := all_diverged(arm) or short_of(claim, arm)) is not None:
        return early
    ours, (theirs,) = arm.values(sampled_best), published_nats(published, "nanogpt_2023")
    compared = one_sample(ours, theirs, confidence=BOUNDS)
    return spoilt(judged(claim, f"sampled, best: ours less {theirs}", compared, ours, ()), arm)


def approaches(claim: Claim, evidence: Evidence, published: Published) -> Finding:
    """C3: K-Operators are not worse than nanoGPT by the margin, seed by seed."""
    k_operators, nanogpt = evidence.arm("paper", "k_operators"), evidence.arm("paper", "nanogpt_2023")
    if (early := all_diverged(k_operators) or short_of(claim, k_operators, nanogpt)) is not None:
        return early
    ours, theirs = pairs(k_operators, nanogpt, sweep_best)
    if len(ours) < claim.thresholds["min_seeds"]:
        return Finding(outcome="inconclusive", numbers=(k_operators.state, nanogpt.state))
    compared = paired_t(ours, theirs, confidence=BOUNDS)
    found = judged(claim, "sweep, best: K-Operators less nanoGPT", compared, differences(ours, theirs), ())
    verdict = non_inferiority(ours, theirs, paired=True, margin=claim.thresholds["margin"]).verdict
    outcome: Outcome = {"non-inferior": "reproduced", "better": "reproduced", "worse": "not reproduced"}.get(
        verdict, "inconclusive"
    )  # type: ignore[assignment]  # the values are outcomes
    return spoilt(replace(found, outcome=outcome), k_operators, nanogpt)


def differences(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """Pair by pair, a less b."""
    return [one - other for one, other in zip(a, b, strict=True)]


# C5: positions -------------------------------------------------------------------------------------------------------


def no_positions(claim: Claim, evidence: Evidence, published: Published) -> Finding:
    """C5: a table of positions does not help by the margin, though the order of the context matters."""
    plain, learned = evidence.arm("ablation", "k_operators"), evidence.arm("ablation", "learned-positions")
    if (early := short_of(claim, plain, learned)) is not None:
        return early
    gains = differences(*pairs(plain, learned, sweep_best))
    rises = [rise_when_permuted(one) for one in plain.done.values() if one.result and one.result.permuted]
    margin = claim.thresholds["margin"]
    bounds = lower_bound(gains), upper_bound(gains), lower_bound(rises), upper_bound(rises)
    if any(bound is None for bound in bounds) or len(gains) < claim.thresholds["min_seeds"]:
        return Finding(outcome="inconclusive", numbers=(plain.state, learned.state))
    low, high, least_rise, most_rise = (bound for bound in bounds if bound is not None)
    outcome: Outcome = "inconclusive"
    if high < margin and least_rise > 0:
        outcome = "reproduced"
    elif low > margin or most_rise <= 0:
        outcome = "not reproduced"
    numbers = [
        told("gain from learned positions", mean(gains), low, high, f"n = {len(gains)}"),
        told("rise when the context is permuted", mean(rises), least_rise, most_rise, f"n = {len(rises)}"),
    ]
    contrast = evidence.arm("matched", "transformer_none-params")
    others = [rise_when_permuted(one) for one in contrast.done.values() if one.result and one.result.permuted]
    if others:
        numbers.append(f"of a Transformer without positions {signed(mean(others))} (n = {len(others)})")
    return Finding(
        outcome=outcome, numbers=tuple(numbers), seeds_needed=more_seeds(outcome, mean(gains) - margin, gains)
    )


# C9: a wrong learning rate -------------------------------------------------------------------------------------------


def survives(claim: Claim, evidence: Evidence, published: Published) -> Finding:
    """C9: ten times the learning rate costs little, and it is the learned refinement that saves it."""
    right, wrong = evidence.arm("stress", "refine-lr1"), evidence.arm("stress", "refine-lr10")
    others = [evidence.arm("stress", f"{variant}-lr10") for variant in ("plain", "frozen")]
    early = short_of(claim, right, wrong, *(arm for arm in others if not _mostly_diverged(arm)))
    if wrong.n_diverged and not wrong.n_open:
        return Finding(outcome="not reproduced", numbers=(wrong.state,))
    if early is not None:
        return early
    cost = differences(*pairs(wrong, right, sweep_best))
    low, high = lower_bound(cost), upper_bound(cost)
    if low is None or high is None:
        return Finding(outcome="inconclusive", numbers=(right.state, wrong.state))
    outcomes = [against_margin(low, high, claim.thresholds["survives_within"])]
    numbers = [told("ten times the rate costs", mean(cost), low, high, f"n = {len(cost)}")]
    for arm in others:
        outcome, number = _advantage(claim, wrong, arm)
        outcomes.append(outcome)
        numbers.append(number)
    if all(outcome == "reproduced" for outcome in outcomes):
        return Finding(outcome="reproduced", numbers=tuple(numbers))
    decided: Outcome = "not reproduced" if "not reproduced" in outcomes else "inconclusive"
    return Finding(outcome=decided, numbers=tuple(numbers))


def _advantage(claim: Claim, refined: Arm, other: Arm) -> tuple[Outcome, str]:
    """By how much the other arm is worse at the wrong rate; one that diverged at most seeds is worse for certain."""
    if _mostly_diverged(other):
        return "reproduced", other.state
    gains = differences(*pairs(other, refined, sweep_best))
    low, high = lower_bound(gains), upper_bound(gains)
    if low is None or high is None:
        return "inconclusive", other.state
    lost = f", {other.n_diverged} diverged" if other.n_diverged else ""
    number = told(f"advantage over {other.label}", mean(gains), low, high, f"n = {len(gains)}{lost}")
    if low > 0:
        return "reproduced", number
    return ("not reproduced" if high < claim.thresholds["margin"] and not lost else "inconclusive"), number


def _mostly_diverged(arm: Arm) -> bool:
    return 2 * arm.n_diverged > arm.n_expected


# C10: the matched budget ---------------------------------------------------------------------------------------------


def matched_advantage(claim: Claim, evidence: Evidence, published: Published) -> Finding:
    """C10: better than the Transformer of as many parameters, at equal tokens, with as much tuning."""
    ours_arm, theirs_arm = evidence.arm("matched", "k_operators"), evidence.arm("matched", "transformer-params")
    if (early := all_diverged(ours_arm) or short_of(claim, ours_arm, theirs_arm)) is not None:
        return early
    ours, theirs = pairs(ours_arm, theirs_arm, sweep_best)
    compared = paired_t(ours, theirs)
    if compared.interval is None or len(ours) < claim.thresholds["min_seeds"]:
        return Finding(outcome="inconclusive", numbers=(ours_arm.state, theirs_arm.state))
    low, high = compared.interval  # two-sided: either may be better
    gains = differences(theirs, ours)
    least = upper_bound(gains)
    assert least is not None
    outcome: Outcome = "inconclusive"
    if high < 0:
        outcome = "reproduced"
    elif low > 0 or least < claim.thresholds["margin"]:
        outcome = "not reproduced"
    interval = f"95 % interval {signed(low)} to {signed(high)}, n = {len(ours)} pairs"
    numbers = [f"K-Operators less the Transformer {signed(compared.difference)} nats ({interval})"]
    numbers += _secondary(evidence, ours_arm)
    trials = [_n_trials(evidence, group) for group in ("k_operators", "transformer")]
    numbers.append(f"tuning trials {trials[0]} and {trials[1]}")
    if trials[0] != trials[1] or trials[0] < claim.thresholds["min_trials"]:
        return Finding(outcome="inconclusive", numbers=(*numbers, "not tuned alike"))
    found = Finding(
        outcome=outcome,
        numbers=tuple(numbers),
        seeds_needed=more_seeds(outcome, compared.difference, differences(ours, theirs)),
    )
    return spoilt(found, ours_arm, theirs_arm)


def _secondary(evidence: Evidence, ours_arm: Arm) -> list[str]:
    """Every other arm of the experiment, in one line, with p-values adjusted together."""
    experiment = evidence.experiment("matched")
    assert experiment is not None
    primary = {ours_arm.label, evidence.arm("matched", "transformer-params").label}
    model = next(iter(ours_arm.done.values())).config["architecture"]
    found = {}
    for cell in experiment.cells:
        arm = Arm(label=cell.label, cell=cell)
        same = all(one.config["architecture"] == model for one in arm.done.values())
        if cell.fitted or cell.label in primary or same or arm.n_open:
            continue
        ours, theirs = pairs(ours_arm, arm, sweep_best)
        if len(ours) > 1 and (compared := paired_t(ours, theirs)).p_value is not None:
            found[cell.label] = compared
    adjusted = holm([one.p_value or 0.0 for one in found.values()])
    each = [
        f"{label} {signed(one.difference)} (p {p:.3f})" for (label, one), p in zip(found.items(), adjusted, strict=True)
    ]
    return [f"less the others, p after Holm: {', '.join(each)}"] if each else []


def _n_trials(evidence: Evidence, group: str) -> int:
    """How many trials of an arm have a result."""
    experiment = evidence.experiment("tuning")
    cells = [] if experiment is None else [cell for cell in experiment.cells if cell.group == group]
    return sum(any(record.status in ("done", "diverged") for record in cell.records) for cell in cells)
