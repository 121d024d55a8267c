"""What jobs ask a SLURM site for comes from where it was said, and what is shown before a launch is what is submitted.

No SLURM is needed: `sbatch`, `srun` and `scontrol` are stand-ins that write down what they are given.
"""

import json
import os
import re
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.config import Run
from bench.errors import ConfigError
from bench.experiments import smoke
from bench.experiments.grid import Experiment
from bench.store import Store
from jobs.__main__ import app
from jobs.cost import START_MINUTES, UNMEASURED_TIMEOUT_MINUTES
from jobs.layout import JOBS_FOLDER, PLAN_FILE
from jobs.slurm import arrays as slurm
from jobs.slurm import site as sites
from jobs.slurm.arrays import Array, choose_device, make_arrays, script, submit, submit_missing
from jobs.slurm.scheduler import SchedulerError, max_array_size
from jobs.slurm.site import PART_NAMES, SBATCH_FIELDS, Site, choose_site, overruled, profile_names
from jobs.slurm.submission import NAME_PREFIX, read_submission, submissions
from jobs.worker import find_run
from tests.command_line import call
from tests.records import make_record
from tests.tiny import request_of, tiny_cell

ALWAYS_ASKED = {"job-name", "nodes", "open-mode", "output", "requeue", "signal", "time"}  # whatever the site
EXAMPLE = sites.PROFILES / "example.toml"


@pytest.fixture(autouse=True)
def nothing_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file and no variable of this machine says anything about a site, and nothing is timed."""
    for name in list(os.environ):
        if name.startswith((sites.ENVIRONMENT_PREFIX, "SBATCH_", "SLURM_", "SUBMITIT_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(sites, "LOCAL_FILE", tmp_path / "jobs" / "slurm.local.toml")
    monkeypatch.setattr(sites, "PROFILES", tmp_path / "jobs" / "profiles")
    sites.PROFILES.mkdir(parents=True)
    monkeypatch.setattr(slurm, "estimate_seconds", lambda *_: {})
    monkeypatch.setattr(slurm, "max_array_size", lambda: 1000)


def profile(text: str, name: str = "mysite") -> str:
    """A profile of that text; its name."""
    (sites.PROFILES / f"{name}.toml").write_text(text, encoding="utf-8")
    return name


def asks(profile_name: str | None = None, *assignments: str, part: str = "cpu") -> Site:
    """What jobs of a kind ask for."""
    return choose_site(profile_name, list(assignments), part).site


def arrays_of(store: Store, *assignments: str, seconds: dict[str, float] | None = None, **changes: Any) -> list[Array]:
    """The arrays of the smoke experiment."""
    experiment = smoke()
    return make_arrays(experiment, experiment.runs(), store, request_of(*assignments, **changes), seconds or {})


def flags(text: str) -> dict[str, str]:
    """The #SBATCH lines of a script: flag -> value, quotes left."""
    pairs = [re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(.*))?", line) for line in text.splitlines() if "#SBATCH" in line]
    assert all(pairs)
    found = {pair[1]: pair[2] or "" for pair in pairs if pair}
    assert len(found) == len(pairs)
    return found


# where a value comes from ---------------------------------------------------------------------------------------------


def test_the_command_line_wins_over_the_environment_that_over_the_local_file_and_that_over_the_profile(monkeypatch):
    layers: list[tuple[str, Callable[[], object]]] = [
        ("nothing", lambda: None),
        ("profile", lambda: profile('partition = "profile"')),
        ("local", lambda: sites.LOCAL_FILE.write_text('partition = "local"')),
        ("environment", lambda: monkeypatch.setenv("BENCH_SLURM_PARTITION", "environment")),
    ]
    for said, say in layers:
        say()
        name = "mysite" if profile_names() else None
        assert asks(name).partition == (None if said == "nothing" else said)
        assert asks(name, "partition=argument").partition == "argument"
    origins = {
        "argument": ("--slurm", ["partition=argument"]),
        "environment": ("BENCH_SLURM_PARTITION", []),
    }
    for value, (origin, assignments) in origins.items():
        chosen = choose_site("mysite", assignments, "cpu")
        assert chosen.origins == {"partition": origin}
        assert chosen.describe() == f"partition={value} ({origin})"
    monkeypatch.delenv("BENCH_SLURM_PARTITION")
    assert choose_site("mysite", [], "cpu").origins == {"partition": "jobs/slurm.local.toml"}
    sites.LOCAL_FILE.unlink()
    assert choose_site("mysite", [], "cpu").origins == {"partition": "profile mysite"}
    assert choose_site(None, [], "cpu").describe() == "nothing: the site's defaults"


