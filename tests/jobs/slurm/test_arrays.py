"""How a grid becomes arrays of jobs, and what stands in their scripts."""

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.experiments import smoke
from bench.store import Store
from jobs.slurm.arrays import script
from jobs.slurm.site import SBATCH_FIELDS, START_MINUTES, UNMEASURED_TIMEOUT_MINUTES
from jobs.slurm.submission import NAME_PREFIX
from tests.sites import ALWAYS_ASKED, array_of_twenty, arrays_of, flags, profile, twenty


@pytest.mark.parametrize("key", SBATCH_FIELDS)
def test_what_is_not_set_leaves_no_line_in_the_script_and_what_is_set_is_one_line_more(key, store):
    numbers = ("cpus_per_task", "nice", "mem", "mem_per_cpu", "mem_per_gpu")
    value = "3" if key in numbers else {"exclusive": "user", "hint": "nomultithread"}.get(key, "a100:3")
    [plain], [array] = arrays_of(store), arrays_of(store, f"{key}={value}")
    before = flags(script(plain, store))
    assert before.keys() == ALWAYS_ASKED | {"array"}
    assert flags(script(array, store)) == {**before, key.replace("_", "-"): value}
    assert key.replace("_", "-") not in before


@pytest.mark.met("U26")
@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ('constraint = "a100|h100"', "--constraint='a100|h100'"),
        ('constraint = "[rack1|rack2]&gpu*2"', "--constraint='[rack1|rack2]&gpu*2'"),
        ('exclude = "node[1-3,7]"', "--exclude='node[1-3,7]'"),
        ('nodelist = "n1,n2"', "--nodelist=n1,n2"),
        ('licenses = "a@db:2|b"', "--licenses='a@db:2|b'"),
        ("gpus = 1", "--gpus=1"),
        ('gpus = "h100:2"', "--gpus=h100:2"),
        ('mem_per_gpu = "16G"', "--mem-per-gpu=16G"),
        ("exclusive = true", "--exclusive"),
        ('exclusive = "user"', "--exclusive=user"),
        ('hint = "nomultithread"', "--hint=nomultithread"),
        ('comment = "run #3, it is Ann\'s"', """--comment='run #3, it is Ann'"'"'s'"""),
        ('sbatch_args = ["--mail-type=END"]', "--mail-type=END"),
        ('sbatch_args = ["--spread-job", "--switches=1@10"]', "--spread-job"),
        ('sbatch_args = ["--container-image=nvcr.io#a/b+c@sha256:1"]', "--container-image='nvcr.io#a/b+c@sha256:1'"),
    ],
)
def test_what_sites_ask_for_is_a_quoted_line_of_the_script(line, asked, store):
    profile(line)
    [array] = arrays_of(store, profile="mysite")
    assert script(array, store).splitlines().count(f"#SBATCH {asked}") == 1


def test_what_is_said_to_be_off_leaves_no_line_and_zero_is_a_value(store):
    profile("exclusive = true\nnice = 5")
    [array] = arrays_of(store, "exclusive=false", "nice=0", profile="mysite")
    assert "exclusive" not in flags(script(array, store))
    assert flags(script(array, store))["nice"] == "0"


@pytest.mark.met("U26")
def test_the_image_of_a_container_reaches_srun_as_it_stands(store):
    profile('use_srun = true\nsrun_args = ["--container-image=nvcr.io#a/b+c@1", "--container-mounts=/a b:/c"]')
    [array] = arrays_of(store, profile="mysite")
    words = shlex.split(script(array, store).rstrip().splitlines()[-1])
    assert words[words.index("--container-image=nvcr.io#a/b+c@1") + 1] == "--container-mounts=/a b:/c"


