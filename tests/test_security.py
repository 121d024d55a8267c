"""What comes from outside, be it a word, a name or a file, runs nothing, leaves no folder of ours, and tells no secret.

Rows of the table of threats with a test elsewhere: pickles in test_checkpoint.py (and submitit's own in test_task.py),
calls that run or load code in test_rooms.py, cells of HTML, Markdown, CSV and LaTeX in test_tables.py, downloads in
test_corpus.py, terminal control characters in test_watching.py.
"""

import json
import os
import platform
import re
import shlex
import socket
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.version import Version

from bench.config import Run, read_run, to_json
from bench.errors import ConfigError, StoreError, UserError
from bench.experiments import smoke
from bench.record import to_bytes
from bench.report.output import make_tables
from bench.run import Settings, execute
from bench.store import RUNS_DIR_VARIABLE, Store
from jobs.cache import CACHE_DIR_VARIABLE, compile_cache, unused
from jobs.launch import launch_missing
from jobs.layout import JOBS_FOLDER, PLAN_FILE, RUN_FILE
from jobs.slots import make_slots
from jobs.slurm import arrays as slurm
from jobs.slurm import site as sites
from jobs.slurm.arrays import Array, command, make_arrays, script
from jobs.slurm.scheduler import read_duration, read_queue
from jobs.slurm.site import SBATCH_FIELDS, Site
from jobs.slurm.submission import Submission, check_private, read_submission, submissions
from jobs.worker import write_run
from tests.command_line import ROOT
from tests.gpus import put_gpus
from tests.records import make_manifest, make_record
from tests.tiny import request_of, submission_of

FEW = settings(max_examples=50, deadline=None)
OURS = {"job-name", "nodes", "open-mode", "output", "requeue", "signal", "time", "array"}
FROM_FILES = {"setup": "lines", "srun_args": "words", "python": "line"}  # keys that hold shell words
HOSTILE = [
    "a\nrm -rf $HOME #",
    "a\r\nreboot",
    "x\n#SBATCH --uid=0",
    "$(reboot)",
    "`reboot`",
    "a;reboot",
    "a' --uid=0 '",
    'a" b',
    "a\\",
    "--wrap=reboot",
    "a\x00b",
    "a\x85reboot",
    "a\u2028reboot",
    "\u202e",
    "%j",
    "~",
    "*",
    "!!",
    "",
    " ",
    "1",
    "true",
    "-1",
    "9" * 5000,
]
NAMES = ["../../x", "/etc/x", "a\x00b", "a/b", "x" * 300, ".", "..", "․․", "．．", "%j", "a\\b", "~", "a\nb", "", " "]
HARMLESS = st.text(alphabet="ab1_.,:@%+=/-", min_size=1, max_size=20)
WORDS = st.one_of(st.sampled_from(HOSTILE), st.text(), HARMLESS, st.integers().map(str))


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing on this machine names a folder or a site."""
    for name in list(os.environ):
        if name.startswith(("BENCH_", "SBATCH_", "SLURM_", "SUBMITIT_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(sites, "LOCAL_FILE", ROOT / "no-such-file.toml")
    monkeypatch.setattr(slurm, "max_array_size", lambda: 1000)


# folders whose content is executed ------------------------------------------------------------------------------------


TASKS = (("0123456789ab",), ("ba9876543210", "0123456789ac"))


@pytest.fixture
def planned(tmp_path: Path) -> Path:
    """The folder of a submission."""
    store = Store(tmp_path / "store")
    return submission_of(store, *TASKS).write(store)


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_only_its_owner_may_enter_a_submissions_folder_whatever_the_umask(umask, tmp_path):
    store, before = Store(tmp_path / "store"), os.umask(umask)
    try:
        folder = submission_of(store, *TASKS).write(store)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert read_submission(folder) == submission_of(store, *TASKS)


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o770, 0o777])
def test_a_submissions_folder_that_others_may_write_is_not_read(mode, planned):
    planned.chmod(mode)
    with pytest.raises(StoreError, match="nobody else may write"):
        read_submission(planned)
    with pytest.raises(StoreError):
        submissions(Store(planned.parents[2]))


def test_a_linked_or_a_foreign_submissions_folder_is_not_read(planned, monkeypatch):
    link = planned.with_name("kops-link")
    link.symlink_to(planned)
    with pytest.raises(StoreError, match="yours"):
        read_submission(link)
    monkeypatch.setattr("jobs.slurm.submission.os.getuid", lambda: os.geteuid() + 1)
    with pytest.raises(StoreError, match="yours"):
        read_submission(planned)


def test_a_file_in_place_of_a_submissions_folder_is_not_read(tmp_path):
    (tmp_path / "file").write_text("{}")
    with pytest.raises(StoreError):
        check_private(tmp_path / "file")
    with pytest.raises(ConfigError):
        check_private(tmp_path / "absent")


def test_a_plan_is_not_written_through_a_link_that_lay_in_its_place(tmp_path):
    store, elsewhere = Store(tmp_path / "store"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    submission = submission_of(store, *TASKS)
    submission.folder(store).parent.mkdir(parents=True)
    submission.folder(store).symlink_to(elsewhere)
    with pytest.raises(UserError):
        submission.write(store)
    assert not list(elsewhere.iterdir())


# a plan on disk -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plan_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a submission that a test may damage, if it mends it."""
    store = Store(tmp_path_factory.mktemp("plans") / "store")
    return submission_of(store, *TASKS).write(store)