def test_each_key_is_taken_from_the_highest_place_that_has_it(monkeypatch):
    profile('partition = "a"\naccount = "a"\nqos = "a"\nmem = "a"')
    sites.LOCAL_FILE.write_text('account = "b"\nqos = "b"\nmem = "b"')
    monkeypatch.setenv("BENCH_SLURM_QOS", "c")
    monkeypatch.setenv("BENCH_SLURM_MEM", "c")
    found = asks("mysite", "mem=d")
    assert (found.partition, found.account, found.qos, found.mem) == ("a", "b", "c", "d")


def test_of_two_assignments_the_last_counts_and_a_hyphen_is_an_underscore():
    assert asks(None, "cpus_per_task=2", "cpus-per-task=4").cpus_per_task == 4


def test_tables_of_a_profile_are_for_jobs_of_their_kind_and_win_over_its_common_lines():
    profile('partition = "all"\nqos = "q"\n[gpu]\npartition = "big"\ngpus_per_node = 1\n[cpu]\nmem = "1G"')
    on_gpu, on_cpu = asks("mysite", part="gpu"), asks("mysite")
    assert (on_gpu.partition, on_gpu.qos, on_gpu.gpus_per_node, on_gpu.mem) == ("big", "q", 1, None)
    assert (on_cpu.partition, on_cpu.qos, on_cpu.gpus_per_node, on_cpu.mem) == ("all", "q", None, "1G")


def test_a_profile_is_named_by_name_or_file_and_a_missing_one_lists_those_there_are(tmp_path):
    profile('qos = "here"')
    (tmp_path / "other.toml").write_text('qos = "there"')
    assert asks("mysite").qos == "here"
    assert asks(str(tmp_path / "other.toml")).qos == "there"
    for absent in ("mysit", "../other", "no.toml", ""):
        with pytest.raises(ConfigError, match="there are mysite"):
            choose_site(absent, [], "cpu")


# what is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        (["partitoin=x"], ["partitoin", "--slurm", "did you mean partition?"]),
        (["colour=x"], ["colour", "known: partition"]),
        (["time=60"], ["time (--slurm)", "timeout_min", "minutes"]),
        (["timeout=60"], ["timeout (--slurm)", "timeout_min", "minutes"]),
        (["timeout_min=29"], ["timeout_min (--slurm)", "30"]),
        (["timeout_min=01:00:00"], ["timeout_min (--slurm)", "integer"]),
        (["signal_delay_s=1"], ["signal_delay_s (--slurm)", "10"]),
        (["max_array_size=0"], ["max_array_size (--slurm)", "1"]),
        (["gres=gpu:1", "gpus_per_node=1"], ["gres (--slurm)", "gpus_per_node (--slurm)", "one of them"]),
        (["partition"], ["partition", "key=value"]),
        (["partition="], ["partition (--slurm)", "letters"]),
        (["partition=a b"], ["partition (--slurm)", "letters"]),
        (["qos=" + "x" * 129], ["qos (--slurm)", "128"]),
        (["device=tpu"], ["device (--slurm)", "cuda"]),
        (["setup=rm"], ["setup (--slurm)", "file"]),
        (["python=/bin/sh"], ["python (--slurm)", "file"]),
        (["srun_args=--x"], ["srun_args (--slurm)", "file"]),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_key_its_origin_and_the_reason(assignments, words):
    with pytest.raises(ConfigError) as refused:
        choose_site(None, assignments, "cpu")
    assert all(word in str(refused.value) for word in words)


@pytest.mark.parametrize("key", ["setup", "python", "srun_args"])
def test_shell_words_come_from_files_alone(key, monkeypatch):
    profile('setup = ["module load cuda"]\npython = "/shared/python"\nsrun_args = ["--cpus-per-task=4"]')
    assert getattr(asks("mysite"), key) is not None
    monkeypatch.setenv(f"BENCH_SLURM_{key.upper()}", "x")
    with pytest.raises(ConfigError, match=f"BENCH_SLURM_{key.upper()}"):
        choose_site("mysite", [], "cpu")


