"""No word from outside adds a line to a script that a shell runs."""

import json
import re
import shlex
import subprocess

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from bench.errors import ConfigError
from bench.store import RUNS_DIR_VARIABLE, Store
from jobs.slurm import arrays as slurm
from jobs.slurm import site as sites
from jobs.slurm.arrays import Array, command, script
from jobs.slurm.site import SBATCH_FIELDS, Site
from tests.command_line import ROOT
from tests.sites import ALWAYS_ASKED, arrays_of

FEW = settings(max_examples=50, deadline=None)
# keys that are read from files alone
FROM_FILES = {"setup": "lines", "srun_args": "words", "sbatch_args": "words", "python": "line"}
HARMLESS = st.text(alphabet="ab1_.,:@%+=/-", min_size=1, max_size=20)
SHORT = ["$(reboot)", "`reboot`", "a;reboot", "a\\", "--wrap=reboot", "%j", "~", "*", "!!", "1", "true", "-1", "", " "]
HOSTILE = [
    *SHORT,
    "a\nrm -rf $HOME #",
    "a\r\nreboot",
    "x\n#SBATCH --uid=0",
    "a' --uid=0 '",
    'a" b',
    "a\x00b",
    "a\x85reboot",
    "a\u2028reboot",
    "\u202e",
    "9" * 5000,
]
KEYS = st.sampled_from([*Site.model_fields])
WORDS = st.one_of(st.sampled_from(HOSTILE), st.text(), HARMLESS, st.integers().map(str))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store, in a folder of its own, that has nothing yet."""
    return Store(tmp_path_factory.mktemp("scripts") / "store")


def arrays_or_none(store: Store, *assignments: str, **changes: str) -> list[Array]:
    """The arrays of the smoke experiment; none where the words are refused."""
    try:
        return arrays_of(store, *assignments, **changes)
    except ConfigError:
        return []


SUBMITIT = ("export SUBMITIT_PREEMPT_SIGNAL=USR2", "export SUBMITIT_EXECUTOR=slurm")


def assert_as_expected(store: Store, *arrays: Array) -> None:
    """The scripts of arrays run what they should and nothing else, and ask for each thing once."""
    for array in arrays:
        text = script(array, store)
        more = {one[2:].partition("=")[0] for one in array.site.sbatch_args}
        assert_asks_for_each_thing_once([line for line in text.split("\n") if line.startswith("#SBATCH")], more)
        last = command(array, store)
        if array.site.use_srun:
            log = "%A_%a_%t_log.out" if len(array.submission.tasks) > 1 else "%j_%t_log.out"
            output = str(array.submission.folder(store).resolve() / log)
            last = f"{shlex.join(['srun', '--unbuffered', '--output', output, *array.site.srun_args])} {last}"
        setup = [line for line in array.site.setup if not line.startswith("#")]
        ours = [f"cd {shlex.quote(str(ROOT))}", "export PYTHONUNBUFFERED=1", *SUBMITIT]
        expected = [slurm.unset_line(array.submission), *setup, *ours, last]
        assert [line for line in text.split("\n") if line and not line.startswith("#")] == expected
        if not array.site.setup and array.site.python is None:  # which hold what their file says
            subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def assert_asks_for_each_thing_once(lines: list[str], more: set[str]) -> None:
    """Each #SBATCH line is a known flag, none comes twice, and its value is one word."""
    matches = [re.fullmatch(r"#SBATCH --([a-z0-9-]+)(?:=(.+))?", line) for line in lines]
    pairs = [(match[1], match[2]) for match in matches if match]
    names = [name for name, _ in pairs]
    assert len(pairs) == len(lines)
    assert len(set(names)) == len(names)
    assert set(names) - more <= ALWAYS_ASKED | {"array"} | {key.replace("_", "-") for key in SBATCH_FIELDS}
    assert all(len(shlex.split(value)) == 1 for _, value in pairs if value is not None)


@settings(max_examples=100, deadline=None)
@given(assignment=st.one_of(st.text(), st.builds("{}={}".format, KEYS, WORDS)))
@example(assignment="job_name=x")
@example(assignment="uid\n=0")
@example(assignment="partition\nreboot=a")
def test_no_assignment_of_the_command_line_adds_a_line_to_a_script(assignment, store):
    assert_as_expected(store, *arrays_or_none(store, assignment))


