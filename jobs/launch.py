"""From an experiment to its records: the missing runs, their cost, and the pool that does them."""

import time
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import checkpoint
from bench.config import MODES, Mode, Run
from bench.corpora import CORPORA
from bench.errors import EXIT_FAILED, EXIT_INCOMPLETE, ConfigError, count, typed
from bench.experiments import SYNTHETIC_ALLOWED, find_experiment
from bench.experiments.grid import Experiment
from bench.experiments.search import Recorded, shown
from bench.fetch import DownloadError, find_text
from bench.lease import living
from bench.record import FINAL_STATUSES, NO_SEED, Manifest
from bench.sources import ROOT
from bench.store import Store
from jobs.cache import check_cache
from jobs.cost import START_SECONDS, Estimate, known_estimates, schedule_seconds
from jobs.deadline import Deadline, headline_first, same_command
from jobs.display import Display, duration
from jobs.forecast import expected_cells
from jobs.grid import missing, select, set_aside
from jobs.layout import CANCEL_FILE
from jobs.local import Ended, LocalPool
from jobs.outcome import rules_in_force
from jobs.probe import estimate_seconds
from jobs.slots import Slot, as_needed, runs_at_once, slots_text
from jobs.speeds import this_platform
from jobs.worker import write_run


def prepare(
    name: str,
    *,
    mode: str | None,
    device: str,
    seeds: tuple[int, ...] | None,
    data_dir: Path | None,
    store: Store | None = None,
) -> Experiment:
    """The experiment as it will run here: its mode, its seeds, and a corpus that is there and unaltered.

    Cells that depend on records are those that the records of `store` choose. Only where nothing was named, nothing is
    cached and the download failed may small experiments run on the synthetic corpus, which is printed.
    """
    asked = next((one for one in MODES if one == mode), None)
    if asked != mode:
        raise ConfigError(f"--mode {mode}: there are {', '.join(MODES)}")
    usual: Mode = "fast" if device == "cuda" else "exact"
    experiment = find_experiment(name, Recorded(store, asked or usual))
    chosen = asked or experiment.only_mode or usual
    if experiment.only_mode not in (None, chosen):
        raise ConfigError(f"--mode {chosen}: the question of {name} is about mode {experiment.only_mode}; leave it out")
    if chosen == "fast" and device != "cuda":
        raise ConfigError("--mode fast needs CUDA, and there is none here; leave it out or use --mode exact")
    stand_in = None
    try:
        for corpus in {cell.config.corpus for cell in experiment.cells}:
            if CORPORA[corpus].path is not None:
                find_text(corpus, data_dir)
    except DownloadError as error:
        if name not in SYNTHETIC_ALLOWED:
            raise
        print(f"WARNING: {error}")
        print("WARNING: going on with a SYNTHETIC corpus; its numbers are not about Tiny Shakespeare")
        stand_in = "synthetic"
    return experiment.on(corpus=stand_in, mode=chosen, seeds=seeds)


@dataclass(frozen=True, kw_only=True)
class Todo:
    """The state before a launch: the selected runs, the records that the store has, and the runs to do."""

    selected: list[Run]
    runs: list[Run]
    statuses: dict[str, str]  # run id -> status of every record
    busy: list[Ended] = field(default_factory=list)  # left to the process that works on it, here or elsewhere


def find_todo(
    experiment: Experiment, store: Store, *, pattern: str | None, retry: str | None, pretending: bool = True
) -> Todo:
    """The grid minus the records and, unless `pretending`, busy runs. Warns of records that cannot be read."""
    selected = select(experiment, pattern)
    records, unread = store.records()
    for error in unread:
        print(f"WARNING: {error}")
    statuses: dict[str, str] = {one.run_id: one.status for one in records}
    todo = Todo(selected=selected, runs=missing(selected, statuses, retry), statuses=statuses)
    folders = {store.run_folder(run.run_id): run for run in todo.runs}  # refuses links
    store.check_could_be_written()
    if pretending:
        return todo
    store.check_writable()
    for folder, holder in living(folders).items():
        reason = f"process {holder.pid} on {holder.node} works on it"
        todo.busy.append(Ended(run=folders.pop(folder), reason=reason))
    return replace(todo, runs=list(folders.values()))


