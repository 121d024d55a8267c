"""The report of a store: what is compared, what came out, and how to remake it, gathered for one page.

A pure function of the store: the same bytes from the same records, without a time or a path.
"""

import shlex
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bench.errors import StoreError, count
from bench.files import write_atomically
from bench.record import Record
from bench.report.answer import bullets, status
from bench.report.claims.verdicts import Verdict, judge
from bench.report.deviations import load_deviations
from bench.report.figures import draw_all
from bench.report.figures.drawing import Drawn
from bench.report.output import make_tables
from bench.report.page.page import ClaimCard, Content, Question, Section, render
from bench.report.runs import Results, StoreResults
from bench.report.table import NOTHING, Table
from bench.store import THROUGHPUT, Store

NAME = "report.html"
# The sections before the ledger: id, title, the experiments that they show where these have a done run, and the kinds
# of their tables and of their figures. Everything else is in the appendix.
SECTIONS = (
    ("size", "At the preprint's size", ("paper", "matched", "matched-untuned"), ("results",), ("curves",)),
    ("laptop", "At laptop size", ("laptop-all", "laptop"), ("results",), ("differences",)),
    ("rates", "Learning rates", ("tuning", "laptop-tuning"), ("search",), ("best-of-k",)),
    ("ablations", "Ablations", ("ablation", "stress", "laptop-all"), (), ("ablation", "eta")),
    ("learned", "What the model learned", ("paper", "laptop-all"), (), ("learned", "kernels")),
)
AT_A_GLANCE = ("hero", "claims", "frontier")  # figures of the whole store
INSTEAD = {"matched-untuned": "matched", "laptop": "laptop-all"}  # shown only while the other has no run


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
    verdicts = judge(ours, made.published)
    pictures = draw_all(made.results, made.measurements, made.published, narrow=True)
    sections = tuple(_sections(ours, made.tables, pictures))
    cost = Section(
        id="cost",
        title="Speed and cost",
        lines=("One table of speed for each machine; no ratio is formed between two. Energy was not measured.",),
        tables=(*(one for one in made.tables if one.experiment == THROUGHPUT), _cost(ours)),
        pictures=tuple(one for one in pictures if one.name.startswith("growth-")),
    )
    used = {id(each) for one in (*sections, cost) for each in (*one.tables, *one.pictures)}
    return Content(
        bullets=bullets(ours, made.published, verdicts),
        status=(status(ours, verdicts), _made_on(ours)),
        claims=tuple(map(_claim, verdicts)),
        sections=sections,
        cost=cost,
        published=tuple(table for table in made.tables if table.kind in ("published", "error-rates")),
        questions=tuple(_question(experiment, ours, made.tables, pictures, used) for experiment in ours.experiments),
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


def _sections(ours: StoreResults, tables: Sequence[Table], pictures: Sequence[Drawn]) -> Iterator[Section]:
    """The sections that have something to show; what has not run is a line."""
    glance = tuple(one for name in AT_A_GLANCE for one in pictures if one.name == name)
    if glance:
        yield Section(id="glance", title="At a glance", pictures=glance)
    done = {one.name for one in ours.experiments if one.done}
    for anchor, title, experiments, kinds, figures in SECTIONS:
        shown = [name for name in experiments if name in done and INSTEAD.get(name) not in done]
        missing = [name for name in experiments if name not in done and name not in INSTEAD]
        found = Section(
            id=anchor,
            title=title,
            lines=(f"Not run yet: {', '.join(missing)}.",) if missing else (),
            tables=tuple(one for name in shown for one in tables if one.experiment == name and one.kind in kinds),
            pictures=tuple(
                one
                for name in shown
                for kind in figures
                for one in pictures
                if one.name in (f"{name}-{kind}", *(f"{name}-{kind}-{n}" for n in range(2, 10)))
            ),
        )
        if found.tables or found.pictures or found.lines:
            yield found


def _made_on(ours: StoreResults) -> str:
    """Which machines the runs ended on, most runs first."""
    counts = Counter(record.environment.device_name for record in _records(_in_every_mode(ours)))
    return "Machines: " + ", ".join(f"{name} ({count(n, 'run')})" for name, n in counts.most_common()) + "."


# --- experiments, and what they took ---


def _in_every_mode(ours: StoreResults, name: str | None = None) -> list[Results]:
    """The experiments, or the one of a name, each in its chosen mode and then in its other one."""
    both = [(one, ours.other(one.name)) for one in ours.experiments if name in (None, one.name)]
    return [one for modes in both for one in modes if one is not None]


def _question(
    experiment: Results, ours: StoreResults, tables: Iterable[Table], pictures: Iterable[Drawn], used: set[int]
) -> Question:
    modes = _in_every_mode(ours, experiment.name)
    states = [_state(one) if len(modes) == 1 else f"Mode {one.mode}: {_state(one)}" for one in modes]
    names = [one.name for one in ours.experiments]
    return Question(
        name=experiment.name,
        text=experiment.manifest.question,
        state=" ".join(states),
        tables=tuple(
            table
            for table in tables
            if table.experiment == experiment.name and table.kind != "published" and id(table) not in used
        ),
        pictures=tuple(
            one
            for one in pictures
            if id(one) not in used
            and max((name for name in names if one.name.startswith(f"{name}-")), key=len, default="") == experiment.name
        ),
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
        rows=tuple((*key, ", ".join(sorted(experiments[key])), f"{len(runs[key]):,}") for key in sorted(runs)),
        notes=("sha256: its first 12 digits.",),
    )


def _without_path(text: str, root: Path) -> str:
    """A message without the absolute paths of the store and of Python: the page does not tell where it was made."""
    text = text.replace(f"{sys.executable} -m", "python -m").replace(
        f"--store {shlex.quote(str(root))}", "--store STORE"
    )
    return text.replace(f"{root}/", "").replace(str(root), "this store")
