"""After any fault in a grid each run has a status with its reason, and a rerun gives the same tables."""

import dataclasses
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import checkpoint
from bench.config import Run
from bench.experiments.grid import Cell, Experiment
from bench.process import Interrupted
from bench.record import Record
from bench.report.output import make_tables
from bench.store import Store
from jobs import launch as launching
from jobs.launch import launch_missing
from jobs.layout import LOG_FILE
from jobs.local import Ended, LocalPool
from jobs.slots import Slot
from jobs.status import at_work, states
from tests.command_line import finish, start_python, wait_until
from tests.conftest import EVERY_STEP, SELDOM, tiny_config
from tests.faults import FAULTS, SLOW_WRITE_SECONDS, VARIABLE, WORKER, execute, planned, stopping_at

SLOTS = [Slot(device="cpu", n_threads=1)] * 2
N_STEPS, EVAL_EVERY = 16, 8  # so that checkpoints are of steps 0, 8 and 16
PLAN = {  # each fault, in another run
    "k_operators-s42": ["10:kill"],
    "k_operators-s69": ["9:nan"],
    "k_operators-s420": ["2:slow"],
    "transformer-s42": ["10:disk_full"],
    "transformer-s69": ["9:oom"],
    "transformer-s420": ["2:slow", "10:cancel"],  # so slow that SIGKILL comes before everything is saved
}
ENDINGS = {
    "k_operators-s42": "interrupted",
    "k_operators-s69": "diverged",
    "k_operators-s420": "done",
    "transformer-s42": "io_error",
    "transformer-s69": "oom",
    "transformer-s420": "interrupted",
}
WITHOUT_TIMES = ("perplexity", "parameters")  # the kinds of table without times


@pytest.fixture(autouse=True)
def no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults are planned only by tests."""
    monkeypatch.delenv(VARIABLE, raising=False)


def grid() -> Experiment:
    """Two architectures at three seeds, small enough for seconds."""
    context = 64  # longer than in other tests: fewer windows to evaluate
    configs = {
        label: tiny_config(label, context, 1, n_steps=N_STEPS, eval_every=EVAL_EVERY)
        for label in ("k_operators", "transformer")
    }
    cells = tuple(Cell(label=label, config=config, seeds=(42, 69, 420)) for label, config in configs.items())
    return Experiment(name="grid", question="How does each end?", cells=cells)


def tables(store: Store) -> list[bytes]:
    """The tables of a store without times, in every format."""
    made = make_tables(store)
    assert not made.errors
    chosen = [table for table in made.tables if table.kind in WITHOUT_TIMES]
    assert len(chosen) == len(WITHOUT_TIMES)
    return [text.encode() for table in chosen for text in (table.markdown(), table.csv(), table.latex())]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The grid without any fault."""
    store = Store(tmp_path_factory.mktemp("clean") / "store")
    store.write_manifest(grid().manifest())
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(VARIABLE, raising=False)
        for run in grid().runs():
            execute(run, store, SELDOM)
    return store


def records(store: Store) -> dict[str, Record]:
    """The records of a store by run name."""
    found, errors = store.records()
    assert not errors
    return {f"{one.label}-s{one.seed}": one for one in found}


def run_named(name: str) -> Run:
    """A run of the grid."""
    return next(run for run in grid().runs() if run.name == name)


# the plan -------------------------------------------------------------------------------------------------------------


def test_a_run_has_only_the_faults_planned_for_it(monkeypatch):
    assert planned("a-s1") == []
    monkeypatch.setenv(VARIABLE, "a-s1:5:kill,a-s10:6:nan,a-lr:0.1-s1:0:nan,a-s1:7:oom")
    assert planned("a-s1") == [(5, "kill"), (7, "oom")]
    assert planned("a-lr:0.1-s1") == [(0, "nan")]
    assert {part.split(":")[1] for parts in PLAN.values() for part in parts} == set(FAULTS)


@pytest.mark.usefixtures("on_little_text")
def test_a_process_that_resumes_after_the_step_has_no_second_fault(tiny_run, tmp_path, monkeypatch):
    run, store = tiny_run(n_steps=6), Store(tmp_path)
    steps: list[int] = []
    monkeypatch.setitem(FAULTS, "oom", lambda trainer, _: steps.append(trainer.step))
    monkeypatch.setenv(VARIABLE, f"{run.name}:2:oom")
    with stopping_at(3), pytest.raises(Interrupted):
        execute(run, store, SELDOM)
    assert steps == [2]
    assert execute(run, store, SELDOM).attempts[-1].first_step == 4
    assert steps == [2]


@pytest.mark.usefixtures("on_little_text")
def test_a_process_that_resumes_at_the_step_has_the_fault_again_while_it_is_planned(tiny_run, tmp_path, monkeypatch):
    run, store = tiny_run(n_steps=6), Store(tmp_path)
    monkeypatch.setenv(VARIABLE, f"{run.name}:2:oom")
    for _ in range(2):
        failed = execute(run, store, EVERY_STEP)
        assert (failed.status, failed.stopped_at_step) == ("oom", 2)
        store.take_record(run.run_id, store.run_folder(run.run_id))
    monkeypatch.delenv(VARIABLE)
    finished = execute(run, store, EVERY_STEP)
    assert (finished.status, finished.attempts[-1].first_step) == ("done", 2)


