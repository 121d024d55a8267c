"""The verdict on each claim of the preprint: its rule, written before the runs, on the runs that it names."""

from dataclasses import dataclass

from bench.report.claims.evidence import AT_LAPTOP_SIZE, Evidence
from bench.report.claims.registered import RULES, rules_sha256, same_rules
from bench.report.claims.rules import Outcome
from bench.report.published import Claim, Published
from bench.report.runs import StoreResults

ASKED_AT_LAPTOP_SIZE = ("C5", "C7", "C8", "C9", "C10")  # the rest are about the preprint's own size


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The result for a claim. `seeds_needed`: per arm, where it is open and can be predicted from the runs."""

    claim: Claim
    outcome: Outcome
    numbers: tuple[str, ...]
    seeds_needed: int | None
    partial: str | None  # on how many of the launched runs it is based, where some have no result yet
    mode: str | None  # of the runs
    at_laptop_size: tuple[str, ...]  # what the same rule reads there; it decides nothing
    changed_since: tuple[str, ...]  # experiments that were launched under other rules


def judge(aggregate: StoreResults, published: Published, rules_now: str | None = None) -> list[Verdict]:
    """The verdict on each claim, in their order. `rules_now`: the hash of the rules, of these if not named."""
    rules_now = rules_sha256() if rules_now is None else rules_now
    return [_verdict(claim, aggregate, published, rules_now) for claim in published.claim]


def _verdict(claim: Claim, aggregate: StoreResults, published: Published, rules_now: str) -> Verdict:
    rule, evidence = RULES[claim.id], Evidence(aggregate)
    found = rule(claim, evidence, published)
    small: tuple[str, ...] = ()
    if claim.id in ASKED_AT_LAPTOP_SIZE:
        small = rule(_of_few_seeds(claim), Evidence(aggregate, AT_LAPTOP_SIZE), published).numbers
    launched = [one for name in claim.experiments if (one := aggregate.experiment(name)) is not None]
    return Verdict(
        claim=claim,
        outcome=found.outcome,
        numbers=found.numbers,
        seeds_needed=found.seeds_needed,
        partial=found.partial,
        mode=evidence.modes(claim.experiments) if found.outcome != "not run" else None,
        at_laptop_size=small,
        changed_since=tuple(one.name for one in launched if not same_rules(one.manifest.claim_rules_sha256, rules_now)),
    )


def _of_few_seeds(claim: Claim) -> Claim:
    """The claim as it is read at laptop size, where arms have three seeds and seven trials."""
    few = {name: 2.0 for name in ("min_seeds", "min_trials") if name in claim.thresholds}
    return claim.model_copy(update={"thresholds": {**claim.thresholds, **few}})
