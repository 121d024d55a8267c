"""Runs that train in a second or less, and their submissions to SLURM."""

import dataclasses
from typing import Any

from bench.config import Run
from bench.experiments.grid import Cell
from bench.experiments.recipes import floors
from bench.store import Store
from jobs.slurm.arrays import Request
from jobs.slurm.submission import Submission
from tests.conftest import CONTEXT, tiny_config

NAME = "kops-0123abcd"  # of a submission


def tiny_cell(label: str, seeds: tuple[int, ...] = (42,), context: int = CONTEXT, **training: object) -> Cell:
    """A trained cell on the synthetic text: a Transformer, four steps; `training` replaces fields of its config."""
    config = tiny_config("transformer", context, 1, **{"n_steps": 4, "warmup_steps": 0, **training})
    return Cell(label=label, config=config, seeds=seeds)


def counted_cell() -> Cell:
    """A counted cell on the synthetic text."""
    floor = floors(context=CONTEXT, n_sampled_batches=1)[0]
    return dataclasses.replace(floor, config=dataclasses.replace(floor.config, corpus="synthetic"))


def tiny_runs(label: str = "tiny", seeds: tuple[int, ...] = (42,), **training: object) -> list[Run]:
    """The runs of a tiny cell, in `exact` mode."""
    config = tiny_cell(label, **training).config  # type: ignore[arg-type]
    return [Run(label=label, config=config, seed=seed, mode="exact") for seed in seeds]


def submission_of(store: Store, *tasks: tuple[str, ...], **changes: Any) -> Submission:
    """A submission of these tasks, each the ids of its runs, on one CPU thread; it is not written."""
    fields = {
        "name": NAME,
        "experiment": "smoke",
        "store": str(store.root.resolve()),
        "tasks": tasks,
        "device": "cpu",
        "n_threads": 1,
        "runs_at_once": 1,
        "timeout_min": 30,
        "checkpoint_seconds": 60.0,
        "data_dir": None,
        "number": 0,
    }
    return Submission(**{**fields, **changes})


def request_of(*assignments: str, **changes: Any) -> Request:
    """How a grid is spread over jobs: by default one run per job, on CPUs."""
    plain = Request(
        profile=None,
        assignments=list(assignments),
        device="cpu",
        runs_per_job=1,
        runs_at_once=1,
        data_dir=None,
        checkpoint_seconds=60.0,
    )
    return dataclasses.replace(plain, **changes)
