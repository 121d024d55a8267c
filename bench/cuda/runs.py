"""Complete runs on a GPU, in processes of `python -m jobs launch`: two in parallel, and out of memory."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from bench.config import Run, override
from bench.cuda.numbers import SEED, Answer, Context
from bench.experiments import find_experiment
from bench.record import Record
from bench.repeat import record_differences, run_of
from bench.run import Settings, execute
from bench.sources import ROOT
from bench.store import RUNS_DIR_VARIABLE, Store

PAIR = ("k_operators-s42", "k_operators-s69")
OUT_OF_MEMORY, NEXT = "transformer-s42", "transformer-s69"
MEMORY_LIMIT = 2**30  # bytes that this process may take from the GPU, so that others are not affected
TOO_MANY_WINDOWS = 2**17  # of 32 tokens: each activation of a step takes 256 MiB or more
SECONDS = 90.0  # for a launch of two runs that train for less than a second


def side_by_side(context: Context) -> Answer:
    """Two workers share the GPU, both finish, and the first has the same bits as by itself."""
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(Path(scratch) / "together")
        where = ["--runs-per-gpu", "2"] if context.device.type == "cuda" else ["--workers", "2"]
        log = launch(store, context, "k_operators", where)
        found = {f"{one.label}-s{one.seed}": one for one in store.records()[0]}
        ended = {name: found[name].status if name in found else "no record" for name in PAIR}
        if set(ended.values()) != {"done"}:
            return Answer(status="failed", text=f"{_listed(ended)}; expected: both done{log}")
        return compare_with_lone(found[PAIR[0]], context, Store(Path(scratch) / "alone"))


def compare_with_lone(packed: Record, context: Context, store: Store) -> Answer:
    """Compare a record of a run that shared the device with the same run by itself, in this process."""
    on_cuda = context.device.type == "cuda"
    n_threads = packed.environment.n_threads
    unshared = execute(run_of(packed), store, Settings(device=context.device, n_threads=n_threads))
    if on_cuda and not packed.packed:
        return Answer(status="failed", text=f"{PAIR[0]} is recorded as having the GPU to itself, but it shared it")
    if found := record_differences(packed, unshared):
        return Answer(status="failed", text=f"{PAIR[0]} next to another run, and now by itself: {'; '.join(found)}")
    return Answer(status="held", text=f"{' and '.join(PAIR)} are done, and {PAIR[0]} has the same bits by itself")


def out_of_memory(context: Context, n_windows: int = TOO_MANY_WINDOWS) -> Answer:
    """A run that needs too much memory gets a record with status oom, and the pool does the next run."""
    if context.device.type == "cuda":
        total_bytes = torch.cuda.get_device_properties(context.device).total_memory
        torch.cuda.set_per_process_memory_fraction(MEMORY_LIMIT / total_bytes)
    config = next(cell.config for cell in find_experiment("smoke").cells if cell.label == "transformer")
    config = override(replace(config, corpus="synthetic"), [f"training.batch_size={n_windows}"])
    with tempfile.TemporaryDirectory() as scratch:
        run = Run(label="too-large", config=config, seed=SEED, mode="exact")
        ended = execute(run, Store(Path(scratch) / "large"), Settings(device=context.device))
        if ended.status != "oom":
            text = f"a run too large for the memory ended as {ended.status}, expected oom: {ended.error}"
            return Answer(status="failed", text=text)
        store = Store(Path(scratch) / "pool")
        log = launch(store, context, "transformer", ["--workers", "1"], module="bench.cuda.no_memory")
        found = {f"{one.label}-s{one.seed}": one.status for one in store.records()[0]}
    right = {OUT_OF_MEMORY: "oom", NEXT: "done"}
    if found != right:
        return Answer(status="failed", text=f"the pool ended with {_listed(found)}; expected: {_listed(right)}{log}")
    text = (
        f"a batch of {n_windows:,} windows ended as oom, and a pool continued after an injected one: {_listed(right)}"
    )
    return Answer(status="held", text=text, values={"error": ended.error})


def launch(store: Store, context: Context, name: str, options: list[str], module: str = "jobs") -> str:
    """Launch the runs of `smoke` whose name has `name`, seeds 42 and 69, in exact mode; how it failed, else empty."""
    command = [sys.executable, "-m", module, "launch", "--experiment", "smoke", "--mode", "exact", "-k", name]
    command += ["--seeds", "42,69", "--device", context.device.type, "--store", str(store.root), *options]
    environment = {key: value for key, value in os.environ.items() if key != RUNS_DIR_VARIABLE}
    if context.device.type == "cuda" and torch.cuda.device_count() > 1:  # both on the checked GPU
        environment["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    try:
        ended = subprocess.run(
            command,
            env=environment,
            cwd=ROOT,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f" (the launch had not ended after {SECONDS:.0f} s)"
    last = (ended.stderr or ended.stdout).strip().splitlines()[-1:]
    return "" if ended.returncode == 0 else f" (exit code {ended.returncode}: {''.join(last)[:300]})"


def _listed(statuses: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {status}" for name, status in statuses.items()) or "no record"