@pytest.mark.parametrize(
    ("origin", "give"),
    [
        ("BENCH_SLURM_MEM", lambda patch: patch.setenv("BENCH_SLURM_MEM", "a b")),
        ("jobs/slurm.local.toml", lambda _: sites.LOCAL_FILE.write_text('mem = "a b"')),
        ("profile mysite", lambda _: profile('mem = "a b"')),
    ],
)
def test_an_error_names_where_the_value_stands(origin, give, monkeypatch):
    profile("")
    give(monkeypatch)
    with pytest.raises(ConfigError, match=re.escape(f"mem ({origin})")):
        choose_site("mysite", [], "cpu")


@pytest.mark.parametrize("text", ["partition", "[gpu", 'gpu = "x"', 'device = "cuda"', "[gup]\n", 'partition = ["a"]'])
def test_a_file_that_is_no_profile_is_a_config_error(text):
    profile(text)
    with pytest.raises(ConfigError):
        choose_site("mysite", [], "cpu")


@pytest.mark.parametrize(("key", "text"), [("account", "123456"), ("mem", "16000"), ("wckey", "true")])
def test_a_word_that_looks_like_a_number_is_still_a_word(key, text, monkeypatch):
    assert getattr(asks(None, f"{key}={text}"), key) == text
    monkeypatch.setenv(f"BENCH_SLURM_{key.upper()}", text)
    assert getattr(asks(), key) == text


# the profile that comes with the suite --------------------------------------------------------------------------------


def test_the_example_profile_asks_for_a_gpu_where_one_is_used_and_for_no_partition():
    on_gpu, on_cpu = asks(str(EXAMPLE), part="gpu"), asks(str(EXAMPLE))
    assert on_gpu.asks_for_gpu
    assert not on_cpu.asks_for_gpu
    assert on_gpu.partition is on_cpu.partition is on_gpu.account is None


def test_every_commented_line_of_the_example_profile_works_when_it_is_uncommented():
    lines, refused = [], []
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        assignment = re.match(r"# ([a-z_]+) = ", line)
        if assignment and " is refused" in line:
            refused.append(line.removeprefix("# ").partition(" is refused")[0])
        else:
            lines.append(line.removeprefix("# ") if assignment else line)
    uncommented = "\n".join(lines)
    content = tomllib.loads(uncommented)
    assert {*content, *content["gpu"], *content["cpu"]} - {*PART_NAMES} <= {*Site.model_fields}
    assert len({*content, *content["gpu"], *content["cpu"]}) > 10
    profile(uncommented)
    for part in PART_NAMES:
        asks("mysite", part=part)
    assert len(refused) == 2
    for line in refused:
        profile(line)
        with pytest.raises(ConfigError, match="may hold only"):
            choose_site("mysite", [], "cpu")


# what stands in the script --------------------------------------------------------------------------------------------


def test_what_is_not_set_leaves_no_line_in_the_script(tmp_path):
    [array] = arrays_of(Store(tmp_path / "store"))
    assert set(flags(script(array, Store(tmp_path / "store")))) == ALWAYS_ASKED | {"array"}


@pytest.mark.parametrize("key", SBATCH_FIELDS)
def test_what_is_set_is_one_line_more(key, tmp_path):
    store, value = Store(tmp_path / "store"), "3" if key in ("cpus_per_task", "nice") else "a100:3"
    [plain], [array] = arrays_of(store), arrays_of(store, f"{key}={value}")
    before, after = flags(script(plain, store)), flags(script(array, store))
    flag = key.replace("_", "-")
    assert after == {**before, flag: value}
    assert flag not in before


