"""The tables of what an arm takes: parameters under every convention, all budgets, and measured cost."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.record import Cost, Parameters, Record
from bench.report.notes import machine_notes, packed_notes, state_notes
from bench.report.runs import CellRuns
from bench.report.statistics import mean, summarise
from bench.report.table import NOTHING, Table
from bench.report.tables.view import View, arm, common, count_of, marked, n_of, published_parameters, ratio

CONVENTIONS: dict[str, Callable[[Parameters], int]] = {
    "total": lambda parameters: parameters.n_params,
    "without positions": lambda parameters: parameters.n_params_without_positions,
    "live": lambda parameters: parameters.n_live_params,
}


def _parameters(convention: str) -> Callable[[Record], int]:
    return lambda record: CONVENTIONS[convention](record.cost.parameters)


def parameters_table(view: View) -> Table | None:
    """Parameter counts under every convention."""
    experiment = view.experiment
    first = next((cell.records[0] for cell in experiment.cells[:1] if cell.records), None)
    if not any(cell.records for cell in experiment.cells):
        return None
    rows = [
        (
            arm(experiment, cell),
            *(count_of(cell, _parameters(convention)) for convention in CONVENTIONS),
            _ratios(cell.records[0], first) if cell.records and first else NOTHING,
            published_parameters(view.published_beside[cell.label]),
            _parts(cell.records[0]) if cell.records else "not run",
        )
        for cell in experiment.cells
    ]
    columns = ["arm", *CONVENTIONS, "relative to first row", "published", "by part"]
    notes = [
        "without positions: less the table of learned positions, as nanoGPT counts itself; live: less the entries "
        "that can never act, such as those a causal mask hides; relative to first row: total / without positions / "
        "live, each over the first row's. A fitted model counts its free probabilities.",
    ]
    return view.table("parameters", columns, 1, rows, notes)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One thing that may be held equal between arms, as a column."""

    name: str
    of: Callable[[Record], float | None]  # None: not known, or not a thing of this model
    text: Callable[[float], str] = "{:,.0f}".format
    measured: bool = False  # on a machine, so that runs differ, rather than counted
    most: bool = False  # of the runs, rather than their mean


def _of_trained(counted: Callable[[Cost], float | None]) -> Callable[[Record], float | None]:
    """A count of trained models alone: a fitted model's zero steps are no budget."""
    return lambda record: None if record.seed is None else counted(record.cost)


def _of_done(counted: Callable[[Cost], float | None]) -> Callable[[Record], float | None]:
    """The same of whole runs alone: one that ended early took less."""
    return lambda record: _of_trained(counted)(record) if record.status == "done" else None


def _seconds_a_step(record: Record) -> float | None:
    n_steps = (record.config.get("training") or {}).get("n_steps")
    return record.cost.train_seconds / n_steps if n_steps and record.status == "done" and not record.packed else None


AXES = (
    Axis(name="parameters", of=_parameters("total")),
    Axis(name="live", of=_parameters("live")),
    Axis(name="without positions", of=_parameters("without positions")),
    Axis(name="training tokens", of=_of_done(lambda cost: cost.n_train_tokens)),
    Axis(name="forward MACs a token", of=_of_trained(lambda cost: cost.forward_macs_per_token)),
    Axis(name="training FLOPs", of=_of_done(lambda cost: cost.train_flops), text="{:.4g}".format),
    Axis(name="state bytes", of=_of_trained(lambda cost: cost.state_bytes)),
    Axis(name="activation bytes", of=_of_trained(lambda cost: cost.activation_bytes)),
    Axis(name="seconds a step", of=_seconds_a_step, text="{:.4g}".format, measured=True),
    Axis(name="peak bytes", of=_of_done(lambda cost: cost.peak_bytes), measured=True, most=True),
)


def budgets_table(view: View) -> Table | None:
    """Every arm on all axes on which it could be matched."""
    if not _has_budgets(view):
        return None
    rows = [
        (arm(view.experiment, cell), n_of(view.experiment, cell), *(_on_axis(cell, axis) for axis in AXES))
        for cell in view.experiment.cells
    ]
    notes = [
        *_axis_notes(),
        *packed_notes(view.experiment),
        *state_notes(view.experiment),
        *machine_notes(view.experiment),
    ]
    return view.table("budgets", ["arm", "n", *(axis.name for axis in AXES)], 1, rows, notes)


