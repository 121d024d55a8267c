"""SLURM sites for tests, and their scripts."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from bench.experiments import smoke
from bench.experiments.grid import Experiment
from bench.store import Store
from jobs.slurm import arrays, site
from tests.tiny import request_of, tiny_cell

ALWAYS_ASKED = {"job-name", "nodes", "open-mode", "output", "requeue", "signal", "time"}  # at every site


def forget_site(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Ignore the site and the folders of this machine; profiles are in `folder`; nothing is timed."""
    for name in list(os.environ):
        if name.startswith(("BENCH_", "SBATCH_", "SLURM_", "SQUEUE_", "SUBMITIT_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(site, "LOCAL_FILE", folder / "jobs" / "slurm.local.toml")
    monkeypatch.setattr(site, "PROFILES", folder / "jobs" / "profiles")
    site.PROFILES.mkdir(parents=True)
    monkeypatch.setattr(arrays, "estimate_seconds", lambda *_: {})
    monkeypatch.setattr(arrays, "max_array_size", lambda *_: 1000)


def profile(text: str, name: str = "mysite") -> str:
    """Write a profile with that text; return its name."""
    (site.PROFILES / f"{name}.toml").write_text(text, encoding="utf-8")
    return name


def arrays_of(store: Store, *assignments: str, **changes: Any) -> list[arrays.Array]:
    """The arrays of the smoke experiment."""
    experiment = smoke()
    return arrays.make_arrays(experiment, experiment.runs(), store, request_of(*assignments, **changes), {})


def array_of_twenty(
    store: Store, *assignments: str, seconds: float | None = None, n_runs: int = 20, **changes: Any
) -> arrays.Array:
    """The one array of a grid of twenty runs, or of its first `n_runs`, each of which is known to take `seconds`."""
    runs = twenty().runs()[:n_runs]
    known = {} if seconds is None else {run.run_id: seconds for run in runs}
    [array] = arrays.make_arrays(twenty(), runs, store, request_of(*assignments, **changes), known)
    return array


def flags(text: str) -> dict[str, str]:
    """The #SBATCH lines of a script: flag -> value, with quotes."""
    pairs = [re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(.*))?", line) for line in text.splitlines() if "#SBATCH" in line]
    assert all(pairs)
    found = {pair[1]: pair[2] or "" for pair in pairs if pair}
    assert len(found) == len(pairs)
    return found


def twenty() -> Experiment:
    """A grid of twenty tiny runs."""
    return Experiment(name="twenty", question="Are all there?", cells=(tiny_cell("tiny", seeds=tuple(range(20))),))
