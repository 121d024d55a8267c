"""A launch with a deadline starts nothing that cannot end, saves the rest, and says how to go on."""

import sys
import time

import pytest

from bench.config import Run
from bench.errors import ConfigError
from bench.experiments import find_experiment, smoke
from bench.experiments.grid import Experiment
from bench.store import Store
from jobs import launch as launching
from jobs.app import app
from jobs.cost import Estimate
from jobs.deadline import Deadline, headline_first, parse_deadline, same_command
from jobs.forecast import expected_cells
from jobs.launch import launch_missing, share_left, summary
from jobs.local import OUT_OF_TIME, Ended, LocalPool
from jobs.queue import Queue
from jobs.slots import make_slots
from tests.command_line import call
from tests.jobs.test_queue import NINE, runs_of, start_all
from tests.searching import Made
from tests.tiny import tiny_cell
from tests.watched import leave_checkpoints, newest_step, record_run, steps_done


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time is known beforehand."""
    monkeypatch.setattr(launching, "find_estimates", lambda *_, **__: {})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("12m", 720), ("1h30m", 5400), ("2h", 7200), ("1H", 3600), ("1m5s", 65), (" 5m ", 300), (None, None)],
)
def test_a_deadline_is_read_as_people_write_it(text, seconds):
    assert parse_deadline(text) == seconds


@pytest.mark.parametrize("text", ["", "12", "0m", "-5m", "1:30:00", "30m1h", "1.5h", "12 minutes", "m"])
def test_any_other_deadline_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match="as 90s, 12m or 1h30m"):
        parse_deadline(text)


@pytest.mark.parametrize(("seconds", "kept"), [(60, 12), (90, 18), (300, 60), (3600, 60)])
def test_some_of_the_time_is_kept_for_saving_and_for_the_tables(seconds, kept):
    assert Deadline(seconds, 100.0).stop_at == 100 + seconds - kept


def test_nothing_starts_that_cannot_end_in_time_by_the_estimate():
    short, long = runs_of("paper", 1, "k_operators nanogpt")
    deadline = Deadline(600.0, 0.0)  # 540 to train
    deadline.known = {short: 70.0, long: 100.0}
    assert deadline.allows(short, 470.0)
    assert not deadline.allows(short, 471.0)
    assert deadline.allows(long, 440.0)
    assert not deadline.allows(long, 441.0)


def test_what_a_run_like_it_took_in_this_launch_counts_more_than_the_estimate():
    first, second = runs_of("paper", 2, "k_operators")
    other = runs_of("paper", 1, "nanogpt")[0]
    deadline = Deadline(600.0, 0.0)
    deadline.known = {first: 400.0, second: 400.0}
    queue = Queue([first, second], NINE, deadline)
    start_all(queue)
    queue.end(0, 200.0, done=False)  # it failed: that tells nothing
    assert not deadline.allows(second, 300.0)
    deadline.learn(first, 100.0)
    assert deadline.allows(second, 300.0)
    assert not deadline.allows(second, 441.0)
    assert deadline.allows(other, 300.0)  # of which nothing is known: while half of the time is left
    assert not deadline.allows(other, 301.0)


def test_what_a_run_took_after_it_was_put_back_tells_nothing_of_others():
    """It goes on from its checkpoint, and so takes less time than a whole run."""
    runs = runs_of("paper", 3, "k_operators", "exact")
    deadline = Deadline(3600.0, 0.0)
    queue = Queue(runs[:2], NINE, deadline)
    assert len(start_all(queue)) == 2
    assert queue.put_back(0, 2) == 1
    queue.end(1, 100.0, done=True)
    assert deadline.expected(runs[2]) == 100.0
    [(index, name)] = start_all(queue, 100.0)
    assert name == runs[0].name
    queue.end(index, 110.0, done=True)
    assert deadline.expected(runs[2]) == 100.0


def test_a_run_that_was_begun_needs_only_what_is_left_of_it(tmp_path):
    begun, fresh = runs_of("paper", 2, "k_operators")
    store = Store(tmp_path)
    leave_checkpoints(store, begun, 1750, 2625)
    assert (share_left(begun, store), share_left(fresh, store)) == (0.25, 1.0)
    deadline = Deadline(600.0, 0.0)
    deadline.known, deadline.left = {begun: 400.0, fresh: 400.0}, {begun: 0.25}
    assert (deadline.expected(begun), deadline.expected(fresh)) == (100.0, 400.0)
    deadline.learn(begun, 60.0)  # of a part, which tells nothing of a whole one
    assert deadline.expected(fresh) == 400.0
    deadline.learn(fresh, 200.0)
    assert deadline.expected(begun) == 50.0
    deadline.start_seconds = 20.0  # which it needs again, however little is left
    assert (deadline.expected(begun), deadline.expected(fresh)) == (20 + 180 * 0.25, 200.0)
    deadline.start_seconds = 1000.0
    assert deadline.expected(begun) == 200.0


def test_headline_arms_come_first_and_within_them_seed_by_seed():
    paper = find_experiment("paper")
    names = [run.name for run in headline_first(paper, paper.runs())]
    assert names[:4] == ["k_operators-s42", "nanogpt_2023-s42", "k_operators-s69", "nanogpt_2023-s69"]
    assert names[20:22] == ["nanogpt-s42", "unigram-fitted"]
    assert len(names) == len(set(names)) == len(paper.runs())
    matched = find_experiment("matched", Made())
    assert {run.label for run in headline_first(matched, matched.runs())[:20]} == {"k_operators", "transformer-params"}


def test_a_run_that_does_not_fit_is_skipped_for_a_shorter_one():
    short, long = runs_of("paper", 1, "k_operators nanogpt")
    deadline = Deadline(100.0, 0.0)
    deadline.known = {short: 50.0, long: 200.0}
    queue = Queue([long, short], NINE, deadline)
    assert start_all(queue) == [(0, short.name)]
    queue.end(0, 50.0, done=True)
    assert start_all(queue, 50.0) == []
    assert queue.waiting == [long]


def on_the_gpu(name: str, minutes: float, seconds: dict[str, float], seconds_gone: float = 0.0) -> list[str]:
    """The forecast for an experiment on nine slots, from the seconds that runs of each arm take there."""
    experiment: Experiment = find_experiment(name).on(corpus=None, mode="fast", seeds=None)
    runs = headline_first(experiment, experiment.runs())
    deadline = Deadline(60 * minutes, 5000.0)
    deadline.known = {run: seconds[run.label] for run in runs if run.label in seconds}
    return expected_cells(experiment, runs, NINE, deadline, 5000.0 + seconds_gone)


def test_it_is_said_beforehand_which_cells_will_be_done():
    floors = dict.fromkeys(("unigram", "bigram", "kneser_ney"), 5.0)
    seconds = {"k_operators": 130.0, "nanogpt": 340.0, "nanogpt_2023": 340.0, **floors}
    whole = on_the_gpu("paper", 20, seconds)
    assert whole[:3] == ["k_operators: 10 of 10", "nanogpt: 10 of 10", "nanogpt_2023: 10 of 10"]
    cut = dict(line.split(": ") for line in on_the_gpu("paper", 10, seconds))
    assert cut["k_operators"] == "10 of 10"
    n_headline, n_other = (int(cut[label].split()[0]) for label in ("nanogpt_2023", "nanogpt"))
    assert 10 > n_headline > n_other
    assert cut["unigram"] == "1 of 1"
    assert on_the_gpu("paper", 12, seconds, seconds_gone=120) == on_the_gpu("paper", 10, seconds)  # spent on estimates
    del seconds["nanogpt"]
    assert "nanogpt: 10 runs, whose time is not known" in on_the_gpu("paper", 20, seconds)


# launches -------------------------------------------------------------------------------------------------------------


ENDLESS = Experiment(
    name="endless",
    question="When does it stop?",
    cells=(tiny_cell("long", seeds=(1, 2, 3), n_steps=10_000_000, eval_every=10_000_000),),
)


def test_at_the_deadline_a_run_saves_its_state_and_the_launch_is_incomplete(tmp_path, monkeypatch, capsys):
    store, deadline, runs = Store(tmp_path / "store"), Deadline(3600.0, time.monotonic()), ENDLESS.runs()
    monkeypatch.setattr(LocalPool, "time_is_up", lambda _: steps_done(store, runs[0]) > 0)
    ended = launch_missing(ENDLESS, store, make_slots("cpu", 1), checkpoint_seconds=1e9, deadline=deadline)
    assert [(one.run, one.status, one.reason) for one in ended] == [(run, None, OUT_OF_TIME) for run in runs]
    assert newest_step(store, runs[0]) > 0
    assert not store.record_paths()
    assert summary(ended, store) == 3
    printed = capsys.readouterr().out
    assert "Expected to be done within 1:00:00, of the runs still to do:\n  long: 3 runs, whose time" in printed
    assert "3 runs are left, since the deadline came first" in printed


def test_a_launch_with_a_deadline_puts_headline_arms_first_and_knows_what_was_begun(tmp_path, monkeypatch):
    given: list[Run] = []
    monkeypatch.setattr(LocalPool, "run", lambda _, runs, __: given.extend(runs) or [])
    experiment, store, deadline = smoke(), Store(tmp_path), Deadline(3600.0, time.monotonic())
    begun = experiment.runs()[0]
    leave_checkpoints(store, begun, 3)
    launch_missing(experiment, store, make_slots("cpu", 1), deadline=deadline)
    assert [run.label for run in given[:4]] == ["k_operators", "transformer"] * 2
    assert {run.config.training for run in given[4:]} == {None}
    assert deadline.left == {begun: 0.75}  # 3 of 12 steps are done


def test_the_pool_stops_at_the_deadline_by_the_clock(tmp_path):
    now = time.monotonic()
    pool = LocalPool(Store(tmp_path), make_slots("cpu", 1), deadline=Deadline(3600.0, now))
    assert not pool.time_is_up()
    pool.deadline = Deadline(3600.0, now - 3540.0)  # a minute is kept for saving and for the tables
    assert pool.time_is_up()
    assert [one.reason for one in pool.run(ENDLESS.runs(), lambda *_: None)] == [OUT_OF_TIME] * 3
    assert LocalPool(Store(tmp_path), make_slots("cpu", 1)).time_is_up() is False


@pytest.fixture
def half_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool that has the first run of each launch done, and is cut by the deadline, if there is one, before others."""

    def run(pool: LocalPool, runs: list[Run], _: object) -> list[Ended]:
        ended = []
        for index, one in enumerate(runs):
            cut = pool.deadline is not None and index > 0
            if not cut:
                record_run(pool.store, one, architecture=one.config.architecture)
            ended.append(Ended(run=one, status=None if cut else "done", reason=OUT_OF_TIME if cut else ""))
        return ended

    monkeypatch.setattr(LocalPool, "run", run)


