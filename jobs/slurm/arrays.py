"""From the missing runs of a grid to SLURM arrays, one per kind of job, submitted with submitit."""

import os
import shlex
import subprocess
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from submitit.slurm.slurm import _make_sbatch_string  # what its executor writes scripts with

from bench.config import Run
from bench.errors import ConfigError
from bench.experiments.grid import Experiment
from bench.fetch import DATA_DIR_VARIABLE
from bench.sources import ROOT
from bench.store import RUNS_DIR_VARIABLE, Store
from jobs.cache import CACHE_DIR_VARIABLE
from jobs.cost import Estimate, known_estimates, schedule_seconds
from jobs.display import duration
from jobs.launch import Todo, announce, find_todo, list_grid, write_plan
from jobs.layout import CANCEL_FILE
from jobs.probe import estimate_seconds
from jobs.slots import Slot
from jobs.slurm.commands import SUBMIT_SECONDS, read_answer, run_program, words_of
from jobs.slurm.paths import as_named, checkout
from jobs.slurm.scheduler import SchedulerError, found_in_queue, max_array_size, tasks_by_run
from jobs.slurm.site import Site, choose_site, job_python, overruled, timeout_minutes
from jobs.slurm.submission import Submission, make_name, note_job, submissions
from jobs.slurm.task import ARRAY_VARIABLES
from jobs.speeds import Platform
from jobs.worker import write_run

SIGNAL = "USR2"  # that time is short; submitit's own choice, since NCCL takes USR1


@dataclass(frozen=True, kw_only=True)
class Request:
    """How a grid is to be spread over jobs."""

    profile: str | None
    assignments: list[str]  # --slurm key=value
    device: str
    runs_per_job: int
    runs_at_once: int  # of those of a job, side by side
    data_dir: Path | None
    checkpoint_seconds: float = 60.0
    measure: bool = False  # time some steps of each config, and train nothing
    probe: bool = False  # time on this machine what has no known time, also where nothing is submitted


@dataclass(frozen=True, kw_only=True)
class Array:
    """A submission, and what its jobs ask for."""

    submission: Submission
    site: Site
    asks_for: str  # each value, and where it came from
    known: bool  # whether its time limit comes from a measured time


def choose_device(profile: str | None, assignments: list[str], device: str | None) -> str:
    """The device of the nodes: as given, as in the profile, else CUDA where jobs ask for a GPU."""
    site = choose_site(profile, assignments, "gpu").site
    return device or site.device or ("cuda" if site.asks_for_gpu else "cpu")


def submit_missing(
    experiment: Experiment,
    store: Store,
    request: Request,
    *,
    pattern: str | None = None,
    retry: str | None = None,
    any_sources: bool = False,
    rehearse: bool = False,
    test_only: bool = False,
    scripts: Path | None = None,
    why: str = "",
) -> list[Array]:
    """Submit what is missing of an experiment and is not in the queue, and return at once with what was submitted.

    `rehearse` prints the scripts, `test_only` asks SLURM when they would start, `scripts` is a folder to write them
    to for submitting by hand; with the first two nothing is written.
    """
    pretending = rehearse or test_only
    todo = find_todo(experiment, store, pattern=pattern, retry=retry, pretending=pretending)
    for one in todo.busy:
        print(f"{one.run.name}: {one.reason}; left to it")
    todo, queued = without_queued(todo, store, must_know=not (rehearse or scripts))
    estimates = array_estimates(todo.runs, store, replace(request, probe=request.probe or not pretending))
    seconds = {run_id: one.seconds for run_id, one in estimates.items()}
    arrays = make_arrays(experiment, todo.runs, store, request, seconds)
    print(f"Experiment {experiment.name}{why}, on {request.device} nodes of SLURM, mode {experiment.mode}")
    announce(experiment, store, todo)
    if queued:
        print(f"{len(queued)} of them are queued or running already, and stay there")
    for array in arrays:
        arrays_text(array)
    if rehearse:
        list_grid(replace(todo, statuses={**todo.statuses, **dict.fromkeys(queued, "queued")}), estimates)
    elif request.measure:
        for run_id in {run_id for array in arrays for task in array.submission.tasks for run_id in task}:
            write_run(next(run for run in todo.runs if run.run_id == run_id), store, any_sources=any_sources)
    elif not test_only:
        write_plan(experiment, store, todo, any_sources=any_sources)
    for array in arrays:
        text = script(array, store)
        if rehearse:
            print(f"\n--- {array.submission.name}.sh\n{text}", end="")
        elif test_only:
            name = array.submission.name
            print(f"{name}: {words_of(sbatch('--test-only', name=name, text=text))}")
        elif scripts is not None:
            array.submission.write(store)
            path = write_script(scripts, array.submission.name, text)
            print(f"sbatch {shlex.quote(str(path))}")
        else:
            job = submit(array, store)
            as_job = f"as job {' on '.join(filter(None, job))}" if job else "(accepted, id unknown: found by its name)"
            print(f"submitted {array.submission.name} {as_job}")
    return arrays


