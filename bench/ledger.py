"""The ledger of claims: what `python -m bench verify` prints, as text, as JSON and as a table."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace

from bench.aggregate import Aggregate
from bench.claims import RULES, Verdict, judge
from bench.evidence import Evidence
from bench.published import Published
from bench.render import NOTHING, Table

EXIT_REPRODUCED, EXIT_NOT_REPRODUCED, EXIT_OPEN = 0, 3, 4
WIDTH = len("not reproduced")
LAUNCH = "python -m jobs launch --experiment NAME --store results"
FEWEST = 2.0  # seeds, for a reading that decides nothing


def verdicts_of(aggregate: Aggregate, published: Published) -> list[Verdict]:
    """The verdict on each claim; where an arm has too few seeds for one, with what the rule reads in them so far."""
    return [_with_reading(verdict, Evidence(aggregate), published) for verdict in judge(aggregate, published)]


def _with_reading(verdict: Verdict, evidence: Evidence, published: Published) -> Verdict:
    claim = verdict.claim
    if verdict.outcome != "inconclusive" or claim.thresholds.get("min_seeds", FEWEST) <= FEWEST:
        return verdict
    relaxed = claim.model_copy(update={"thresholds": {**claim.thresholds, "min_seeds": FEWEST}})
    read = RULES[claim.id](relaxed, evidence, published).numbers
    if read == verdict.numbers:  # it is not for want of seeds
        return verdict
    return replace(verdict, numbers=(*verdict.numbers, f"so far: {read[0]}", *read[1:]))


def exit_code(verdicts: Sequence[Verdict]) -> int:
    """3 where a claim is not reproduced, else 4 where one is open or not run, else 0."""
    outcomes = {verdict.outcome for verdict in verdicts}
    if "not reproduced" in outcomes:
        return EXIT_NOT_REPRODUCED
    return EXIT_REPRODUCED if outcomes == {"reproduced"} else EXIT_OPEN


def text(verdicts: Sequence[Verdict]) -> str:
    """One line a claim, beginning with its id; then whether the rules are those of the launch, and what has not run."""
    lines = [_line(verdict) for verdict in verdicts]
    changed = dict.fromkeys(name for verdict in verdicts for name in verdict.changed_since)
    if changed:
        lines.append(f"The rules changed since {', '.join(changed)} was launched: judge it with care.")
    not_run = dict.fromkeys(
        name for verdict in verdicts if verdict.outcome == "not run" for name in verdict.claim.experiments
    )
    if not_run:
        lines.append(f"Claims wait for runs of {', '.join(not_run)}. Start them with: {LAUNCH}")
    return "\n".join(lines)


def as_json(verdicts: Sequence[Verdict]) -> str:
    """The same for programs: a list of objects."""
    return json.dumps(
        [{**asdict(verdict), "claim": verdict.claim.model_dump()} for verdict in verdicts],
        indent=2,
        ensure_ascii=False,
    )


def ledger_table(verdicts: Sequence[Verdict]) -> Table:
    """A row a claim."""
    return Table(
        experiment="claims",
        kind="ledger",
        intro="The preprint's claims, each judged by a rule that was written before its runs.",
        columns=("claim", "statement", "verdict", "numbers", "seeds needed", "mode", "at laptop size"),
        n_left=4,
        rows=tuple(
            (
                verdict.claim.id,
                verdict.claim.statement,
                _of(verdict, verdict.outcome),
                "; ".join(verdict.numbers) or NOTHING,
                _of(verdict, f"{verdict.seeds_needed:,}") if verdict.seeds_needed else NOTHING,
                verdict.mode or NOTHING,
                "; ".join(verdict.at_laptop_size) or NOTHING,
            )
            for verdict in verdicts
        ),
        notes=(
            "inconclusive: the runs that are in decide neither way. seeds needed: an arm, for a power of 80 %, were "
            "gap and spread as measured; where runs are missing, the fewest that may be judged.",
            "so far: what the rule reads in fewer seeds than it may judge; at laptop size: what it reads there. These "
            "decide nothing.",
            *(f"{verdict.claim.id}: {verdict.claim.rule}" for verdict in verdicts),
            *(
                f"{verdict.claim.id}: the rules changed since {', '.join(verdict.changed_since)} was launched."
                for verdict in verdicts
                if verdict.changed_since
            ),
        ),
    )


def _of(verdict: Verdict, cell: str) -> str:
    """A cell that would be another with every run says of how many it is."""
    return f"{cell} ({verdict.partial})" if verdict.partial else cell


def _line(verdict: Verdict) -> str:
    parts = [f"{verdict.claim.id:<4}{verdict.outcome:<{WIDTH}}  {verdict.claim.statement}"]
    parts += ["; ".join(verdict.numbers)] if verdict.numbers else []
    parts += [f"{verdict.seeds_needed:,} seeds an arm needed"] if verdict.seeds_needed else []
    parts += [f"mode {verdict.mode}"] if verdict.mode else []
    parts += [f"rules changed since {', '.join(verdict.changed_since)}"] if verdict.changed_since else []
    parts += [f"at laptop size: {'; '.join(verdict.at_laptop_size)}"] if verdict.at_laptop_size else []
    return " | ".join(parts)