@FEW
@given(key=KEYS, word=WORDS)
def test_no_exported_variable_adds_a_line_to_a_script(key, word, store):
    assume("\x00" not in word)  # no environment can hold it
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(f"{sites.ENVIRONMENT_PREFIX}{key.upper()}", word)
        assert_as_expected(store, *arrays_or_none(store))


def toml(text: str) -> str:
    """A TOML string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


@FEW
@given(key=KEYS, word=WORDS, in_list=st.booleans())
def test_a_word_of_a_file_adds_a_line_to_a_script_only_where_it_is_meant_as_one(key, word, in_list, store):
    path = store.root.parent / "hostile.toml"
    in_list = in_list or FROM_FILES.get(key) in ("lines", "words")
    path.write_text(f"{key} = {f'[{toml(word)}]' if in_list else toml(word)}", encoding="utf-8")
    arrays = arrays_or_none(store, profile=str(path))
    assert not (arrays and "\n" in word.strip())
    assert all(array.site.setup == ((word,) if key == "setup" else ()) for array in arrays)
    assert_as_expected(store, *arrays)


def test_without_the_narrow_alphabet_a_word_would_add_a_line_and_that_is_seen(store, monkeypatch):
    monkeypatch.setitem(sites.ALPHABETS, "name", (re.compile(".*", re.DOTALL), ""))
    for word in ("a\nreboot", "x\n#SBATCH --uid=0", "x\n#SBATCH --time=1"):
        [array] = arrays_of(store, f"partition={word}")
        with pytest.raises((AssertionError, ValueError)):  # or shlex finds a quote that nobody closes
            assert_as_expected(store, array)


def test_what_is_known_of_shell_injection_is_refused_wherever_it_stands(store):
    for word in ("a\nrm -rf $HOME #", "$(reboot)", "a' --uid=0 '", "a|b", "node[1-3]"):
        with pytest.raises(ConfigError, match="partition"):
            arrays_of(store, f"partition={word}")
    for word in ("a\nreboot", "x\n#SBATCH --uid=0", "a\\\\"):
        with pytest.raises(ConfigError, match="comment"):
            arrays_of(store, f"comment={word}")
    for key in ("uid", "wrap", "job_name", "output", "signal", "array", "requeue", "chdir", "x\n#SBATCH --uid"):
        with pytest.raises(ConfigError, match="unknown key"):
            arrays_of(store, f"{key}=0")


@pytest.mark.parametrize("variable", ["BENCH_DATA_DIR", RUNS_DIR_VARIABLE])
def test_a_folder_of_more_than_one_line_is_refused_and_of_strange_characters_quoted(variable, tmp_path, monkeypatch):
    monkeypatch.setenv(variable, str(tmp_path / "a\nreboot"))
    with pytest.raises(ConfigError, match="one line"):
        slurm.environment_lines()
    strange = tmp_path / "it's $(reboot)"
    monkeypatch.setenv(variable, str(strange))
    assert f"export {variable}={shlex.quote(str(strange))}" in slurm.environment_lines()


def test_a_store_of_strange_characters_is_one_word_of_the_script(tmp_path):
    store = Store(tmp_path / "it's $(reboot) #;" / "store")
    [array] = arrays_of(store)
    assert_as_expected(store, array)
    assert shlex.split(script(array, store).rstrip().splitlines()[-1])[-1] == str(array.submission.folder(store))


@pytest.mark.parametrize("name", ["a\nreboot #", "%j", "link to %j"])
def test_a_store_of_more_than_one_line_or_that_slurm_would_read_as_a_field_is_refused(name, tmp_path):
    (tmp_path / "link to %j").symlink_to(tmp_path / "%j")
    with pytest.raises(ConfigError, match="one line" if "\n" in name else "%"):
        arrays_of(Store(tmp_path / name / "store"))


def test_an_exported_signal_adds_no_line_to_a_script(store, monkeypatch):
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "USR2\nreboot #")
    assert "reboot" not in script(*arrays_of(store), store)
