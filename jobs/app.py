"""`python -m jobs ...`: launch the missing runs of an experiment here or on SLURM, and look after them."""

import shlex
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import make_app, parse_seeds, pick_device
from bench.commands import DataDir, Device
from bench.errors import EXIT_FAILED, EXIT_INTERRUPTED, ConfigError, typed
from bench.store import Store
from jobs.deadline import Deadline, parse_deadline, same_command
from jobs.watching import cancel, doctor, gc, logs, retry, status, why

if TYPE_CHECKING:
    from bench.experiments.grid import Experiment
    from jobs.local import Ended

HELP = "Launch an experiment and watch it. Example: python -m jobs launch --experiment smoke --dry-run"
app = make_app(HELP, status, why, logs, cancel, retry, gc, doctor)

StorePath = Annotated[Path, typer.Option("--store", help="Folder of records; for SLURM one that its nodes share.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Runs at a time; by default as many as fit on the GPUs, else two on the CPU.")
]
RunsPerGpu = Annotated[
    int | None,
    typer.Option(min=1, help="Runs at a time on each GPU, since one small model cannot fill it; by default what fits."),
]
Probe = Annotated[bool, typer.Option("--probe", help="Time a few steps of what has no known time, also in a dry run.")]
Pattern = Annotated[str | None, typer.Option("-k", help="Only runs whose name has each word; !word excludes.")]
Seeds = Annotated[str | None, typer.Option(help="Seeds in place of the experiment's own, e.g. 42,69.")]
Retry = Annotated[str | None, typer.Option(help="Try again what is recorded as failed, oom or diverged.")]
Cluster = Annotated[str | None, typer.Option(help="slurm, or local, which is the default.")]
Profile = Annotated[str | None, typer.Option(help="SLURM: a name in jobs/profiles, or a .toml file.")]
Assignments = Annotated[
    list[str] | None, typer.Option("--slurm", help="SLURM: over the profile, e.g. partition=gpu. Repeatable.")
]
RunsPerJob = Annotated[int, typer.Option(min=1, help="SLURM: runs that one job does, one after the other.")]
AnySources = Annotated[
    bool, typer.Option("--any-sources", help="Let waiting runs start even if the sources are edited meanwhile.")
]
Scripts = Annotated[Path | None, typer.Option("--emit-scripts", help="SLURM: write scripts there, to submit by hand.")]
Measure = Annotated[
    bool, typer.Option("--measure", help="SLURM: time some steps on a node, for the time limits of a later launch.")
]
Archive = Annotated[
    Path | None, typer.Option(help="An archive (.tar.gz) of the store's records, however the launch ends.")
]
DeadlineText = Annotated[
    str | None,
    typer.Option("--deadline", help="Time this may take, e.g. 12m or 1h30m: starts only what can end by then. Exit 3."),
]


@dataclass(frozen=True, kw_only=True)
class Target:
    """Which runs of an experiment, on which devices: the options that a launch here and one on SLURM share."""

    mode: str | None = None
    device: str | None
    seeds: str | None
    workers: int | None
    runs_per_gpu: int | None
    data_dir: Path | None

    def prepare(self, name: str, device: str, store: Store) -> "Experiment":
        """The experiment as it will run on a kind of device, into a store. ConfigError where it cannot."""
        from jobs.launch import prepare

        seeds = parse_seeds(self.seeds)
        return prepare(name, mode=self.mode, device=device, seeds=seeds, data_dir=self.data_dir, store=store)


