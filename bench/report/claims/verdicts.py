"""The verdict on each claim of the preprint: its rule, written before the runs, applied to the runs that it names."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bench.report.claims.evidence import AT_LAPTOP_SIZE, Evidence
from bench.report.claims.finding import Effect, Finding, Outcome
from bench.report.claims.registered import RULES, rules_sha256
from bench.report.published import Claim, Published
from bench.report.runs import StoreResults

ASKED_AT_LAPTOP_SIZE = ("C5", "C7", "C8", "C9", "C10")  # the rest are about the preprint's own size
NOT_MEASURED = "the published forms are not measured in both precisions (make bench-forms)"
FEW_TRIALS = 2.0  # for a reading that decides nothing


@dataclass(frozen=True, kw_only=True)
class OtherMode:
    """The result of a rule on the runs of the mode that its claim is not judged on; it decides nothing."""

    mode: str | None
    outcome: Outcome
    numbers: tuple[str, ...]

    @property
    def text(self) -> str:
        """`in mode exact: inconclusive; k_operators: 3 seeds`."""
        return f"in mode {self.mode}: {'; '.join((self.outcome, *self.numbers))}"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The result for a claim. `seeds_needed`: per arm, where all planned runs are in and do not decide it."""

    claim: Claim
    outcome: Outcome
    numbers: tuple[str, ...]  # while it is pending, the runs that are in, and what they say so far
    seeds_needed: int | None
    registered: Outcome | None  # by the rule that stood before the runs, where it has changed since
    mode: str | None  # of the runs
    at_laptop_size: tuple[str, ...]  # what the same rule reads there; it decides nothing
    changed_since: tuple[str, ...]  # experiments that were launched under other rules
    effect: Effect | None = None  # the number that decides it, also while it is pending
    effect_at_laptop_size: Effect | None = None
    in_other_mode: tuple[OtherMode, ...] = ()  # where an experiment of the claim ran in both


def judge(results: StoreResults, published: Published, rules_now: str | None = None) -> list[Verdict]:
    """The verdict on each claim, in their order. `rules_now`: the hash of the rules, of these if not named."""
    return [_verdict(claim, results, published, rules_now or rules_sha256()) for claim in published.claim]


def _verdict(claim: Claim, results: StoreResults, published: Published, rules_now: str) -> Verdict:
    found = _finding(claim, Evidence(results), published)
    there = _at_laptop_size(claim, results, published)
    launched = [one for name in claim.experiments if (one := results.experiment(name)) is not None]
    return Verdict(
        claim=claim,
        outcome=found.outcome,
        numbers=found.numbers,
        seeds_needed=found.seeds_needed,
        registered=found.registered,
        mode=Evidence(results).modes(claim.experiments) if found.outcome != "not started" else None,
        at_laptop_size=() if there is None else there.numbers,
        effect=found.effect,
        effect_at_laptop_size=None if there is None else there.effect,
        changed_since=tuple(one.name for one in launched if one.manifest.claim_rules_sha256 != rules_now),
        in_other_mode=tuple(_in_other_mode(claim, results, published)),
    )


def _finding(claim: Claim, evidence: Evidence, published: Published) -> Finding:
    """What the rule finds, and whether it may decide: no verdict before every planned run has a result."""
    rule = RULES[claim.id]
    arms = [evidence.arm(*planned) for planned in rule.arms]
    measured = rule.measured is not None and bool(rule.measured(evidence))
    if not measured and not any(arm.n_in for arm in arms):
        return Finding(outcome="not started", numbers=())
    found = rule.read(claim, evidence, published)
    waiting = [arm.state for arm in arms if arm.n_in < arm.n_planned]
    if rule.measured is not None and not measured:
        waiting.append(NOT_MEASURED)
    if waiting:
        so_far = () if found is None else (f"so far {found.outcome}: {found.numbers[0]}", *found.numbers[1:])
        effect = None if found is None else found.effect
        return Finding(outcome="pending", numbers=(", ".join(waiting), *so_far), effect=effect)
    diverged = tuple(arm.state for arm in arms if arm.n_diverged)
    if rule.all_seeds and any(arm.n_diverged == arm.n_planned for arm in arms):
        return Finding(outcome="not reproduced", numbers=diverged)
    if found is None:
        return Finding(outcome="inconclusive", numbers=tuple(arm.state for arm in arms))
    if rule.all_seeds and diverged:
        outcome: Outcome = "inconclusive" if found.outcome == "reproduced" else found.outcome
        return replace(found, outcome=outcome, numbers=(*found.numbers, *diverged))
    return found


def _at_laptop_size(claim: Claim, results: StoreResults, published: Published) -> Finding | None:
    """What the rule reads there, with fewer seeds and trials; it decides nothing."""
    if claim.id not in ASKED_AT_LAPTOP_SIZE:
        return None
    thresholds = {**claim.thresholds}
    if "min_trials" in thresholds:
        thresholds["min_trials"] = FEW_TRIALS
    few = claim.model_copy(update={"thresholds": thresholds})
    return RULES[claim.id].read(few, Evidence(results, AT_LAPTOP_SIZE), published)


def _in_other_mode(claim: Claim, results: StoreResults, published: Published) -> Iterator[OtherMode]:
    """The finding in each mode that was not chosen, where a trained run of the claim's experiments is done in it."""
    others = [one for name in claim.experiments if (one := results.other(name)) is not None]
    for mode in sorted({one.mode for one in others if any(record.seed is not None for record in one.done)}):
        evidence = Evidence(results.in_mode(mode))
        found = _finding(claim, evidence, published)
        if found.outcome != "not started":
            yield OtherMode(mode=evidence.modes(claim.experiments), outcome=found.outcome, numbers=found.numbers)
