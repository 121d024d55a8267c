"""A user's mistake gives one line on stderr and its exit code, and writes no file."""

import dataclasses
import hashlib
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from bench import checkpoint
from bench.app import app as bench_app
from bench.cli import parse_seeds, run_guarded
from bench.config import Run
from bench.corpus import load_corpus
from bench.errors import CheckpointError, ConfigError, UserError
from bench.experiments import smoke
from bench.fetch import find_text
from bench.process import Interrupted, count_cores
from bench.run import execute, identity
from bench.store import RUNS_DIR_VARIABLE, Store
from jobs.app import app as jobs_app
from models import build
from tests.command_line import call, finish, mistake, start
from tests.conftest import SELDOM
from tests.records import make_record

RUN = ["run", "--experiment", "smoke", "--cell", "k_operators", "--seed", 42, "--device", "cpu"]
LAUNCH = ["launch", "--experiment", "smoke", "--device", "cpu"]


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_little_text: None, no_probe: None) -> None:
    """Relative paths, defaults included, stay in the test's folder, and runs read the short text."""
    monkeypatch.setattr("jobs.launch.find_text", lambda *_: None)
    monkeypatch.chdir(tmp_path)


def files(folder: Path) -> set[str]:
    """Every file below a folder, except locks and leases."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(("lock-", "lease-")))
    return {str(path.relative_to(folder)) for path in found}


def smoke_run() -> Run:
    """The run of the command RUN."""
    return next(run for run in smoke().runs() if (run.label, run.seed) == ("k_operators", 42))


# mistakes -------------------------------------------------------------------------------------------------------------


BOTH = (
    (["--experiment", "smok"], ["smok", "paper, noise"]),
    (["--device", "tpu"], ["tpu", "cpu or cuda"]),
    (["--mode", "quick"], ["quick", "exact"]),
    (["--mode", "fast"], ["fast", "CUDA"]),
)
OF_RUN = (
    (["--set", "model.rnak=1"], ["model.rnak", "did you mean 'rank'"]),
    (["--set", "training=null"], ["training"]),
    (["--set", "context=64"], ["context=64", "context=32", "set model.context"]),
    (["--cell", "k_operator"], ["k_operator", "k_operators, transformer"]),
    (["--device", "mps"], ["mps", "cpu or cuda"]),
    (["--seed", "4294967296"], ["seed=4294967296"]),
    (["--cell", "unigram"], ["seed=42"]),
)
OF_LAUNCH = (
    (["-k", "nothing"], ["nothing", "k_operators"]),
    (["--retry", "everything"], ["everything", "diverged"]),
    (["--seeds", "42,x"], ["42,x", "e.g. 42,69,420"]),
    (["--seeds", "42,42"], ["twice"]),
    (["--seeds", "-1"], ["-1", "2^31"]),
    (["--seeds", "4294967296"], ["4294967296", "2^31"]),
    (["--seeds", ","], ["--seeds"]),
)


@pytest.mark.parametrize(
    ("app", "command", "arguments", "words"),
    [(bench_app, RUN, *one) for one in BOTH + OF_RUN] + [(jobs_app, LAUNCH, *one) for one in BOTH + OF_LAUNCH],
)
def test_a_wrong_option_gives_one_line_with_the_next_step(app, command, arguments, words, capsys, tmp_path):
    message = mistake(capsys, app, *command, *arguments)
    assert not [word for word in words if word not in message]
    assert files(tmp_path) == set()


@pytest.mark.met("U4")
@pytest.mark.parametrize("n_threads", [0, -1, count_cores() + 1, 100_000])
def test_more_threads_than_cores_are_refused(n_threads, capsys, tmp_path):
    profile = ["profile", "--experiment", "smoke", "--device", "cpu"]
    for command in (RUN, profile):
        code = call(bench_app, *command, "--threads", n_threads)
        printed = capsys.readouterr().err
        assert code == 2
        assert "--threads" in printed
        assert n_threads < 1 or f"may use {count_cores()} core" in printed
    with pytest.raises(ConfigError, match="100000 threads are more than the 1,024"):  # as a record might ask for
        execute(smoke_run(), Store(tmp_path), dataclasses.replace(SELDOM, n_threads=100_000))
    assert files(tmp_path) == set()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_here_is_refused_not_replaced(capsys, tmp_path):
    for app, command in ((bench_app, RUN), (jobs_app, LAUNCH)):
        assert "torch sees no CUDA device here" in mistake(capsys, app, *command, "--device", "cuda")
    assert files(tmp_path) == set()


def test_a_missing_or_altered_corpus_is_one_line_and_starts_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.run.load_corpus", load_corpus)
    monkeypatch.setattr("jobs.launch.find_text", find_text)
    for app, command in ((bench_app, RUN), (jobs_app, LAUNCH), (bench_app, ["data"])):
        assert "is missing" in mistake(capsys, app, *command, "--data-dir", tmp_path / "none")
    assert files(tmp_path) == set()
    path = tmp_path / "data" / "tinyshakespeare" / "input.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"altered")
    for app, command in ((bench_app, RUN), (jobs_app, LAUNCH), (bench_app, ["data"])):
        assert "is altered: sha256" in mistake(capsys, app, *command, "--data-dir", tmp_path / "data")
    assert files(tmp_path) == {"data/tinyshakespeare/input.txt"}


def test_a_store_that_cannot_be_written_is_one_line_and_changes_nothing(capsys, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"in the way")  # stops also a superuser
    for app, command in ((bench_app, RUN), (jobs_app, LAUNCH)):
        message = mistake(capsys, app, *command, "--store", tmp_path / "file" / "store")
        assert "cannot be written" in message
        assert "--store" in message
    monkeypatch.setenv(RUNS_DIR_VARIABLE, str(tmp_path / "file" / "work"))
    assert RUNS_DIR_VARIABLE in mistake(capsys, bench_app, *RUN, "--store", tmp_path / "store")
    assert files(tmp_path) == {"file"}
    assert (tmp_path / "file").read_bytes() == b"in the way"


@pytest.mark.met("U15")
@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--store", "file"], ["store file cannot be written", "--store"]),
        (["--store", "file/store"], ["store file/store cannot be written", "--store"]),
        (["--store", "linked"], ["is a link"]),
        (["--pack", "file/out.tar.gz"], ["--pack file/out.tar.gz cannot be written"]),
        (["--pack", "out.zip"], ["--pack out.zip", ".tar.gz"]),
    ],
)
def test_a_dry_run_refuses_what_the_launch_refuses(options, words, dry_run, capsys, tmp_path):
    (tmp_path / "file").write_bytes(b"in the way")
    work = tmp_path / "linked" / "work"
    work.mkdir(parents=True)
    (work / smoke_run().run_id).symlink_to(tmp_path)
    before = set(tmp_path.rglob("*"))
    message = mistake(capsys, jobs_app, *LAUNCH, *options, *dry_run)
    assert not [word for word in words if word not in message]
    assert set(tmp_path.rglob("*")) - before <= (set() if dry_run else {tmp_path / "linked" / "runs"})


@pytest.mark.met("U15")
@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_a_dry_run_refuses_a_folder_of_runs_that_cannot_be_made_as_the_launch_does(
    dry_run, capsys, tmp_path, monkeypatch
):
    (tmp_path / "file").write_bytes(b"in the way")
    monkeypatch.setenv(RUNS_DIR_VARIABLE, "file/work")
    assert RUNS_DIR_VARIABLE in mistake(capsys, jobs_app, *LAUNCH, *dry_run, "--store", "store")


@pytest.mark.parametrize("command", [["table"], ["sample", "x"]])
def test_a_store_that_is_not_there_is_one_line(command, capsys):
    assert "there is no store" in mistake(capsys, bench_app, *command, "--store", "nowhere")
    assert "there is no store" in mistake(capsys, jobs_app, "status", "--store", "nowhere")
    assert "there is no store" in mistake(capsys, jobs_app, "logs", "x", "--store", "nowhere")


def test_a_cut_record_is_one_line_that_names_it_with_exit_1(capsys, tmp_path):
    path = Store(tmp_path / "store").write_record(make_record())
    path.write_bytes(path.read_bytes()[:-30])
    for command in (["rerun", path], ["recheck", path], ["rerun", path, "--store", tmp_path / "other"]):
        assert str(path) in mistake(capsys, bench_app, *command, code=1)
    assert "nowhere.json" in mistake(capsys, bench_app, "rerun", tmp_path / "nowhere.json", code=1)
    assert call(jobs_app, *LAUNCH, "--dry-run", "--store", tmp_path / "store") == 1
    assert f"WARNING: {path}" in capsys.readouterr().out
    assert files(tmp_path) == {f"store/runs/{path.name}"}
    one = smoke_run()
    path = path.rename(path.with_name(f"{one.name}-{one.run_id}.json"))
    assert path.name in mistake(capsys, bench_app, *RUN, "--store", tmp_path / "store", code=1)  # before it trains


def test_a_checkpoint_of_another_architecture_is_one_line_with_the_difference(capsys, tmp_path, tiny_run):
    store, other = Store(tmp_path / "store"), tiny_run("transformer", n_steps=2)
    execute(other, store, SELDOM)
    store.record_paths()[0].unlink()
    folder = store.run_folder(smoke_run().run_id)
    store.run_folder(other.run_id).rename(folder)
    (folder / "progress.json").unlink()
    before = files(tmp_path)
    message = mistake(capsys, bench_app, *RUN, "--store", store.root)
    for words in (str(folder), "architecture=transformer there, k_operators here", "remove that folder"):
        assert words in message
    assert files(tmp_path) == before


# sampling from checkpoints --------------------------------------------------------------------------------------------


@pytest.mark.met("U11")
def test_sample_writes_text_from_a_checkpoint_and_refuses_wrong_options(capsys, tmp_path, corpus, tiny_run):
    store, run = Store(tmp_path / "store"), tiny_run(n_steps=4)
    execute(run, store, SELDOM)
    capsys.readouterr()
    command = ["sample", "--store", store.root, "--device", "cpu", "--tokens", 20, "--prompt", "ab"]

    def written(*arguments: object) -> str:
        assert call(bench_app, *command, *arguments) == 0
        return capsys.readouterr().out

    text = written(run.run_id)
    assert text.startswith("ab")
    assert len(text) == len("ab") + 20 + len("\n")
    assert set(text) <= set(corpus.vocabulary)
    newest = sorted(store.run_folder(run.run_id).glob("*.pt"))[-1]
    assert text == written(run.run_id) == written(run.name) == written(newest)
    assert text != written(run.run_id, "--seed", 43)
    assert written(run.run_id, "--temperature", 0) == written(run.run_id, "--temperature", 0, "--seed", 43)
    assert written(run.run_id, "--weights", "final").startswith("ab")

    for arguments, word in (
        (["nobody-s1"], "nobody-s1"),
        ([run.run_id, "--prompt", "ж"], "ж"),
        ([run.run_id, "--prompt", ""], "empty"),
        ([run.run_id, "--weights", "worst"], "best and final"),
        ([run.run_id, "--top-k", 0], "top-k"),
        ([run.run_id, "--temperature", -1], "temperature"),
        ([run.run_id, "--temperature", "1e-320"], "temperature 9.99989e-321 is 0 in float32"),
        ([run.run_id, "--temperature", "inf"], "temperature"),
        ([run.run_id, "--top-p", "nan"], "top-p"),
        ([run.run_id, "--tokens", 999999999999], "tokens 999999999999 must be 0 to 100,000,000"),
        ([run.run_id, "--seed", 2**63], "seed 9223372036854775808"),
        ([tmp_path / "nowhere.pt"], "nowhere.pt"),
    ):
        assert word in mistake(capsys, bench_app, *command, *arguments)
    newest.write_bytes(newest.read_bytes()[:-1])
    assert newest.name in mistake(capsys, bench_app, *command, newest)


@pytest.mark.met("U11")
@pytest.mark.parametrize(
    ("changes", "lacks"),
    [
        ({"identity": None, "trainer": None, "history": None}, "identity"),
        ({"identity": {}}, "config"),
        ({"identity": {"config": "{}"}}, "architecture"),
        ({"history": {}}, "best_model"),
        ({"history": {"best_model": {}}}, "state_dict"),
        ({"vocabulary": None}, "vocabulary"),
    ],
)
def test_a_sealed_file_that_is_no_whole_checkpoint_is_one_line(changes, lacks, capsys, tmp_path):
    run = smoke_run()
    whole = {
        "identity": identity(run),
        "trainer": {"step": 0},
        "history": {"best_model": build(run.config.model).state_dict()},
    }
    path = checkpoint.save(tmp_path, {**whole, "vocabulary": "ab"})
    content = {"format": checkpoint.FORMAT, **whole, "vocabulary": "ab", **changes}
    torch.save({key: value for key, value in content.items() if value is not None}, path)
    path.with_suffix(".pt.sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest())
    message = mistake(capsys, bench_app, "sample", path, "--device", "cpu")
    assert path.name in message
    assert lacks in message
    if "identity" not in changes:
        return
    with pytest.raises(CheckpointError, match="in run folder"):  # where a run would resume from it
        checkpoint.check_same(checkpoint.load(path), identity(run), Path("run folder"))


# errors ---------------------------------------------------------------------------------------------------------------


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program", *map(str, RUN), "--set", "contxt=16", "--debug"])
    with pytest.raises(ConfigError, match="contxt"):
        run_guarded(bench_app)


@pytest.mark.parametrize(
    ("ending", "code", "printed"),
    [
        (UserError("wrong"), 2, "error: wrong\n"),
        (OSError(28, "No space left on device"), 1, "error: [Errno 28] No space left on device\n"),
        (Interrupted("stopped at step 3"), 130, "interrupted: stopped at step 3\n"),
        (KeyboardInterrupt(), 130, "interrupted: \n"),
    ],
)
def test_every_ending_has_its_exit_code(ending, code, printed, capsys):
    assert call(Mock(side_effect=ending)) == code
    assert capsys.readouterr().err == printed


def test_an_error_of_the_code_is_not_shown_as_a_users_mistake():
    with pytest.raises(ZeroDivisionError):
        run_guarded(Mock(side_effect=ZeroDivisionError))


def test_seeds_are_read_with_commas_or_spaces():
    assert parse_seeds(None) is None
    assert parse_seeds("42") == (42,)
    assert parse_seeds("42, 69 420") == (42, 69, 420)


# help -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("app", "commands"),
    [
        (bench_app, ["data", "run", "rerun", "recheck", "sample", "table"]),
        (jobs_app, ["launch", "reproduce", "status", "logs"]),
    ],
)
def test_help_works_at_each_level(app, commands, capsys):
    assert call(app, "--help") == 0
    top = capsys.readouterr().out
    for command in commands:
        assert command in top
        assert call(app, command, "--help") == 0
        printed = capsys.readouterr()
        assert "Usage" in printed.out
        assert printed.err == ""
    assert call(app, "no-such-command") == 2
    assert "Traceback" not in capsys.readouterr().err


# real processes -------------------------------------------------------------------------------------------------------


def test_a_real_process_ends_with_one_line_and_its_code(tmp_path):
    mistaken = [*map(str, RUN), "--set", "contxt=16", "--store", str(tmp_path / "store")]
    code, output, errors = finish(start("bench", *mistaken))
    assert (code, output) == (2, "")
    assert errors.startswith("error: unknown key contxt, did you mean 'context'?")
    assert errors.count("\n") == 1
    code, _, errors = finish(start("bench", *mistaken, "--debug"))
    assert code == 1
    assert "Traceback" in errors
    assert files(tmp_path) == set()
