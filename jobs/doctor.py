"""Checks of this machine, its store and its SLURM: one line per check, or JSON."""

import datetime
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.cli import shadowed
from bench.errors import UserError
from bench.fetch import find_text
from bench.store import Store
from jobs.cache import cache_root, compile_cache
from jobs.slots import make_slots, runs_at_once, slots_text
from jobs.slurm.commands import FILTERS
from jobs.slurm.scheduler import SchedulerError, ask, settings

SLOW_WRITE_SECONDS = 1.0
CLOCK_SECONDS = 5.0  # between a file's stamp and our clock
LEAST_FREE_BYTES = 2**30
NEEDS = {"driver": "nvidia-smi", "accounting": "sacct"}  # the program that a check runs
NEEDS |= dict.fromkeys(("array size", "requeue", "preemption", "grace"), "scontrol")
Verdict = Literal["ok", "note", "problem"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One finding."""

    name: str
    verdict: Verdict
    finding: str


def examine(store: Store, data_dir: Path | None) -> list[Check]:
    """Every check, none of which stops the others."""
    checks: list[tuple[str, Callable[[], tuple[Verdict, str]]]] = [
        ("python", lambda: ("ok", f"{platform.python_version()} at {sys.executable}, on {platform.node()}")),
        ("packages", _packages),
        ("torch", _torch),
        ("gpu", _gpu),
        ("driver", _driver),
        ("runs", _runs),
        ("compiled", _compiled),
        ("corpus", lambda: ("ok", f"{find_text('tinyshakespeare', data_dir)}, sha256 as pinned")),
        ("store", lambda: _folder(store.root)),
        ("work folder", lambda: _folder(store.work_folder)),
        ("clock", lambda: _clock(store.work_folder)),
        ("slurm", _slurm),
        ("accounting", _accounting),
        ("array size", lambda: _setting("MaxArraySize", "its arrays are cut to this many tasks")),
        ("requeue", _requeue),
        ("preemption", _preemption),
        ("grace", lambda: _setting("KillWait", "between the signal to stop and the kill")),
        ("exported", _exported),
    ]
    if shadowed():  # what the others import may be a stub, and crash
        checks = checks[:2]
    found = []
    for name, check in checks:
        try:
            is_here = name not in NEEDS or shutil.which(NEEDS[name]) is not None
            verdict, finding = check() if is_here else ("note", f"no {NEEDS[name]} here")
        except Exception as error:  # a driver may raise anything, and the other checks must go on
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            verdict, finding = "problem", " ".join(f"{kind}{error}".split())
        found.append(Check(name=name, verdict=verdict, finding=finding))
    return found


def _packages() -> tuple[Verdict, str]:
    found = shadowed()
    return ("problem", "; ".join(found)) if found else ("ok", "PYTHONPATH replaces none that this suite imports")


def _torch() -> tuple[Verdict, str]:
    import torch

    import jobs.worker  # noqa: F401  # what a node must be able to import

    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < (2, 10):
        return "problem", f"{torch.__version__}: 2.10 or newer is needed"
    return "ok", f"{torch.__version__}, built for {'CUDA ' + torch.version.cuda if torch.version.cuda else 'the CPU'}"


def _gpu() -> tuple[Verdict, str]:
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = "" if visible is None else f"; CUDA_VISIBLE_DEVICES={visible!r} hides any other"
    if not torch.cuda.is_available():
        return "note", f"none that torch can use here; nodes may have one{hidden}"
    facts = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return "ok", ", ".join(f"{one.name} with {one.total_memory / 2**30:.0f} GiB" for one in facts) + hidden


def _runs() -> tuple[Verdict, str]:
    slots = make_slots(None, None)
    return "ok", f"{runs_at_once(slots)}, {slots_text(slots)}"


def _compiled() -> tuple[Verdict, str]:
    """The folder of compiled steps: whether it can be made and only we can write to it."""
    slot = make_slots(None, None)[0]
    if slot.device == "cpu":
        return "note", f"nothing is compiled on the CPU; with a GPU it would be kept in {cache_root()}"
    return "ok", f"kept in {compile_cache(slot.kind)}"


def _driver() -> tuple[Verdict, str]:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=30, check=False)
    return ("ok" if done.returncode == 0 else "problem"), " ".join((done.stdout or done.stderr).split())


def _nearest(folder: Path) -> Path:
    """`folder`, or the nearest of its parents that is there."""
    return next(one for one in (folder, *folder.absolute().parents) if one.is_dir())


def _folder(folder: Path) -> tuple[Verdict, str]:
    """Write, link, read back and time it: what records and leases rest on."""
    nearest, started = _nearest(folder), time.monotonic()
    with tempfile.TemporaryDirectory(dir=nearest, prefix=".probe-") as probe:
        first, second = Path(probe, "first"), Path(probe, "second")
        first.write_bytes(b"probe")
        os.link(first, second)
        same = second.read_bytes() == b"probe"
    seconds, free = time.monotonic() - started, shutil.disk_usage(nearest).free
    text = f"{folder}: written and linked in {1e3 * seconds:.0f} ms, {free / 2**30:.0f} GiB free"
    if not same or free < LEAST_FREE_BYTES:
        return "problem", text
    temporary = Path("/tmp") in (nearest.resolve(), *nearest.resolve().parents)
    if temporary and shutil.which("sbatch"):
        return "problem", f"{text}; nodes do not share /tmp"
    return ("note" if seconds > SLOW_WRITE_SECONDS else "ok"), text


def _clock(folder: Path) -> tuple[Verdict, str]:
    """The file system's clock against ours; for reading logs only, since nothing here compares two clocks."""
    with tempfile.NamedTemporaryFile(dir=_nearest(folder), prefix=".probe-") as probe:
        apart = Path(probe.name).stat().st_mtime - time.time()
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return ("ok" if abs(apart) < CLOCK_SECONDS else "note"), f"{now}, the store's {apart:+.1f} s from it"


def _slurm() -> tuple[Verdict, str]:
    if shutil.which("sbatch") is None:
        return "note", "no sbatch here; `launch --cluster slurm --dry-run` and `--emit-scripts` work all the same"
    version = ask("sbatch", "--version").strip()
    partitions = ask("sinfo", "--noheader", "--format=%R %D nodes %G").split("\n")
    return "ok", f"{version}; partitions {', '.join(filter(None, partitions))}"


def _accounting() -> tuple[Verdict, str]:
    try:
        ask("sacct", "--noheader", "--starttime=now")
    except SchedulerError as error:
        return "note", f"none ({error}); states come from records, heartbeats and squeue"
    return "ok", "sacct answers"


def _setting(name: str, meaning: str) -> tuple[Verdict, str]:
    return "ok", f"{name} = {settings()[name]}: {meaning}"


def _requeue() -> tuple[Verdict, str]:
    allowed = settings().get("JobRequeue")
    if allowed == "1":
        return "ok", "JobRequeue = 1"
    return "note", f"JobRequeue = {allowed}; our scripts ask for it with --requeue, else launch again after a failure"


def _preemption() -> tuple[Verdict, str]:
    facts = settings()
    text = ", ".join(f"{name} = {facts.get(name, '?')}" for name in ("PreemptMode", "PreemptParameters"))
    if facts.get("PreemptMode", "OFF") == "OFF" or "send_user_signal" in facts.get("PreemptParameters", ""):
        return "ok", text
    return "note", f"{text}; without send_user_signal a preempted run loses its work since the last checkpoint"


def _exported() -> tuple[Verdict, str]:
    win = [name for name in os.environ if name.startswith(("SBATCH_", "BENCH_SLURM_"))]
    other = [name for name in os.environ if name.startswith(FILTERS) or name == "SLURM_CLUSTERS"]
    if not win and not other:
        return "ok", "no variable that moves what SLURM is asked"
    meaning = "SBATCH_ variables win over scripts, BENCH_SLURM_ ones over profiles, CLUSTERS counts for all commands"
    return "note", f"{', '.join(sorted(win + other))}: {meaning}; filters such as SQUEUE_ ones are ignored"