@app.command()
def launch(
    experiment: Annotated[str, typer.Option(help="Experiment: laptop, paper, matched, ... A wrong name lists all.")],
    store: StorePath = Path("reproduced"),
    workers: Workers = None,
    runs_per_gpu: RunsPerGpu = None,
    pattern: Pattern = None,
    retry: Retry = None,
    deadline: DeadlineText = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs and their cost; run nothing.")] = False,
    probe: Probe = False,
    seeds: Seeds = None,
    mode: Annotated[str | None, typer.Option(help="exact or fast; the default is fast on CUDA.")] = None,
    device: Device = None,
    data_dir: DataDir = None,
    checkpoint_seconds: Annotated[float, typer.Option(min=0, help="Between checkpoints of a run.")] = 60.0,
    any_sources: AnySources = False,
    cluster: Cluster = None,
    profile: Profile = None,
    slurm: Assignments = None,
    runs_per_job: RunsPerJob = 1,
    test_only: Annotated[bool, typer.Option("--test-only", help="SLURM: ask when the jobs would start.")] = False,
    emit_scripts: Scripts = None,
    measure: Measure = False,
    pack: Archive = None,
) -> None:
    """Do every run of an experiment that has no record yet. Run it again to go on after anything stopped it.

    With --cluster slurm it submits what is missing and returns at once.
    """
    until, here = _deadline(deadline, cluster), Store(store)
    which: dict[str, Any] = {"pattern": pattern, "retry": retry, "any_sources": any_sources}
    target = Target(
        mode=mode, device=device, seeds=seeds, workers=workers, runs_per_gpu=runs_per_gpu, data_dir=data_dir
    )
    if not _is_slurm(cluster, profile or slurm or test_only or emit_scripts or measure or runs_per_job > 1):
        which |= {"checkpoint_seconds": checkpoint_seconds, "deadline": until, "dry_run": dry_run, "probe": probe}
        raise typer.Exit(_launch_and_pack(experiment, here, target, pack, which))
    if pack is not None:
        by_hand = shlex.join(["tar", "czf", str(pack), "-C", str(store), "runs", "experiments"])
        raise ConfigError(f"--pack waits for the runs, and a SLURM launch does not; when they have ended: {by_hand}")
    if emit_scripts is not None and (test_only or dry_run):
        raise ConfigError("--emit-scripts writes, and --dry-run and --test-only do not; give one of them")
    jobs: dict[str, Any] = {"profile": profile, "assignments": slurm or [], "runs_per_job": runs_per_job}
    jobs |= {"checkpoint_seconds": checkpoint_seconds, "measure": measure, "probe": probe}
    which |= {"rehearse": dry_run, "test_only": test_only, "scripts": emit_scripts}
    if _submit(experiment, here, target, jobs, which) and not (dry_run or test_only):
        print(f"watch them with `{typed('jobs', 'status', '--watch', store=store)}`; the same command goes on")
    raise typer.Exit(EXIT_FAILED if here.records()[1] else 0)


