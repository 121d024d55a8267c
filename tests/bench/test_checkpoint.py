"""A checkpoint is complete or not used: kills, flipped bits, full disks, foreign files and hostile ones."""

import errno
import hashlib
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import checkpoint
from bench.config import Run
from bench.errors import CheckpointError, CorruptCheckpoint
from bench.files import write_atomically
from bench.run import execute
from bench.store import Store
from bench.train import Trainer
from tests.command_line import ROOT
from tests.conftest import EVERY_STEP
from tests.faults import before_update


def content_of(step: int) -> dict[str, Any]:
    """A small checkpoint that differs for each step."""
    return {"identity": {}, "trainer": {"step": step, "model": {"w": torch.full((40,), float(step))}}}


def write_raw(folder: Path, payload: bytes, step: int = 1) -> Path:
    """Write bytes as a checkpoint, with their sha256."""
    path = folder / f"checkpoint-{step:08d}.pt"
    path.write_bytes(payload)
    path.with_suffix(".pt.sha256").write_text(hashlib.sha256(payload).hexdigest())
    return path


def test_the_last_two_are_kept_as_they_were_saved_with_their_hashes_and_nothing_else(tmp_path):
    saved = [checkpoint.save(tmp_path, content_of(step)) for step in (0, 5, 9, 10, 100)]
    assert [one.name for one in saved[-2:]] == ["checkpoint-00000010.pt", "checkpoint-00000100.pt"]
    assert checkpoint.paths(tmp_path) == saved[-2:]
    assert {*tmp_path.iterdir()} == {*saved[-2:], *(path.with_suffix(".pt.sha256") for path in saved[-2:])}
    loaded = checkpoint.load(saved[-1])["trainer"]
    assert loaded["step"] == 100
    assert torch.equal(loaded["model"]["w"], torch.full((40,), 100.0))


# kills ----------------------------------------------------------------------------------------------------------------

WRITER = """
import io, os, signal, sys
from pathlib import Path
import torch
from bench import checkpoint

class InHalves(io.FileIO):
    def write(self, content):
        half = super().write(content[: len(content) // 2])
        come_to(f"half through {Path(self.name).name}")
        return half + super().write(content[half:])

def naive(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)

def come_to(place):
    global n_ahead
    if n_ahead == 0:
        print(os.getpid(), place, flush=True)
        signal.pause()  # until it is killed
    n_ahead -= 1

def watch(event, arguments):
    if event in ("open", "os.rename", "os.remove") and str(arguments[0]).startswith(folder):
        come_to(f"{event} {Path(arguments[0]).name}")

def save(step):
    tensors = {"w": torch.full((250_000,), float(step))}
    checkpoint.save(Path(folder), {"identity": {}, "trainer": {"step": step, "model": tensors}})

usual = Path.open
Path.open = lambda path, mode="r", *rest, **more: (InHalves if mode == "wb" else usual)(path, mode, *rest, **more)
if sys.argv[1] == "naive":
    checkpoint.write_atomically = naive
for line in sys.stdin:  # one import of torch for all the processes that will be killed
    if os.fork() == 0:
        folder, n_ahead = line.split()[0], -1  # below 0: no place to wait at
        for step in (1, 2):
            save(step)
        n_ahead = int(line.split()[1])
        sys.addaudithook(watch)
        save(3)
        print(0, "saved", flush=True)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.wait()[1]) > 0:  # below 0: killed
        sys.exit(1)
"""
SECOND, THIRD = "checkpoint-00000002.pt", "checkpoint-00000003.pt"


@pytest.fixture
def writer() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts a process that forks a writer of three checkpoints per line of input: `FOLDER N`.

    In the third checkpoint the writer waits at place N, counted from 0, and prints its process id and the name of the
    place: before it opens, renames or removes a file, and half through each file that it writes. With at most N places
    it prints `0 saved`.
    """
    started: list[subprocess.Popen[str]] = []

    def start(kind: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, kind], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def kill_at_every_place(process: subprocess.Popen[str], folder: Path) -> Iterator[tuple[str, Path]]:
    """Kill one writer at each place of its third checkpoint, and yield the place and the writer's folder."""
    assert process.stdin is not None
    assert process.stdout is not None
    for n_ahead in range(100):
        left = folder / str(n_ahead)
        process.stdin.write(f"{left} {n_ahead}\n")
        process.stdin.flush()
        shown = process.stdout.readline()
        assert shown, "the writer failed: its traceback is in this test's stderr"
        child, place = shown.split(maxsplit=1)
        if child == "0":
            return
        os.kill(int(child), signal.SIGKILL)
        yield re.sub(r"\.(\S+)\.\S+\.tmp", r"temporary \1", place.strip()), left
    pytest.fail("a checkpoint has a hundred places to be killed at: the writer never ends")


