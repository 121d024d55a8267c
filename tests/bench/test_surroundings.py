"""What surrounds a command: shell variables that are unset, terminals that lack characters, accounts without a home."""

import os
import shutil

import pytest

from bench.app import app as bench_app
from bench.cli import shadowed
from bench.errors import UserError
from bench.fetch import DATA_DIR_VARIABLE
from bench.store import RUNS_DIR_VARIABLE, Store
from jobs.app import app as jobs_app
from jobs.attempt import start_attempt
from jobs.cache import CACHE_DIR_VARIABLE, cache_root
from jobs.layout import LOG_FILE
from jobs.slots import make_slots
from tests.command_line import PATIENCE_SECONDS, ROOT, call, finish, mistake, start_python
from tests.stores import five_seeds, make_store

RUN = ["run", "--experiment", "smoke", "--cell", "k_operators", "--seed", 42, "--device", "cpu"]
LAUNCH = ["launch", "--experiment", "smoke", "--device", "cpu"]


@pytest.mark.met("U7")
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


@pytest.mark.met("U7")
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


NARROW = (
    ({"PYTHONIOENCODING": "ascii"}, "ascii"),
    ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "ascii"),
    ({"PYTHONIOENCODING": "iso-8859-1"}, "iso-8859-1"),  # as LC_ALL=de_DE.ISO-8859-1, which is not everywhere
)


@pytest.mark.met("U8")
@pytest.mark.parametrize(("variables", "encoding"), NARROW)
def test_a_terminal_that_lacks_characters_gets_the_others_and_files_are_utf8(variables, encoding, tmp_path, capsys):
    store = make_store(tmp_path / "runs", [*five_seeds(), *five_seeds("nanogpt")])
    assert call(bench_app, "table", "--full", "--store", store.root) == 0
    complete = capsys.readouterr().out
    assert not complete.isascii()
    written = {path: path.read_bytes() for path in (store.root / "tables").iterdir()}
    shutil.rmtree(store.root / "tables")
    command = ["-m", "bench", "table", "--full", "--store", store.root]
    code, output, errors = finish(start_python(*command, env=os.environ | variables, encoding=encoding))
    assert (code, errors) == (0, "")
    assert output == complete.encode(encoding, "replace").decode(encoding)
    assert {path: path.read_bytes() for path in (store.root / "tables").iterdir()} == written


@pytest.mark.met("U8")
def test_the_log_of_a_run_is_utf8_in_any_locale(tmp_path, tiny_run, monkeypatch):
    for name, value in NARROW[1][0].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        "jobs.attempt.WORKER", ("-c", "print('\\u00b1'); import sys; print('\\u2212', file=sys.stderr)")
    )
    store, run = Store(tmp_path), tiny_run()
    worker = start_attempt(run, make_slots("cpu", 1)[0], store, [], {})
    assert worker.process.wait(PATIENCE_SECONDS) == 0
    assert (store.run_folder(run.run_id) / LOG_FILE).read_text(encoding="utf-8").splitlines() == ["±", "−"]


@pytest.mark.met("U12")
@pytest.mark.parametrize(
    ("program", "command"), [("bench", ["data"]), ("bench", RUN), ("jobs", LAUNCH), ("jobs", [*LAUNCH, "--dry-run"])]
)
def test_an_account_without_a_home_is_told_what_to_set(program, command, tmp_path, monkeypatch, capsys):
    no_home(monkeypatch)
    options = [] if command == ["data"] else ["--store", tmp_path / "store"]
    message = mistake(capsys, {"bench": bench_app, "jobs": jobs_app}[program], *command, *options)
    assert DATA_DIR_VARIABLE in message
    assert "XDG_CACHE_HOME" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.met("U12")
def test_what_needs_no_cache_works_without_a_home(tmp_path, monkeypatch, capsys):
    no_home(monkeypatch)
    store = make_store(tmp_path, five_seeds())
    assert call(bench_app, "table", "--store", store.root) == 0
    assert call(jobs_app, "gc", "--store", store.root) == 0
    assert call(jobs_app, "doctor", "--store", store.root) == 1
    assert "problem  corpus       this user has no home folder" in capsys.readouterr().out


def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user has no HOME and no entry in passwd."""
    for name in ("HOME", "XDG_CACHE_HOME", DATA_DIR_VARIABLE, CACHE_DIR_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # KeyError


@pytest.mark.met("U18")
@pytest.mark.parametrize("name", ["einops", "torch", "numpy", "typer", "pydantic"])
def test_a_module_that_shadows_a_package_is_named_with_its_variable_and_file(name, tmp_path):
    stub = tmp_path / f"{name}.py"
    stub.write_text("# of a module system\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    words = f"PYTHONPATH puts {stub} before the installed {name}"
    run = start_python("-m", "bench", *RUN, "--store", tmp_path / "store", env=environment)
    doctor = start_python("-m", "jobs", "doctor", "--store", tmp_path / "store", env=environment)
    code, _, errors = finish(run)
    assert (code, errors.count("\n")) == (2, 1), errors
    assert words in errors
    code, output, errors = finish(doctor)
    if name in ("typer", "pydantic"):  # without which it cannot start
        assert (code, errors.count("\n")) == (2, 1), errors
        assert words in errors
    else:
        assert code == 1
        assert f"problem  packages     {words}" in output


def test_nothing_is_shadowed_here():
    assert shadowed() == []