def without_queued(todo: Todo, store: Store, *, must_know: bool) -> tuple[Todo, set[str]]:
    """Without the runs of tasks that are queued or running, and the ids of those.

    SchedulerError where SLURM cannot be asked and something may be in its queue, unless this is only a rehearsal.
    """
    try:
        tasks = tasks_by_run(store)
    except SchedulerError as error:
        if must_know:
            raise
        print(f"WARNING: {error}; what is in the queue is not known")
        return todo, set()
    active = {run_id for run_id, task in tasks.items() if task.active}
    left_alone = {run_id for run_id in active if (store.run_folder(run_id) / CANCEL_FILE).exists()}  # by their tasks
    queued = {run.run_id for run in todo.runs} & (active - left_alone)
    return replace(todo, runs=[run for run in todo.runs if run.run_id not in queued]), queued


def array_estimates(runs: list[Run], store: Store, request: Request) -> dict[str, Estimate]:
    """The seconds of each run on the nodes, by run id: as measured for its shape, else (CPU, or `probe`) timed here.

    FLOPs at another shape's speed make no time limit: a limit that is too short costs more than one that is too long.
    """
    threads = threads_of(choose_site(request.profile, request.assignments, "cpu").site, request)
    platform = Platform(device=request.device, n_threads=threads)
    estimates = known_estimates(runs, (store, Store(ROOT / "results")), platform, longest=True, scaled=False)
    unknown = [run for run in runs if run.run_id not in estimates]
    if unknown and request.device == "cpu" and request.probe:
        timed = estimate_seconds(unknown, [Slot(device="cpu", n_threads=threads)], request.data_dir)
        estimates |= {run_id: Estimate(seconds=one, source="timed here just now") for run_id, one in timed.items()}
    return estimates


