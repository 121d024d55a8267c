"""`python -m jobs ...`: launch the missing runs of an experiment here or on SLURM, and see what became of them."""

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    make_app,
    parse_seeds,
    pick_device,
    run_guarded,
)
from bench.errors import ConfigError
from jobs import watching
from jobs.deadline import Deadline, parse_deadline, same_command

if TYPE_CHECKING:
    from bench.experiments.grid import Experiment
    from bench.store import Store
    from jobs.local import Ended
    from jobs.slurm.arrays import Request

app = make_app("Launch an experiment and watch it. Example: python -m jobs launch --experiment smoke --dry-run")
watching.register(app)

StorePath = Annotated[Path, typer.Option("--store", help="Folder of records; for SLURM one that its nodes share.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Runs at a time; by default as many as fit on the GPUs, else two on the CPU.")
]
RunsPerGpu = Annotated[
    int | None,
    typer.Option(
        min=1, help="Runs side by side on each GPU, since one small model cannot fill it; by default what fits."
    ),
]
Seeds = Annotated[str | None, typer.Option(help="Seeds in place of the experiment's own, e.g. 42,69.")]
Mode = Annotated[str | None, typer.Option(help="exact or fast; the default is fast on CUDA.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; the default is cuda where there is one.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder that holds tinyshakespeare/input.txt.")]
Retry = Annotated[str | None, typer.Option(help="Try again what is recorded as failed, oom or diverged.")]
Cluster = Annotated[str | None, typer.Option(help="slurm, or local, which is the default.")]
Profile = Annotated[str | None, typer.Option(help="SLURM: a name in jobs/profiles, or a .toml file.")]
Assignments = Annotated[
    list[str] | None, typer.Option("--slurm", help="SLURM: over the profile, e.g. partition=gpu. Repeatable.")
]
RunsPerJob = Annotated[int, typer.Option(min=1, help="SLURM: runs that one job does, one after the other.")]
DeadlineText = Annotated[
    str | None,
    typer.Option("--deadline", help="Time this may take, e.g. 12m or 1h30m: starts only what can end by then. Exit 3."),
]
CheckpointSeconds = Annotated[float, typer.Option(min=0, help="Between checkpoints of a run.")]


@app.command()
def launch(
    experiment: Annotated[
        str, typer.Option(help="Which question: laptop, paper, matched, ... A wrong name lists all.")
    ],
    store: StorePath = Path("reproduced"),
    workers: Workers = None,
    runs_per_gpu: RunsPerGpu = None,
    pattern: Annotated[
        str | None, typer.Option("-k", help="Only runs whose name has each word; !word excludes.")
    ] = None,
    retry: Retry = None,
    deadline: DeadlineText = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs and their cost; run nothing.")] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="Time a few steps of what has no known time, also in a dry run.")
    ] = False,
    seeds: Seeds = None,
    mode: Mode = None,
    device: Device = None,
    data_dir: DataDir = None,
    checkpoint_seconds: CheckpointSeconds = 60.0,
    any_sources: Annotated[
        bool, typer.Option("--any-sources", help="Let waiting runs start even if the sources are edited meanwhile.")
    ] = False,
    cluster: Cluster = None,
    profile: Profile = None,
    slurm: Assignments = None,
    runs_per_job: RunsPerJob = 1,
    test_only: Annotated[bool, typer.Option("--test-only", help="SLURM: ask when the jobs would start.")] = False,
    emit_scripts: Annotated[
        Path | None, typer.Option("--emit-scripts", help="SLURM: write scripts there, to submit by hand.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="SLURM: time some steps on a node, for the time limits of a later launch.")
    ] = False,
    pack: Annotated[
        Path | None, typer.Option(help="An archive (.tar.gz) of the store's records, however the launch ends.")
    ] = None,
) -> None:
    """Do every run of an experiment that has no record yet. Run it again to go on after anything stopped it.

    With --cluster slurm it submits what is missing and returns at once.
    """
    until = _deadline(deadline, cluster)
    from bench.store import Store
    from bench.transfer.pack import packing

    here = Store(store)
    common = _where(mode, device, seeds, workers, runs_per_gpu, data_dir)
    if not _is_slurm(cluster, profile or slurm or test_only or emit_scripts or measure or runs_per_job > 1):
        with packing(here, None if dry_run else pack):
            ended = _launch_here(
                experiment,
                here,
                **common,
                pattern=pattern,
                retry=retry,
                dry_run=dry_run,
                probe=probe,
                any_sources=any_sources,
                checkpoint_seconds=checkpoint_seconds,
                deadline=until,
            )
        code = _exit_code(ended, here)
        if _is_cut(ended):
            from jobs.outcome import write_all_tables

            write_all_tables(here)
            print(f"The tables of what there is: {here.root}/tables")
            _say_how_to_go_on()
        raise typer.Exit(code)
    if pack is not None:
        by_hand = f"tar czf {pack} -C {store} runs experiments"
        raise ConfigError(f"--pack waits for the runs, and a SLURM launch does not; when they have ended: {by_hand}")
    if emit_scripts is not None and (test_only or dry_run):
        raise ConfigError("--emit-scripts writes, and --dry-run and --test-only do not; give one of them")
    from jobs.slurm.arrays import submit_missing

    chosen, request = _for_slurm(
        experiment,
        **common,
        profile=profile,
        assignments=slurm or [],
        runs_per_job=runs_per_job,
        checkpoint_seconds=checkpoint_seconds,
        measure=measure,
        probe=probe,
    )
    arrays = submit_missing(
        chosen,
        here,
        request,
        pattern=pattern,
        retry=retry,
        any_sources=any_sources,
        rehearse=dry_run,
        test_only=test_only,
        scripts=emit_scripts,
    )
    if arrays and not (dry_run or test_only):
        print(
            f"watch them with `python -m jobs status --store {store} --watch`; the same command goes on after anything"
        )
    raise typer.Exit(EXIT_FAILED if here.records()[1] else 0)


