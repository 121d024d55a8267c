"""The rule that judges C6: the published forms of the recurrence train alike, and trade memory for speed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

from bench.record import Record
from bench.report.claims.evidence import Evidence
from bench.report.claims.finding import DECIDES_NOTHING, Finding, Outcome
from bench.report.published import Claim, Published
from bench.report.runs import CellResults
from bench.store import PRECISIONS, PUBLISHED_FORMS, Measurements, Timed

BACKENDS = ("mask", "block")  # ours, in the runs of `backends`


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Both published forms in one precision on one device, measured in turn: mask over block."""

    device_name: str
    precision: str
    speeds: tuple[float, ...]  # round by round
    memory: float  # the ratio of peaks
    apart: float  # the largest difference of losses, step by step, in nats per token

    def outcome(self, band: float) -> Outcome:
        """A trade, none, or neither for sure: within the band counts as equal, and every round must be beyond it."""
        mask_faster, block_faster = min(self.speeds) > 1 + band, max(self.speeds) < 1 / (1 + band)
        mask_larger, block_larger = self.memory > 1 + band, self.memory < 1 / (1 + band)
        if (mask_faster and mask_larger) or (block_faster and block_larger):
            return "reproduced"
        return "not reproduced" if (mask_faster or block_faster) and (mask_larger or block_larger) else "inconclusive"

    def __str__(self) -> str:
        speed = f"{median(self.speeds):.2f} ({min(self.speeds):.2f} to {max(self.speeds):.2f}, n = {len(self.speeds)})"
        return (
            f"{self.device_name}, {self.precision}: mask over block: speed {speed}, peak memory {self.memory:.2f}, "
            f"losses at most {self.apart:.1e} nats apart"
        )


def interchangeable(claim: Claim, evidence: Evidence, published: Published) -> Finding | None:
    """C6: both forms train alike, and in each precision one is faster while the other needs less memory."""
    pairs, cells = deciding(evidence), by_form(evidence)
    apart: float | None = None
    registered: Outcome | None = None
    contexts = sorted({context for _, context in cells if {(form, context) for form in BACKENDS} <= cells.keys()})
    if contexts:
        apart = max(_apart(*(cells[form, context] for form in BACKENDS)) for context in contexts)
        registered = without_a_band(claim, apart, *(cells[form, contexts[-1]] for form in BACKENDS))
    if apart is None and not pairs:
        return None
    band, tolerance = claim.thresholds["band"], claim.thresholds["loss_tolerance"]
    outcomes = {pair.outcome(band) for pair in pairs}
    different = max(apart or 0.0, *(pair.apart for pair in pairs if pair.precision == PRECISIONS[0]), 0.0) > tolerance
    outcome: Outcome = "inconclusive"
    if different or "not reproduced" in outcomes:
        outcome = "not reproduced"
    elif outcomes == {"reproduced"}:
        outcome = "reproduced"
    return Finding(
        outcome=outcome,
        numbers=(
            *map(str, pairs),
            *(f"without gradients, on {pair} ({DECIDES_NOTHING})" for pair in deciding(evidence, "forward")),
            *(() if apart is None else (f"training losses of backends at most {apart:.1e} nats apart",)),
        ),
        registered=registered,
    )


# what `make bench-forms` measured -------------------------------------------------------------------------------------


def deciding(evidence: Evidence, phase: str = "training step") -> list[Pair]:
    """The pairs of every device where both precisions are measured: of GPUs where there is one, else of CPUs."""
    on_gpu: list[Pair] = []
    on_cpu: list[Pair] = []
    for measured in evidence.results.measurements:
        pairs = list(pairs_of(measured, phase))
        if [pair.precision for pair in pairs] == list(PRECISIONS):
            (on_cpu if measured.machine.device == "cpu" else on_gpu).extend(pairs)
    return on_gpu or on_cpu


def pairs_of(measured: Measurements, phase: str) -> Iterable[Pair]:
    """One pair for each precision in which both forms were measured, with as many rounds, at the same size."""
    found = {(one.facts.dtype, one.facts.backend): one for one in measured.timed if one.facts.phase == phase}
    for precision in PRECISIONS:
        mask, block = (found.get((precision, form)) for form in PUBLISHED_FORMS)
        if mask is not None and block is not None and _in_turn(mask, block):
            yield Pair(
                device_name=measured.machine.device_name,
                precision=precision,
                speeds=tuple(theirs / ours for ours, theirs in zip(mask.stats.data, block.stats.data, strict=True)),
                memory=(mask.facts.peak_bytes or 0) / (block.facts.peak_bytes or 1),
                apart=max(abs(a - b) for a, b in zip(mask.facts.losses, block.facts.losses, strict=True)),
            )


def _in_turn(mask: Timed, block: Timed) -> bool:
    """Whether every round of one has one of the other, with memory and losses."""
    alike = mask.terms == block.terms and len(mask.stats.data) == len(block.stats.data) > 0
    losses = len(mask.facts.losses) == len(block.facts.losses) > 0
    return alike and losses and bool(mask.facts.peak_bytes and block.facts.peak_bytes)


# the runs of `backends` -----------------------------------------------------------------------------------------------


def by_form(evidence: Evidence) -> dict[tuple[str, int], CellResults]:
    """The cells of `backends` that have a run, by backend and context."""
    experiment = evidence.experiment("backends")
    done = [] if experiment is None else [(cell, cell.done[0].config) for cell in experiment.cells if cell.done]
    return {(str(config["model"].get("backend")), config["context"]): cell for cell, config in done}


def _apart(one: CellResults, other: CellResults) -> float:
    """The largest difference of two cells' training losses, step by step at equal seeds."""
    theirs = {record.seed: record.diagnostics.first_train_nats for record in other.done}
    return max(
        abs(a - b)
        for record in one.done
        if record.seed in theirs
        for a, b in zip(record.diagnostics.first_train_nats, theirs[record.seed], strict=True)
    )


def without_a_band(claim: Claim, apart: float, mask: CellResults, block: CellResults) -> Outcome:
    """The rule registered first: of our forms in exact mode one is faster, the other smaller, by however little."""
    faster = _ratio(mask, block, lambda one: one.cost.tokens_per_second or 0.0)
    larger = _ratio(mask, block, lambda one: one.cost.peak_bytes)
    trade = (faster > 1 and larger > 1) or (faster < 1 and larger < 1)
    return "reproduced" if trade and apart <= claim.thresholds["loss_tolerance"] else "not reproduced"


def _ratio(one: CellResults, other: CellResults, reading: Callable[[Record], float]) -> float:
    return median(map(reading, one.done)) / median(map(reading, other.done))
