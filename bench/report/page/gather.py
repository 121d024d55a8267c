"""The report of a store: what is compared, what came out, and how to remake it, gathered for one page.

A pure function of the store: the same bytes from the same records, without a time or a path.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.errors import StoreError, count
from bench.files import write_atomically
from bench.record import Record
from bench.report.claims.verdicts import Verdict, judge
from bench.report.contrasts import contrasts
from bench.report.deviations import load_deviations
from bench.report.figures import draw_all
from bench.report.output import make_tables
from bench.report.page.page import ClaimCard, Content, Question, render
from bench.report.runs import CellResults, Results, StoreResults, sweep_nats
from bench.report.statistics import perplexity, summarise
from bench.report.table import NOTHING, Table
from bench.report.tables.view import plain_mean_sd, signed
from bench.store import THROUGHPUT, Store

NAME = "report.html"
MAIN = ("matched", "paper")  # what claims are judged on
STAND_INS = ("laptop-all", "laptop")  # what is shown while nothing of it has run
SEARCHES = {"matched": "tuning", "laptop-all": "laptop-tuning"}  # what the learning rates of an experiment come from


def write_report(store: Store, content: Content) -> Path:
    """Put the page into its store, where its bytes differ; its path."""
    path, page = store.root / NAME, render(content)
    try:
        if not path.is_file() or path.read_bytes() != page:
            write_atomically(path, page)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}; name another --store") from error
    return path


def gather(store: Store) -> Content:
    """The content of the page for a store."""
    store = Store(store.root.resolve())
    made = make_tables(store)
    ours = made.results
    shown = _shown(ours)
    tables = {(table.experiment, table.kind): table for table in made.tables}
    return Content(
        claims=tuple(map(_claim, judge(ours, made.published))),
        answers=tuple(text + _untuned(one, ours) for one in shown if (text := _answer(one, ours))),
        headline=tuple(table for one in shown if (table := tables.get((one.name, "perplexity")))),
        headline_note=_headline_note(shown),
        pictures=tuple(draw_all(made.results, made.measurements, made.published)),
        questions=tuple(_question(experiment, ours, made.tables) for experiment in ours.experiments),
        published=tuple(table for table in made.tables if table.kind in ("published", "error-rates")),
        throughput=tuple(table for table in made.tables if table.experiment == THROUGHPUT),
        cost=_cost(ours),
        deviations=load_deviations(),
        environment=(_machines(ours), _sources(ours)),
        notes=tuple(_without_path(note, store.root) for note in made.notes),
        unread=tuple(_without_path(str(error), store.root) for error in made.errors),
    )


# --- what came out ---


def _claim(verdict: Verdict) -> ClaimCard:
    """A verdict in the words of the page."""
    seeds = () if verdict.seeds_needed is None else (f"Seeds needed for each arm: {verdict.seeds_needed:,}.",)
    mode = () if verdict.mode is None else (f"Judged on mode {verdict.mode}.",)
    others = tuple(f"{one.text} (this decides nothing)" for one in verdict.in_other_mode)
    changed = tuple(f"The rules changed since {name} was launched." for name in verdict.changed_since)
    registered = (
        () if verdict.registered is None else (f"By the rule that stood before the runs: {verdict.registered}.",)
    )
    return ClaimCard(
        id=verdict.claim.id,
        statement=verdict.claim.statement,
        outcome=verdict.outcome,
        numbers=(*verdict.numbers, *registered, *seeds, *mode, *others, *changed),
        at_laptop_size=verdict.at_laptop_size,
        rule=verdict.claim.rule,
        source=verdict.claim.source,
    )


def _shown(ours: StoreResults) -> list[Results]:
    """The experiments whose tables come first: those that decide and, while a run of them is missing, a substitute."""
    measured = {experiment.name: experiment for experiment in ours.experiments if experiment.done}
    main = [measured[name] for name in MAIN if name in measured]
    complete = len(main) == len(MAIN) and not any(cell.shortfall for one in main for cell in one.cells)
    return main if complete else main + [measured[name] for name in STAND_INS if name in measured][:1]


def _headline_note(shown: Sequence[Results]) -> str | None:
    if not shown:
        return "No run of a headline experiment is done yet: start with make reproduce."
    if shown[-1].name in MAIN:
        return None
    there = {one.name: one for one in shown}
    missing = [name for name in MAIN if name not in there or any(cell.shortfall for cell in there[name].cells)]
    what = ("has" if len(missing) == 1 else "have") + " runs that are not done"
    return f"{' and '.join(missing)} {what}. Shown instead: {shown[-1].name}, at laptop size, which decides no claim."


def _answer(experiment: Results, ours: StoreResults) -> str | None:
    """The primary comparison in a sentence, with its mode where the experiment ran in both."""
    primary = next((one for one in contrasts(experiment) if one.primary), None)
    if primary is None or primary.comparison is None:
        return None
    sides = f"{_arm_text(primary.arm)} against {_arm_text(primary.reference)}, validation perplexity (sweep, best)"
    compared = primary.comparison
    between = "95 % interval {} to {}, ".format(*map(signed, compared.interval)) if compared.interval else ""
    gap = f"{signed(compared.difference)} nats per token ({between}{primary.n_text})"
    mode = "" if ours.other(experiment.name) is None else f", mode {experiment.mode}"
    return f"{experiment.name}{mode}: {sides}: {primary.verdict}, {gap}."


def _untuned(experiment: Results, ours: StoreResults) -> str:
    """A caution where a comparison rests on a search that has no run yet."""
    search = SEARCHES.get(experiment.name)
    if search is None or any(one.name == search and one.done for one in _in_every_mode(ours)):
        return ""
    return f" No run of {search} is done: each arm keeps the learning rate of its own recipe."


def _arm_text(cell: CellResults) -> str:
    best = summarise([perplexity(nats) for nats in sweep_nats(cell.done)])
    return f"{cell.label} {plain_mean_sd(best)} (n = {best.n})"


# --- experiments, and what they took ---


def _in_every_mode(ours: StoreResults, name: str | None = None) -> list[Results]:
    """The experiments, or the one of a name, each in its chosen mode and then in its other one."""
    both = [(one, ours.other(one.name)) for one in ours.experiments if name in (None, one.name)]
    return [one for modes in both for one in modes if one is not None]


def _question(experiment: Results, ours: StoreResults, tables: Iterable[Table]) -> Question:
    modes = _in_every_mode(ours, experiment.name)
    states = [_state(one) if len(modes) == 1 else f"Mode {one.mode}: {_state(one)}" for one in modes]
    return Question(
        name=experiment.name,
        text=experiment.manifest.question,
        state=" ".join(states),
        tables=tuple(table for table in tables if table.experiment == experiment.name and table.kind != "published"),
    )


def _state(experiment: Results) -> str:
    """How many of its runs are done, and the status of the others."""
    records = _records([experiment])
    listed = sum(len(cell.expected) for cell in experiment.cells)
    statuses: Counter[str] = Counter(record.status for record in records)
    statuses["missing"] = listed - len(records)
    text = ", ".join(f"{n:,} {fate}" for fate, n in sorted(statuses.items()) if n and fate != "done")
    return f"{statuses['done']:,} of {count(listed, 'run')} done" + (f"; {text}." if text else ".")


def _cost(ours: StoreResults) -> Table:
    rows = [(one.name, *_cost_cells(_records(_in_every_mode(ours, one.name)))) for one in ours.experiments]
    everything = _records(_in_every_mode(ours))
    total = _cost_cells(everything)
    return Table(
        experiment="all experiments",
        kind="cost",
        intro="What each experiment took, all attempts and failed runs included.",
        columns=("experiment", "machines", "runs", "not done", "hours of training", "train tokens", "train FLOPs"),
        n_left=2,
        rows=tuple(rows),
        notes=(
            "hours of training: the sum over runs of the seconds spent in training steps, whichever machine they ran "
            "on and however many runs shared it; evaluation, set-up and waiting are left out.",
            f"A run that two experiments share counts in both. Each counted once: {count(len(everything), 'run')}, "
            f"{total[3]} hours of training, {total[4]} tokens, {total[5]} FLOPs.",
        ),
    )


def _cost_cells(records: Sequence[Record]) -> tuple[str, ...]:
    return (
        ", ".join(sorted({record.environment.device_name for record in records})) or NOTHING,
        f"{len(records):,}",
        f"{sum(record.status != 'done' for record in records):,}",
        f"{sum(record.cost.train_seconds for record in records) / 3600:,.2f}",
        f"{sum(record.cost.n_train_tokens for record in records):,}",
        f"{sum(record.cost.train_flops for record in records):.3g}",
    )


def _records(experiments: Iterable[Results]) -> list[Record]:
    """Every record of some experiments once, in the order of the run ids, so that sums come out the same."""
    found = {
        record.run_id: record for experiment in experiments for cell in experiment.cells for record in cell.records
    }
    return [found[run_id] for run_id in sorted(found)]


# --- where the numbers were made ---


def _machines(ours: StoreResults) -> Table:
    columns = ("machine", "device", "instructions", "threads", "platform", "CUDA", "Python", "packages", "mode", "runs")
    counts: Counter[tuple[str, ...]] = Counter()
    for record in _records(_in_every_mode(ours)):
        machine = record.environment
        counts[
            machine.device_name,
            machine.device,
            machine.instructions or NOTHING,
            str(machine.n_threads),
            machine.platform,
            machine.cuda or NOTHING,
            machine.python,
            ", ".join(f"{name} {version}" for name, version in sorted(machine.packages.items())),
            record.mode,
        ] += 1
    return Table(
        experiment="all experiments",
        kind="machines and software",
        intro="Where the runs ended.",
        columns=columns,
        n_left=3,
        rows=tuple((*machine, f"{n:,}") for machine, n in sorted(counts.items())),
        notes=("Exact runs repeat bit for bit on a row's own software, processor and number of threads.",),
    )


def _sources(ours: StoreResults) -> Table:
    experiments: dict[tuple[str, ...], set[str]] = defaultdict(set)
    runs: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for experiment in _in_every_mode(ours):
        for record in _records([experiment]):
            state = {None: "unknown", True: "with changes (dirty)", False: "as committed"}[record.sources.dirty]
            key = (record.sources.commit or "unknown")[:12], state, record.corpus.name, record.corpus.sha256[:12]
            experiments[key].add(experiment.name)
            runs[key].add(record.run_id)
    return Table(
        experiment="all experiments",
        kind="sources and text",
        intro="Which commit made the runs, and from which text.",
        columns=("commit", "tree", "corpus", "its sha256", "experiments", "runs"),
        n_left=5,
        rows=tuple((*key, ", ".join(sorted(experiments[key])), f"{len(runs[key]):,}") for key in sorted(runs)),
        notes=("sha256: its first 12 digits.",),
    )


def _without_path(text: str, root: Path) -> str:
    """A message with the store's own folder, an absolute path, left out: the page does not tell where it was made."""
    return text.replace(f"{root}/", "").replace(str(root), "this store")
