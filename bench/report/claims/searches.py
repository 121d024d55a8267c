"""Whether arms were searched alike, and whether each runs with the recipe that its search chose."""

from bench.dotted import alike
from bench.report.claims.evidence import Evidence
from bench.report.runs import CellResults
from bench.report.searches import Found, find


def alike_searched(evidence: Evidence, families: tuple[str, ...], min_trials: int) -> tuple[bool, str]:
    """Whether every family has as many trials, at least `min_trials`, and runs its winner; and that as text."""
    found = {family: search_of(evidence, family) for family in families}
    n_trials = {family: len(one.trials) if one is not None and one.complete else 0 for family, one in found.items()}
    if len(set(n_trials.values())) > 1 or min(n_trials.values()) < min_trials:
        counts = ", ".join(f"{family} {n}" for family, n in n_trials.items())
        return False, f"not searched alike: complete trials {counts} of at least {min_trials}"
    others = [family for family, one in found.items() if not _runs_winner(arm_of(evidence, family), one)]
    if others:
        return False, f"not the recipe that its search chose: {', '.join(others)}"
    return True, f"searched alike: {n_trials[families[0]]} trials each, and each arm has its winner's recipe"


def search_of(evidence: Evidence, family: str) -> Found | None:
    """The search of a family; None where it was not launched."""
    search = evidence.experiment("tuning")
    cells = [] if search is None else [cell for cell in search.cells if cell.group == family]
    return find(cells) if cells else None


def arm_of(evidence: Evidence, family: str) -> CellResults | None:
    """The arm of a family at equal parameters."""
    matched = evidence.experiment("matched")
    label = family if family == "k_operators" else f"{family}-params"
    return None if matched is None else matched.cell(evidence.place.labels.get(label, label))


def _runs_winner(arm: CellResults | None, found: Found | None) -> bool:
    if arm is None or not arm.records or found is None or found.winner is None:
        return False
    return alike(arm.records[0].config, found.winner.cell.records[0].config)