COMMAND = ("--experiment", "smoke", "--device", "cpu", "--seeds", "42")


@pytest.mark.fault("F25")
@pytest.mark.usefixtures("half_done")
def test_a_launch_that_was_cut_writes_its_tables_and_exits_3_with_the_command_that_goes_on(tmp_path, data_dir, capsys):
    store = tmp_path / "my store"
    command = ["launch", *COMMAND, "-k", "!gram !kneser", "--data-dir", data_dir, "--store", store, "--deadline", "12m"]
    assert call(app, *command) == 3
    printed = capsys.readouterr().out
    assert list((store / "tables").glob("smoke-*"))
    assert printed.splitlines()[-1].endswith(
        f" -m jobs launch {' '.join(COMMAND)} -k '!gram !kneser' --data-dir {data_dir} --store '{store}' --deadline 12m"
    )
    assert call(app, *command) == 0  # one run was left, and it is the first of this launch


@pytest.mark.usefixtures("half_done")
def test_a_record_that_cannot_be_read_counts_more_than_runs_that_are_left(tmp_path, data_dir):
    command = ["launch", *COMMAND, "-k", "!gram !kneser", "--data-dir", data_dir, "--store", tmp_path]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "torn-s1-0123456789ab.json").write_text('{"schema_ver')
    assert call(app, *command, "--deadline", "12m") == 1