def relative_budgets_table(view: View) -> Table | None:
    """The same, each number over that of the reference arm, or of the first where there is none."""
    if not _has_budgets(view):
        return None
    experiment = view.experiment
    reference = experiment.reference or experiment.cells[0]
    rows = [
        (
            arm(experiment, cell),
            n_of(experiment, cell),
            *(_relative(cell, reference, axis) for axis in AXES),
        )
        for cell in experiment.cells
    ]
    notes = [
        f"Each number of the table of budgets over that of {reference.label} ({reference.fates}): 1.00 is matched.",
        *_axis_notes(),
        *state_notes(experiment),
    ]
    return view.table("relative-budgets", ["arm", "n", *(axis.name for axis in AXES)], 1, rows, notes)


def cost_table(view: View) -> Table | None:
    """Time, speed, memory and arithmetic of training, as measured."""
    experiment = view.experiment
    rows = []
    for cell in experiment.cells:
        if cell.fitted:
            continue
        costs = [record.cost for record in cell.done]
        timed = [record.cost for record in cell.done if not record.packed]
        seconds = summarise([cost.train_seconds for cost in timed]) if timed else None
        speeds = [cost.tokens_per_second for cost in timed if cost.tokens_per_second is not None]
        spread = "" if seconds is None or seconds.sd is None else f" ± {seconds.sd:,.1f}"
        rows.append(
            (
                arm(experiment, cell),
                n_of(experiment, cell),
                cell.fates
                if not costs
                else NOTHING
                if seconds is None
                else marked(f"{seconds.mean:,.1f}{spread}", cell, len(timed)),
                marked(f"{mean(speeds):,.0f}", cell, len(speeds)) if speeds else NOTHING,
                marked(f"{max(cost.peak_bytes for cost in costs) / 2**20:,.0f}", cell) if costs else NOTHING,
                common(f"{cost.n_train_tokens:,}" for cost in costs),
                common(f"{cost.train_flops:.3g}" for cost in costs),
            )
        )
    if not rows or not experiment.done:
        return None
    columns = ["arm", "n", "train seconds", "tokens/s", "peak MiB", "train tokens", "train FLOPs"]
    notes = [
        "train seconds: mean ± sample standard deviation, without evaluation and set-up; tokens/s: mean; peak MiB: "
        "the most that any of the runs held; train FLOPs: 3 × forward, from each model's closed form.",
        *packed_notes(experiment),
        *machine_notes(experiment),
    ]
    return view.table("cost", columns, 1, rows, notes)


def _has_budgets(view: View) -> bool:
    return not view.trials and any(cell.records for cell in view.experiment.cells)


def _axis_notes() -> list[str]:
    return [
        "live: without the entries that can never act; without positions: without a table of learned positions. "
        "forward MACs: multiply-adds of one forward pass; training FLOPs: 3 × forward × 2 × training tokens; state: "
        "what decoding keeps of one text at the end of its window, and activation: what the backward pass keeps of one "
        "window, both in float32. All these are counted, from each model's closed form.",
        "seconds a step, mean ± sample standard deviation, and peak bytes, the most of any run, are measured: they "
        "compare on one machine alone.",
    ]


def _values(cell: CellRuns, axis: Axis) -> list[float]:
    return [value for record in cell.records if (value := axis.of(record)) is not None]


def _on_axis(cell: CellRuns, axis: Axis) -> str:
    if not cell.records and axis is AXES[0]:
        return cell.fates
    values = _values(cell, axis)
    if not values:
        return NOTHING
    if not axis.measured:
        return common(map(axis.text, values))
    found = summarise(values)
    if axis.most:
        return marked(axis.text(max(values)), cell, len(values))
    return marked(axis.text(found.mean) + ("" if found.sd is None else f" ± {found.sd:.2g}"), cell, len(values))


def _relative(cell: CellRuns, reference: CellRuns, axis: Axis) -> str:
    ours, theirs = _values(cell, axis), _values(reference, axis)
    if not ours or not theirs:
        return NOTHING
    together = max if axis.most else mean
    text = ratio(together(ours), together(theirs))
    if not axis.measured:
        return text
    if len(theirs) < len(reference.expected) and cell is not reference:
        text += f" (reference: {len(theirs)} of {len(reference.expected)})"
    return marked(text, cell, len(ours))


def _parts(record: Record) -> str:
    return "; ".join(f"{part} {count:,}" for part, count in record.cost.parameters.parts.items()) or NOTHING


def _ratios(record: Record, first: Record) -> str:
    pairs = ((counted(record.cost.parameters), counted(first.cost.parameters)) for counted in CONVENTIONS.values())
    return " / ".join(ratio(count, of) for count, of in pairs)
