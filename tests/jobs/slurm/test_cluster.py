"""The test cluster is a SLURM that grants GPUs, loses a node as a real one does, and leaves nothing behind."""

import time
from pathlib import Path

import pytest

from tests.command_line import wait_until
from tests.jobs.slurm.cluster import cluster

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def wait_for(condition) -> None:
    wait_until(condition, "SLURM", 60, pause=0.2)


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def commands_that_name(folder: Path) -> list[str]:
    """The processes with a folder in their command or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = ((process / name).read_text(errors="replace") for name in ("cmdline", "environ"))
        except OSError:  # it has ended
            continue
        if str(folder) in command + environment:
            found.append(command)
    return found


def test_an_array_asks_for_one_gpu_a_job_and_gets_it(slurm, tmp_path):
    script = 'echo "$CUDA_VISIBLE_DEVICES $SLURM_RESTART_COUNT"'
    options = ["--array=0-2", "--gres=gpu:1", "--time=1", f"--output={tmp_path}/%a.out"]
    slurm.run("sbatch", "--wait", "--parsable", *options, f"--wrap={script}")
    assert [text(tmp_path / f"{index}.out").split() for index in range(3)] == [["0"]] * 3


def test_a_job_whose_node_dies_is_requeued_on_the_other(slurm, tmp_path):
    slurm.wait_until_idle()
    script = 'echo "$SLURMD_NODENAME ${SLURM_RESTART_COUNT:-0}"; [ -n "$SLURM_RESTART_COUNT" ] || sleep 300'
    options = ["--requeue", "--open-mode=append", "--time=5", f"--output={tmp_path}/out"]
    job_id = slurm.run("sbatch", "--parsable", *options, f"--wrap={script}").strip()
    wait_for(lambda: text(tmp_path / "out"))
    first = text(tmp_path / "out").split()[0]
    slurm.kill_node(first)
    try:
        wait_for(lambda: "PENDING" in slurm.run("squeue", "--noheader", f"--jobs={job_id}", "--format=%T"))
        slurm.hurry(job_id)
        wait_for(lambda: len(text(tmp_path / "out").splitlines()) == 2)
    finally:
        slurm.start_node(first)
    second = {"n1": "n2", "n2": "n1"}[first]
    assert text(tmp_path / "out").splitlines() == [f"{first} 0", f"{second} 1"]
    slurm.wait_until_idle()


def test_a_job_that_is_hurried_back_to_its_node_runs_there_again(slurm, tmp_path):
    slurm.wait_until_idle()
    script = 'echo "${SLURM_RESTART_COUNT:-0}"; [ -n "$SLURM_RESTART_COUNT" ] || exec sleep 300'
    options = ["--nodelist=n1", "--requeue", "--open-mode=append", "--time=5", f"--output={tmp_path}/out"]
    job_id = slurm.run("sbatch", "--parsable", *options, f"--wrap={script}").strip()
    wait_for(lambda: text(tmp_path / "out"))
    time.sleep(1 - time.time() % 1)  # early in a second, which is what leaves time to start again within it
    slurm.run("scontrol", "requeue", job_id)
    wait_for(lambda: "PENDING" in slurm.run("squeue", "--noheader", f"--jobs={job_id}", "--format=%T"))
    slurm.hurry(job_id)
    wait_for(lambda: "1" in text(tmp_path / "out").splitlines())  # SLURM adds a line of its own


def leave_a_job_behind(folder: Path) -> None:
    """Leave a cluster by an error while a job runs that is hard to find: another session, no environment."""
    with cluster(folder) as started:
        job = f"setsid env -i tail -f {folder}/slurm.conf"
        started.run("sbatch", "--output=/dev/null", f"--wrap={job}")
        wait_for(lambda: any("tail" in command for command in commands_that_name(folder)))
        raise KeyError((folder / "munge").resolve())


def test_nothing_is_left_of_a_stopped_cluster(tmp_path):
    with pytest.raises(KeyError) as left:
        leave_a_job_behind(tmp_path)
    (private,) = left.value.args
    assert not private.exists()
    assert commands_that_name(tmp_path) == commands_that_name(private) == []


def test_a_node_started_a_moment_ago_is_stopped_too(tmp_path):
    with cluster(tmp_path) as started:
        started.kill_node("n1")
        started.start_node("n1")
    assert commands_that_name(tmp_path) == []
