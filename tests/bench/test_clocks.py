"""A wrong clock changes no measurement of a run."""

import itertools
import os
import time
from datetime import datetime
from typing import Any

import pytest

from bench import checkpoint
from bench.process import Interrupted
from bench.record import Record
from bench.run import execute
from bench.store import Store
from tests.conftest import SELDOM
from tests.faults import stopping_at


def told_by_no_clock(finished: Record) -> dict[str, Any]:
    """A record without time stamps, seconds and memory."""
    content = finished.model_dump(mode="json")
    for one in content["attempts"]:
        for name in ("started_at", "train_seconds", "peak_bytes"):
            del one[name]
    for name in ("train_seconds", "tokens_per_second", "peak_bytes"):
        del content["cost"][name]
    return content


@pytest.mark.fault("F15")
@pytest.mark.parametrize("days", [1, -1])
@pytest.mark.usefixtures("on_little_text")
def test_a_clock_that_is_days_off_changes_nothing_but_the_time_stamp(days, tiny_run, tmp_path, monkeypatch):
    run, looks, right = tiny_run(), itertools.count(1), time.time

    def wrong() -> float:
        return right() + days * 86_400 * next(looks)  # off by one more day at each call

    class WrongDatetime(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "WrongDatetime":
            return cls.fromtimestamp(wrong(), tz)

    def stopped_and_resumed(store: Store, *, clock_is_wrong: bool) -> Record:
        with stopping_at(5), pytest.raises(Interrupted):
            execute(run, store, SELDOM)
        older, newer = checkpoint.paths(store.run_folder(run.run_id))
        with monkeypatch.context() as patch:
            if clock_is_wrong:
                os.utime(older, (right(), right() + 86_400))  # as if it had been written after the newer one
                os.utime(newer, (right(), right() - 86_400))
                patch.setattr("time.time", wrong)
                patch.setattr("bench.recording.datetime", WrongDatetime)
            return execute(run, store, SELDOM)

    usual = stopped_and_resumed(Store(tmp_path / "usual"), clock_is_wrong=False)
    off = stopped_and_resumed(Store(tmp_path / "off"), clock_is_wrong=True)
    assert [one.first_step for one in off.attempts] == [0, 6]
    assert told_by_no_clock(off) == told_by_no_clock(usual)
    assert 0 < off.cost.train_seconds < 3600  # without the days by which the clock was wrong
    times = [datetime.fromisoformat(one.attempts[-1].started_at) for one in (usual, off)]
    assert abs((times[1] - times[0]).total_seconds()) > 80_000  # the clock was wrong