@pytest.mark.fault("F3")
def test_a_kill_during_a_write_loses_at_most_that_checkpoint(tmp_path, writer):
    places, steps = [], []
    for place, folder in kill_at_every_place(writer("atomic"), tmp_path):
        content, skipped = checkpoint.load_newest(folder)
        assert content is not None, skipped
        step = content["trainer"]["step"]
        assert torch.equal(content["trainer"]["model"]["w"], torch.full((250_000,), float(step)))
        newest = int(checkpoint.paths(folder)[-1].stem.removeprefix("checkpoint-"))
        assert newest - step == len(skipped) <= 1
        if place.startswith("half through"):
            assert any(folder.glob(".*.tmp")), "a partial file has a temporary name"
        checkpoint.save(folder, content_of(newest + 1))  # files that a kill left do not disturb it
        assert checkpoint.load(checkpoint.paths(folder)[-1])["trainer"]["step"] == newest + 1
        places.append(place)
        steps.append(step)
    assert {f"half through temporary {THIRD}", f"half through temporary {THIRD}.sha256"} <= {*places}
    assert steps == sorted(steps)
    assert {*steps} == {2, 3}  # before the sha256 is written, and after


def test_a_kill_during_a_naive_write_leaves_a_torn_file_that_is_not_used(tmp_path, writer):
    left = dict(kill_at_every_place(writer("naive"), tmp_path))
    for torn in (THIRD, f"{THIRD}.sha256"):
        folder = left[f"half through {torn}"]
        complete_size = (folder / torn.replace(THIRD, SECOND)).stat().st_size
        assert (folder / torn).stat().st_size == complete_size // 2
        content, skipped = checkpoint.load_newest(folder)
        assert content["trainer"]["step"] == 2
        assert len(skipped) == 1
        assert THIRD in skipped[0]


# damage ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("run")
    for step in (1, 2):
        checkpoint.save(folder, content_of(step))
    return folder


@pytest.mark.fault("F5")
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_a_flipped_byte_or_a_cut_is_found_and_the_checkpoint_before_is_used(two_checkpoints, data):
    newest = checkpoint.paths(two_checkpoints)[-1]
    victim = data.draw(st.sampled_from([newest, newest.with_suffix(".pt.sha256")]), "file")
    original = victim.read_bytes()
    at = data.draw(st.integers(0, len(original) - 1), "at")
    flipped = data.draw(st.integers(0, 255), "xor")  # 0: cut there
    damaged = original[:at] + bytes([original[at] ^ flipped]) + original[at + 1 :] if flipped else original[:at]
    victim.write_bytes(damaged)
    try:
        with pytest.raises(CorruptCheckpoint, match=newest.name):
            checkpoint.load(newest)
        content, skipped = checkpoint.load_newest(two_checkpoints)
        assert content["trainer"]["step"] == 1
        assert len(skipped) == 1
        assert newest.name in skipped[0]
    finally:
        victim.write_bytes(original)
    assert checkpoint.load(newest)["trainer"]["step"] == 2


def test_a_checkpoint_without_its_hash_is_not_used(tmp_path):
    checkpoint.save(tmp_path, content_of(1))
    checkpoint.save(tmp_path, content_of(2)).with_suffix(".pt.sha256").unlink()
    content, skipped = checkpoint.load_newest(tmp_path)
    assert content["trainer"]["step"] == 1
    assert "checkpoint-00000002.pt" in skipped[0]


def test_without_a_valid_checkpoint_none_is_loaded_and_nothing_is_raised(tmp_path):
    assert checkpoint.load_newest(tmp_path) == (None, [])
    for step in (1, 2):
        checkpoint.save(tmp_path, content_of(step)).write_bytes(b"")
    content, skipped = checkpoint.load_newest(tmp_path)
    assert content is None
    assert len(skipped) == 2


