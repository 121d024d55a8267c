"""An experiment is brought to its records, whatever fails, stops or kills it on the way."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.config import Run
from bench.errors import ConfigError, CorpusError, EditedSources
from bench.experiments import EXPERIMENTS, smoke
from bench.experiments.grid import Experiment
from bench.experiments.recipes import floors
from bench.fetch import DATA_DIR_VARIABLE, DownloadError
from bench.lease import hold
from bench.process import read_progress
from bench.record import Record, read
from bench.run import Settings, execute
from bench.store import Store
from jobs import launch as launching
from jobs import status
from jobs.__main__ import app
from jobs.cost import schedule_seconds
from jobs.grid import RETRIES, missing, select, set_aside
from jobs.launch import launch_missing, prepare, summary
from jobs.local import Ended, LocalPool
from jobs.slots import Slot, make_slots
from jobs.worker import find_run, write_run
from tests.command_line import ROOT, call, finish, kill_if_alive, start, wait_until
from tests.conftest import CONTEXT
from tests.records import make_manifest, make_record
from tests.tiny import tiny_cell, tiny_runs

ESCAPE = "\x1b"


def mixed() -> Experiment:
    """Runs that end in every way: well, by divergence, by failing, and without any record."""
    floor = floors(context=CONTEXT, n_sampled_batches=1)[0]
    return Experiment(
        name="mixed",
        question="What becomes of each?",
        cells=(
            tiny_cell("failing", grouping="grouped"),  # which the Transformer does not have
            tiny_cell("diverging", learning_rate=1e30),
            tiny_cell("good"),
            dataclasses.replace(floor, config=dataclasses.replace(floor.config, corpus="synthetic")),
        ),
    )


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below a folder: its bytes and when they were written."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def run_named(label: str) -> Run:
    """A run of `mixed`."""
    return next(run for run in mixed().runs() if run.label == label)


# what is to be done ---------------------------------------------------------------------------------------------------


def record_path(store: Store, run: Run) -> Path:
    return next(path for path in store.record_paths() if read(path, Record).run_id == run.run_id)


def test_what_is_missing_is_the_grid_minus_the_records():
    runs = smoke().runs()
    assert missing(runs, {}, None) == runs
    statuses = {runs[0].run_id: "done", runs[2].run_id: "failed", runs[3].run_id: "diverged", "0" * 12: "done"}
    assert missing(runs, statuses, None) == [run for run in runs if run.run_id not in statuses]
    assert missing(runs, {run.run_id: "done" for run in runs}, None) == []


@pytest.mark.parametrize(
    ("retry", "statuses"),
    [
        (None, set()),
        ("failed", {"failed", "oom", "timeout", "cancelled", "io_error"}),
        ("oom", {"oom"}),
        ("diverged", {"diverged"}),
    ],
)
def test_only_what_is_named_is_tried_again(retry, statuses):
    every = ["done", "diverged", "oom", "failed", "timeout", "cancelled", "io_error"]
    runs = tiny_runs(seeds=tuple(range(len(every))))
    recorded = {run.run_id: state for run, state in zip(runs, every, strict=True)}
    assert {recorded[run.run_id] for run in missing(runs, recorded, retry)} == statuses
    with pytest.raises(ConfigError, match="failed, oom, diverged"):
        missing(runs, recorded, "done")
    assert "done" not in {state for some in RETRIES.values() for state in some}


SMOKE_TRAINED = ("k_operators-s42", "k_operators-s69", "transformer-s42", "transformer-s69")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        (None, {*SMOKE_TRAINED, "unigram", "bigram", "kneser_ney"}),
        ("gram", {"unigram", "bigram"}),
        ("transformer s69", {"transformer-s69"}),
        ("!gram !kneser !s42", {"k_operators-s69", "transformer-s69"}),
        ("k_*-s42", {"k_operators-s42"}),
        ("s?9 !trans", {"k_operators-s69"}),
    ],
)
def test_k_keeps_the_runs_whose_name_has_every_word(pattern, names):
    assert {run.name.removesuffix("-fitted") for run in select(smoke(), pattern)} == names


def test_a_pattern_that_leaves_nothing_is_an_error_that_lists_the_labels():
    with pytest.raises(ConfigError, match="k_operators, transformer, unigram, bigram, kneser_ney"):
        select(smoke(), "nothing-like-this")


def test_the_estimate_is_when_the_last_slot_is_free():
    assert schedule_seconds([5, 3, 3, 1], 2) == 6  # 5 + 1 beside 3 + 3
    assert schedule_seconds([5, 3], 1) == 8
    assert schedule_seconds([], 2) == 0


def test_a_retry_goes_on_from_its_checkpoint_unless_it_diverged_or_its_sources_were_mended(tmp_path, monkeypatch):
    run = run_named("good")
    recorded = make_record().sources.fingerprint
    for state, now, kept in (
        ("diverged", recorded, []),
        ("failed", "other sources", []),
        ("failed", recorded, ["checkpoint-00000002.pt"]),
    ):
        monkeypatch.setattr("jobs.grid.fingerprint", lambda _, now=now: now)
        store = Store(tmp_path / f"{state} {now[:5]}")
        folder = store.run_folder(run.run_id)
        folder.mkdir(parents=True)
        (folder / "checkpoint-00000002.pt").write_bytes(b"")
        old = store.write_record(make_record(run_id=run.run_id, status=state)).read_bytes()
        set_aside(run, store)
        assert store.statuses() == {}
        assert [path.name for path in folder.glob("checkpoint-*")] == kept
        assert [path.read_bytes() for path in folder.glob("earlier-record-*.json")] == [old]
        set_aside(run, store)  # nothing there, nothing to do


@pytest.mark.usefixtures("no_probe")
def test_a_dry_run_says_what_it_would_do_and_writes_nothing(tmp_path, data_dir, capsys):
    store = tmp_path / "store"
    command = ["launch", "--experiment", "smoke", "--dry-run", "--device", "cpu", "--data-dir", data_dir]
    assert call(app, *command, "--store", store) == 0
    printed = capsys.readouterr().out
    assert "7 of 7 runs to do" in printed
    for run in smoke().runs():
        assert run.run_id in printed
    assert not store.exists()


# runs that end in every way -------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Launched:
    """What a launch of `mixed` left and said."""

    store: Path
    ended: list[Ended]
    code: int
    printed: str


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """`mixed`, launched once with real workers."""
    store = tmp_path_factory.mktemp("jobs") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launching, "estimate_seconds", lambda *_: {})
        lines: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
        ended = launch_missing(mixed(), Store(store), make_slots("cpu", 2))
        code = summary(ended)
    return Launched(store, ended, code, "\n".join(lines))


@pytest.fixture
def store(launched: Launched, tmp_path: Path) -> Store:
    """A copy of what the launch left."""
    return Store(shutil.copytree(launched.store, tmp_path / "store"))


def test_a_failing_run_stops_no_other_and_the_launch_says_so_and_exits_1(launched):
    assert {one.run.label: one.status for one in launched.ended} == {
        "failing": "failed",
        "diverging": "diverged",
        "good": "done",
        "unigram": "done",
    }
    assert launched.code == 1
    failing = run_named("failing")
    assert f"failing-s42: failed; see `python -m jobs logs {failing.run_id}" in launched.printed
    assert sorted(path.name.split("-")[0] for path in Store(launched.store).record_paths()) == [
        "diverging",
        "failing",
        "good",
        "unigram",
    ]


def test_a_diverged_run_is_a_result_with_a_warning_and_exit_0(launched):
    diverged = [one for one in launched.ended if one.status == "diverged"]
    assert summary(diverged) == 0
    assert "WARNING: diverging-s42 diverged" in launched.printed
    records, _ = Store(launched.store).records()
    recorded = next(one for one in records if one.label == "diverging")
    assert recorded.result is None
    assert recorded.stopped_at_step is not None
    assert [one.step for one in recorded.curve] == [0]


@pytest.mark.usefixtures("no_probe")
def test_a_finished_store_is_left_as_it_is_bytes_and_times(store, capsys, monkeypatch):
    before = contents(store.root)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a worker was started"))
    ended = launch_missing(mixed(), store, make_slots("cpu", 2))
    assert [(one.run.label, one.status) for one in ended] == [("failing", "failed")]  # which is said every time
    assert "0 of 4 runs to do (1 diverged, 2 done, 1 failed already)" in capsys.readouterr().out
    assert contents(store.root) == before


@pytest.mark.usefixtures("no_probe")
def test_a_retry_does_what_failed_again_and_leaves_the_rest(store, monkeypatch):
    before = {name: found for name, found in contents(store.root).items() if name.startswith("runs/")}
    done: list[Run] = []

    def note(_pool: LocalPool, runs: list[Run], _tell: object) -> list[Ended]:
        done.extend(runs)
        return []

    monkeypatch.setattr(LocalPool, "run", note)
    launch_missing(mixed(), store, make_slots("cpu", 1), retry="failed")
    assert [run.label for run in done] == ["failing"]
    after = {name: found for name, found in contents(store.root).items() if name.startswith("runs/")}
    assert after.items() < before.items()
    assert {name.split("/")[1].split("-")[0] for name in before.keys() - after.keys()} == {"failing"}


@pytest.mark.usefixtures("no_probe")
def test_a_launch_leaves_a_run_to_the_process_that_works_on_it_and_says_that_the_grid_is_not_done(store, capsys):
    good = run_named("good")
    record_path(store, good).unlink()
    with hold(store.run_folder(good.run_id)):
        ended = launch_missing(mixed(), store, make_slots("cpu", 2), pattern="good")
    assert [(one.run, one.status) for one in ended] == [(good, None)]
    assert summary(ended) == 1
    assert f"process {os.getpid()} on" in capsys.readouterr().out


def test_status_shows_every_run_and_exits_3_until_each_has_its_record(store, capsys):
    assert call(app, "status", "--store", store.root) == 0
    printed = capsys.readouterr().out
    for run in mixed().runs():
        assert run.run_id in printed
    for state in ("failed", "diverged", "done"):
        assert state in printed
    assert ESCAPE not in printed

    good = run_named("good")
    path = record_path(store, good)
    path.unlink()
    assert call(app, "status", "--store", store.root) == 3
    line = next(line for line in capsys.readouterr().out.splitlines() if good.run_id in line)
    assert "interrupted" in line  # its run folder is there
    with hold(store.run_folder(good.run_id)):
        assert call(app, "status", "--store", store.root) == 3
        line = next(line for line in capsys.readouterr().out.splitlines() if good.run_id in line)
        assert "running" in line
    shutil.rmtree(store.run_folder(good.run_id))
    assert call(app, "status", "--store", store.root) == 3
    line = next(line for line in capsys.readouterr().out.splitlines() if good.run_id in line)
    assert "missing" in line
    assert call(app, "status", "--store", store.root, "--experiment", "another") == 2


def test_status_names_a_record_that_cannot_be_read_shows_the_rest_and_exits_1(store, capsys):
    path = record_path(store, run_named("good"))
    path.write_bytes(path.read_bytes()[:-9])
    assert call(app, "status", "--store", store.root) == 1
    printed = capsys.readouterr()
    assert str(path) in printed.err
    assert "diverged" in printed.out


def test_logs_are_found_by_id_by_the_start_of_it_and_by_name(store, capsys):
    failing = run_named("failing")
    for wanted in (failing.run_id, failing.run_id[:7], "failing-s42"):
        assert call(app, "logs", wanted, "--store", store.root) == 0
        printed = capsys.readouterr().out
        assert "has no parameter grouping 'grouped'" in printed
        assert printed.endswith("\n")
    assert call(app, "logs", "nobody-s1", "--store", store.root) == 2
    assert "nobody-s1" in capsys.readouterr().err


def test_a_name_that_fits_several_runs_is_refused_with_all_of_them(tmp_path):
    store = Store(tmp_path)
    store.write_manifest(make_manifest({"a": {"1": "abc" + "0" * 9, "2": "abd" + "0" * 9}}))
    assert store.find_run_id("abc") == "abc" + "0" * 9
    with pytest.raises(ConfigError, match=r"a-s1.*a-s2"):
        store.find_run_id("ab")


# runs side by side ----------------------------------------------------------------------------------------------------


def test_runs_trained_side_by_side_have_the_bits_of_runs_trained_alone(tmp_path):
    runs = tiny_runs("pair", (42, 69), n_steps=300, eval_every=150)
    slot, most = Slot(device="cpu", n_threads=1), 0

    def watch(active: list[Run], _: object) -> None:
        nonlocal most
        most = max(most, len(status.at_work(together, [run.run_id for run in active])))  # at work, not just started

    together, alone = Store(tmp_path / "together"), Store(tmp_path / "alone")
    LocalPool(together, [slot, slot]).run(runs, watch)
    LocalPool(alone, [slot]).run(runs[:1], lambda *_: None)
    assert most == 2
    lone = alone.records()[0][0]
    packed = next(one for one in together.records()[0] if one.run_id == lone.run_id)
    assert packed.curve == lone.curve
    assert packed.result == lone.result
    assert packed.diagnostics == lone.diagnostics
    assert [one.runs_per_gpu for one in packed.attempts] == [None]  # each had a core of its own


def test_packing_a_gpu_is_refused_where_runs_are_on_the_cpu(tmp_path, data_dir, capsys):
    command = ["launch", "--experiment", "smoke", "--device", "cpu", "--runs-per-gpu", 2, "--data-dir", data_dir]
    assert call(app, *command, "--store", tmp_path / "store") == 2
    assert "use --workers" in capsys.readouterr().err


# one worker a run -----------------------------------------------------------------------------------------------------


def test_a_run_that_another_process_works_on_is_left_to_it(tmp_path):
    run, store = run_named("good"), Store(tmp_path)
    with hold(store.run_folder(run.run_id)):
        ended = LocalPool(store, make_slots("cpu", 1)).run([run], lambda *_: None)
    assert ended[0].status is None
    assert "another process" in ended[0].reason
    assert summary(ended) == 1
    assert not store.record_paths()
    log = (store.run_folder(run.run_id) / "log.txt").read_text()
    assert "Traceback" not in log


LAUNCHER = """
import subprocess, sys, os
worker = subprocess.Popen([sys.executable, *sys.argv[1:], "--parent", str(os.getpid())], start_new_session=True)
print(worker.pid, flush=True)
worker.wait()
"""


def test_workers_of_a_launcher_that_was_killed_save_and_stop(tmp_path, request):
    [run], store = tiny_runs("long", n_steps=100_000, eval_every=100_000), Store(tmp_path / "store")
    folder = write_run(run, store)
    worker = ["-m", "jobs.worker", run.run_id, "--store", store.root, "--device", "cpu", "--threads", 1]
    worker += ["--checkpoint-seconds", 1e9]
    with (tmp_path / "log").open("w") as log:
        launcher = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, *map(str, worker)], cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert launcher.stdout is not None
        pid = int(launcher.stdout.readline())
        request.addfinalizer(lambda: kill_if_alive(pid))
        wait_until(lambda: ((read_progress(folder) or {}).get("step") or 0) > 0, "the first steps")
        assert status.at_work(store, [run.run_id])
        launcher.kill()
        launcher.wait()
        launcher.stdout.close()
    wait_until(lambda: not status.at_work(store, [run.run_id]), f"worker {pid} to stop")
    assert not store.record_paths()
    checkpoints = sorted(folder.glob("checkpoint-*.pt"))
    assert int(checkpoints[-1].stem.removeprefix("checkpoint-")) > 0  # more than the one of step 0
    assert (tmp_path / "log").read_text().count("Traceback") == 0


def test_ctrl_c_saves_every_run_and_exits_130_and_the_same_command_ends_with_the_same_numbers(tmp_path, data_dir):
    store = Store(tmp_path / "store")
    command = ["jobs", "launch", "--experiment", "smoke", "-k", "s42 !trans", "--store", store.root, "--device", "cpu"]
    command += ["--workers", os.cpu_count(), "--seeds", "42", "--checkpoint-seconds", 1e9]  # one thread each
    run = next(run for run in smoke().runs() if run.label == "k_operators" and run.seed == 42)
    folder = store.run_folder(run.run_id)
    process = start(*command, data_dir=data_dir, start_new_session=True)
    wait_until(lambda: read_progress(folder) is not None, "the first evaluation")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group of processes
    code, output, errors = finish(process)
    assert (code, errors) == (130, "")
    assert "state saved" in output
    assert not store.record_paths()
    assert list(folder.glob("checkpoint-*.pt"))
    assert not status.at_work(store, [run.run_id])

    code, output, errors = finish(start(*command, data_dir=data_dir))
    assert (code, errors) == (0, "")
    assert "done" in output
    assert ESCAPE not in output
    assert "\r" not in output
    recorded = store.records()[0][0]
    settings = Settings(device=torch.device("cpu"), n_threads=recorded.environment.n_threads, data_dir=data_dir)
    clean = execute(run, Store(tmp_path / "clean"), settings)
    assert (recorded.result, recorded.curve) == (clean.result, clean.curve)
    assert len(recorded.attempts) == 2


# the corpus -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_corpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is named, nothing is cached, and the network is down."""

    def fail(*_: object) -> Path:
        raise DownloadError("no network")

    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("bench.fetch.download", fail)


