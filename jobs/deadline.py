"""A launch that must end by a given time: what may still start, and when running runs are asked to save."""

import re
import sys
from collections.abc import Hashable
from typing import TYPE_CHECKING

from bench.errors import ConfigError, typed

if TYPE_CHECKING:  # neither torch nor the models, for a command line that only shows its help
    from bench.config import Run
    from bench.experiments.grid import Experiment

STOP_SHARE = 0.1  # of the time, kept for saving the state of running runs
MOST_STOP_SECONDS = 30.0
OUTCOME_SECONDS = 30.0  # for the tables and the report after that, but at most STOP_SHARE of the time, too
PROBE_SHARE = 0.1  # of the time, in which what has no known time may be timed
HEADLINE = "k_operators"  # with an experiment's reference, the arms that come first


class Deadline:
    """When a launch must have ended, on the clock that `started` was read from, and how long its runs take."""

    def __init__(self, seconds: float, started: float) -> None:
        self.seconds, self.started = seconds, started
        self.stop_seconds = min(MOST_STOP_SECONDS, STOP_SHARE * seconds)
        # when the running runs are asked to save, so that the tables are written by the deadline, too
        self.stop_at = started + seconds - self.stop_seconds - min(OUTCOME_SECONDS, STOP_SHARE * seconds)
        self.probe_until = started + PROBE_SHARE * seconds  # when no step may be timed any more
        self.start_seconds = 0.0  # of a worker before its first step; a run that was begun needs them again
        self.known: dict[Run, float] = {}  # seconds of a complete run, as estimated before anything started
        self.left: dict[Run, float] = {}  # share of its steps that a run has still to do, where it was begun before
        self._learned: dict[Hashable, float] = {}

    def learn(self, run: "Run", seconds: float) -> None:
        """Note the seconds of a run from start to record in this launch."""
        if run not in self.left:
            self._learned[_like(run)] = seconds

    def expected(self, run: "Run") -> float | None:
        """Seconds that a run needs from now on, by the last run like it, else by the estimate; None: not known."""
        seconds = self._learned.get(_like(run), self.known.get(run))
        if seconds is None:
            return None
        start = min(self.start_seconds, seconds)
        return start + (seconds - start) * self.left.get(run, 1.0)

    def allows(self, run: "Run", now: float) -> bool:
        """Whether a run may start now, since it ends in time.

        One of which nothing is known may start while at least half of the time is left.
        """
        seconds = self.expected(run)
        if seconds is not None:
            return now + seconds <= self.stop_at
        return now - self.started <= self.seconds / 2


def _like(run: "Run") -> Hashable:
    """The settings that determine how long a run takes."""
    config, training = run.config, run.config.training
    steps = (training.n_steps, training.batch_size, training.eval_every) if training else ()
    return run.mode, config.architecture, config.model, config.context, steps, config.n_sampled_batches


def headline_first(experiment: "Experiment", runs: "list[Run]") -> "list[Run]":
    """The runs of the headline arms, seed by seed, then the others, seed by seed."""
    headline = (HEADLINE, experiment.reference)
    return sorted(runs, key=lambda run: run.label not in headline)  # stable: the order within each stays


def parse_deadline(text: str | None) -> float | None:
    """`90s`, `12m` or `1h30m` in seconds; None stays None. ConfigError for anything else."""
    if text is None:
        return None
    match = re.fullmatch(r"(?:(\d{1,4})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s)?", text.strip().lower())
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    if total == 0:
        raise ConfigError(f"--deadline {text}: write how long the launch may take, as 90s, 12m or 1h30m")
    return float(total)


def same_command() -> str:
    """The command that continues: the command line of this process."""
    return typed("jobs", *sys.argv[1:])