@pytest.mark.usefixtures("on_little_text")
def test_a_run_whose_newest_checkpoint_is_damaged_resumes_from_the_one_before(tiny_run, tmp_path, capsys):
    run = tiny_run(n_steps=6, eval_every=3)
    uninterrupted = execute(run, Store(tmp_path / "uninterrupted"), EVERY_STEP)
    store = Store(tmp_path / "damaged")
    stop_at(5, run, store)
    newest = checkpoint.paths(store.run_folder(run.run_id))[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    capsys.readouterr()
    finished = execute(run, store, EVERY_STEP)
    printed = capsys.readouterr().out
    assert f"skipped checkpoint: {newest}" in printed
    assert "resumed at step 4" in printed
    assert (finished.result, finished.curve) == (uninterrupted.result, uninterrupted.curve)


# hostile and foreign --------------------------------------------------------------------------------------------------


class Hostile:
    """Unpickling it makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.canary), "w"))


@pytest.mark.parametrize("how", ["torch.save", "pickle"])
def test_a_file_that_would_run_code_is_refused_and_runs_none(how, tmp_path):
    canary, scratch = tmp_path / "canary", tmp_path / "hostile.pt"
    content = {"format": checkpoint.FORMAT, **content_of(1), "x": Hostile(canary)}
    if how == "pickle":
        payload = pickle.dumps(content, protocol=2)
    else:
        torch.save(content, scratch)
        payload = scratch.read_bytes()
    path = write_raw(tmp_path, payload)
    with pytest.raises(CheckpointError, match=path.name):
        checkpoint.load(path)
    with pytest.raises(CheckpointError):
        checkpoint.load_newest(tmp_path)
    assert not canary.exists()
    pickle.loads(pickle.dumps(Hostile(canary))).close()  # unpickling makes the file
    assert canary.exists()


@pytest.mark.parametrize("content", [{"format": 0}, {"weights": 1}, [1, 2]])
def test_a_file_of_another_program_is_refused(content, tmp_path):
    scratch = tmp_path / "foreign"
    torch.save(content, scratch)
    path = write_raw(tmp_path, scratch.read_bytes())
    with pytest.raises(CheckpointError, match=path.name):
        checkpoint.load(path)


def stop_at(step: int, run: Run, store: Store) -> None:
    """Leave the run folder of a run that was killed after the checkpoint of `step`."""

    def kill(_: Trainer) -> None:
        raise KeyboardInterrupt

    with before_update(step, kill), pytest.raises(KeyboardInterrupt):
        execute(run, store, EVERY_STEP)


@pytest.mark.fault("F11")
@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"learning_rate": 2e-2}, "training.learning_rate=0.02 there, 0.01 here"),
        ({"architecture": "transformer"}, "architecture=transformer there, k_operators here"),
        ({"seed": 69}, "69"),
    ],
)
@pytest.mark.usefixtures("on_little_text")
def test_a_checkpoint_of_another_run_is_refused_with_the_difference(other, difference, tiny_run, tmp_path):
    run, store = tiny_run(), Store(tmp_path)
    another = tiny_run(**other)
    stop_at(2, another, store)
    store.run_folder(another.run_id).rename(store.run_folder(run.run_id))
    with pytest.raises(CheckpointError) as refusal:
        execute(run, store, EVERY_STEP)
    assert difference in str(refusal.value)
    assert str(store.run_folder(run.run_id)) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not store.record_paths()


@pytest.mark.usefixtures("on_little_text")
def test_a_checkpoint_of_other_sources_is_refused(tiny_run, tmp_path, monkeypatch):
    run, store = tiny_run(), Store(tmp_path)
    stop_at(2, run, store)
    monkeypatch.setattr("bench.run.fingerprint", lambda _: "f" * 64)
    with pytest.raises(CheckpointError, match="sources"):
        execute(run, store, EVERY_STEP)


# full disks -----------------------------------------------------------------------------------------------------------


@pytest.mark.fault("F7")
@pytest.mark.usefixtures("on_little_text")
def test_a_full_disk_ends_the_run_as_io_error_and_leaves_the_checkpoints_before(tiny_run, tmp_path, monkeypatch):
    run, store = tiny_run(), Store(tmp_path)

    def full_after_step_3(path: Path, content: bytes) -> None:
        if path.stem == "checkpoint-00000004":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_atomically(path, content)

    monkeypatch.setattr(checkpoint, "write_atomically", full_after_step_3)
    finished = execute(run, store, EVERY_STEP)
    assert finished.status == "io_error"
    assert "No space left" in (finished.error or "")
    assert finished.stopped_at_step == 4
    folder = store.run_folder(run.run_id)
    assert [checkpoint.load(path)["trainer"]["step"] for path in checkpoint.paths(folder)] == [2, 3]
    assert not list(folder.glob(".*.tmp"))
