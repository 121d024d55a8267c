"""Of eight real processes that start one run at the same moment, one does it."""

import contextlib
import dataclasses
import fcntl
import functools
import io
import multiprocessing
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench import lease
from bench.config import Run
from bench.corpus import load_corpus
from bench.environment import describe_machine
from bench.errors import AlreadyDone, RunIsTaken
from bench.record import Record, read, to_bytes
from bench.run import Settings, execute
from bench.store import Store
from tests.conftest import CPU
from tests.leases import refuse_to_lock

N_RACERS = 8


@contextmanager
def no_lease(_: Path) -> Iterator[SimpleNamespace]:
    """`hold` without any exclusion."""
    yield SimpleNamespace(attempt=1, check=lambda: None)


def write_naively(store: Store, record: Record) -> Path:
    """`Store.write_record` without a check for other writers."""
    path = store.root / "runs" / record.file_name
    with path.open("wb") as file:
        file.write(to_bytes(record))
    return path


def race(root: Path, run: Run, n_rounds: int, without: tuple[str, ...], barrier: Any, outcomes: Any) -> None:
    """One of the processes: start the same run at the same moment as the others, round after round."""
    torch.set_num_threads(1)
    text = load_corpus("synthetic", CPU)
    short = dataclasses.replace(text, train=text.train[:2_000], val=text.val[:300])
    ends: list[str] = []
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr("bench.run.load_corpus", lambda *_: short)
        patch.setattr("bench.recording.describe_machine", functools.cache(describe_machine))
        patch.setattr(lease, "LOCK_WAIT_SECONDS", 0.01)
        patch.setattr(lease, "HEARTBEAT_SECONDS", 0.05)
        if "locks" in without:
            patch.setattr(fcntl, "flock", refuse_to_lock)
        if "leases" in without:
            patch.setattr("bench.run.hold", no_lease)
        if "links" in without:
            patch.setattr(Store, "write_record", write_naively)
        for number in range(n_rounds):
            barrier.wait(100)
            try:
                execute(run, Store(root / str(number)), Settings(device=CPU, n_threads=1))
                ends.append("recorded")
            except (AlreadyDone, RunIsTaken):
                ends.append("refused")
            except Exception as error:
                ends.append(repr(error))
    outcomes.put(ends)


def race_of_eight(root: Path, run: Run, n_rounds: int, without: tuple[str, ...] = ()) -> list[Counter[str]]:
    """The number of processes with each end, per round."""
    context = multiprocessing.get_context("forkserver")  # a clean process imports torch once and is forked from
    context.set_forkserver_preload(["bench.run", "torch._dynamo"])  # the optimizer imports the second when it is made
    barrier, outcomes = context.Barrier(N_RACERS), context.Queue()
    arguments = (root, run, n_rounds, without, barrier, outcomes)
    racers = [context.Process(target=race, args=arguments, daemon=True) for _ in range(N_RACERS)]
    for racer in racers:
        racer.start()
    try:
        ends = [outcomes.get(timeout=200) for _ in racers]
        for racer in racers:
            racer.join(timeout=60)
    finally:
        for racer in racers:
            racer.kill()  # does nothing to one that has ended
    return [Counter(one[number] for one in ends) for number in range(n_rounds)]


@pytest.mark.fault("F8")
@pytest.mark.parametrize(
    ("n_rounds", "without"),
    [
        pytest.param(50, (), marks=pytest.mark.slow),
        (10, ("locks",)),
        pytest.param(10, ("leases",), marks=pytest.mark.slow),
    ],
    ids=["as it is", "without locks", "without leases"],
)
def test_of_eight_processes_that_race_for_one_run_one_writes_its_record(n_rounds, without, tmp_path, tiny_run):
    run = tiny_run(n_steps=1, warmup_steps=0)
    rounds = race_of_eight(tmp_path, run, n_rounds, without)
    assert rounds == [{"recorded": 1, "refused": N_RACERS - 1}] * n_rounds
    for number in range(n_rounds):
        (path,) = Store(tmp_path / str(number)).record_paths()
        assert read(path, Record).run_id == run.run_id
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.rglob(".probe-*"))


@pytest.mark.slow
def test_a_race_without_leases_and_links_is_found(tmp_path, tiny_run):
    rounds = race_of_eight(tmp_path, tiny_run(n_steps=1, warmup_steps=0), 5, ("leases", "links"))
    assert any(ends["recorded"] > 1 for ends in rounds)  # so the tests above can fail