@app.command()
def reproduce(
    experiment: Annotated[str | None, typer.Option(help="By default what suits this machine.")] = None,
    store: StorePath = Path("reproduced"),
    committed: Annotated[Path, typer.Option(help="The store whose values stand beside yours.")] = Path("results"),
    workers: Workers = None,
    runs_per_gpu: RunsPerGpu = None,
    retry: Retry = None,
    seeds: Seeds = None,
    device: Device = None,
    data_dir: DataDir = None,
    cluster: Cluster = None,
    profile: Profile = None,
    slurm: Assignments = None,
    runs_per_job: RunsPerJob = 1,
    deadline: DeadlineText = None,
) -> None:
    """Train what is missing, then print its tables with the committed values beside yours, and the verdicts.

    With --cluster slurm it submits what is missing and prints the table of what is there; run it again for the rest.
    """
    until = _deadline(deadline, cluster)
    from bench.store import Store
    from jobs.outcome import show_outcome

    here = Store(store)
    ended: list[Ended] = []
    common = _where(None, device, seeds, workers, runs_per_gpu, data_dir)
    if _is_slurm(cluster, profile or slurm or runs_per_job > 1):
        from jobs.slurm.arrays import submit_missing

        name = experiment or "paper"
        why = "" if experiment else " (for SLURM; choose another with EXPERIMENT=laptop or smoke)"
        chosen, request = _for_slurm(
            name,
            **common,
            profile=profile,
            assignments=slurm or [],
            runs_per_job=runs_per_job,
        )
        if submit_missing(chosen, here, request, retry=retry, why=why):
            print("The jobs are SLURM's now. The same command prints the table, and submits what was lost by then.")
        code = 0
    else:
        on = pick_device(device, one_of_several=False).type
        name, why = experiment or ("paper" if on == "cuda" else "laptop"), ""
        if experiment is None:
            has = "a" if on == "cuda" else "no"
            there = "" if shutil.which("sbatch") is None else "; SLURM is here: CLUSTER=slurm PROFILE=NAME uses it"
            why = f" (this machine has {has} CUDA device; choose another with EXPERIMENT=paper, laptop or smoke{there})"
        ended = _launch_here(name, here, **common, retry=retry, why=why, deadline=until)
        code = _exit_code(ended, None)
    codes = (code, show_outcome(here, Store(committed), name))
    if _is_cut(ended):
        _say_how_to_go_on()
    raise typer.Exit(EXIT_FAILED if EXIT_FAILED in codes else max(codes))


@app.command(hidden=True)
def task(folder: Annotated[Path, typer.Argument(help="Folder of a submission's plan.")]) -> None:
    """What a SLURM script calls: do the part of a submission that SLURM's environment names."""
    from jobs.slurm.task import start

    raise typer.Exit(start(folder))


