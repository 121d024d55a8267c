"""`python -m jobs ...`: launch the missing runs of an experiment, and see what became of them."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import (
    EXIT_FAILED,
    EXIT_INCOMPLETE,
    EXIT_INTERRUPTED,
    existing_store,
    make_app,
    parse_seeds,
    pick_device,
    run_guarded,
)
from bench.errors import ConfigError

app = make_app("Launch an experiment and watch it. Example: python -m jobs launch --experiment smoke --dry-run")

StorePath = Annotated[Path, typer.Option("--store", help="Folder of records.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Runs at a time; by default one a GPU, else two on the CPU.")]
RunsPerGpu = Annotated[
    int | None, typer.Option(min=1, help="Runs side by side on each GPU, since one small model cannot fill it.")
]
Seeds = Annotated[str | None, typer.Option(help="Seeds in place of the experiment's own, e.g. 42,69.")]
Mode = Annotated[str | None, typer.Option(help="exact or fast; the default is fast on CUDA.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; the default is cuda where there is one.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder that holds tinyshakespeare/input.txt.")]


@app.command()
def launch(
    experiment: Annotated[str, typer.Option(help="paper, laptop, laptop-tuning or smoke.")],
    store: StorePath = Path("reproduced"),
    workers: Workers = None,
    runs_per_gpu: RunsPerGpu = None,
    pattern: Annotated[
        str | None, typer.Option("-k", help="Only runs whose name has each word; !word excludes.")
    ] = None,
    retry: Annotated[str | None, typer.Option(help="Try again what is recorded as failed, oom or diverged.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs and their cost; run nothing.")] = False,
    seeds: Seeds = None,
    mode: Mode = None,
    device: Device = None,
    data_dir: DataDir = None,
    checkpoint_seconds: Annotated[float, typer.Option(min=0, help="Between checkpoints of a run.")] = 60.0,
) -> None:
    """Do every run of an experiment that has no record yet. Run it again to go on after anything stopped it."""
    from bench.store import Store
    from jobs.launch import launch_missing, prepare, summary
    from jobs.local import make_slots

    on = pick_device(device, one_of_several=False).type
    chosen = prepare(experiment, mode=mode, device=on, seeds=parse_seeds(seeds), data_dir=data_dir)
    try:
        ended = launch_missing(
            chosen,
            Store(store),
            make_slots(on, workers, runs_per_gpu),
            pattern=pattern,
            retry=retry,
            dry_run=dry_run,
            data_dir=data_dir,
            checkpoint_seconds=checkpoint_seconds,
        )
    except KeyboardInterrupt as stop:
        print("stopped, every run's state saved; the same command goes on from there")
        raise typer.Exit(EXIT_INTERRUPTED) from stop
    raise typer.Exit(max(summary(ended), EXIT_FAILED if Store(store).records()[1] else 0))


@app.command()
def reproduce(
    experiment: Annotated[str | None, typer.Option(help="By default what suits this machine.")] = None,
    store: StorePath = Path("reproduced"),
    committed: Annotated[Path, typer.Option(help="The store whose values stand beside yours.")] = Path("results"),
    workers: Workers = None,
    runs_per_gpu: RunsPerGpu = None,
    retry: Annotated[str | None, typer.Option(help="Try again what is recorded as failed, oom or diverged.")] = None,
    seeds: Seeds = None,
    device: Device = None,
    data_dir: DataDir = None,
) -> None:
    """Train what is missing, then print the table with the committed values beside yours."""
    from bench.store import Store
    from bench.tables import make_tables, write_tables
    from jobs.launch import launch_missing, prepare, summary
    from jobs.local import make_slots

    on = pick_device(device, one_of_several=False).type
    name = experiment or ("paper" if on == "cuda" else "laptop")
    why = ""
    if experiment is None:
        has = "a" if on == "cuda" else "no"
        why = f" (this machine has {has} CUDA device; choose another with EXPERIMENT=paper, laptop or smoke)"
    chosen = prepare(name, mode=None, device=on, seeds=parse_seeds(seeds), data_dir=data_dir)
    here = Store(store)
    try:
        slots = make_slots(on, workers, runs_per_gpu)
        ended = launch_missing(chosen, here, slots, retry=retry, data_dir=data_dir, why=why)
    except KeyboardInterrupt as stop:
        print("stopped, every run's state saved; `make reproduce` goes on from there")
        raise typer.Exit(EXIT_INTERRUPTED) from stop
    write_tables(here, make_tables(here))
    made = make_tables(here, compare=Store(committed))
    print(made.select(("perplexity", "parameters"), name))
    print(f"All tables: {store}/tables, or `make table STORE={store}`. The committed ones: `make table`.")
    raise typer.Exit(max(summary(ended), made.exit_code))


@app.command()
def status(
    store: StorePath = Path("reproduced"),
    experiment: Annotated[str | None, typer.Option(help="Only this one.")] = None,
) -> None:
    """Every run: its state, step and best loss. Exit 3 while any has no record."""
    from rich.console import Console
    from rich.table import Table

    from bench.store import Store
    from jobs.status import states

    here = Store(existing_store(store))
    manifests, broken = here.manifests()
    records, unread = here.records()
    chosen = [one for one in manifests if experiment in (None, one.name)]
    if not chosen:
        raise ConfigError(f"store {store} has no experiment {experiment or ''}; `python -m jobs launch` makes one")
    table = Table("experiment", "run", "id", "state", "step", "best nats", box=None, pad_edge=False)
    found = [(manifest.name, state) for manifest in chosen for state in states(here, manifest, records)]
    for name, state in found:
        nats = f"{state.nats_per_token:.4f}" if state.nats_per_token is not None else "-"
        step = str(state.step) if state.step is not None else "-"
        table.add_row(name, state.name, state.run_id, state.state, step, nats)
    Console(highlight=False, width=None).print(table)
    for error in [*broken, *unread]:
        typer.echo(f"error: {error}", err=True)
    if broken or unread:
        raise typer.Exit(EXIT_FAILED)
    if not all(state.final for _, state in found):
        raise typer.Exit(EXIT_INCOMPLETE)


@app.command()
def logs(
    run_id: Annotated[str, typer.Argument(help="A run's id, the start of it, or its name, e.g. k_operators-s42.")],
    store: StorePath = Path("reproduced"),
) -> None:
    """Print the log of a run."""
    from bench.store import Store
    from jobs.local import LOG_FILE

    here = Store(existing_store(store))
    log = here.run_folder(here.find_run_id(run_id)) / LOG_FILE
    if not log.is_file():
        raise ConfigError(f"{log} does not exist: the run was not started from here")
    print(log.read_text(encoding="utf-8", errors="replace"), end="")


if __name__ == "__main__":
    run_guarded(app)