def read_as(folder: Path, content: bytes) -> Submission | None:
    """What a plan of these bytes reads as; None for a typed error."""
    path = folder / PLAN_FILE
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        return read_submission(folder)
    except (ConfigError, StoreError):
        return None
    finally:
        path.write_bytes(whole)


@FEW
@given(data=st.data())
def test_a_cut_plan_reads_as_it_was_or_is_a_typed_error(plan_folder, data):
    whole = (plan_folder / PLAN_FILE).read_bytes()
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    assert read_as(plan_folder, cut) in ([read_submission(plan_folder)] if cut == whole else [None])


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_plan_with_another_byte_is_a_plan_or_a_typed_error(plan_folder, data):
    whole = (plan_folder / PLAN_FILE).read_bytes()
    at, other = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 255))
    found = read_as(plan_folder, whole[:at] + bytes([other]) + whole[at + 1 :])
    assert found is None or isinstance(found, Submission)


@FEW
@given(content=st.one_of(st.binary(), st.text().map(str.encode)))
@example(content=b"[]")
@example(content=b"null")
@example(content=b'{"tasks": 1}')
@example(content=b'{"tasks": [1]}')
@example(content=b"\xff\xfe")
@example(content=b'{"tasks": []}')
def test_a_foreign_plan_is_a_typed_error(content, plan_folder):
    assert read_as(plan_folder, content) is None


@pytest.mark.parametrize(
    ("old", "new"), [("0123456789ab", "0123456789af"), (": 30,", ": 31,"), (": 30,", ": null,"), ('"cpu"', "5")]
)
def test_a_plan_whose_values_were_changed_is_noticed(old, new, plan_folder):
    text = (plan_folder / PLAN_FILE).read_text()
    assert old in text
    assert read_as(plan_folder, text.replace(old, new, 1).encode()) is None


# what SLURM answers ---------------------------------------------------------------------------------------------------

QUEUE_WORDS = st.one_of(st.text(alphabet=st.characters(exclude_characters="|\n")), st.integers().map(str))
QUEUE_LINES = st.lists(st.lists(QUEUE_WORDS, min_size=6, max_size=6).map(lambda words: "|".join(["kops-1", *words])))


@settings(max_examples=200, deadline=None)
@given(text=st.one_of(st.text(), QUEUE_LINES.map("\n".join)))
@example(text="kops-1|²|³|RUNNING|n|²:³|")
@example(text="kops-1|٣|٣|RUNNING|n|٣:٣|")
def test_no_answer_of_the_queue_is_an_exception(text):
    assert all(name.startswith("kops-") and index >= 0 for name, index in read_queue(text))


