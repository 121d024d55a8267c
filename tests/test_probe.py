"""A probe times a few steps of one run of a shape, says so first, and ends in time."""

import shutil
import sys

import pytest
import torch

from bench.config import Run
from bench.train import Trainer
from jobs import probe as probing
from jobs.cost import START_SECONDS
from jobs.local import Slot
from jobs.probe import N_STEPS, estimate_seconds, pace
from tests.test_jobs import tiny_cell

SLOTS = [Slot(device="cpu", n_threads=1)] * 2


def runs_of_two_shapes() -> list[Run]:
    """Two seeds, another length, and another context, which is another shape."""
    first = [Run(label="first", config=tiny_cell("x").config, seed=seed, mode="exact") for seed in (1, 2)]
    longer = Run(label="longer", config=tiny_cell("x", n_steps=4000).config, seed=1, mode="exact")
    other = Run(label="other", config=tiny_cell("x", context=8).config, seed=1, mode="exact")
    return [*first, longer, other]


def test_one_run_of_each_shape_is_timed_in_one_process_which_is_said_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def answer(run: Run, _slot: Slot, _data_dir: object, limit: float) -> tuple[float, float]:
        line = capsys.readouterr().out
        asked.append((run.label, line))
        assert f"Timing a few steps of {run.label} on cpu, for {limit:.0f} s at most" in line
        return 0.5, 0.0

    monkeypatch.setattr(probing, "_ask", answer)
    runs = runs_of_two_shapes()
    seconds = estimate_seconds(runs, SLOTS, None)
    assert [label for label, _ in asked] == ["first", "other"]
    start = START_SECONDS["cpu"]
    assert [seconds[run.run_id] for run in runs] == [start + 2, start + 2, start + 2000, start + 2]


def test_a_probe_answers_from_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "STEPS_SECONDS", 0.01)
    monkeypatch.setattr(probing, "LIMIT_SECONDS", 120.0)  # this machine may be busy with other work
    [run] = runs_of_two_shapes()[:1]
    assert estimate_seconds([run], SLOTS, None)[run.run_id] > START_SECONDS["cpu"]


def test_a_probe_that_takes_too_long_is_ended_and_leaves_its_runs_unknown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(probing, "LIMIT_SECONDS", 0.05)  # no Python starts that fast
    assert estimate_seconds(runs_of_two_shapes(), SLOTS, None) == {}
    assert "first could not be timed within 0 s" in capsys.readouterr().out


def test_a_probe_that_fails_leaves_its_runs_unknown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    assert estimate_seconds(runs_of_two_shapes()[:1], SLOTS, None) == {}
    assert "what it takes stays unknown" in capsys.readouterr().out


@pytest.mark.parametrize(("most", "n_steps"), [(0.0, 1), (1e9, N_STEPS + 1)])
def test_slow_steps_are_cut_short_and_quick_ones_are_repeated(
    most: float, n_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []
    advance = Trainer.advance

    def counted(trainer: Trainer) -> tuple[torch.Tensor, torch.Tensor]:
        done.append(trainer.step)
        return advance(trainer)

    monkeypatch.setattr(Trainer, "advance", counted)
    step, token = pace(runs_of_two_shapes()[0], "cpu", None, most=most, least=0.0)
    assert len(done) == n_steps
    assert step > 0
    assert token > 0