def test_the_program_takes_the_place_of_the_shell_and_srun_is_used_only_where_asked_for(store):
    [array] = arrays_of(store)
    folder, text = array.submission.folder(store), script(array, store)
    assert text.rstrip().splitlines()[-1] == f"exec {sys.executable} -u -m jobs task {folder}"
    assert flags(text)["signal"] == "B:USR2@120"
    profile('use_srun = true\nsrun_args = ["--cpus-per-task=4"]\npython = "/p/python"\nsetup = ["module load x"]')
    [array] = arrays_of(store, profile="mysite")
    text = script(array, store)
    assert re.search(rf"\nsrun --unbuffered .*--cpus-per-task=4 /p/python -u -m jobs task {folder}\n", text)
    assert flags(text)["signal"] == "USR2@120"
    assert "\nmodule load x\n" in text


def test_a_gpu_is_asked_for_only_by_jobs_that_train(store):
    profile("[gpu]\ngpus_per_node = 1\ncpus_per_task = 4\n[cpu]\ncpus_per_task = 2")
    on_gpu, on_cpu = arrays_of(store, profile="mysite", device="cuda")
    trained = {run.run_id for run in smoke().runs() if run.config.training is not None}
    assert {one for task in on_gpu.submission.tasks for one in task} == trained
    assert (on_gpu.submission.device, on_gpu.submission.n_threads) == ("cuda", 4)
    assert flags(script(on_gpu, store))["gpus-per-node"] == "1"
    assert (on_cpu.submission.device, on_cpu.submission.n_threads) == ("cpu", 2)
    assert "gpus-per-node" not in flags(script(on_cpu, store))


@pytest.mark.parametrize("runs_per_job", [1, 3])
def test_runs_are_packed_in_order_and_each_is_in_one_task(runs_per_job, store):
    array = array_of_twenty(store, runs_per_job=runs_per_job)
    tasks = array.submission.tasks
    assert [one for task in tasks for one in task] == [run.run_id for run in twenty().runs()]
    assert {len(task) for task in tasks[:-1]} == {runs_per_job}
    assert flags(script(array, store))["array"] == f"0-{len(tasks) - 1}%{len(tasks)}"


def test_runs_side_by_side_share_a_job_and_its_threads(store):
    array = array_of_twenty(store, "cpus_per_task=8", runs_at_once=4)
    assert {len(task) for task in array.submission.tasks} == {4}
    assert (array.submission.runs_at_once, array.submission.n_threads) == (4, 2)


def test_no_more_tasks_go_at_a_time_than_the_site_wants_and_a_single_task_is_no_array(store):
    array = array_of_twenty(store, "array_parallelism=3")
    assert flags(script(array, store))["array"] == "0-19%3"
    assert "array" not in flags(script(array_of_twenty(store, n_runs=1), store))


@pytest.mark.parametrize(
    ("seconds", "minutes"),
    [(None, UNMEASURED_TIMEOUT_MINUTES), (1.0, 30), (1000.0, 30), (1200.0, 35), (7200.0, 180 + START_MINUTES)],
)
def test_a_time_limit_is_half_again_what_was_measured_and_the_start_and_never_below_thirty_minutes(
    seconds, minutes, store
):
    array = array_of_twenty(store, seconds=seconds)
    assert array.submission.timeout_min == minutes
    assert flags(script(array, store))["time"] == str(minutes)
    assert array.known == (seconds is not None)


def test_a_job_of_several_runs_has_time_for_all_of_them_and_a_named_limit_wins(store):
    def minutes(*assignments: str, **changes: Any) -> int:
        return array_of_twenty(store, *assignments, seconds=3600.0, **changes).submission.timeout_min

    assert minutes(runs_per_job=4) == 365
    assert minutes(runs_per_job=4, runs_at_once=2) == 185
    assert minutes("timeout_min=45") == 45


def test_the_same_rehearsal_gives_the_same_names_and_another_grid_or_store_others(tmp_path):
    def names(store: Path, **changes: Any) -> list[str]:
        return [array.submission.name for array in arrays_of(Store(store), **changes)]

    once = names(tmp_path / "a")
    assert once == names(tmp_path / "a")
    assert all(re.fullmatch(NAME_PREFIX + "[0-9a-f]{8}", name) for name in once)
    assert not set(once) & {*names(tmp_path / "b"), *names(tmp_path / "a", runs_per_job=2)}