@settings(max_examples=200, deadline=None)
@given(text=st.one_of(st.text(), st.text(alphabet="0123456789:-")))
@example(text="²:³")
def test_no_duration_is_an_exception(text):
    seconds = read_duration(text)
    assert seconds is None or seconds >= 0


@pytest.mark.parametrize("read", [read_duration, lambda text: read_queue(f"kops-1|1|{text}|RUNNING|n|0:10|")])
def test_a_number_without_end_is_no_exception(read):
    read("9" * 5000)


# words that end in a shell script -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scripts_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for a store and profiles."""
    return tmp_path_factory.mktemp("scripts")


def arrays_of(folder: Path, *assignments: str, profile: str | None = None) -> tuple[Store, list[Array]]:
    """A store, and the arrays of the smoke experiment on CPUs for it."""
    request = request_of(*assignments, profile=profile)
    store, experiment = Store(folder / "store"), smoke()
    return store, make_arrays(experiment, experiment.runs(), store, request, {})


SUBMITIT = ("export SUBMITIT_PREEMPT_SIGNAL=USR2", "export SUBMITIT_EXECUTOR=slurm")


def assert_as_expected(store: Store, *arrays: Array) -> None:
    """The scripts of arrays run what they should and nothing else, and ask for each thing once."""
    for array in arrays:
        text = script(array, store)
        assert_asks_for_each_thing_once([line for line in text.split("\n") if line.startswith("#SBATCH")])
        last = command(array, store)
        if array.site.use_srun:
            log = "%A_%a_%t_log.out" if len(array.submission.tasks) > 1 else "%j_%t_log.out"
            output = str(array.submission.folder(store).resolve() / log)
            last = f"{shlex.join(['srun', '--unbuffered', '--output', output, *array.site.srun_args])} {last}"
        setup = [line for line in array.site.setup if not line.startswith("#")]
        ours = [f"cd {shlex.quote(str(ROOT))}", "export PYTHONUNBUFFERED=1", *SUBMITIT]
        assert [line for line in text.split("\n") if line and not line.startswith("#")] == [*setup, *ours, last]
        if not array.site.setup and array.site.python is None:  # which hold what their file says
            subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def assert_asks_for_each_thing_once(lines: list[str]) -> None:
    """Each #SBATCH line is a known flag, none comes twice, and its value is one word."""
    matches = [re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(.+))?", line) for line in lines]
    pairs = [(match[1], match[2]) for match in matches if match]
    names = [name for name, _ in pairs]
    assert len(pairs) == len(lines)
    assert len(set(names)) == len(names)
    assert set(names) <= OURS | {key.replace("_", "-") for key in SBATCH_FIELDS}
    assert all(len(shlex.split(value)) == 1 for _, value in pairs if value is not None)


@FEW
@given(key=st.sampled_from([*Site.model_fields]), word=WORDS)
def test_no_word_of_the_command_line_adds_a_line_to_a_script(key, word, scripts_folder):
    try:
        store, arrays = arrays_of(scripts_folder, f"{key}={word}")
    except ConfigError:
        return
    assert_as_expected(store, *arrays)


@FEW
@given(assignment=st.one_of(st.text(), st.sampled_from(HOSTILE).map(lambda word: f"partition={word}")))
@example(assignment="job_name=x")
@example(assignment="uid\n=0")
@example(assignment="partition\nreboot=a")
def test_no_assignment_of_any_shape_adds_a_line_to_a_script(assignment, scripts_folder):
    try:
        store, arrays = arrays_of(scripts_folder, assignment)
    except ConfigError:
        return
    assert_as_expected(store, *arrays)


