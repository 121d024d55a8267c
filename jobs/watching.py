"""The commands that look after runs: status, why, logs, cancel, retry, gc, doctor."""

import json
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from bench.cli import open_store, print_errors
from bench.commands import DataDir, StorePath
from bench.errors import EXIT_FAILED, EXIT_INCOMPLETE, ConfigError, count, typed
from bench.record import Manifest
from bench.store import Store
from jobs.layout import LOG_FILE
from jobs.status import RunState, states
from jobs.why import find_traces, screen

PLAIN_WIDTH = 1000  # of a table that goes into a file or a pipe, which must not fold an id
USUAL_STORE = Path("reproduced")
WATCH_SECONDS = 30.0  # between looks: SLURM's controller serves everybody

Wanted = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, the start of it, or its name.")]
WantedRuns = Annotated[list[str] | None, typer.Argument(metavar="RUN...", help="Ids, starts of ids, or names.")]
OfExperiment = Annotated[str | None, typer.Option("--experiment", help="All runs of this experiment.")]


def status(
    store: StorePath = USUAL_STORE,
    experiment: Annotated[str | None, typer.Option(help="Only this one.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every half minute until all is done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Every run: its state, attempt, step, loss, time left and node. Exit 3 while any has no record."""
    if store == USUAL_STORE and not store.exists():
        print("nothing has been launched here; start with make reproduce, or name another store with --store")
        return
    here = open_store(store)
    if watch and as_json:
        raise ConfigError("--watch draws and --json prints once; give one of them")
    if watch and not sys.stdout.isatty():
        raise ConfigError("--watch draws on a terminal, and this is none; leave it out")
    found, errors = _look(here, experiment)
    if as_json:
        rows = [{"experiment": name, "mode": mode, **asdict(state)} for name, mode, state in found]
        print(json.dumps(rows, indent=1))
    elif not watch:
        width = None if sys.stdout.isatty() else PLAIN_WIDTH
        Console(highlight=False, width=width).print(_table(found))
        print(f"{count(len(found), 'run')}: {totals(found)}")
    else:
        with Live(_table(found), refresh_per_second=1) as live:
            while not all(state.recorded for *_, state in found):
                time.sleep(WATCH_SECONDS)
                found, errors = _look(here, experiment)
                live.update(_table(found))
    complete = all(state.recorded for *_, state in found)
    raise typer.Exit(print_errors(errors) or (0 if complete else EXIT_INCOMPLETE))


def why(wanted: Wanted, store: StorePath = Path("reproduced")) -> None:
    """One screen about a run: state, last heartbeat and loss, end of its log, likely cause, what to type next."""
    here = open_store(store)
    run_id = here.find_run_id(wanted)
    records, manifests = here.records()[0], here.manifests()[0]
    launched = _launched(manifests, run_id)
    if not launched:
        logs_of = typed("jobs", "logs", run_id, store=store)
        raise ConfigError(f"{run_id} belongs to no experiment of {store}; `{logs_of}` may tell more")
    name, manifest = next(iter(launched.items()))
    state = next(one for one in states(here, manifest, records) if one.run_id == run_id)
    for line in screen(find_traces(here, run_id), state.name, state.state, name, here):
        print(line)


def logs(wanted: Wanted, store: StorePath = Path("reproduced")) -> None:
    """Print the log of a run."""
    here = open_store(store)
    log = here.run_folder(here.find_run_id(wanted)) / LOG_FILE
    if not log.is_file():
        raise ConfigError(f"{log} does not exist: the run was not started from here, or still waits")
    print(log.read_text(encoding="utf-8", errors="replace"), end="")


def cancel(wanted: WantedRuns = None, experiment: OfExperiment = None, store: StorePath = Path("reproduced")) -> None:
    """Stop runs with their state saved, and do not start them until they are launched again."""
    from jobs.control import cancel_runs

    here = open_store(store)
    for line in cancel_runs(here, _chosen(here, wanted, experiment)):
        print(line)


def retry(wanted: WantedRuns = None, store: StorePath = Path("reproduced")) -> None:
    """Put failed, diverged or cancelled runs back among what is missing: the next launch does them again."""
    from jobs.control import retry_runs

    here = open_store(store)
    run_ids = _chosen(here, wanted, None)
    retry_runs(here, run_ids)
    manifests = here.manifests()[0]
    print(f"{', '.join(run_ids)}: set aside what is recorded; now launch, as you did before:")
    for name in dict.fromkeys(name for run_id in run_ids for name in _launched(manifests, run_id)):
        print(typed("jobs", "launch", "--experiment", *name.split(), store=store))


def gc(
    store: StorePath = Path("reproduced"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
) -> None:
    """Remove what no run needs any more: files and bytes. Records, last checkpoints and runs' logs stay."""
    from jobs.control import leftovers, remove, summarize

    found = leftovers(open_store(store))
    for line in summarize(found) or ["nothing to remove"]:
        print(line)
    if not dry_run:
        remove(found)


def doctor(
    store: StorePath = Path("reproduced"),
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only JSON.")] = False,
) -> None:
    """Check what a grid rests on here: GPU, torch, corpus, folders, clock, SLURM. Exit 1 where something is wrong."""
    from jobs.doctor import examine

    checks = examine(Store(store), data_dir)
    if as_json:
        print(json.dumps([asdict(one) for one in checks], indent=1))
    else:
        for one in checks:
            print(f"{one.verdict:8} {one.name:12} {one.finding}")
    if any(one.verdict == "problem" for one in checks):
        raise typer.Exit(EXIT_FAILED)


def _look(store: Store, experiment: str | None) -> tuple[list[tuple[str, str, RunState]], list[Exception]]:
    """Every run of the experiments asked for, with its experiment's name and mode, and what could not be read."""
    manifests, broken = store.manifests()
    records, unread = store.records()
    chosen = [one for one in manifests if experiment in (None, one.name)]
    if not chosen:
        making = typed("jobs", "launch", "--experiment", experiment or "laptop", store=store.root)
        raise ConfigError(f"store {store.root} has no experiment {experiment or ''}; `{making}` makes one")
    found: dict[tuple[str, str], tuple[str, str, RunState]] = {}  # a counted model is the same run in both modes
    for one in sorted(chosen, key=lambda one: (one.name, one.mode)):
        for state in states(store, one, records):
            found.setdefault((one.name, state.run_id), (one.name, one.mode, state))
    return list(found.values()), [*broken, *unread]


def totals(found: list[tuple[str, str, RunState]]) -> str:
    """`3 done, 1 running`, most first."""
    tally = Counter(state.state for *_, state in found)
    return ", ".join(f"{n:,} {state}" for state, n in tally.most_common())


def _table(found: list[tuple[str, str, RunState]]) -> Table:
    from jobs.display import duration

    table = Table(box=None, pad_edge=False)
    for column in ("experiment", "run", "id", "state"):
        table.add_column(column, no_wrap=True, overflow="fold")  # a name that is cut names nothing
    for column in ("attempt", "step", "nats", "left", "node"):
        table.add_column(column)
    n_modes = Counter(name for name, _ in {(name, mode) for name, mode, _ in found})
    for name, mode, state in found:
        of = f" of {state.n_steps}" if state.n_steps is not None and not state.recorded else ""
        table.add_row(
            name if n_modes[name] == 1 else f"{name}, {mode}",
            state.name,
            state.run_id,
            state.state,
            str(state.attempt) if state.attempt is not None else "-",
            f"{state.step}{of}" if state.step is not None else "-",
            f"{state.nats_per_token:.4f}" if state.nats_per_token is not None else "-",
            duration(state.seconds_left) if state.seconds_left is not None else "-",
            state.node or "-",
        )
    return table


def _chosen(store: Store, wanted: list[str] | None, experiment: str | None) -> list[str]:
    """The ids of the runs that were named, one by one or as an experiment."""
    if experiment is not None:
        modes = [one for one in store.manifests()[0] if one.name == experiment]
        if not modes:
            raise ConfigError(f"store {store.root} has no experiment {experiment}")
        # a counted model is the same run in both modes
        return list(dict.fromkeys(run_id for one in modes for run_id in one.run_ids))
    if not wanted:
        listing = typed("jobs", "status", store=store.root)
        raise ConfigError(f"name a run, by its id or as k_operators-s42; `{listing}` lists them")
    return [store.find_run_id(one) for one in wanted]


def _launched(manifests: list[Manifest], run_id: str) -> dict[str, Manifest]:
    """The experiments that list a run, by what `launch` takes: a name, and the mode where the store has both."""
    found: dict[str, Manifest] = {}  # each once: a counted model is in both modes of its own
    for one in sorted(manifests, key=lambda one: one.mode):
        if run_id in one.run_ids:
            found.setdefault(one.name, one)
    n_modes = Counter(one.name for one in manifests)
    return {f"{name} --mode {one.mode}" if n_modes[name] > 1 else name: one for name, one in found.items()}
