"""The lines below a table: what was measured how, what is missing or stale, and on which machines."""

from collections import defaultdict

from bench.errors import count
from bench.record import Environment
from bench.report.mixing import protocol_of
from bench.report.runs import CellResults, Results
from bench.report.statistics import perplexity
from bench.store import Measurements

STALE = "†"  # marks an arm with runs of other sources
COMPARED = "‡"  # marks an arm proved by comparing sources on another machine


def protocol_legend(experiment: Results, protocol: str) -> list[str]:
    """The protocol in numbers taken from the records; one line for each variant."""
    groups: dict[tuple[str, int, int], list[str]] = defaultdict(list)
    for cell in experiment.cells:
        if cell.done:
            _, context, *n_tokens = protocol_of(cell.done[0])
            n_predictions = n_tokens[("sweep", "sampled", "strided").index(protocol)]
            groups[corpus_of(experiment, cell), context, n_predictions].append(cell.label)
    lines = []
    for (corpus, context, n), labels in groups.items():
        of = f" ({', '.join(labels)})" if len(groups) > 1 else ""
        text = f"the validation text of {corpus}"
        match protocol:
            case "sweep":
                does = f"{text} once, in {n // max(context, 1):,} windows of {context} that do not overlap"
            case "sampled":
                does = f"{n // max(context, 1):,} windows of {context} at random places of {text}"
            case _:
                does = f"windows of {context} over {text} that overlap by half, only the second half scored"
        lines.append(f"{protocol}{of}: {does}; {n:,} predictions.")
    return lines


def floor_notes(experiment: Results) -> list[str]:
    notes = []
    if any(cell.fitted for cell in experiment.cells):
        notes.append(
            "n = exact: a model that is counted, not trained. It has no seed and no spread, and is a floor to beat."
        )
    rates = {(r.corpus.name, r.corpus.entropy_rate_nats) for r in experiment.done}
    for corpus, rate in sorted((corpus, rate) for corpus, rate in rates if rate is not None):
        notes.append(
            f"Corpus {corpus} is made by a random process of known entropy rate, not written by people: no model can "
            f"be below perplexity {number(perplexity(rate))} but by chance, and no number compares with another text's."
        )
    return notes


def state_notes(experiment: Results) -> list[str]:
    """The missing and the stale runs, by arm."""
    missing: dict[str, list[str]] = defaultdict(list)
    for cell in experiment.cells:
        if cell.shortfall is not None:
            missing[cell.shortfall].append(cell.label)
    notes = [f"{', '.join(labels)}: {shortfall}." for shortfall, labels in missing.items()]
    if experiment.stale:
        notes.append(
            f"{STALE} {count(len(experiment.stale), 'run')} made by other sources than the current ones, which may "
            "give other numbers: python -m bench recheck --stale tells; python -m bench table --explain "
            f"{experiment.name}/ARM lists the runs."
        )
    if experiment.compared:
        notes.append(
            f"{COMPARED} {count(len(experiment.compared), 'run')} made by other sources than the current ones; sources "
            "compared on another machine: the first 20 steps, taken there from the commit of the run and from the "
            "current sources, have equal losses, bit for bit, which does not prove the compiled step of fast runs."
        )
    return notes


def machine_notes(experiment: Results) -> list[str]:
    """The machines behind the numbers, and what the manifest remarks on how the runs were made."""
    remark = experiment.manifest.remark
    return [*machines(experiment), *([] if remark is None else [f"Remark: {remark}"])]


def machines(experiment: Results) -> list[str]:
    """The machines behind the numbers, and a warning where times of one table come from more than one."""
    counts: dict[str, int] = defaultdict(int)
    for record in experiment.done:
        counts[_machine(record.environment)] += 1
    if not counts:
        return []
    notes = ["Made on " + "; ".join(f"{machine}: {count(n, 'run')}" for machine, n in sorted(counts.items())) + "."]
    if len(counts) > 1:
        notes.append("More than one machine made these runs: their times do not compare.")
    moved = [
        record.file_name
        for record in experiment.done
        if any(_machine(attempt.environment) != _machine(record.environment) for attempt in record.attempts)
    ]
    if moved:
        notes.append(
            f"Resumed with another machine, torch or thread count, so not bit for bit: {', '.join(sorted(moved))}."
        )
    return notes


def packed_notes(experiment: Results) -> list[str]:
    """The arms with runs whose times are left out, since they shared a GPU."""
    packed = {cell.label: sum(record.packed for record in cell.done) for cell in experiment.cells}
    text = "; ".join(f"{label}: {count(n, 'run')}" for label, n in packed.items() if n)
    if not text:
        return []
    return [f"Shared a GPU with other runs, so that their train seconds and tokens/s are left out: {text}."]


def _machine(environment: Environment) -> str:
    torch = environment.packages.get("torch", "unknown")
    threads = count(environment.n_threads, "thread")
    return f"{environment.device_name} ({environment.device}, {threads}), torch {torch}"


def corpus_of(experiment: Results, cell: CellResults) -> str:
    return cell.records[0].corpus.name if cell.records else experiment.manifest.corpus


def number(value: float, like: float | None = None) -> str:
    """A perplexity with 3 decimals, 1 above 100; a spread is written `like` its mean."""
    size = value if like is None else like
    if value == float("inf"):
        return "above 1e308"
    if size >= 1e6:
        return f"{value:.1e}"
    return f"{value:.1f}" if size > 100 else f"{value:.3f}"


def machine_text(measured: Measurements) -> str:
    """Device, threads and torch, in the words of the other tables."""
    threads = " or ".join(count(n, "thread") for n in sorted({one.facts.n_threads for one in measured.timed}))
    device = ", ".join(filter(None, (measured.machine.device, threads)))
    return f"{measured.machine.device_name} ({device}), torch {measured.machine.torch}"


# --- cells ---
