"""An experiment is brought to its records, whatever fails, stops or kills it on the way."""

import io
import os
import shutil
import subprocess
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest

from bench import checkpoint
from bench.config import Run
from bench.errors import ConfigError
from bench.experiments import smoke
from bench.experiments.grid import Experiment
from bench.lease import hold
from bench.record import Status
from bench.store import Store
from jobs import launch as launching
from jobs.app import app
from jobs.cost import schedule_seconds
from jobs.grid import missing, select, set_aside
from jobs.launch import launch_missing, summary
from jobs.local import LocalPool
from jobs.slots import make_slots
from tests.command_line import call
from tests.records import make_manifest, make_record
from tests.tiny import counted_cell, tiny_cell, tiny_runs
from tests.watched import leave_checkpoints, record_run

ESCAPE = "\x1b"


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below a folder: its bytes and when they were written."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def mixed() -> Experiment:
    """Runs that end in every way: well, by divergence, by failing, and without any record."""
    return Experiment(
        name="mixed",
        question="What becomes of each?",
        cells=(
            tiny_cell("failing", grouping="grouped"),  # which the Transformer does not have
            tiny_cell("diverging", learning_rate=1e30),
            tiny_cell("good"),
            counted_cell(),
        ),
    )


def run_named(label: str) -> Run:
    """A run of `mixed`."""
    return next(run for run in mixed().runs() if run.label == label)


# what is to be done ---------------------------------------------------------------------------------------------------


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
    runs = tiny_runs(seeds=tuple(range(len(get_args(Status)))))
    recorded = {run.run_id: state for run, state in zip(runs, get_args(Status), strict=True)}
    assert {recorded[run.run_id] for run in missing(runs, recorded, retry)} == statuses
    with pytest.raises(ConfigError, match="failed, oom, diverged"):
        missing(runs, recorded, "done")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("gram", {"unigram", "bigram"}),
        ("transformer s69", {"transformer-s69"}),
        ("!gram !kneser !s42", {"k_operators-s69", "transformer-s69"}),
        ("k_*-s42", {"k_operators-s42"}),
        ("s?9 !trans", {"k_operators-s69"}),
    ],
)
def test_k_keeps_the_runs_whose_name_has_every_word(pattern, names):
    assert {run.name.removesuffix("-fitted") for run in select(smoke(), pattern)} == names
    assert select(smoke(), None) == smoke().runs()


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
    for state, now, n_kept in (("diverged", recorded, 0), ("failed", "other sources", 0), ("failed", recorded, 1)):
        monkeypatch.setattr("jobs.grid.fingerprint", lambda _, now=now: now)
        store = Store(tmp_path / f"{state} {now[:5]}")
        leave_checkpoints(store, run, 2)
        old = record_run(store, run, status=state).read_bytes()
        set_aside(run, store)
        assert store.statuses() == {}
        folder = store.run_folder(run.run_id)
        assert len(checkpoint.paths(folder)) == n_kept
        assert [path.read_bytes() for path in folder.glob("earlier-record-*.json")] == [old]
        set_aside(run, store)  # nothing there, nothing to do


# runs that end in every way -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """`mixed`, launched once with real workers: its store, how its runs ended, the exit code, and what it said."""
    store, printed = Store(tmp_path_factory.mktemp("jobs") / "store"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setattr(launching, "estimate_seconds", lambda *_: {})
        ended = launch_missing(mixed(), store, make_slots("cpu", 2))
        return SimpleNamespace(store=store, ended=ended, code=summary(ended, store), printed=printed.getvalue())


@pytest.fixture
def store(launched: SimpleNamespace, tmp_path: Path) -> Store:
    """A copy of what the launch left."""
    return Store(shutil.copytree(launched.store.root, tmp_path / "store"))


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
    assert launched.store.statuses() == {one.run.run_id: one.status for one in launched.ended}


def test_a_diverged_run_is_a_result_with_a_warning_and_exit_0(launched):
    diverged = [one for one in launched.ended if one.status == "diverged"]
    assert summary(diverged, launched.store) == 0
    assert "WARNING: diverging-s42 diverged" in launched.printed
    recorded = next(one for one in launched.store.records()[0] if one.label == "diverging")
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
    before = contents(store.root / "runs")
    done: list[Run] = []
    monkeypatch.setattr(LocalPool, "run", lambda _, runs, __: done.extend(runs) or [])
    launch_missing(mixed(), store, make_slots("cpu", 1), retry="failed")
    assert [run.label for run in done] == ["failing"]
    after = contents(store.root / "runs")
    assert after.items() < before.items()
    assert {name.split("-")[0] for name in before.keys() - after.keys()} == {"failing"}


@pytest.mark.usefixtures("no_probe")
def test_a_launch_leaves_a_run_to_the_process_that_works_on_it_and_says_that_the_grid_is_not_done(
    store, tmp_path, capsys
):
    good = run_named("good")
    store.take_record(good.run_id, tmp_path)
    with hold(store.run_folder(good.run_id)):
        ended = launch_missing(mixed(), store, make_slots("cpu", 2), pattern="good")
    assert [(one.run, one.status) for one in ended] == [(good, None)]
    assert summary(ended, store) == 1
    assert f"process {os.getpid()} on" in capsys.readouterr().out


def test_status_shows_every_run_and_exits_0_once_each_has_its_record(store, capsys):
    assert call(app, "status", "--store", store.root) == 0
    printed = capsys.readouterr().out
    for run in mixed().runs():
        assert run.run_id in printed
    for state in ("failed", "diverged", "done"):
        assert state in printed
    assert ESCAPE not in printed
    assert printed.splitlines()[-1].startswith(f"{len(mixed().runs())} runs: ")
    assert call(app, "status", "--store", store.root, "--experiment", "another") == 2


def test_where_nothing_was_launched_and_no_store_was_named_status_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call(app, "status") == 0
    assert capsys.readouterr().out.startswith("nothing has been launched here")
    assert call(app, "status", "--store", "elsewhere") == 2


def test_status_of_a_run_without_a_record_is_told_from_its_folder(store, tmp_path, capsys):
    good = run_named("good")
    store.take_record(good.run_id, tmp_path)

    def shown() -> str:
        assert call(app, "status", "--store", store.root) == 3
        return next(line for line in capsys.readouterr().out.splitlines() if good.run_id in line)

    assert "interrupted" in shown()
    with hold(store.run_folder(good.run_id)):
        assert "running" in shown()
    shutil.rmtree(store.run_folder(good.run_id))
    assert "missing" in shown()


def test_status_names_a_record_that_cannot_be_read_shows_the_rest_and_exits_1(store, capsys):
    [path] = (store.root / "runs").glob(f"good-*-{run_named('good').run_id}.json")
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


def test_records_of_workers_hold_no_path_and_no_name_of_the_machine(launched):
    for path in launched.store.record_paths():
        text = path.read_text()
        assert str(launched.store.root) not in text
        assert os.uname().nodename not in text or len(os.uname().nodename) < 4
    assert not launched.store.records()[1]