def test_the_program_takes_the_place_of_the_shell_and_srun_is_used_only_where_asked_for(tmp_path):
    store = Store(tmp_path / "store")
    [array] = arrays_of(store)
    folder = array.submission.folder(store)
    text = script(array, store)
    assert text.rstrip().splitlines()[-1] == f"exec {sys.executable} -u -m jobs task {folder}"
    assert flags(text)["signal"] == "B:USR2@120"
    profile('use_srun = true\nsrun_args = ["--cpus-per-task=4"]\npython = "/p/python"\nsetup = ["module load x"]')
    [array] = arrays_of(store, profile="mysite")
    text = script(array, store)
    assert re.search(rf"\nsrun --unbuffered .*--cpus-per-task=4 /p/python -u -m jobs task {folder}\n", text)
    assert flags(text)["signal"] == "USR2@120"
    assert "\nmodule load x\n" in text


def test_a_gpu_is_asked_for_only_by_jobs_that_train(tmp_path):
    profile("[gpu]\ngpus_per_node = 1\ncpus_per_task = 4\n[cpu]\ncpus_per_task = 2")
    store = Store(tmp_path / "store")
    on_gpu, on_cpu = arrays_of(store, profile="mysite", device="cuda")
    trained = {run.run_id for run in smoke().runs() if run.config.training is not None}
    assert {one for task in on_gpu.submission.tasks for one in task} == trained
    assert (on_gpu.submission.device, on_gpu.submission.n_threads) == ("cuda", 4)
    assert flags(script(on_gpu, store))["gpus-per-node"] == "1"
    assert (on_cpu.submission.device, on_cpu.submission.n_threads) == ("cpu", 2)
    assert "gpus-per-node" not in flags(script(on_cpu, store))


def test_exported_sbatch_variables_are_named_with_what_they_overrule(monkeypatch):
    found = asks(None, "partition=ours")
    assert overruled(found) == []
    monkeypatch.setenv("SBATCH_PARTITION", "theirs")
    monkeypatch.setenv("SBATCH_TIMELIMIT", "5")
    first, second = overruled(found)
    assert all(word in first for word in ("SBATCH_PARTITION='theirs'", "partition=ours", "unset"))
    assert all(word in second for word in ("SBATCH_TIMELIMIT='5'", "time"))


@pytest.mark.parametrize(
    ("text", "asked", "device"),
    [
        (None, None, "cpu"),
        ("[gpu]\ngpus_per_node = 1", None, "cuda"),
        ('[gpu]\ngres = "gpu:a100:1"', None, "cuda"),
        ('[gpu]\ngres = "shard:1"', None, "cpu"),
        ("[cpu]\ngpus_per_node = 1", None, "cpu"),
        ('[gpu]\ndevice = "cuda"', None, "cuda"),
        ('[gpu]\ngpus_per_node = 1\ndevice = "cpu"', None, "cpu"),
        ("[gpu]\ngpus_per_node = 1", "cpu", "cpu"),
        (None, "cuda", "cuda"),
    ],
)
def test_nodes_train_on_what_was_asked_else_what_the_profile_says_else_on_the_gpu_that_jobs_get(text, asked, device):
    assert choose_device(profile(text) if text else None, [], asked) == device


# how a grid becomes arrays --------------------------------------------------------------------------------------------


def twenty() -> Experiment:
    """A grid of twenty runs that take no time."""
    return Experiment(name="twenty", question="Are all there?", cells=(tiny_cell("tiny", seeds=tuple(range(20))),))


@pytest.mark.parametrize("runs_per_job", [1, 3])
def test_runs_are_packed_in_order_and_each_is_in_one_task(runs_per_job, tmp_path):
    runs = twenty().runs()
    [array] = make_arrays(twenty(), runs, Store(tmp_path), request_of(runs_per_job=runs_per_job), {})
    tasks = array.submission.tasks
    assert [one for task in tasks for one in task] == [run.run_id for run in runs]
    assert {len(task) for task in tasks[:-1]} == {runs_per_job}
    assert flags(script(array, Store(tmp_path)))["array"] == f"0-{len(tasks) - 1}%{len(tasks)}"


def test_runs_side_by_side_share_a_job_and_its_threads(tmp_path):
    request = request_of("cpus_per_task=8", runs_at_once=4)
    [array] = make_arrays(twenty(), twenty().runs(), Store(tmp_path), request, {})
    assert {len(task) for task in array.submission.tasks} == {4}
    assert (array.submission.runs_at_once, array.submission.n_threads) == (4, 2)


