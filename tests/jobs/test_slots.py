"""Every GPU that torch sees is used, by as many runs as the machine carries, and a worker sees exactly one."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.cli import pick_device
from bench.config import Run
from bench.errors import ConfigError
from bench.experiments import smoke
from bench.store import Store
from jobs.attempt import start_attempt
from jobs.doctor import Check, examine
from jobs.launch import launch_missing
from jobs.local import LocalPool
from jobs.slots import Slot, as_needed, compute_modes, gpu_names, make_slots, runs_at_once, runs_that_fit, slots_text
from jobs.slurm.task import task_slots
from tests.command_line import write_program
from tests.gpus import GIB, put_gpus
from tests.tiny import submission_of

UUIDS = ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "GPU-1a2b")  # the second cut short, as CUDA allows
MIG = ("MIG-7c2a0d1e-45f1-5d3b-9a0c-0123456789ab", "MIG-GPU-8932f937-d72c-4106-c12f-20bd9faed9f6/1/0")


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """The command and the environment of each worker that a pool starts, in place of workers."""
    found: list[tuple[list[str], dict[str, str]]] = []

    def start(command: list[str], *, env: dict[str, str], **_: Any) -> SimpleNamespace:
        found.append((command, env))
        return SimpleNamespace(pid=1, poll=lambda: 0, returncode=0)

    monkeypatch.setattr(subprocess, "Popen", start)
    return found


def trained() -> Run:
    return next(run for run in smoke().runs() if run.config.training is not None)


def findings(folder: Path) -> dict[str, Check]:
    """What the doctor finds, by check."""
    return {one.name: one for one in examine(Store(folder), None)}


CASES = [  # CUDA_VISIBLE_DEVICES of the launcher, GPUs that torch counts, the same variable of a worker on each
    (None, 1, [None]),
    (None, 2, ["0", "1"]),
    ("0", 1, ["0"]),
    ("1,0", 2, ["1", "0"]),
    (" 3 , 1", 2, ["3", "1"]),
    ("3", 1, ["3"]),
    ("0,99,1", 1, ["0"]),  # CUDA stops at the first that it does not know
    ("1,-1,0", 1, ["1"]),
    (",".join(UUIDS), 2, [*UUIDS]),
    (UUIDS[1], 1, [UUIDS[1]]),
    (",".join(MIG), 2, [*MIG]),
    (",".join(MIG), 1, [MIG[0]]),  # a process may see one MIG instance alone
]


@pytest.mark.parametrize(("visible", "n_gpus", "names"), CASES)
def test_each_worker_is_started_with_one_gpu_that_the_launcher_sees(
    visible, n_gpus, names, started, tmp_path, monkeypatch
):
    put_gpus(monkeypatch, n_gpus, visible=visible)
    slots = make_slots(None, None, runs_per_gpu=1)
    pool = LocalPool(Store(tmp_path / "store"), slots)
    for index in range(len(slots)):
        pool.start(index, trained())
    assert gpu_names(visible, n_gpus) == names
    assert [environment.get("CUDA_VISIBLE_DEVICES") for _, environment in started] == names
    assert all(command[command.index("--device") + 1] == "cuda" for command, _ in started)


@pytest.mark.parametrize("visible", ["", "NoDevFiles", "-1"])
def test_where_every_gpu_is_hidden_runs_are_on_the_cpu_and_cuda_is_refused(visible, monkeypatch):
    put_gpus(monkeypatch, 0, visible=visible)
    assert {(slot.device, slot.visible_gpu) for slot in make_slots(None, None)} == {("cpu", None)}
    with pytest.raises(ConfigError, match="torch sees no CUDA device here; use --device cpu"):
        pick_device("cuda")


@pytest.mark.parametrize("visible", [None, "0", UUIDS[0]])
def test_a_real_child_finds_the_variable_as_its_launcher_has_it_where_there_is_one_gpu(visible, tmp_path, monkeypatch):
    """The only GPU of a machine was hidden from every worker once, by an empty variable in place of none."""
    put_gpus(monkeypatch, 1, visible=visible)
    program = write_program(tmp_path / "python", 'echo "GPU=${CUDA_VISIBLE_DEVICES-not set}"')
    monkeypatch.setattr(sys, "executable", str(program))
    [slot] = make_slots(None, None, runs_per_gpu=1)
    attempt = start_attempt(trained(), slot, Store(tmp_path / "store"), [], {})
    assert attempt.process.wait(60) == 0
    assert attempt.log_lines == [f"GPU={visible or 'not set'}"]


def test_a_counted_model_is_fitted_on_the_cpu_also_where_there_is_a_gpu(started, tmp_path, monkeypatch):
    put_gpus(monkeypatch, 1)
    pool = LocalPool(Store(tmp_path / "store"), make_slots(None, 1))
    pool.start(0, next(run for run in smoke().runs() if run.config.training is None))
    command, _ = started[0]
    assert command[command.index("--device") + 1] == "cpu"


@pytest.mark.parametrize(
    ("n_cores", "gpu_gib", "memory_gib", "n_gpus", "n_runs", "reason"),
    [
        (16, 139, 256, 1, 9, "16 CPU cores"),  # an H200
        (64, 79, 512, 1, 9, "busy"),
        (64, 79, 512, 2, 9, "busy"),
        (16, 79, 256, 2, 4, "16 CPU cores"),
        (16, 24, 64, 1, 6, "24 GiB of GPU memory"),
        (16, 24, 16, 1, 3, "16 GiB of memory"),
        (8, 8, 32, 1, 2, "8 GiB of GPU memory"),
        (1, 2, 2, 1, 1, "1 CPU cores"),  # never none
    ],
)
def test_a_gpu_is_shared_by_as_many_runs_as_cores_and_memory_carry(
    n_cores, gpu_gib, memory_gib, n_gpus, n_runs, reason
):
    found, said = runs_that_fit(n_cores, gpu_gib * GIB, memory_gib * GIB, n_gpus)
    assert (found, reason in said) == (n_runs, True)


def test_the_default_is_said_with_its_reason_and_a_number_that_was_named_without_one(monkeypatch):
    put_gpus(monkeypatch, 1)
    slots = make_slots(None, None)
    why = "as many as 16 CPU cores carry"
    assert slots == [Slot(device="cuda", n_threads=1, runs_per_gpu=9, kind="nvidia-h200", why=why)] * 9
    assert runs_at_once(slots) == f"9 at a time on cuda ({why})"
    assert slots_text(slots).startswith("1 CPU thread each, up to 9 sharing a GPU: their times are left out")
    assert runs_at_once(make_slots(None, None, runs_per_gpu=2)) == "2 at a time on cuda"
    alone = make_slots(None, None, runs_per_gpu=1)
    assert (runs_at_once(alone), slots_text(alone)) == ("1 at a time on cuda", "16 CPU threads each")
    put_gpus(monkeypatch, 2)
    assert runs_at_once(make_slots(None, None)) == f"8 at a time on 2 GPUs ({why})"


def test_the_first_line_of_a_launch_says_how_many_runs_go_side_by_side_and_why(tmp_path, monkeypatch, capsys):
    put_gpus(monkeypatch, 1, n_cores=4)
    fast = smoke().on(corpus=None, mode="fast", seeds=None)
    launch_missing(fast, Store(tmp_path), make_slots(None, None), dry_run=True)
    first = capsys.readouterr().out.splitlines()[0]
    assert re.fullmatch(r"Experiment smoke: .*, 2 at a time on cuda \(as many as 4 CPU cores carry\)", first)
    put_gpus(monkeypatch, 1)
    launch_missing(fast, Store(tmp_path), make_slots(None, None), pattern="k_op", dry_run=True)
    assert capsys.readouterr().out.splitlines()[0].endswith(", 2 at a time on cuda (as many as there are to do)")


def test_a_gpu_that_takes_one_process_at_a_time_is_not_shared_unless_mps_shares_it(tmp_path, monkeypatch):
    put_gpus(monkeypatch, 2, compute_mode="Exclusive_Process")
    monkeypatch.setattr("bench.cuda.machine.mps_state", lambda: "off")
    assert [slot.runs_per_gpu for slot in make_slots(None, None)] == [1, 1]
    said = "2 at a time on 2 GPUs (one on each GPU, since its compute mode is Exclusive_Process)"
    assert findings(tmp_path)["runs"].finding.startswith(said)
    assert len(make_slots(None, None, runs_per_gpu=3)) == 6  # as asked
    monkeypatch.setattr("bench.cuda.machine.mps_state", lambda: "on (its daemon runs here)")
    assert len(make_slots(None, None)) == 8


@pytest.mark.parametrize(
    ("script", "modes"),
    [
        ("[ $1 = --query-gpu=compute_mode ] && echo Default && echo Prohibited", ["Default", "Prohibited"]),
        ("echo no driver; exit 9", []),
    ],
)
def test_nvidia_smi_is_asked_for_the_compute_modes(script, modes, tmp_path, monkeypatch):
    write_program(tmp_path / "nvidia-smi", script)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert compute_modes() == modes


def test_gpus_are_counted_after_cuda_has_started_since_a_process_can_use_one_mig_instance_alone(monkeypatch):
    put_gpus(monkeypatch, 2, visible=",".join(MIG))
    monkeypatch.setattr(torch.cuda, "init", lambda: monkeypatch.setattr(torch.cuda, "device_count", lambda: 1))
    assert {slot.visible_gpu for slot in make_slots(None, None)} == {MIG[0]}


def test_a_driver_that_does_not_start_is_an_error_that_says_what_to_type(monkeypatch):
    put_gpus(monkeypatch, 1)

    def fail() -> None:
        raise RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment\nmore of it")

    monkeypatch.setattr(torch.cuda, "init", fail)
    with pytest.raises(ConfigError, match=r"CUDA does not start: CUDA unknown error.*environment; see .*--device cpu"):
        make_slots(None, None)


def test_runs_are_dealt_out_to_gpus_and_each_slot_knows_how_many_share_one(monkeypatch):
    put_gpus(monkeypatch, 2, visible="4,7")
    assert [(slot.visible_gpu, slot.n_threads) for slot in make_slots("cuda", None)] == [("4", 2), ("7", 2)] * 4
    packed = [(slot.visible_gpu, slot.runs_per_gpu, slot.n_threads) for slot in make_slots("cuda", None, 3)]
    assert packed == [("4", 3, 2), ("7", 3, 2)] * 3
    assert [slot.runs_per_gpu for slot in make_slots("cuda", 3)] == [2, 1, 2]
    with pytest.raises(ConfigError, match="give one of them"):
        make_slots("cuda", 2, runs_per_gpu=2)


def test_a_run_that_is_alone_on_its_gpu_is_not_said_to_share_it(monkeypatch):
    put_gpus(monkeypatch, 2)
    slots = make_slots(None, None)
    assert [(slot.visible_gpu, slot.runs_per_gpu) for slot in as_needed(slots, 2)] == [("0", 1), ("1", 1)]
    assert [slot.runs_per_gpu for slot in as_needed(slots, 3)] == [2, 1, 2]
    assert len(as_needed(slots, 0)) == 1
    assert as_needed(slots, 100) == slots
    on_cpu = [Slot(device="cpu", n_threads=1)] * 2
    assert as_needed(on_cpu, 1) == on_cpu


def test_doctor_says_which_gpus_there_are_and_how_many_runs_share_them(tmp_path, monkeypatch):
    put_gpus(monkeypatch, 1, visible="3")
    found = findings(tmp_path)
    assert found["gpu"].finding == "NVIDIA H200 with 139 GiB; CUDA_VISIBLE_DEVICES='3' hides any other"
    assert found["runs"].finding.startswith("9 at a time on cuda")
    put_gpus(monkeypatch, 0, visible="")
    found = findings(tmp_path)
    assert (found["gpu"].verdict, found["runs"].verdict) == ("note", "ok")
    assert "CUDA_VISIBLE_DEVICES=''" in found["gpu"].finding


@pytest.mark.parametrize("visible", ["0", UUIDS[0], MIG[0]])
def test_a_task_of_slurm_shares_its_gpu_among_as_many_runs_as_were_planned(visible, tmp_path, monkeypatch):
    put_gpus(monkeypatch, 1, visible=visible)
    planned = submission_of(Store(tmp_path), ("0" * 12,), device="cuda", n_threads=4, runs_at_once=2)
    slots = task_slots(planned)
    assert [(slot.visible_gpu, slot.n_threads, slot.runs_per_gpu) for slot in slots] == [(visible, 4, 2)] * 2