@pytest.mark.usefixtures("half_done")
def test_a_launch_that_ends_early_is_like_any_other(tmp_path, data_dir, capsys):
    command = ["launch", *COMMAND, "-k", "trans", "--data-dir", data_dir, "--store", tmp_path, "--deadline", "1h"]
    assert call(app, *command) == 0
    assert "To go on" not in capsys.readouterr().out
    assert not (tmp_path / "tables").exists()


@pytest.mark.usefixtures("half_done")
def test_reproduce_shows_what_there_is_and_how_to_go_on(tmp_path, data_dir, capsys):
    command = ["reproduce", *COMMAND, "--data-dir", data_dir, "--store", tmp_path, "--deadline", "12m"]
    assert call(app, *command, "--committed", tmp_path / "none") == 3
    printed = capsys.readouterr().out
    assert "The preprint's claims" in printed
    assert printed.splitlines()[-2] == "To go on:"
    assert " -m jobs reproduce " in printed.splitlines()[-1]


def test_a_failed_run_counts_more_than_one_that_is_left(tmp_path):
    run = ENDLESS.runs()[0]
    cut = Ended(run=run, status=None, reason=OUT_OF_TIME)
    done, failed = (Ended(run=run, status=status, reason="") for status in ("done", "failed"))
    assert tuple(summary(some, Store(tmp_path)) for some in ([done], [done, cut], [done, cut, failed])) == (0, 3, 1)


def test_a_deadline_on_slurm_is_refused(tmp_path, capsys):
    command = ["launch", "--experiment", "smoke", "--store", tmp_path, "--cluster", "slurm", "--deadline", "12m"]
    assert call(app, *command) == 2
    assert "timeout_min" in capsys.readouterr().err


def test_the_command_that_goes_on_starts_with_the_python_that_is_running(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program", "launch", "-k", "!gram x"])
    monkeypatch.setattr("shutil.which", lambda _: "/elsewhere/python")
    assert same_command() == f"{sys.executable} -m jobs launch -k '!gram x'"
    monkeypatch.setattr("shutil.which", lambda _: sys.executable)
    assert same_command() == "python -m jobs launch -k '!gram x'"


def test_a_dry_run_with_a_deadline_lists_what_it_expects_and_starts_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(LocalPool, "run", lambda *_: pytest.fail("a run was started"))
    deadline = Deadline(60.0, time.monotonic())
    estimates = {run.run_id: Estimate(seconds=30.0 if run.seed else 5.0, source="a test") for run in smoke().runs()}
    monkeypatch.setattr(launching, "find_estimates", lambda *_, **__: estimates)
    assert launch_missing(smoke(), Store(tmp_path), make_slots("cpu", 1), dry_run=True, deadline=deadline) == []
    printed = capsys.readouterr().out
    assert "  k_operators: 1 of 2\n  transformer: 0 of 2\n  unigram: 1 of 1\n" in printed
    assert "\n  times: a test\n" in printed
