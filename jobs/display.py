"""Display of progress: a live table in a terminal, a few plain lines elsewhere."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from bench.config import Run
from bench.process import read_progress
from bench.store import Store
from jobs.local import Ended

PLAIN_SECONDS = 60.0  # between lines where the output is no terminal


class Display:
    """Shows the active runs and the total; a context manager."""

    def __init__(
        self,
        store: Store,
        n_runs: int,
        expected_seconds: float | None,
        gpu_share: Callable[[], float | None] = lambda: None,  # of the time so far in which a GPU trained
    ) -> None:
        self.store, self.n_runs, self.expected_seconds, self.gpu_share = store, n_runs, expected_seconds, gpu_share
        self.n_ended, self.started = 0, time.monotonic()
        self.console = Console(highlight=False)
        live = Live(console=self.console, refresh_per_second=2, transient=True)
        self.live = live if self.console.is_terminal else None
        self._printed_at = self.started
        self._seen: set[str] = set()

    def __enter__(self) -> "Display":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()
        self.print(self.gpu_text())

    def print(self, text: str) -> None:
        """Print a line with the time since the start; nothing for an empty text."""
        if text:
            line = f"{duration(time.monotonic() - self.started)}  {text}"
            self.console.print(line, markup=False, soft_wrap=self.live is None)  # a line of a file is not folded

    def tell(self, active: list[Run], ended: Ended | None) -> None:
        """Show the moment, and one run's end if there is one."""
        for run in active:
            if run.run_id not in self._seen:
                self._seen.add(run.run_id)
                if self.live is None:
                    self.print(f"started  {run.name}")
        if ended is not None:
            self.n_ended += 1
            what = ended.status or f"no record: {ended.reason}"
            self.print(f"{what:8} {ended.run.name}  ({self.n_ended} of {self.n_runs})")
        if self.live:
            self.live.update(self.table(active))
        elif time.monotonic() - self._printed_at >= PLAIN_SECONDS:
            self._printed_at = time.monotonic()
            for run in active:
                self.print(plain_line(run.name, read_progress(self.store.run_folder(run.run_id)) or {}))
            self.print(self.gpu_text())

    def table(self, active: list[Run]) -> Group:
        """The active runs, one per row, and the total below them."""
        table = Table("run", "step", "nats per token", "tokens/s", "left", box=None, pad_edge=False)
        for run in active:
            table.add_row(*self.row(run))
        left, seconds = "", time.monotonic() - self.started
        if self.expected_seconds is not None:
            left = f", about {duration(max(self.expected_seconds - seconds, 0))} left"
        gpu = f"; {gpu_text}" if (gpu_text := self.gpu_text()) else ""
        return Group(table, f"{self.n_ended} of {self.n_runs} runs ended after {duration(seconds)}{left}{gpu}")

    def gpu_text(self) -> str:
        """How much of the time so far a GPU trained; nothing where the runs are on the CPU."""
        share = self.gpu_share()
        return "" if share is None else f"GPU training {share:.0%} of the time"

    def row(self, run: Run) -> tuple[str, str, str, str, str]:
        """A run's name, step, latest validation loss, speed and time left, for a table whose head has the units."""
        progress = read_progress(self.store.run_folder(run.run_id)) or {}
        step, n_steps = progress.get("step"), progress.get("n_steps")
        nats, speed = progress.get("val_nats_per_token"), progress.get("tokens_per_second")
        left = progress.get("seconds_left")
        return (
            run.name,
            f"{step} of {n_steps}" if n_steps else str(progress.get("state", "starting")),
            f"{nats:.4f}" if nats is not None else "-",
            f"{speed:,.0f}" if speed else "-",
            duration(left) if left is not None else "",
        )


def plain_line(name: str, progress: dict[str, Any]) -> str:
    """A run's progress as a line with its units; what is not known yet is left out."""
    n_steps, left = progress.get("n_steps"), progress.get("seconds_left")
    nats, speed = progress.get("val_nats_per_token"), progress.get("tokens_per_second")
    return "  ".join(
        [
            name,
            f"step {progress.get('step')} of {n_steps}" if n_steps else str(progress.get("state", "starting")),
            *([] if nats is None else [f"{nats:.4f} nats"]),
            *([f"{speed:,.0f} tokens/s"] if speed else []),
            *([] if left is None else [f"{roughly(left)} left"]),
        ]
    )


def roughly(seconds: float) -> str:
    """Seconds in words: `40 s`, `5 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))