def write_plan(experiment: Experiment, store: Store, todo: Todo, *, any_sources: bool) -> None:
    """Write the manifest of the experiment, and the run file of each run to do."""
    manifests = store.manifests()[0]
    earlier = next((one for one in manifests if (one.name, one.mode) == (experiment.name, experiment.mode)), None)
    if earlier is not None and earlier.corpus == experiment.corpus:  # `--seeds` only adds seeds
        listed = {cell.label: [int(seed) for seed in cell.run_ids if seed != NO_SEED] for cell in earlier.cells}
        experiment = experiment.with_seeds(lambda cell: [*listed.get(cell.label, []), *cell.seeds])
    manifest = experiment.manifest(rules_in_force(experiment.name))
    if earlier is not None:  # the hash of the first launch stays, so that a verdict can report later changes
        kept = {name: getattr(earlier, name) for name in ("claim_rules_sha256", "remark", "shared_gpu")}
        manifest = manifest.model_copy(update=kept)
        if manifest.chosen_by is not None and (changed := other_runs(earlier, manifest)):
            print(f"WARNING: since the last launch the records choose otherwise; other configs have {changed}")
    if manifest not in manifests:  # a finished store is left as it is
        store.write_manifest(manifest)
    for run in todo.runs:
        if run.run_id in todo.statuses:
            set_aside(run, store)
        folder = write_run(run, store, any_sources=any_sources)
        (folder / CANCEL_FILE).unlink(missing_ok=True)


def other_runs(earlier: Manifest, now: Manifest) -> str:
    """The labels of cells that have other runs at the same seeds than in an earlier manifest, with commas."""
    before = {cell.label: cell.run_ids for cell in earlier.cells}
    labels = (
        cell.label
        for cell in now.cells
        if any(before.get(cell.label, {}).get(seed, run_id) != run_id for seed, run_id in cell.run_ids.items())
    )
    return ", ".join(labels)


def launch_missing(
    experiment: Experiment,
    store: Store,
    slots: list[Slot],
    *,
    pattern: str | None = None,
    retry: str | None = None,
    dry_run: bool = False,
    probe: bool = False,
    data_dir: Path | None = None,
    checkpoint_seconds: float = 60.0,
    any_sources: bool = False,
    why: str = "",
    deadline: Deadline | None = None,
) -> list[Ended]:
    """Do what is missing of an experiment and return how each run ended; with `dry_run` only list it.

    `why` it was chosen, where a choice was made for the user, is printed in the first line with its cost. With a
    `deadline` the headline arms come first, and what cannot end in time is left, with OUT_OF_TIME for a reason.
    """
    todo = find_todo(experiment, store, pattern=pattern, retry=retry, pretending=dry_run)
    if deadline is not None:
        todo = replace(todo, runs=headline_first(experiment, todo.runs))
    slots = as_needed(slots, sum(run.config.training is not None for run in todo.runs))
    until = None if deadline is None else deadline.probe_until
    estimates = find_estimates(todo.runs, store, slots, data_dir, probe=probe, dry_run=dry_run, until=until)
    seconds = {run_id: one.seconds for run_id, one in estimates.items()}
    expected = schedule_seconds([seconds[run.run_id] for run in todo.runs if run.run_id in seconds], len(slots))
    known = len(seconds) == len(todo.runs)
    cost = total(todo.runs, expected, seconds)
    print(f"Experiment {experiment.name}{why}: {cost}{f', {runs_at_once(slots)}' if todo.runs else ''}")
    announce(experiment, store, todo)
    if todo.runs:
        print(f"Mode {experiment.mode}, {slots_text(slots)}", flush=True)
        if deadline is not None:
            announce_deadline(deadline, experiment, todo, store, slots, estimates)
    if dry_run:
        if any(slot.device == "cuda" for slot in slots):
            check_cache()
        list_grid(todo, estimates)
        return []
    # the pool first: it refuses a compile cache that others may write, before any record is set aside
    pool = LocalPool(store, slots, data_dir=data_dir, checkpoint_seconds=checkpoint_seconds, deadline=deadline)
    write_plan(experiment, store, todo, any_sources=any_sources)
    with Display(store, len(todo.runs), expected if known else None, pool.meter.share) as display:
        ended = pool.run(todo.runs, display.tell)
    untouched = [run for run in todo.selected if run not in todo.runs and run.run_id in todo.statuses]
    earlier = [run for run in untouched if todo.statuses[run.run_id] not in FINAL_STATUSES]
    return ended + todo.busy + [Ended(run=run, status=todo.statuses[run.run_id]) for run in earlier]


def announce_deadline(
    deadline: Deadline,
    experiment: Experiment,
    todo: Todo,
    store: Store,
    slots: list[Slot],
    estimates: dict[str, Estimate],
) -> None:
    """Give the deadline the known times of the runs, and print which cells are expected to be done."""
    deadline.start_seconds = START_SECONDS[slots[0].device]
    for run in todo.runs:
        if (known := estimates.get(run.run_id)) is not None:
            deadline.known[run] = known.seconds
        if run.config.training is not None and (share := share_left(run, store)) < 1:
            deadline.left[run] = share
    print(f"Expected to be done within {duration(deadline.seconds)}, of the runs still to do:")
    for line in expected_cells(experiment, todo.runs, slots, deadline, time.monotonic()):
        print(f"  {line}", flush=True)
    trained = [run.run_id for run in todo.runs if run.config.training is not None and run.run_id in estimates]
    if sources := dict.fromkeys(estimates[run_id].source for run_id in trained):
        print(f"  times: {'; '.join(sources)}", flush=True)