def test_no_more_tasks_go_at_a_time_than_the_site_wants(tmp_path):
    [array] = make_arrays(twenty(), twenty().runs(), Store(tmp_path), request_of("array_parallelism=3"), {})
    assert flags(script(array, Store(tmp_path)))["array"] == "0-19%3"


def test_a_single_task_is_no_array(tmp_path):
    [array] = make_arrays(twenty(), twenty().runs()[:1], Store(tmp_path), request_of(), {})
    assert "array" not in flags(script(array, Store(tmp_path)))


@pytest.mark.parametrize(
    ("seconds", "minutes"),
    [(None, UNMEASURED_TIMEOUT_MINUTES), (1.0, 30), (1000.0, 30), (1200.0, 35), (7200.0, 180 + START_MINUTES)],
)
def test_a_time_limit_is_half_again_what_was_measured_and_the_start_and_never_below_thirty_minutes(
    seconds, minutes, tmp_path
):
    runs = twenty().runs()
    known = {} if seconds is None else {run.run_id: seconds for run in runs}
    [array] = make_arrays(twenty(), runs, Store(tmp_path), request_of(), known)
    assert array.submission.timeout_min == minutes
    assert flags(script(array, Store(tmp_path)))["time"] == str(minutes)
    assert array.known == (seconds is not None)


def test_a_job_of_several_runs_has_time_for_all_of_them_and_a_named_limit_wins(tmp_path):
    runs = twenty().runs()
    known = {run.run_id: 3600.0 for run in runs}
    for changes, minutes in (({"runs_per_job": 4}, 365), ({"runs_per_job": 4, "runs_at_once": 2}, 185)):
        [array] = make_arrays(twenty(), runs, Store(tmp_path), request_of(**changes), known)
        assert array.submission.timeout_min == minutes
    [array] = make_arrays(twenty(), runs, Store(tmp_path), request_of("timeout_min=45"), known)
    assert array.submission.timeout_min == 45


def test_the_same_rehearsal_gives_the_same_names_and_another_grid_or_store_others(tmp_path):
    def names(store: Path, **changes: Any) -> list[str]:
        return [array.submission.name for array in arrays_of(Store(store), **changes)]

    once = names(tmp_path / "a")
    assert once == names(tmp_path / "a")
    assert all(re.fullmatch(NAME_PREFIX + "[0-9a-f]{8}", name) for name in once)
    assert not set(once) & {*names(tmp_path / "b"), *names(tmp_path / "a", runs_per_job=2)}


# stand-ins for SLURM --------------------------------------------------------------------------------------------------

STAND_IN = """#!{python} -S
import json, os, sys
folder = {folder!r}
if os.path.basename(sys.argv[0]) == "scontrol":
    print("MaxArraySize            = 7")
elif os.path.exists(folder + "/words"):
    sys.exit(open(folder + "/words").read())
else:
    number = len(os.listdir(folder)) + 1
    script = sys.stdin.read() if "--test-only" in sys.argv else open(sys.argv[-1]).read()
    with open(f"{{folder}}/{{number}}.json", "w") as file:
        json.dump({{"script": script, "environment": dict(os.environ)}}, file)
    print(f"Submitted batch job {{100 + number}}")
"""


@dataclass(frozen=True)
class FakeSlurm:
    """Stand-ins on PATH, and what they were given."""

    folder: Path

    @property
    def scripts(self) -> list[str]:
        """What `sbatch` was given, in order."""
        return [one["script"] for one in self._taken()]

    @property
    def environments(self) -> list[dict[str, str]]:
        """What `sbatch` saw exported, in order."""
        return [one["environment"] for one in self._taken()]

    def refuse(self, words: str) -> None:
        """From now on `sbatch` exits 1 with these words."""
        (self.folder / "words").write_text(words)

    def _taken(self) -> list[dict[str, Any]]:
        paths = sorted(self.folder.glob("*.json"), key=lambda path: int(path.stem))
        return [json.loads(path.read_text()) for path in paths]


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """A PATH that holds stand-ins and nothing else."""
    taken, programs = tmp_path / "taken", tmp_path / "programs"
    taken.mkdir()
    programs.mkdir()
    for name in ("sbatch", "srun", "scontrol"):
        (programs / name).write_text(STAND_IN.format(python=sys.executable, folder=str(taken)))
        (programs / name).chmod(0o700)
    monkeypatch.setenv("PATH", str(programs))
    return FakeSlurm(taken)


