"""What surrounds a command: shell variables that are unset, terminals that lack characters, accounts without a home."""

import pytest

from bench.__main__ import app as bench_app
from bench.errors import UserError
from bench.fetch import DATA_DIR_VARIABLE
from bench.store import RUNS_DIR_VARIABLE
from jobs.__main__ import app as jobs_app
from jobs.cache import CACHE_DIR_VARIABLE, cache_root
from tests.command_line import mistake

RUN = ["run", "--experiment", "smoke", "--cell", "k_operators", "--seed", 42, "--device", "cpu"]
LAUNCH = ["launch", "--experiment", "smoke", "--device", "cpu"]


@pytest.mark.parametrize(
    ("app", "command", "name"),
    [
        (bench_app, [*RUN, "--store", ""], "--store"),
        (bench_app, [*RUN, "--store="], "--store"),
        (bench_app, [*RUN, "--data-dir", ""], "--data-dir"),
        (jobs_app, [*LAUNCH, "--store", ""], "--store"),
        (jobs_app, [*LAUNCH, "--pack", "", "--store", "x"], "--pack"),
        (jobs_app, ["status", "--store="], "--store"),
        (bench_app, ["merge", "one", ""], "the argument after one"),
        (bench_app, ["recheck", ""], "the argument after recheck"),
    ],
)
def test_an_empty_argument_is_refused_by_name_and_nothing_is_written(
    app, command, name, capsys, tmp_path, monkeypatch, data_dir
):
    monkeypatch.chdir(tmp_path)
    assert mistake(capsys, app, *command).startswith(f"error: {name} is empty")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [RUNS_DIR_VARIABLE, DATA_DIR_VARIABLE])
def test_an_empty_variable_for_a_folder_is_refused_by_name(name, capsys, tmp_path, monkeypatch, data_dir):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, "")
    for app, command in ((bench_app, RUN), (jobs_app, [*LAUNCH, "--dry-run"])):
        assert mistake(capsys, app, *command, "--store", tmp_path / "store").startswith(f"error: {name} is empty")
    monkeypatch.setenv(CACHE_DIR_VARIABLE, "")
    with pytest.raises(UserError, match=CACHE_DIR_VARIABLE):
        cache_root()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