def threads_of(site: Site, request: Request) -> int:
    """CPU threads of each run of a job."""
    return max((site.cpus_per_task or 1) // request.runs_at_once, 1)


def make_arrays(
    experiment: Experiment, runs: list[Run], store: Store, request: Request, seconds: dict[str, float]
) -> list[Array]:
    """One array a kind of job (with a GPU, without), cut where SLURM takes no longer ones; each run in one task."""
    folder = str(as_named(store.work_folder))
    if "%" in folder or not folder.isprintable():
        raise ConfigError(f"{folder!r}: SLURM needs a path without % and on one line; name another store")
    if request.measure:  # which takes a moment
        by_config = {run.config: run for run in runs if run.config.training is not None}
        runs, seconds = list(by_config.values()), dict.fromkeys([run.run_id for run in by_config.values()], 0.0)
    on_gpu = [run for run in runs if request.device == "cuda" and run.config.training is not None]
    arrays: list[Array] = []
    number = max((one.number for one in submissions(store)), default=-1) + 1
    for kind, some in (("gpu", on_gpu), ("cpu", [run for run in runs if run not in on_gpu])):
        if not some:
            continue
        chosen = choose_site(request.profile, request.assignments, kind)
        site = chosen.site
        at_once = min(request.runs_at_once, len(some))
        per_job = max(request.runs_per_job, at_once) if not request.measure else len(some)
        tasks = [some[i : i + per_job] for i in range(0, len(some), per_job)]
        longest = site.max_array_size or max_array_size(site.cluster_names)
        for part in (tasks[i : i + longest] for i in range(0, len(tasks), longest)):
            ids = tuple(tuple(run.run_id for run in task) for task in part)
            known = all(run_id in seconds for task in ids for run_id in task)
            slowest = max(schedule_seconds([seconds.get(one, 0.0) for one in task], at_once) for task in ids)
            if kind == "gpu":  # times are of runs that had their GPU to themselves
                slowest *= at_once
            submission = Submission(
                name=make_name(store, ids, number + len(arrays)),
                experiment=experiment.name,
                store=str(as_named(store.root)),
                tasks=ids,
                device="cuda" if kind == "gpu" else "cpu",
                n_threads=threads_of(site, request),
                runs_at_once=at_once,
                timeout_min=site.timeout_min or timeout_minutes(slowest if known else None),
                checkpoint_seconds=request.checkpoint_seconds,
                data_dir=str(as_named(request.data_dir)) if request.data_dir else None,
                number=number + len(arrays),
                measures=request.measure,
                clusters=site.cluster_names,
            )
            arrays.append(Array(submission=submission, site=site, asks_for=chosen.describe(), known=known))
    return arrays


def arrays_text(array: Array) -> None:
    """Say what will be asked for, where it comes from, and what in the environment would overrule it."""
    submission, n_runs = array.submission, sum(map(len, array.submission.tasks))
    source = "as named" if array.site.timeout_min else "as known" if array.known else "no time is known"
    limit = f"time limit {duration(60 * submission.timeout_min)} ({source}), then requeued"
    print(f"{submission.name}: {len(submission.tasks)} jobs for {n_runs} runs, {submission.runs_at_once} side by side")
    print(f"  {submission.device}, {submission.n_threads} threads a run; {limit}")
    print(f"  asks for {array.asks_for}")
    for warning in overruled(array.site):
        print(f"WARNING: {warning}")


def parameters(array: Array) -> dict[str, Any]:
    """Parameters of submitit's executor; settings without a value give no line in the script."""
    site, submission = array.site, array.submission
    # without srun the only process to warn is the one that sbatch started, and it has to be asked for by B:
    signal = f"{'' if site.use_srun else 'B:'}{SIGNAL}@{site.signal_delay_s}"
    return {
        "job_name": submission.name,
        "time": submission.timeout_min,
        "wckey": None,  # submitit's own is refused by some sites
        "array_parallelism": site.array_parallelism,
        "signal_delay_s": site.signal_delay_s,
        "stderr_to_stdout": True,
        "use_srun": site.use_srun,
        "srun_args": list(site.srun_args) or None,
        "setup": [unset_line(submission), *site.setup, *environment_lines()],
        "additional_parameters": {**site.sbatch_options, "requeue": True, "signal": signal},
    }


def unset_line(submission: Submission) -> str:
    """The shell line that forgets what a script submitted from within another job inherits from that job.

    SLURM sets the variables of an array only in its tasks; and a requeue must go to the cluster of the job itself.
    """
    names = ["SLURM_CLUSTERS", *(ARRAY_VARIABLES if len(submission.tasks) == 1 else ())]
    return f"unset {' '.join(names)}"


def environment_lines() -> list[str]:
    """Shell lines that give a node what the launcher has: the sources, the corpus, the folders of runs and caches."""
    folder = shlex.quote(str(checkout()))
    lines = [f"cd {folder}", "export PYTHONUNBUFFERED=1", f"export SUBMITIT_PREEMPT_SIGNAL={SIGNAL}"]
    for name in (DATA_DIR_VARIABLE, RUNS_DIR_VARIABLE, CACHE_DIR_VARIABLE):
        if value := os.environ.get(name):
            path = str(as_named(Path(value)))
            if not path.isprintable():
                raise ConfigError(f"{name}={value!r}: a path on one line, please")
            lines.append(f"export {name}={shlex.quote(path)}")
    return lines


def command(array: Array, store: Store) -> str:
    """The last line of the script. `exec`, so that SLURM's signals reach Python and not a shell around it."""
    folder = as_named(array.submission.folder(store))
    start = f"{job_python(array.site)} -u -m jobs task {shlex.quote(str(folder))}"
    return start if array.site.use_srun else f"exec {start}"


def script(array: Array, store: Store) -> str:
    """The sbatch script of an array, to the letter as submitit writes it."""
    n_tasks = len(array.submission.tasks)
    text: str = _make_sbatch_string(
        command=command(array, store),
        folder=as_named(array.submission.folder(store)),
        map_count=n_tasks if n_tasks > 1 else None,
        **parameters(array),
    )
    return text


def submit(array: Array, store: Store) -> tuple[str, str | None] | None:
    """Hand an array to SLURM; its job's id and cluster, or None where SLURM took it without naming an id.

    SchedulerError with sbatch's own words where it is refused.
    """
    submission = array.submission
    folder = as_named(submission.write(store))
    path = write_script(folder, submission.name, script(array, store))
    done = sbatch("--parsable", str(path), name=submission.name)
    job = read_answer(done.stdout)
    if job is None:
        with suppress(SchedulerError):  # a later command looks again
            job = found_in_queue(submission)
    if job is not None:
        note_job(folder, *job)
    return job


def sbatch(*arguments: str, name: str, text: str = "") -> "subprocess.CompletedProcess[str]":
    """What sbatch says of a submission. SchedulerError with its own words where it refuses."""
    try:
        done = run_program("sbatch", *arguments, text=text, seconds=SUBMIT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise SchedulerError(f"sbatch, {name}: {error}; it may be in the queue: launch again") from error
    except OSError as error:
        raise SchedulerError(f"sbatch: {error}; is this a login node of a SLURM cluster?") from error
    if done.returncode:
        raise SchedulerError(f"sbatch refused {name}: {words_of(done)}")
    return done


def write_script(folder: Path, name: str, text: str) -> Path:
    """A script for `sbatch`, to be looked at or submitted by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.sh"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o700)
    return path