@pytest.mark.usefixtures("no_corpus")
def test_small_experiments_fall_back_to_the_synthetic_text_and_say_so(capsys):
    for name in ("smoke", "laptop", "laptop-tuning"):
        chosen = prepare(name, mode=None, device="cpu", seeds=None, data_dir=None)
        assert {cell.config.corpus for cell in chosen.cells} == {"synthetic"}
        assert chosen.manifest().corpus == "synthetic"
        printed = capsys.readouterr().out
        assert printed.count("WARNING") == 2
        assert "no network" in printed
        assert "SYNTHETIC" in printed
        real = {run.run_id for run in EXPERIMENTS[name]().runs()}
        assert not real & {run.run_id for run in chosen.runs()}


@pytest.mark.usefixtures("no_corpus", "no_probe")
def test_the_paper_experiment_stops_rather_than_use_another_text(tmp_path, capsys):
    store = tmp_path / "store"
    command = ["launch", "--experiment", "paper", "--dry-run", "--device", "cpu", "--store", store]
    assert call(app, *command) == 2
    assert capsys.readouterr().err == "error: no network\n"
    assert not store.exists()


@pytest.mark.usefixtures("no_corpus")
def test_nothing_stands_in_for_a_corpus_that_was_named_or_is_altered(tmp_path, monkeypatch):
    with pytest.raises(CorpusError, match="missing"):
        prepare("smoke", mode=None, device="cpu", seeds=None, data_dir=tmp_path / "data")
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path / "data"))
    with pytest.raises(CorpusError, match="missing"):
        prepare("smoke", mode=None, device="cpu", seeds=None, data_dir=None)
    monkeypatch.delenv(DATA_DIR_VARIABLE)
    cached = tmp_path / "cache" / "k-operators-bench" / "tinyshakespeare" / "input.txt"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"altered")
    with pytest.raises(CorpusError, match="altered"):
        prepare("smoke", mode=None, device="cpu", seeds=None, data_dir=None)


