"""The ledger of claims: what `python -m bench verify` prints, as text, as JSON and as a table."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.errors import EXIT_INCOMPLETE, EXIT_NOT_REPRODUCED, typed
from bench.report.claims.finding import Outcome
from bench.report.claims.verdicts import Verdict
from bench.report.table import NOTHING, Table

OUTCOMES: tuple[Outcome, ...] = ("reproduced", "not reproduced", "inconclusive", "pending", "not started")
WIDTHS = (5, 32, 16, 16, 11)  # letters of a line's columns: 80 in all
TITLE = "The preprint's claims about K-Operators, each judged by a rule on the runs here."
HEADINGS = ("", "claim", "verdict", "measured", "runs")
OTHER_MODE_NOTE = (
    "A claim is judged on the mode whose smallest arm has the most seeds, exact where both have as many. in the other "
    "mode: what the rule gives on the runs of that one, which decides nothing."
)


def exit_code(verdicts: Sequence[Verdict]) -> int:
    """Incomplete where a claim is not decided, else whether one is not reproduced; 0 where none is."""
    outcomes = {verdict.outcome for verdict in verdicts}
    if outcomes & {"not started", "pending", "inconclusive"}:
        return EXIT_INCOMPLETE
    return EXIT_NOT_REPRODUCED if "not reproduced" in outcomes else 0


def text(verdicts: Sequence[Verdict], store: Path = Path("results"), *, verbose: bool = False) -> str:
    """One line per claim, of 80 letters at most: id, claim, state, effect, n; then how many have each outcome.

    With `verbose` each claim's numbers are below it, then rules that changed since the launch and what `store` lacks.
    """
    lines = [TITLE, "", _columns(*HEADINGS)]
    lines += [part for one in verdicts for part in (_line(one), *(_details(one) if verbose else ()))]
    tally = Counter(verdict.outcome for verdict in verdicts)
    lines += ["", ", ".join(f"{tally[outcome]} {outcome}" for outcome in OUTCOMES) + "."]
    if not verbose:
        return "\n".join([*lines, f"Every number behind them: {typed('bench', 'verify', '--verbose', store=store)}"])
    changed = dict.fromkeys(name for verdict in verdicts for name in verdict.changed_since)
    if changed:
        lines.append(f"The rules changed since {', '.join(changed)} was launched: read its verdicts with caution.")
    waiting = dict.fromkeys(
        name for verdict in verdicts if verdict.outcome == "not started" for name in verdict.claim.experiments
    )
    if waiting:
        command = typed("jobs", "launch", "--experiment", next(iter(waiting)), store=store)
        lines.append(f"Claims wait for runs of {', '.join(waiting)}. Start the first with: {command}")
    return "\n".join(lines)


def as_json(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as JSON: a list of objects."""
    return json.dumps(
        [{**asdict(verdict), "claim": verdict.claim.model_dump()} for verdict in verdicts],
        indent=2,
        ensure_ascii=False,
    )


def ledger_table(verdicts: Sequence[Verdict]) -> Table | None:
    """A row per claim; with a column for the other mode, where a claim has one. None without a claim."""
    modes = any(verdict.in_other_mode for verdict in verdicts)
    rows = [
        {
            "claim": verdict.claim.id,
            "statement": verdict.claim.statement,
            "verdict": _with_registered(verdict),
            "numbers": "; ".join(verdict.numbers) or NOTHING,
            "seeds needed": f"{verdict.seeds_needed:,}" if verdict.seeds_needed else NOTHING,
            "mode": verdict.mode or NOTHING,
        }
        | ({"in the other mode": "; ".join(one.text for one in verdict.in_other_mode) or NOTHING} if modes else {})
        | {"at laptop size": "; ".join(verdict.at_laptop_size) or NOTHING}
        for verdict in verdicts
    ]
    notes = [
        "pending: not all planned runs are in; so far: what the rule reads in those that are. inconclusive: all are in "
        "and decide neither way; seeds needed: per arm, for a power of 80 %, were gap and spread as measured.",
        "critical margin: the least margin at which the claim would hold. registered: the outcome by the rule that "
        "stood before the runs, where the rule has changed since. At laptop size: what the rule reads there. So far, "
        "registered and at laptop size decide nothing.",
        *([OTHER_MODE_NOTE] if modes else []),
        *(f"{verdict.claim.id}: {verdict.claim.rule}" for verdict in verdicts),
        *(
            f"{verdict.claim.id}: the rules changed since {', '.join(verdict.changed_since)} was launched."
            for verdict in verdicts
            if verdict.changed_since
        ),
    ]
    return Table.of("claims", "ledger", "The preprint's claims, each judged by a rule.", rows, notes)


def _with_registered(verdict: Verdict) -> str:
    return verdict.outcome if verdict.registered is None else f"{verdict.outcome} (registered: {verdict.registered})"


def _line(verdict: Verdict) -> str:
    effect, n = ("", "") if verdict.effect is None else (str(verdict.effect), verdict.effect.n)
    columns = (verdict.claim.id, verdict.claim.short, verdict.outcome, effect, n)
    return _columns(*columns)


def _columns(*columns: str) -> str:
    return "".join(f"{column:<{width}}" for column, width in zip(columns, WIDTHS, strict=True)).rstrip()


def _details(verdict: Verdict) -> list[str]:
    """The statement, and each number on a line of its own."""
    parts = [verdict.claim.statement, *verdict.numbers]
    parts += [f"registered before the runs: {verdict.registered}"] if verdict.registered else []
    parts += [f"{verdict.seeds_needed:,} seeds per arm needed"] if verdict.seeds_needed else []
    parts += [f"mode {verdict.mode}"] if verdict.mode else []
    parts += [one.text for one in verdict.in_other_mode]
    parts += [f"rules changed since {', '.join(verdict.changed_since)}"] if verdict.changed_since else []
    parts += [f"at laptop size: {'; '.join(verdict.at_laptop_size)}"] if verdict.at_laptop_size else []
    return [f"    {part}" for part in parts]