@app.command()
def reproduce(
    experiment: Annotated[str | None, typer.Option(help="By default what suits this machine.")] = None,
    store: StorePath = Path("reproduced"),
    committed: Annotated[Path, typer.Option(help="The store whose values are shown next to yours.")] = Path("results"),
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
    """Train what is missing, then print its tables with the committed values next to yours, and the verdicts.

    With --cluster slurm it submits what is missing and prints the table of what is there; run it again for the rest.
    """
    from jobs.launch import summary
    from jobs.outcome import show_outcome

    until, here, code = _deadline(deadline, cluster), Store(store), 0
    ended: list[Ended] = []
    target = Target(device=device, seeds=seeds, workers=workers, runs_per_gpu=runs_per_gpu, data_dir=data_dir)
    if _is_slurm(cluster, profile or slurm or runs_per_job > 1):
        name = experiment or "paper"
        why = "" if experiment else " (for SLURM; choose another with EXPERIMENT=laptop or smoke)"
        jobs = {"profile": profile, "assignments": slurm or [], "runs_per_job": runs_per_job}
        if _submit(name, here, target, jobs, {"retry": retry, "why": why}):
            print("The jobs are submitted. The same command prints the table, and submits what was lost by then.")
    else:
        name, why = (experiment, "") if experiment else _suited(device)
        ended = _launch_here(name, here, target, {"retry": retry, "why": why, "deadline": until})
        code = summary(ended, here)
    codes = (code, show_outcome(here, Store(committed), name))
    if any(one.cut for one in ended):
        print(f"To go on:\n{same_command()}")
    raise typer.Exit(EXIT_FAILED if EXIT_FAILED in codes else max(codes))


@app.command(hidden=True)
def task(folder: Annotated[Path, typer.Argument(help="Folder of a submission's plan.")]) -> None:
    """What a SLURM script calls: do the part of a submission that SLURM's environment names."""
    from jobs.slurm.task import start

    raise typer.Exit(start(folder))


def _suited(device: str | None) -> tuple[str, str]:
    """The experiment that suits this machine, and why."""
    on_cuda = pick_device(device, one_of_several=False).type == "cuda"
    there = "" if shutil.which("sbatch") is None else "; SLURM is here: CLUSTER=slurm PROFILE=NAME uses it"
    others = "choose another with EXPERIMENT=paper, laptop or smoke"
    name, has = ("paper", "a") if on_cuda else ("laptop", "no")
    return name, f" (this machine has {has} CUDA device; {others}{there})"


def _is_slurm(cluster: str | None, only_slurm: object) -> bool:
    """Whether SLURM was asked for. ConfigError for options that only SLURM has, without it."""
    if cluster not in (None, "local", "slurm"):
        raise ConfigError(f"--cluster {cluster}: there are slurm and local")
    if only_slurm and cluster != "slurm":
        options = "--profile, --slurm, --runs-per-job, --test-only, --emit-scripts and --measure"
        raise ConfigError(f"{options} are for SLURM: add --cluster slurm")
    return cluster == "slurm"


def _launch_and_pack(name: str, store: Store, target: Target, pack: Path | None, options: dict[str, Any]) -> int:
    """Launch here; where the deadline cut it, write tables and print how to continue. The exit code."""
    from bench.transfer.pack import packing
    from jobs.launch import summary
    from jobs.outcome import write_all_tables

    with packing(store, pack, dry_run=options["dry_run"]):
        ended = _launch_here(name, store, target, options)
    code = summary(ended, store)
    if store.records()[1]:
        code = EXIT_FAILED  # more than that some runs are left
    if any(one.cut for one in ended):
        write_all_tables(store)
        print(f"The tables of what there is: {store.root}/tables\nTo go on:\n{same_command()}")
    return code


def _launch_here(name: str, store: Store, target: Target, options: dict[str, Any]) -> "list[Ended]":
    """Do what is missing on this machine, and wait for it; where its records decide on further cells, those too."""
    from bench.experiments import FROM_RECORDS
    from jobs.launch import launch_missing
    from jobs.slots import make_slots

    device = pick_device(target.device, one_of_several=False).type
    chosen = target.prepare(name, device, store)
    slots = make_slots(device, target.workers, target.runs_per_gpu)
    try:
        ended = launch_missing(chosen, store, slots, data_dir=target.data_dir, **options)
        while name in FROM_RECORDS and not any(one.cut for one in ended):
            before, chosen = chosen, target.prepare(name, device, store)
            if chosen.cells == before.cells or options.get("dry_run"):
                break
            later = launch_missing(chosen, store, slots, data_dir=target.data_dir, **{**options, "retry": None})
            ended = [*(one for one in ended if one.run not in [each.run for each in later]), *later]
        return ended
    except KeyboardInterrupt as stop:
        print("stopped, every run's state saved; the same command goes on from there")
        raise typer.Exit(EXIT_INTERRUPTED) from stop


def _submit(name: str, store: Store, target: Target, jobs: dict[str, Any], options: dict[str, Any]) -> bool:
    """Submit what is missing to SLURM, and whether anything was. `jobs` are fields of a Request."""
    from jobs.slurm.arrays import Request, choose_device, submit_missing

    if target.device not in (None, "cpu", "cuda"):
        raise ConfigError(f"--device {target.device}: nodes have cpu or cuda")
    device = choose_device(jobs["profile"], jobs["assignments"], target.device)
    if target.runs_per_gpu is not None and (device != "cuda" or target.workers is not None):
        raise ConfigError("--runs-per-gpu is for CUDA nodes, --workers for others; give one of them")
    at_once = target.runs_per_gpu or target.workers or 1
    request = Request(device=device, runs_at_once=at_once, data_dir=target.data_dir, **jobs)
    return bool(submit_missing(target.prepare(name, device, store), store, request, **options))


def _deadline(text: str | None, cluster: str | None) -> Deadline | None:
    """When this command must have ended; ConfigError for one that cannot be read, or on SLURM."""
    seconds = parse_deadline(text)
    if seconds is None:
        return None
    if cluster == "slurm":
        raise ConfigError("--deadline is for runs on this machine; on SLURM the limit of a job is --slurm timeout_min=")
    return Deadline(seconds, time.monotonic())
