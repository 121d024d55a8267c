"""What jobs ask a SLURM site for comes from the highest place where it was said, and what makes no sense is refused."""

import json
import re
import tomllib
from collections.abc import Callable

import pytest

from bench.errors import ConfigError
from jobs.slurm import site as sites
from jobs.slurm.arrays import choose_device
from jobs.slurm.site import PART_NAMES, Site, choose_site, overruled, profile_names
from tests.sites import profile

EXAMPLE = sites.PROFILES / "example.toml"


def asks(profile_name: str | None = None, *assignments: str, part: str = "cpu") -> Site:
    """What jobs of a kind ask for."""
    return choose_site(profile_name, list(assignments), part).site


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
    assert choose_site("mysite", ["partition=x"], "cpu").describe() == "partition=x (--slurm)"
    assert choose_site("mysite", [], "cpu").describe() == "partition=environment (BENCH_SLURM_PARTITION)"
    monkeypatch.delenv("BENCH_SLURM_PARTITION")
    assert choose_site("mysite", [], "cpu").describe() == "partition=local (jobs/slurm.local.toml)"
    sites.LOCAL_FILE.unlink()
    assert choose_site("mysite", [], "cpu").describe() == "partition=profile (profile mysite)"
    assert choose_site(None, [], "cpu").describe() == "nothing: the site's defaults"


def test_each_key_is_taken_from_the_highest_place_that_has_it(monkeypatch):
    profile('partition = "a"\naccount = "a"\nqos = "a"\nwckey = "a"')
    sites.LOCAL_FILE.write_text('account = "b"\nqos = "b"\nwckey = "b"')
    monkeypatch.setenv("BENCH_SLURM_QOS", "c")
    monkeypatch.setenv("BENCH_SLURM_WCKEY", "c")
    found = asks("mysite", "wckey=d")
    assert (found.partition, found.account, found.qos, found.wckey) == ("a", "b", "c", "d")


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


@pytest.mark.met("U26")
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
        (["gpus=1", "gpus_per_node=1"], ["gpus_per_node (--slurm) and gpus (--slurm)", "GPUs"]),
        (["mem=1G", "mem_per_gpu=1G"], ["mem (--slurm) and mem_per_gpu (--slurm)", "memory"]),
        (["partition"], ["partition", "key=value"]),
        (["partition=a|b"], ["partition (--slurm)", "letters"]),
        (["mem=lots"], ["mem (--slurm)", "16G"]),
        (["mem_per_gpu=-1"], ["mem_per_gpu (--slurm)", "16G"]),
        (["hint=fast"], ["hint (--slurm)", "nomultithread"]),
        (["exclusive=maybe"], ["exclusive (--slurm)", "user"]),
        (["nodelist=n1 n2"], ["nodelist (--slurm)", "[]"]),
        (["constraint=a;b"], ["constraint (--slurm)", "|&"]),
        (["comment=a\\b"], ["comment (--slurm)", "backslash"]),
        (["partition="], ["partition (--slurm)", "letters"]),
        (["partition=a b"], ["partition (--slurm)", "letters"]),
        (["qos=" + "x" * 129], ["qos (--slurm)", "128"]),
        (["device=tpu"], ["device (--slurm)", "cuda"]),
        (["setup=rm"], ["setup (--slurm)", "file"]),
        (["python=/bin/sh"], ["python (--slurm)", "file"]),
        (["srun_args=--x"], ["srun_args (--slurm)", "file"]),
        (["sbatch_args=--x"], ["sbatch_args (--slurm)", "file"]),
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


@pytest.mark.met("U26")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--job-name=x"], "--job-name itself"),
        (["--arr=0-9"], "--array itself"),
        (["--no-req"], "--no-requeue itself"),
        (["--ntasks-per-node=2"], "itself"),
        (["--wrap=reboot"], "--wrap itself"),
        (["--partition=x"], "key partition"),
        (["--mem-per-g=1G"], "key mem_per_gpu"),
        (["--mail-type=END", "--mail-type=BEGIN"], "twice"),
        (["-M c1"], "--option=value"),
        (["--begin=now\n#SBATCH --uid=0"], "one line"),
        (["--mail-user=a\\b"], "backslash"),
    ],
)
def test_no_further_option_of_sbatch_moves_what_a_launch_sets(options, words):
    profile(f"sbatch_args = {json.dumps(options)}")
    with pytest.raises(ConfigError, match=f"sbatch_args .*{words}"):
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


def test_the_example_profile_asks_for_a_gpu_where_one_is_used_and_for_no_partition():
    on_gpu, on_cpu = asks(str(EXAMPLE), part="gpu"), asks(str(EXAMPLE))
    assert on_gpu.asks_for_gpu
    assert not on_cpu.asks_for_gpu
    assert on_gpu.partition is on_cpu.partition is on_gpu.account is None


def test_every_commented_line_of_the_example_profile_works_when_it_is_uncommented():
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    uncommented = "\n".join(line.removeprefix("# ") if re.match(r"# [a-z_]+ = ", line) else line for line in lines)
    content = tomllib.loads(uncommented)
    assert {*content, *content["gpu"], *content["cpu"]} - {*PART_NAMES} <= {*Site.model_fields}
    assert len({*content, *content["gpu"], *content["cpu"]}) > 10
    profile(uncommented)
    for part in PART_NAMES:
        asks("mysite", part=part)


def test_exported_sbatch_variables_are_named_with_what_they_overrule(monkeypatch):
    found = asks(None, "partition=ours")
    assert overruled(found) == []
    monkeypatch.setenv("SBATCH_PARTITION", "theirs")
    monkeypatch.setenv("SBATCH_TIMELIMIT", "5")
    monkeypatch.setenv("SBATCH_JOB_NAME", "mine")  # by which no job would be found again
    ours, first, second = overruled(found)
    assert all(word in ours for word in ("SBATCH_JOB_NAME='mine'", "not passed on"))
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