@pytest.mark.fault("F17")
def test_a_grid_longer_than_slurms_arrays_goes_in_several_and_each_run_once(fake_slurm, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(slurm, "max_array_size", max_array_size)  # asks `scontrol`, which says 7
    store = Store(tmp_path / "store")
    submit_missing(twenty(), store, request_of())
    assert [flags(text)["array"] for text in fake_slurm.scripts] == ["0-6%7", "0-6%7", "0-5%6"]
    plans = submissions(store)
    assert [len(plan.tasks) for plan in plans] == [7, 7, 6]
    run_ids = [one for plan in plans for task in plan.tasks for one in task]
    assert sorted(run_ids) == sorted(run.run_id for run in twenty().runs())
    assert [find_run(one, store).run_id for one in run_ids] == run_ids
    assert len(re.findall("submitted kops-", capsys.readouterr().out)) == 3


@pytest.mark.fault("F17")
@pytest.mark.parametrize(("limit", "n_arrays"), [(1, 20), (7, 3), (20, 1), (21, 1)])
def test_the_limit_of_a_profile_cuts_the_grid(limit, n_arrays, tmp_path):
    arrays = make_arrays(twenty(), twenty().runs(), Store(tmp_path), request_of(f"max_array_size={limit}"), {})
    run_ids = [one for array in arrays for task in array.submission.tasks for one in task]
    assert len(arrays) == len({array.submission.name for array in arrays}) == n_arrays
    assert run_ids == [run.run_id for run in twenty().runs()]


def test_the_script_that_is_shown_is_the_script_that_is_submitted(fake_slurm, tmp_path, capsys):
    profile('partition = "debug"\nsetup = ["module load x"]\n[gpu]\ngpus_per_node = 1')
    for changes in ({}, {"runs_per_job": 6}, {"device": "cuda", "profile": "mysite"}):
        store, request = Store(tmp_path / f"store{len(changes)}{len(fake_slurm.scripts)}"), request_of(**changes)
        shown = submit_missing(smoke(), store, request, rehearse=True)
        printed = capsys.readouterr().out
        before = len(fake_slurm.scripts)
        submitted = submit_missing(smoke(), store, request)
        assert submitted == shown
        assert fake_slurm.scripts[before:] == [script(array, store) for array in shown]
        assert all(text in printed for text in fake_slurm.scripts[before:])


def test_another_signal_of_submitits_is_shown_as_it_is_submitted(fake_slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "USR1")
    store = Store(tmp_path / "store")
    [array] = arrays_of(store)
    submit(array, store)
    assert fake_slurm.scripts == [script(array, store)]


def test_sbatch_sees_what_a_login_node_would_show_it(fake_slurm, tmp_path, monkeypatch):
    hidden = {"SLURM_JOB_ID": "1", "SLURM_CPUS_PER_TASK": "4", "SLURMD_NODENAME": "n1", "SUBMITIT_EXECUTOR": "slurm"}
    kept = {"SLURM_CONF": "/etc/slurm.conf", "SBATCH_PARTITION": "theirs", "MINE": "x"}
    for name, value in {**hidden, **kept}.items():
        monkeypatch.setenv(name, value)
    store = Store(tmp_path / "store")
    [array] = arrays_of(store)
    submit(array, store)
    [seen] = fake_slurm.environments
    assert not hidden.keys() & seen.keys()
    assert kept.items() <= seen.items()
    assert {name: os.environ[name] for name in hidden} == hidden  # and are as before afterwards
    assert os.environ["SBATCH_PARTITION"] == "theirs"


def test_what_sbatch_refuses_is_an_error_with_its_own_words(fake_slurm, tmp_path):
    fake_slurm.refuse("sbatch: error: invalid partition specified: nowhere")
    store = Store(tmp_path / "store")
    [array] = arrays_of(store)
    with pytest.raises(SchedulerError, match="invalid partition specified: nowhere"):
        submit(array, store)
    assert read_submission(array.submission.folder(store)) == array.submission  # what was planned can be looked at


def test_a_submission_is_on_disk_with_its_job_before_the_launcher_returns(fake_slurm, tmp_path):
    store = Store(tmp_path / "store")
    [array] = submit_missing(smoke(), store, request_of())
    folder = array.submission.folder(store)
    assert read_submission(folder) == array.submission
    assert json.loads((folder / "job.json").read_text()) == {"job_id": "101"}


# the command line -----------------------------------------------------------------------------------------------------


@pytest.fixture
def no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any program on its PATH."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(slurm, "max_array_size", max_array_size)


def launch(store: Path, data_dir: Path, *more: object) -> int:
    """`launch` the smoke experiment on SLURM."""
    fixed = ("launch", "--experiment", "smoke", "--cluster", "slurm", "--device", "cpu")
    return call(app, *fixed, "--store", store, "--data-dir", data_dir, *more)


@pytest.mark.usefixtures("no_slurm")
def test_a_rehearsal_needs_neither_slurm_nor_a_profile_lists_every_run_and_writes_nothing(tmp_path, data_dir, capsys):
    store, runs = Store(tmp_path / "store"), smoke().runs()
    store.write_record(make_record(runs[0].label, runs[0].seed, run_id=runs[0].run_id))
    before = sorted(tmp_path.rglob("*"))
    assert launch(store.root, data_dir, "--dry-run") == 0
    output = capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    lines = {run.run_id: next(line for line in output.splitlines() if run.run_id in line) for run in runs}
    assert lines[runs[0].run_id].endswith("done")
    assert all(not line.endswith("done") for run_id, line in lines.items() if run_id != runs[0].run_id)
    assert all(run.name in lines[run.run_id] for run in runs)
    shown = output[output.index("\n--- kops-") :]
    assert set(flags(shown)) == ALWAYS_ASKED | {"array"}
    assert flags(shown)["array"] == f"0-{len(runs) - 2}%{len(runs) - 1}"
    assert launch(store.root, data_dir, "--dry-run") == 0
    assert capsys.readouterr().out == output


@pytest.mark.usefixtures("no_slurm")
def test_scripts_are_written_without_slurm_and_hold_what_a_rehearsal_shows(tmp_path, data_dir, capsys):
    store, scripts = Store(tmp_path / "store"), tmp_path / "with space"
    assert launch(store.root, data_dir, "--dry-run", "--slurm", "partition=debug") == 0
    shown = capsys.readouterr().out
    assert launch(store.root, data_dir, "--emit-scripts", scripts, "--slurm", "partition=debug") == 0
    [path] = scripts.iterdir()
    assert f"--- {path.name}\n{path.read_text()}" in shown
    assert f"sbatch '{path}'" in capsys.readouterr().out
    assert path.stat().st_mode & 0o077 == 0
    [plan] = submissions(store)
    assert path.stem == plan.name
    assert str(store.work_folder / JOBS_FOLDER / plan.name) in path.read_text()
    assert (store.work_folder / JOBS_FOLDER / plan.name / PLAN_FILE).is_file()
    for task in plan.tasks:
        for run_id in task:
            assert isinstance(find_run(run_id, store), Run)
    assert launch(store.root, data_dir, "--dry-run") == 0
    assert "what is in the queue is not known" in capsys.readouterr().out


@pytest.mark.usefixtures("no_slurm")
def test_without_slurm_a_launch_is_an_error_in_one_line_that_names_what_is_missing(tmp_path, data_dir, capsys):
    assert launch(tmp_path / "store", data_dir) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "srun" in line
    assert launch(tmp_path / "other", data_dir, "--test-only") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "sbatch" in line


def test_slurm_can_be_asked_when_jobs_would_start(fake_slurm, tmp_path, data_dir, capsys):
    assert launch(tmp_path / "store", data_dir, "--test-only") == 0
    assert re.search("kops-[0-9a-f]{8}: Submitted batch job 101", capsys.readouterr().out)
    assert not list((tmp_path / "store").rglob(PLAN_FILE))


def test_options_of_slurm_without_slurm_are_refused(tmp_path, capsys):
    for option in (["--slurm", "partition=x"], ["--test-only"], ["--emit-scripts", str(tmp_path)], ["--measure"]):
        assert call(app, "launch", "--experiment", "smoke", "--store", tmp_path / "s", *option) == 2
        assert "slurm" in capsys.readouterr().err
