"""Whether arms were searched alike, and whether each runs with the recipe that its search chose."""

from bench.dotted import alike
from bench.report.claims.evidence import Evidence, sweep_best
from bench.report.runs import CellResults, Results
from bench.report.statistics import mean


def alike_searched(evidence: Evidence, families: tuple[str, ...], min_trials: int) -> tuple[bool, str]:
    """Whether every family has as many ended trials, at least `min_trials`, and runs its winner; and that as text."""
    search, matched = evidence.experiment("tuning"), evidence.experiment("matched")
    n_trials = {family: len(_ended(search, family)) for family in families}
    if len(set(n_trials.values())) > 1 or min(n_trials.values()) < min_trials:
        counts = ", ".join(f"{family} {n}" for family, n in n_trials.items())
        return False, f"not searched alike: trials {counts} of at least {min_trials}"
    others = [family for family in families if not _runs_its_winner(evidence, search, matched, family)]
    if others:
        return False, f"not the recipe that its search chose: {', '.join(others)}"
    return True, f"searched alike: {n_trials[families[0]]} trials each, and each arm has its winner's recipe"


def winner(cells: list[CellResults]) -> CellResults | None:
    """The trial with the lowest mean loss among those with the most seeds; the first of equals. None without one."""
    scored = [cell for cell in cells if cell.done and len(cell.done) == len(cell.records)]
    most = max((len(cell.done) for cell in scored), default=0)
    finalists = [cell for cell in scored if len(cell.done) == most]
    return min(finalists, key=lambda cell: mean([sweep_best(one) for one in cell.done]), default=None)


def _ended(search: Results | None, family: str) -> list[CellResults]:
    """The trials of a family of which every launched run is done or diverged."""
    cells = [] if search is None else [cell for cell in search.cells if cell.group == family]
    return [cell for cell in cells if cell.records and cell.n_results == len(cell.expected)]


def _runs_its_winner(evidence: Evidence, search: Results | None, matched: Results | None, family: str) -> bool:
    label = family if family == "k_operators" else evidence.place.labels.get(f"{family}-params", f"{family}-params")
    cell = None if matched is None else matched.cell(label)
    chosen = winner(_ended(search, family))
    if cell is None or not cell.records or chosen is None:
        return False
    return alike(cell.records[0].config, chosen.records[0].config)