def _is_slurm(cluster: str | None, only_slurm: object) -> bool:
    """Whether SLURM was asked for. ConfigError for options that only SLURM has, without it."""
    if cluster not in (None, "local", "slurm"):
        raise ConfigError(f"--cluster {cluster}: there are slurm and local")
    if only_slurm and cluster != "slurm":
        options = "--profile, --slurm, --runs-per-job, --test-only, --emit-scripts and --measure"
        raise ConfigError(f"{options} are SLURM's: add --cluster slurm")
    return cluster == "slurm"


def _where(
    mode: str | None,
    device: str | None,
    seeds: str | None,
    workers: int | None,
    runs_per_gpu: int | None,
    data_dir: Path | None,
) -> dict[str, Any]:
    """The options that a launch here and one on SLURM share."""
    return {
        "mode": mode,
        "device": device,
        "seeds": seeds,
        "workers": workers,
        "runs_per_gpu": runs_per_gpu,
        "data_dir": data_dir,
    }


def _launch_here(
    name: str,
    store: "Store",
    *,
    mode: str | None,
    device: str | None,
    seeds: str | None,
    workers: int | None,
    runs_per_gpu: int | None,
    data_dir: Path | None,
    **options: object,
) -> "list[Ended]":
    """Do what is missing on this machine, and wait for it."""
    from jobs.launch import launch_missing, prepare
    from jobs.slots import make_slots

    on = pick_device(device, one_of_several=False).type
    chosen = prepare(name, mode=mode, device=on, seeds=parse_seeds(seeds), data_dir=data_dir)
    slots = make_slots(on, workers, runs_per_gpu)
    try:
        return launch_missing(chosen, store, slots, data_dir=data_dir, **options)  # type: ignore[arg-type]
    except KeyboardInterrupt as stop:
        print("stopped, every run's state saved; the same command goes on from there")
        raise typer.Exit(EXIT_INTERRUPTED) from stop


def _for_slurm(
    name: str,
    *,
    mode: str | None,
    device: str | None,
    seeds: str | None,
    workers: int | None,
    runs_per_gpu: int | None,
    data_dir: Path | None,
    profile: str | None,
    assignments: list[str],
    runs_per_job: int,
    checkpoint_seconds: float = 60.0,
    measure: bool = False,
    probe: bool = False,
) -> "tuple[Experiment, Request]":
    """The experiment as it will run on the nodes, and how it is to be spread over jobs."""
    from jobs.launch import prepare
    from jobs.slurm.arrays import Request, choose_device

    if device not in (None, "cpu", "cuda"):
        raise ConfigError(f"--device {device}: nodes have cpu or cuda")
    on = choose_device(profile, assignments, device)
    if runs_per_gpu is not None and (on != "cuda" or workers is not None):
        raise ConfigError("--runs-per-gpu is for CUDA nodes, --workers for others; give one of them")
    chosen = prepare(name, mode=mode, device=on, seeds=parse_seeds(seeds), data_dir=data_dir)
    request = Request(
        profile=profile,
        assignments=assignments,
        device=on,
        runs_per_job=runs_per_job,
        runs_at_once=runs_per_gpu or workers or 1,
        data_dir=data_dir,
        checkpoint_seconds=checkpoint_seconds,
        measure=measure,
        probe=probe,
    )
    return chosen, request


def _deadline(text: str | None, cluster: str | None) -> Deadline | None:
    """When this command must have ended; ConfigError for one that cannot be read, or on SLURM."""
    seconds = parse_deadline(text)
    if seconds is None:
        return None
    if cluster == "slurm":
        raise ConfigError("--deadline is for runs on this machine; on SLURM the limit of a job is --slurm timeout_min=")
    return Deadline(seconds, time.monotonic())


def _is_cut(ended: "list[Ended]") -> bool:
    """Whether a deadline left something to do."""
    from jobs.local import OUT_OF_TIME

    return any(one.reason == OUT_OF_TIME for one in ended)


def _say_how_to_go_on() -> None:
    print(f"To go on:\n{same_command()}")


def _exit_code(ended: "list[Ended]", store: "Store | None") -> int:
    from jobs.launch import summary

    code = summary(ended)
    return EXIT_FAILED if store is not None and store.records()[1] else code  # more than that some runs are left


if __name__ == "__main__":
    run_guarded(app)
