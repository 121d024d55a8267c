"""The verdict on each claim of the preprint: its rule, written before the runs, applied to the runs that it names."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bench.report.claims.evidence import AT_LAPTOP_SIZE, Evidence
from bench.report.claims.registered import RULES, rules_sha256, same_rules
from bench.report.claims.rules import Finding, Outcome
from bench.report.published import Claim, Published
from bench.report.runs import StoreResults

ASKED_AT_LAPTOP_SIZE = ("C5", "C7", "C8", "C9", "C10")  # the rest are about the preprint's own size
FEWEST = 2.0  # seeds or trials, for a reading that decides nothing


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
    """The result for a claim. `seeds_needed`: per arm, where it is open and can be predicted from the runs."""

    claim: Claim
    outcome: Outcome
    numbers: tuple[str, ...]  # where an arm has too few seeds, with what the rule reads in them so far
    seeds_needed: int | None
    partial: str | None  # on how many of the launched runs it is based, where some have no result yet
    mode: str | None  # of the runs
    at_laptop_size: tuple[str, ...]  # what the same rule reads there; it decides nothing
    changed_since: tuple[str, ...]  # experiments that were launched under other rules
    in_other_mode: tuple[OtherMode, ...]  # where an experiment of the claim ran in both


def judge(results: StoreResults, published: Published, rules_now: str | None = None) -> list[Verdict]:
    """The verdict on each claim, in their order. `rules_now`: the hash of the rules, of these if not named."""
    return [_verdict(claim, results, published, rules_now or rules_sha256()) for claim in published.claim]


def _verdict(claim: Claim, results: StoreResults, published: Published, rules_now: str) -> Verdict:
    found = _finding(claim, Evidence(results), published)
    small: tuple[str, ...] = ()
    if claim.id in ASKED_AT_LAPTOP_SIZE:  # where arms have three seeds and seven trials
        few, at_laptop_size = _of_few(claim, "min_seeds", "min_trials"), Evidence(results, AT_LAPTOP_SIZE)
        small = RULES[claim.id](few, at_laptop_size, published).numbers
    launched = [one for name in claim.experiments if (one := results.experiment(name)) is not None]
    return Verdict(
        claim=claim,
        outcome=found.outcome,
        numbers=found.numbers,
        seeds_needed=found.seeds_needed,
        partial=found.partial,
        mode=Evidence(results).modes(claim.experiments) if found.outcome != "not run" else None,
        at_laptop_size=small,
        changed_since=tuple(one.name for one in launched if not same_rules(one.manifest.claim_rules_sha256, rules_now)),
        in_other_mode=tuple(_in_other_mode(claim, results, published)),
    )


def _finding(claim: Claim, evidence: Evidence, published: Published) -> Finding:
    """What the rule finds; where an arm has too few seeds for it, also what it reads in them so far."""
    rule = RULES[claim.id]
    found = rule(claim, evidence, published)
    if found.outcome != "inconclusive" or claim.thresholds.get("min_seeds", FEWEST) <= FEWEST:
        return found
    read = rule(_of_few(claim, "min_seeds"), evidence, published).numbers
    if read == found.numbers:  # more seeds would not change it
        return found
    return replace(found, numbers=(*found.numbers, f"so far: {read[0]}", *read[1:]))


def _in_other_mode(claim: Claim, results: StoreResults, published: Published) -> Iterator[OtherMode]:
    """The finding in each mode that was not chosen, where a trained run of the claim's experiments is done in it."""
    others = [one for name in claim.experiments if (one := results.other(name)) is not None]
    for mode in sorted({one.mode for one in others if any(record.seed is not None for record in one.done)}):
        evidence = Evidence(results.in_mode(mode))
        found = _finding(claim, evidence, published)
        if found.outcome != "not run":
            yield OtherMode(mode=evidence.modes(claim.experiments), outcome=found.outcome, numbers=found.numbers)


def _of_few(claim: Claim, *thresholds: str) -> Claim:
    """The claim with these of its thresholds at FEWEST."""
    few = {name: FEWEST for name in thresholds if name in claim.thresholds}
    return claim.model_copy(update={"thresholds": {**claim.thresholds, **few}})