@FEW
@given(key=st.sampled_from([*Site.model_fields]), word=WORDS)
def test_no_exported_variable_adds_a_line_to_a_script(key, word, scripts_folder):
    assume("\x00" not in word)  # no environment can hold it
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(f"{sites.ENVIRONMENT_PREFIX}{key.upper()}", word)
        try:
            store, arrays = arrays_of(scripts_folder)
        except ConfigError:
            return
        assert_as_expected(store, *arrays)


def toml(text: str) -> str:
    """A TOML string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


@FEW
@given(key=st.sampled_from([*Site.model_fields]), word=WORDS, in_list=st.booleans())
def test_a_word_of_a_file_adds_a_line_to_a_script_only_where_it_is_meant_as_one(key, word, in_list, scripts_folder):
    path = scripts_folder / "hostile.toml"
    in_list = in_list or FROM_FILES.get(key) in ("lines", "words")
    path.write_text(f"{key} = {f'[{toml(word)}]' if in_list else toml(word)}", encoding="utf-8")
    try:
        store, arrays = arrays_of(scripts_folder, profile=str(path))
    except ConfigError:
        return
    assert "\n" not in word.strip()
    assert arrays[0].site.setup == ((word,) if key == "setup" else ())
    assert_as_expected(store, *arrays)


def test_without_the_narrow_alphabet_a_word_would_add_a_line_and_that_is_seen(scripts_folder, monkeypatch):
    monkeypatch.setattr(sites, "VALUE", re.compile(".*", re.DOTALL))
    for word in ("a\nreboot", "x\n#SBATCH --uid=0", "x\n#SBATCH --time=1"):
        store, [array] = arrays_of(scripts_folder, f"partition={word}")
        with pytest.raises((AssertionError, ValueError)):  # or shlex finds a quote that nobody closes
            assert_as_expected(store, array)


def test_what_is_known_of_shell_injection_is_refused_wherever_it_stands(scripts_folder):
    for word in ("a\nrm -rf $HOME #", "$(reboot)", "a' --uid=0 '", "a|b", "node[1-3]"):
        with pytest.raises(ConfigError, match="partition"):
            arrays_of(scripts_folder, f"partition={word}")
    for key in ("uid", "wrap", "job_name", "output", "signal", "array", "requeue", "chdir", "x\n#SBATCH --uid"):
        with pytest.raises(ConfigError, match="unknown key"):
            arrays_of(scripts_folder, f"{key}=0")


@pytest.mark.parametrize("variable", ["BENCH_DATA_DIR", RUNS_DIR_VARIABLE])
def test_a_folder_of_more_than_one_line_is_refused_and_of_strange_characters_quoted(variable, tmp_path, monkeypatch):
    monkeypatch.setenv(variable, str(tmp_path / "a\nreboot"))
    with pytest.raises(ConfigError, match="one line"):
        slurm.environment_lines()
    strange = tmp_path / "it's $(reboot)"
    monkeypatch.setenv(variable, str(strange))
    assert f"export {variable}={shlex.quote(str(strange))}" in slurm.environment_lines()


def test_a_store_of_strange_characters_is_one_word_of_the_script(tmp_path):
    store, [array] = arrays_of(tmp_path / "it's $(reboot) #;")
    assert_as_expected(store, array)
    assert shlex.split(script(array, store).rstrip().splitlines()[-1])[-1] == str(array.submission.folder(store))


def test_a_store_of_more_than_one_line_is_refused(tmp_path):
    with pytest.raises(ConfigError):
        arrays_of(tmp_path / "a\nreboot #")


def test_a_store_that_slurm_would_read_as_a_field_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="%"):
        arrays_of(tmp_path / "%j")


def test_a_link_to_a_store_that_slurm_would_read_as_a_field_is_refused(tmp_path):
    (tmp_path / "%j").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "%j")
    with pytest.raises(ConfigError, match="%"):
        arrays_of(tmp_path / "link")


def test_an_exported_signal_adds_no_line_to_a_script(tmp_path, monkeypatch):
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "USR2\nreboot #")
    try:
        store, [array] = arrays_of(tmp_path)
        text = script(array, store)
    except ConfigError:
        return
    assert not [line for line in text.splitlines() if line.startswith("reboot")]


# names that become paths ----------------------------------------------------------------------------------------------


def run_labelled(label: str) -> Run:
    """A run of that label, as it is read from a file."""
    return read_run({**to_json(smoke().runs()[0]), "label": label})


@FEW
@given(run_id=st.one_of(st.sampled_from(NAMES), st.text(), st.text(alphabet="0123456789abcdef", max_size=14)))
@example(run_id="0123456789ab\n")
@example(run_id="٠١٢٣٤٥٦٧٨٩٠١")
@example(run_id="0123456789AB")
def test_a_runs_folder_lies_in_its_store_or_there_is_none(run_id, scripts_folder):
    store = Store(scripts_folder / "names")
    try:
        folder = store.run_folder(run_id)
    except ConfigError:
        assert not re.fullmatch("[0-9a-f]{12}", run_id)
        return
    assert re.fullmatch("[0-9a-f]{12}", run_id)
    assert folder.resolve().parent == store.work_folder.resolve()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_a_path_names_no_run_and_makes_nothing(name, tmp_path):
    store = Store(tmp_path / "a" / "store")
    for look in (store.run_folder, store.find_run_id):
        with pytest.raises(ConfigError):
            look(name)
    with pytest.raises(ConfigError):
        run_labelled(name)
    assert not list(tmp_path.iterdir())


@FEW
@given(label=st.one_of(st.sampled_from(NAMES), st.text(), st.text(alphabet="aé-_./", max_size=81)))
def test_a_runs_record_lies_among_the_records_whatever_its_label(label, scripts_folder):
    try:
        run = run_labelled(label)
    except ConfigError:
        return
    record = make_record(run.label, run.seed, run_id=run.run_id)
    runs = scripts_folder / "runs"
    assert (runs / record.file_name).resolve().parent == runs.resolve()
    assert record.file_name.isprintable()


def test_the_longest_label_is_a_name_that_file_systems_take(tmp_path):
    try:
        run = run_labelled("\U0001d538" * 80)
    except ConfigError:
        return
    Store(tmp_path).write_record(make_record(run.label, run.seed, run_id=run.run_id))


def test_a_runs_folder_that_is_a_link_is_refused(tmp_path):
    store, elsewhere, run = Store(tmp_path / "store"), tmp_path / "elsewhere", smoke().runs()[0]
    elsewhere.mkdir()
    store.work_folder.mkdir(parents=True)
    (store.work_folder / run.run_id).symlink_to(elsewhere)
    for use in (lambda: store.run_folder(run.run_id), lambda: write_run(run, store)):
        with pytest.raises(StoreError, match="link"):
            use()
    assert not list(elsewhere.iterdir())


def assert_nothing_beside(store: Store, write: Callable[[], object]) -> None:
    """`write` leaves nothing outside the store, and raises nothing but a typed error."""
    top = store.root.parent
    before = {path for path in top.rglob("*") if not path.is_relative_to(store.root)}
    try:
        write()
    except UserError:
        pass
    finally:
        left = {path for path in top.rglob("*") if not path.is_relative_to(store.root)} - before
        assert not left


def test_a_record_whose_label_is_a_path_is_written_nowhere(tmp_path):
    store = Store(tmp_path / "a" / "store")
    store.root.mkdir(parents=True)
    assert_nothing_beside(store, lambda: store.write_record(make_record("../../x")))


def test_an_experiment_whose_name_is_a_path_is_written_nowhere(tmp_path):
    store = Store(tmp_path / "a" / "store")
    store.root.mkdir(parents=True)
    assert_nothing_beside(store, lambda: store.write_manifest(make_manifest({}, name="../../x")))


def test_tables_of_a_foreign_experiment_whose_name_is_a_path_are_refused(tmp_path):
    store, record = Store(tmp_path / "a" / "store"), make_record()
    store.write_record(record)
    manifest = make_manifest({record.label: {"42": record.run_id}}, name="../../x")
    (store.root / "experiments").mkdir()
    (store.root / "experiments" / "x.json").write_bytes(to_bytes(manifest))  # sealed elsewhere, and copied here
    with pytest.raises(UserError, match="a name is letters"):
        make_tables(store)


# caches, secrets and what is installed --------------------------------------------------------------------------------


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The compilers' cache of this test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv(CACHE_DIR_VARIABLE, str(folder))
    return folder


def test_the_compilers_cache_is_its_users_alone(cache):
    before = os.umask(0o002)  # of a system whose users share a group
    try:
        folder = compile_cache("nvidia-h200")
    finally:
        os.umask(before)
    assert folder.parent == cache
    assert [stat.S_IMODE(path.stat().st_mode) for path in (cache, folder)] == [0o700, 0o700]
    folder.chmod(0o755)
    assert compile_cache("nvidia-h200") == folder  # of ours, that others could read
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_a_folder_of_the_compilers_cache_that_others_may_write_is_refused_with_what_to_type(mode, cache):
    folder = compile_cache("nvidia-h200")
    folder.chmod(mode)
    with pytest.raises(StoreError, match=f"rm -r {re.escape(str(folder))}`, or set BENCH_CACHE_DIR"):
        compile_cache("nvidia-h200")
    os.utime(folder, (0, 0))
    assert unused() == []  # and `gc` keeps away from it


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_cache_in_a_folder_where_others_could_replace_it_is_refused_and_no_command_removes_that_folder(mode, cache):
    """The folder is one that its user named, and holds what else they like."""
    cache.mkdir()
    cache.chmod(mode)
    with pytest.raises(StoreError, match=f"type `chmod go-w {re.escape(str(cache))}`, or set BENCH_CACHE_DIR") as found:
        compile_cache("nvidia-h200")
    assert "rm -r" not in str(found.value)
    assert list(cache.iterdir()) == []
    assert unused() == []
    cache.chmod(mode & ~0o022)
    assert compile_cache("nvidia-h200").parent == cache


def test_a_cache_may_lie_where_a_sticky_bit_keeps_others_from_replacing_it(cache):
    cache.mkdir()
    cache.chmod(0o1777)  # as /tmp
    folder = compile_cache("nvidia-h200")
    assert (folder.parent, stat.S_IMODE(folder.stat().st_mode)) == (cache, 0o700)


@pytest.mark.parametrize("root_uid", [0, 54321])  # whether the folder above is root's or theirs
def test_a_compilers_cache_of_another_user_is_refused(root_uid, cache, monkeypatch):
    compile_cache("nvidia-h200")
    owner = os.getuid()
    monkeypatch.setattr("os.getuid", lambda: 54321 + owner)
    monkeypatch.setattr("jobs.cache.ROOT_UID", owner if root_uid == 0 else 54320 - owner)
    with pytest.raises(StoreError, match=r"is not a folder of yours.*set BENCH_CACHE_DIR"):
        compile_cache("nvidia-h200")
    assert unused() == []


def test_a_cache_that_is_refused_leaves_every_record_where_it_is(cache, tmp_path, monkeypatch):
    put_gpus(monkeypatch, 1)
    store = Store(tmp_path / "store")
    fast = smoke().on(corpus=None, mode="fast", seeds=None)
    failed = next(run for run in fast.runs() if run.config.training is not None)
    store.write_record(make_record(label=failed.label, seed=failed.seed, run_id=failed.run_id, status="failed"))
    cache.mkdir()
    cache.chmod(0o777)
    with pytest.raises(StoreError, match="chmod go-w"):
        launch_missing(fast, store, make_slots(None, None), retry="failed")
    assert store.statuses() == {failed.run_id: "failed"}


def test_a_link_in_place_of_the_compilers_cache_is_refused(cache, tmp_path):
    folder = compile_cache("nvidia-h200")
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="is not a folder of yours"):
        compile_cache("nvidia-h200")


def test_a_compilers_cache_that_cannot_be_made_is_an_error_that_names_the_variable(cache, monkeypatch):
    cache.write_text("")
    with pytest.raises(UserError, match="set BENCH_CACHE_DIR to a folder of yours"):
        compile_cache("nvidia-h200")


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Values that must be told to nobody: a token, the machine's name, the user's and their home."""
    secrets = {
        "FOO_TOKEN": "token-planted-1f2e3d",
        "HOSTNAME": "host-planted-4c5b",
        "USER": "user-planted-6a79",
        "LOGNAME": "user-planted-6a79",
        "HOME": "/home/user-planted-6a79",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    host, real = secrets["HOSTNAME"], os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((real[0], host, *real[2:])))
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    monkeypatch.setattr(platform, "node", lambda: host)
    return sorted({*secrets.values(), real.nodename if len(real.nodename) > 3 else host})


