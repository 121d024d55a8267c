"""The verdict on each claim of the preprint: its rule, written before the runs, on the runs that it names."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.aggregate import Aggregate
from bench.evidence import AT_LAPTOP_SIZE, Evidence
from bench.published import Claim, Published, load_published
from bench.rules import (
    Finding,
    Outcome,
    approaches,
    k_operators_perplexity,
    matched_advantage,
    no_positions,
    survives,
    transformer_perplexity,
)
from bench.rules_dynamics import fewer_parameters, interchangeable, layers_specialise, mixing_moves
from bench.sources import ROOT, syntax

PUBLISHED = ROOT / "results" / "published.toml"
JUDGED_ON = ("paper", "tuning", "matched", "ablation", "stress", "backends")
RULE_FILES = ("claims", "evidence", "rules", "rules_dynamics")

Rule = Callable[[Claim, Evidence, Published], Finding]
RULES: dict[str, Rule] = {
    "C1": k_operators_perplexity,
    "C2": transformer_perplexity,
    "C3": approaches,
    "C4": fewer_parameters,
    "C5": no_positions,
    "C6": interchangeable,
    "C7": mixing_moves,
    "C8": layers_specialise,
    "C9": survives,
    "C10": matched_advantage,
}
ASKED_AT_LAPTOP_SIZE = ("C5", "C7", "C8", "C9", "C10")  # the rest are about the preprint's own size


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What may be said of a claim. `seeds_needed` an arm where it is open and the runs foretell it."""

    claim: Claim
    outcome: Outcome
    numbers: tuple[str, ...]
    seeds_needed: int | None
    partial: str | None  # of how many launched runs it knows, where some have no result yet
    mode: str | None  # of the runs
    at_laptop_size: tuple[str, ...]  # what the same rule reads there; it decides nothing
    changed_since: tuple[str, ...]  # experiments that were launched under other rules


def judge(aggregate: Aggregate, published: Published, rules_now: str | None = None) -> list[Verdict]:
    """The verdict on each claim, in their order. `rules_now`: the hash of the rules, of these if not named."""
    rules_now = rules_sha256() if rules_now is None else rules_now
    return [_verdict(claim, aggregate, published, rules_now) for claim in published.claim]


def _verdict(claim: Claim, aggregate: Aggregate, published: Published, rules_now: str) -> Verdict:
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
        changed_since=tuple(one.name for one in launched if one.manifest.claim_rules_sha256 != rules_now),
    )


def _of_few_seeds(claim: Claim) -> Claim:
    """The claim as it is read at laptop size, where arms have three seeds and seven trials."""
    few = {name: 2.0 for name in ("min_seeds", "min_trials") if name in claim.thresholds}
    return claim.model_copy(update={"thresholds": {**claim.thresholds, **few}})


@cache
def rules_sha256(published_path: Path = PUBLISHED) -> str:
    """sha256 over the claims as the file states them and over the syntax of the files that judge them.

    A comment, a docstring, a figure that others published does not count.
    """
    claims = [claim.model_dump() for claim in load_published(published_path).claim]
    digest = hashlib.sha256(json.dumps(claims, sort_keys=True).encode())
    for name in RULE_FILES:
        digest.update(f"{name}\n{syntax(ROOT / 'bench' / f'{name}.py')}\n".encode())
    return digest.hexdigest()