def test_the_corpus_that_is_there_is_used_without_a_word(data_dir, capsys):
    chosen = prepare("smoke", mode=None, device="cpu", seeds=None, data_dir=data_dir)
    assert {cell.config.corpus for cell in chosen.cells} == {"tinyshakespeare"}
    assert capsys.readouterr().out == ""


# what a worker reads --------------------------------------------------------------------------------------------------


def test_a_worker_refuses_a_run_folder_that_is_missing_or_of_another_run(tmp_path, capsys):
    from jobs.worker import work

    store, run = Store(tmp_path), run_named("good")
    assert call(work, run.run_id, "--store", store.root) == 2
    folder = write_run(run, store)
    other = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**other, "seed": 43}))
    assert call(work, run.run_id, "--store", store.root) == 2
    (folder / "run.json").write_text("{")
    assert call(work, run.run_id, "--store", store.root) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert all(line.startswith("error: ") and "launch the run again" in line for line in errors)


@pytest.mark.fault("F14")
def test_a_run_that_waited_refuses_sources_that_were_edited_meanwhile_unless_told_otherwise(tmp_path, monkeypatch):
    store, run = Store(tmp_path), run_named("good")
    write_run(run, store)
    assert find_run(run.run_id, store) == run
    monkeypatch.setattr("jobs.worker.fingerprint", lambda _: "0" * 64)
    with pytest.raises(EditedSources, match=r"good-s42 was launched.*launch it again"):
        find_run(run.run_id, store)
    monkeypatch.undo()
    write_run(run, store, any_sources=True)
    monkeypatch.setattr("jobs.worker.fingerprint", lambda _: "0" * 64)
    assert find_run(run.run_id, store) == run


def test_records_of_workers_hold_no_path_and_no_name_of_the_machine(launched):
    for path in Store(launched.store).record_paths():
        text = path.read_text()
        assert str(launched.store) not in text
        assert os.uname().nodename not in text or len(os.uname().nodename) < 4
        assert isinstance(json.loads(text), dict)
    records, errors = Store(launched.store).records()
    assert not errors
    assert all(isinstance(one, Record) for one in records)