@pytest.mark.usefixtures("on_little_text")
@pytest.mark.parametrize("architecture", ["k_operators", "transformer"])
def test_no_record_tells_a_secret_the_machine_or_its_user(architecture, planted, tmp_path, tiny_run):
    store, run = Store(tmp_path / "store"), tiny_run(architecture)
    execute(run, store, Settings(device=torch.device("cpu"), n_threads=1, data_dir=tmp_path / "data"))
    [path] = store.record_paths()
    text = path.read_text()
    assert not [word for word in [*planted, str(tmp_path), str(ROOT), sys.prefix] if word in text]


@pytest.mark.usefixtures("on_little_text")
def test_a_record_of_a_failure_tells_no_secret_that_the_failure_did_not(planted, tmp_path, tiny_run, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("some kernel failed")

    monkeypatch.setattr("bench.train.Trainer.advance", fail)
    store = Store(tmp_path / "store")
    assert execute(tiny_run(), store, Settings(device=torch.device("cpu"), n_threads=1)).status == "failed"
    text = store.record_paths()[0].read_text()
    assert "some kernel failed" in text
    assert not [word for word in [*planted, str(tmp_path), str(ROOT)] if word in text]


def test_no_plan_script_or_run_file_tells_a_secret_the_machine_or_its_user(planted, tmp_path):
    store, [array] = arrays_of(tmp_path)
    texts = [(array.submission.write(store) / PLAN_FILE).read_text(), script(array, store)]
    texts += [(write_run(run, store) / RUN_FILE).read_text() for run in smoke().runs()]
    assert not [word for word in planted for text in texts if word in text]
    assert json.loads(texts[0]).items() >= json.loads(array.submission.model_dump_json()).items()
    assert store.work_folder / JOBS_FOLDER in array.submission.folder(store).parents


def locked() -> dict[str, list[str]]:
    """The lock file: requirement -> its hashes."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.split(" #")[0].split() for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    found = {}
    for words in lines:
        hashes = [word for word in words if word.startswith("--hash=")]
        found[" ".join(word for word in words if word not in hashes)] = hashes
    return found


def test_every_locked_requirement_is_one_version_with_hashes():
    requirements = locked()
    assert len(requirements) > 20
    for text, hashes in requirements.items():
        [version] = Requirement(text).specifier
        assert version.operator == "==", text
        assert hashes, text
        assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", one) for one in hashes), text


def test_no_version_is_let_in_that_is_known_to_be_unsafe():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [torch_range] = [
        one.specifier for one in map(Requirement, project["project"]["dependencies"]) if one.name == "torch"
    ]
    assert not torch_range.contains("2.9.1")  # CVE-2025-32434 and CVE-2026-24747, of loading checkpoints
    assert torch_range.contains(torch.__version__, prereleases=True)
    versions = {one.name: next(iter(one.specifier)).version for one in map(Requirement, locked())}
    if "filelock" in versions:
        assert Version(versions["filelock"]) >= Version("3.20.3")  # CVE-2025-68146 and CVE-2026-22701, of links