def share_left(run: Run, store: Store) -> float:
    """The share of a trained run's steps that are left after its newest checkpoint."""
    assert run.config.training is not None
    checkpoints = checkpoint.paths(store.run_folder(run.run_id))
    step = checkpoint.step_of(checkpoints[-1]) if checkpoints else 0
    return 1 - step / run.config.training.n_steps


def announce(experiment: Experiment, store: Store, todo: Todo) -> None:
    """Print the question, how many runs are to be done, and what further ones wait for."""
    print(experiment.question)
    recorded = Counter(
        todo.statuses[run.run_id] for run in todo.selected if run.run_id in todo.statuses and run not in todo.runs
    )
    have = ", ".join(f"{n} {status}" for status, n in sorted(recorded.items()))
    already = f" ({have} already)" if have else ""
    print(f"{len(todo.runs)} of {len(todo.selected)} runs to do{already}, into {store.root}")
    if experiment.awaits:
        print(
            f"Stage 1 lacks {count(len(experiment.awaits), 'run')}: {shown(experiment.awaits)}. Stage 2 of a family "
            "follows its stage 1: in the same launch here, on SLURM when this command is given again"
        )


def find_estimates(
    runs: list[Run],
    store: Store,
    slots: list[Slot],
    data_dir: Path | None,
    *,
    probe: bool,
    dry_run: bool,
    until: float | None = None,
) -> dict[str, Estimate]:
    """The seconds of each run, by run id, from this store and the committed one; else, with `probe` or before a
    real launch, timed here, `until` that second of the monotonic clock at the latest. In `fast` mode only with
    `probe`, since a probe would compile for about a minute a shape.
    """
    platform = this_platform(slots[0].device, slots[0].n_threads, slots[0].runs_per_gpu)
    estimates = known_estimates(runs, (store, Store(ROOT / "results")), platform)
    unknown = [run for run in runs if run.run_id not in estimates and (probe or not (dry_run or run.mode == "fast"))]
    if probe and not unknown:
        print("--probe: the time of every run is known already")
    if unknown:
        timed = estimate_seconds(unknown, slots, data_dir, until)
        estimates |= {run_id: Estimate(seconds=one, source="timed just now") for run_id, one in timed.items()}
    return estimates


def total(runs: list[Run], expected: float, known: Container[str]) -> str:
    """The total time as text."""
    n_unknown = sum(run.run_id not in known for run in runs)
    if n_unknown == len(runs) > 0:
        return "an unknown time"
    return f"about {duration(expected)}" + (f", and {count(n_unknown, 'run')} of unknown time" if n_unknown else "")


def list_grid(todo: Todo, estimates: dict[str, Estimate]) -> None:
    """Every run of the grid, with its status or its expected cost and where that comes from."""
    for run in todo.selected:
        cost = "an unknown time; --probe times a few steps"
        if run.config.training is None:
            cost = "a moment"
        elif run.run_id in estimates:
            cost = f"about {duration(estimates[run.run_id].seconds)} ({estimates[run.run_id].source})"
        if run not in todo.runs:
            cost = todo.statuses.get(run.run_id, "in work")
        print(f"  {run.run_id}  {run.name:40} {cost}")


def summary(ended: list[Ended], store: Store) -> int:
    """Print the runs of a store that failed, now or earlier, and what to type; returns the exit code."""
    cut = [one for one in ended if one.cut]
    failed = [one for one in ended if one.status not in FINAL_STATUSES and one not in cut]
    for one in ended:
        if one.status == "diverged":
            again = f"`{same_command()} --retry diverged` trains it again"
            print(f"WARNING: {one.run.name} diverged; that is its result ({again})")
    for one in failed:
        command = typed("jobs", "logs", one.run.run_id, store=store.root)
        print(f"{one.run.name}: {one.status or 'no record, ' + one.reason}; see `{command}`")
    if any(one.status for one in failed):
        print(f"A recorded failure is tried again only when asked: `{same_command()} --retry failed`")
    if cut:
        print(f"{len(cut)} runs are left, since the deadline came first; those that had begun have saved their state")
    return EXIT_FAILED if failed else EXIT_INCOMPLETE if cut else 0