@pytest.mark.usefixtures("on_little_text")
def test_slow_delays_every_file_of_the_run_from_its_step_on(tiny_run, tmp_path, monkeypatch):
    run, store = tiny_run(n_steps=8), Store(tmp_path)
    pauses: list[float] = []
    delays: dict[str, list[float]] = {}  # by file: the pauses before it was last written
    replace = Path.replace

    def note(path: Path, target: Path) -> Path:
        delays[target.name] = pauses.copy()
        pauses.clear()
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", note)  # this also removes the patch of the fault
    monkeypatch.setattr("tests.faults.time", SimpleNamespace(sleep=pauses.append))
    monkeypatch.setenv(VARIABLE, f"{run.name}:5:slow")
    finished = execute(run, store, SELDOM)
    assert finished.status == "done"
    for name in ("checkpoint-00000008.pt", "checkpoint-00000008.pt.sha256", "progress.json"):
        assert delays[name] == [SLOW_WRITE_SECONDS], name
    for name in ("checkpoint-00000000.pt", "checkpoint-00000004.pt"):  # before
        assert delays[name] == [], name


# a grid with every fault ----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class FaultyLaunch:
    """The store of a launch of the grid under the plan, and how its runs ended, by name."""

    root: Path
    ended: dict[str, Ended]


@pytest.fixture(scope="module")
def faulty_launch(tmp_path_factory: pytest.TempPathFactory) -> FaultyLaunch:
    """The grid, launched once with real workers under the plan."""
    root = tmp_path_factory.mktemp("faults") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, ",".join(f"{name}:{part}" for name, parts in PLAN.items() for part in parts))
        patch.setattr(launching, "estimate_seconds", lambda *_: {})
        patch.setattr("jobs.attempt.WORKER", WORKER)
        ended = launch_missing(grid(), Store(root), SLOTS)
    return FaultyLaunch(root, {one.run.name: one for one in ended})


@pytest.fixture
def store(faulty_launch: FaultyLaunch, tmp_path: Path) -> Store:
    """A copy of the store of the launch."""
    return Store(shutil.copytree(faulty_launch.root, tmp_path / "store"))


def test_every_run_has_a_status_and_its_faults_in_its_log(store):
    [manifest], _ = store.manifests()
    found = {one.name: one for one in states(store, manifest, store.records()[0])}
    assert {name: one.state for name, one in found.items()} == ENDINGS
    assert {name for name, one in found.items() if one.recorded} == set(records(store))
    for name, parts in PLAN.items():
        log = (store.run_folder(run_named(name).run_id) / LOG_FILE).read_text()
        assert re.findall(rf"^{VARIABLE}: (\S+) before step (\d+)$", log, re.MULTILINE) == [
            (fault, step) for step, fault in (part.split(":") for part in parts)
        ]


def test_killed_and_cancelled_runs_have_no_record_and_stop_no_other_run(faulty_launch):
    assert {name: one.status for name, one in faulty_launch.ended.items()} == {
        name: None if ending == "interrupted" else ending for name, ending in ENDINGS.items()
    }
    reasons = {name: one.reason for name, one in faulty_launch.ended.items() if one.status is None}
    assert set(reasons.values()) == {"killed by SIGKILL"}, reasons


def test_each_fault_has_its_status_at_its_step_and_a_full_disk_leaves_the_checkpoint_before(store):
    for name, step, words in (
        ("k_operators-s69", 9, "nan"),
        ("transformer-s69", 9, "OutOfMemoryError"),
        ("transformer-s42", 16, "File too large"),
    ):
        ended = records(store)[name]
        assert (ended.status, ended.stopped_at_step, ended.result) == (ENDINGS[name], step, None)
        assert words in (ended.error or "")
    folder = store.run_folder(run_named("transformer-s42").run_id)
    assert [checkpoint.load(path)["trainer"]["step"] for path in checkpoint.paths(folder)] == [0, 8]
    assert not list(folder.glob(".*.tmp"))


def counted(store: Store) -> tuple[list[str], str]:
    """The n of each arm of the grid, K-Operators first, and the notes below the table."""
    table = next(table for table in make_tables(store).tables if table.kind == "perplexity")
    return [row[table.columns.index("n")] for row in table.rows], "\n".join(table.notes)


def test_tables_count_the_runs_that_are_not_done(store):
    counts, notes = counted(store)
    assert counts == ["1 of 3", "0 of 3"]
    assert "k_operators: 1 of 3 runs done (diverged: seed 69 at step 9; missing: seed 42)." in notes
    assert "io_error: seed 42 at step 16; missing: seed 420; oom: seed 69 at step 9)." in notes


