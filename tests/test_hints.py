"""Every command that a message hints at can be typed as it stands: each is taken from the output and run."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from bench.app import app as bench_app
from bench.config import to_json
from bench.experiments import smoke
from bench.record import Record
from bench.store import Store
from jobs.app import app as jobs_app
from jobs.launch import summary
from jobs.layout import LOG_FILE
from jobs.local import Ended
from tests.command_line import call
from tests.conftest import tiny_config
from tests.merging import put, record_of, run_of
from tests.records import make_record
from tests.stores import make_store

APPS = {"bench": bench_app, "jobs": jobs_app}
COMMAND = re.compile(r"[^\s`(]+ -m (bench|jobs) (?:'[^']*'|\"[^\"]*\"|[^`\n])+")


def hints(text: str) -> list[list[str]]:
    """The commands in a text, as words after the interpreter's `-m`: up to a backquote or the end of the line."""
    found = [shlex.split(match[0].strip("`")) for match in COMMAND.finditer(text)]
    assert {words[0] for words in found} <= {"python", sys.executable}
    return [words[2:] for words in found]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store whose path has a space and a quote, with a run that is done and one that failed."""
    done = make_record("good", config=to_json(tiny_config("k_operators")))
    failed = make_record("bad", 69, status="failed", config=to_json(tiny_config("k_operators")))
    return make_store(tmp_path / "Ann's runs", [done, failed])


def of_kind(store: Store, status: str) -> Record:
    return next(one for one in store.records()[0] if one.status == status)


@pytest.mark.met("U16")
@pytest.mark.parametrize(
    ("program", "words", "hinted"),
    [
        ("bench", ["table"], "table"),
        ("bench", ["list"], "list"),
        ("bench", ["run", "--experiment", "smoke"], "list"),
        ("bench", ["verify"], "verify"),
        ("bench", ["verify", "--verbose"], "launch"),
        ("jobs", ["logs", "nobody-s1"], "status"),
        ("jobs", ["cancel"], "status"),
        ("jobs", ["status", "--experiment", "smoke"], "launch"),
        ("jobs", ["retry", "good-s42"], "rerun"),
        ("jobs", ["retry", "bad-s69"], "launch"),
        ("jobs", ["why", "bad-s69"], "retry"),
        ("jobs", ["why", "good-s42"], "table"),
    ],
)
def test_a_hinted_command_runs_as_it_stands(program, words, hinted, store, capsys, data_dir):
    call(APPS[program], *words, "--store", store.root)
    printed = capsys.readouterr()
    found = hints(printed.out + printed.err)
    assert found[-1][1] == hinted
    if hinted == "rerun":
        assert found[-1][2:] == [str(path) for path in store.files_of(of_kind(store, "done").run_id)]
        return
    for program, *command in found:
        assert command[-2:] == ["--store", str(store.root)]
        only_list = ["--dry-run", "--device", "cpu"] if command[0] == "launch" else []
        assert call(APPS[program], *command, *only_list) in (0, 3), capsys.readouterr().err  # 3: incomplete


@pytest.mark.met("U16")
def test_what_a_merge_and_a_resized_cell_hint_at_can_be_typed(tmp_path, capsys):
    made = put(tmp_path / "made", record_of(run_of()))
    assert call(bench_app, "merge", made, "--into", tmp_path / "Ann's copy") == 0, capsys.readouterr()
    call(bench_app, "size", "--experiment", "smoke", "--cell", "transformer", "--target", 15_000)
    found = hints(capsys.readouterr().out)
    assert [words[1] for words in found] == ["table", "run"]
    for program, *command in found:
        to = ["--store", tmp_path / "trained", "--device", "cpu"] if command[0] == "run" else []
        assert call(APPS[program], *command, *to) == 0, capsys.readouterr().err


@pytest.mark.met("U16")
def test_what_a_launch_says_about_failures_can_be_typed(store, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["jobs", "launch", "--experiment", "smoke", "--store", str(store.root)])
    run = next(one for one in smoke().runs() if one.seed is not None)
    (store.run_folder(run.run_id) / LOG_FILE).parent.mkdir(parents=True)
    (store.run_folder(run.run_id) / LOG_FILE).write_text("its log\n")
    summary([Ended(run=run, status="failed"), Ended(run=run, status="diverged")], store)
    commands = hints(capsys.readouterr().out)
    assert [words[1] for words in commands] == ["launch", "logs", "launch"]
    for program, *command in commands:
        assert call(APPS[program], *command, *(["--dry-run"] if command[0] == "launch" else [])) == 0
