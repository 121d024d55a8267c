"""The test cluster leaves nothing behind; test_grid.py shows that it grants GPUs and loses nodes as a real one does."""

from pathlib import Path

import pytest

from tests.command_line import wait_until
from tests.jobs.slurm.cluster import cluster

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


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


def leave_a_job_behind(folder: Path) -> None:
    """Leave a cluster by an error while a job runs that is hard to find: another session, no environment."""
    with cluster(folder) as started:
        job = f"setsid env -i tail -f {folder}/slurm.conf"
        started.run("sbatch", "--output=/dev/null", f"--wrap={job}")
        wait_until(lambda: any("tail" in command for command in commands_that_name(folder)), "the job to start")
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