@pytest.mark.usefixtures("no_probe")
def test_a_grid_with_every_fault_ends_with_the_tables_of_a_grid_without(store, clean, monkeypatch):
    def run_here(pool: LocalPool, runs: list[Run], _: object) -> list[Ended]:
        """Do runs in this process, which starts faster than workers."""
        ended = [execute(run, pool.store, SELDOM) for run in runs]
        return [Ended(run=run, status=one.status, reason="") for run, one in zip(runs, ended, strict=True)]

    monkeypatch.setattr(LocalPool, "run", run_here)
    launch_missing(grid(), store, SLOTS, retry="failed")  # also does the runs without a record
    found = records(store)
    assert {name: one.status for name, one in found.items()} == {
        **dict.fromkeys(ENDINGS, "done"),
        "k_operators-s69": "diverged",
    }
    assert found["k_operators-s42"].attempts[-1].first_step == 8
    assert found["transformer-s42"].attempts[-1].first_step == 8
    assert counted(store)[0] == ["2 of 3", "3"]

    launch_missing(grid(), store, SLOTS, retry="diverged")
    assert {one.status for one in records(store).values()} == {"done"}
    assert tables(store) == tables(clean)


# a launch that is interrupted again and again -------------------------------------------------------------------------

LAUNCH = """
from bench.cli import run_guarded
from bench.experiments import EXPERIMENTS
from jobs import attempt, launch
from jobs.app import app
from tests.bench.test_faults import grid
from tests.faults import WORKER

EXPERIMENTS["grid"] = grid
attempt.WORKER = WORKER
launch.estimate_seconds = lambda *_: {}
run_guarded(app)
"""  # `python -m jobs` with the grid as an experiment, without estimates, which take many seconds at each start


def start_launch(store: Store, output: Path, plan: str = "") -> subprocess.Popen[str]:
    """Launch the grid from a new process and process group, with a checkpoint at each step."""
    arguments = ["launch", "--experiment", "grid", "--store", store.root, "--device", "cpu", "--checkpoint-seconds", 0]
    arguments += ["--workers", os.cpu_count()]  # one thread each
    options = {"env": {**os.environ, VARIABLE: plan}, "stderr": subprocess.STDOUT, "start_new_session": True}
    with output.open("w") as file:
        return start_python("-c", LAUNCH, *arguments, stdout=file, **options)


def written(store: Store) -> dict[str, tuple[bytes, int]]:
    """Each record by name: its bytes and when it was written."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in store.record_paths()}


def checkpoints(store: Store) -> set[Path]:
    """The complete checkpoints of all runs."""
    return set(store.work_folder.glob("*/checkpoint-*.pt.sha256"))


INTERRUPTIONS = (  # and the state of its workers
    (signal.SIGINT, "starting"),
    (signal.SIGKILL, "training"),
    (signal.SIGINT, "training"),
    (signal.SIGKILL, "starting"),
    (signal.SIGINT, "starting"),
)


@pytest.mark.fault("F19")
def test_a_launch_interrupted_five_times_changes_no_record_and_gives_the_tables_of_one_without(tmp_path, clean):
    store, rng, codes = Store(tmp_path / "store"), random.Random(19), []
    run_ids = [run.run_id for run in grid().runs()]
    # so that training takes a while, from any step
    slow = ",".join(f"{run.name}:{step}:slow" for run in grid().runs() for step in range(0, N_STEPS, 4))
    for one in clean.records()[0]:
        if one.run_id in run_ids[:4]:
            store.write_record(one)  # as of an earlier launch
    before = written(store)
    for number, (stop, when) in enumerate(INTERRUPTIONS):
        output, saved = tmp_path / f"output-{number}", checkpoints(store)
        process = start_launch(store, output, slow)
        begun = {
            "starting": lambda: "started" in output.read_text(),  # noqa: B023
            "training": lambda: checkpoints(store) - saved,  # noqa: B023
        }[when]
        wait_until(lambda: begun() or process.poll() is not None, f"{when}, to interrupt it")  # noqa: B023
        time.sleep(rng.uniform(0, 0.8))
        if stop == signal.SIGKILL:
            process.kill()
        elif process.poll() is None:
            os.killpg(process.pid, stop)  # as a terminal does: the whole group of processes
        codes.append(finish(process)[0])
        assert codes[-1] in (130, -signal.SIGKILL, 0), output.read_text()
        wait_until(lambda: not at_work(store, run_ids), "the workers of the ended launcher to stop")
        after = written(store)
        assert before.items() <= after.items(), "a record was touched"
        before = after
    assert any(codes), "every launch was over before it was interrupted"
    again = (finish(start_launch(store, tmp_path / f"last-{number}"))[0] for number in range(3))
    assert 0 in again  # stops at the first 0
    assert before.items() <= written(store).items(), "a record was touched"
    assert len(store.record_paths()) == len(run_ids)
    assert tables(store) == tables(clean)
