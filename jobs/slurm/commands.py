"""How SLURM's programs are run: without the user's own filters, on a named cluster; and how their words are read."""

import os
import re
import subprocess

COMMAND_SECONDS = 60.0
SUBMIT_SECONDS = 600.0  # sbatch itself repeats for minutes what a busy controller does not take
# what reaches SLURM at all; any other SLURM_ variable tells of the job that this process belongs to
CONNECTION = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_SACK_KEY", "SLURM_SACK_SOCKET")
CLUSTER_VARIABLES = ("SLURM_CLUSTERS", "SBATCH_CLUSTERS")
FILTERS = ("SQUEUE_", "SACCT_", "SCONTROL_", "SCANCEL_", "SINFO_")  # each program's own, and what it prints
OF_A_JOB = ("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_")
# sbatch takes these over the script, and a launch could not find its jobs again, or would wait for them
MOVES_OURS = tuple(
    f"SBATCH_{name}"
    for name in ("ARRAY_INX", "ERROR", "JOB_NAME", "NO_REQUEUE", "OPEN_MODE", "OUTPUT", "REQUEUE", "SIGNAL", "WAIT")
)
DISTRIBUTED = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
ID = r"(?P<id>[0-9]{1,18})"
PARSABLE = re.compile(rf"{ID}(;(?P<cluster>\S+))?")
IN_WORDS = re.compile(rf"Submitted batch job {ID}( on cluster (?P<cluster>\S+))?")


def environment() -> dict[str, str]:
    """The variables of a login node: the user's SBATCH_ ones, but no filters and nothing of a job around us."""
    dropped = (*FILTERS, *OF_A_JOB)
    return {
        name: value
        for name, value in os.environ.items()
        if name in CONNECTION
        or not (name.startswith(dropped) or name in (*MOVES_OURS, *CLUSTER_VARIABLES, *DISTRIBUTED))
    }


def run_program(*command: str, text: str = "", seconds: float = COMMAND_SECONDS) -> "subprocess.CompletedProcess[str]":
    """Run a program of SLURM, with `text` on its standard input. OSError, or TimeoutExpired after `seconds`."""
    return subprocess.run(
        command,
        input=text,
        capture_output=True,
        encoding="utf-8",
        errors="replace",  # a job's name, or a greeting, in another encoding
        timeout=seconds,
        env=environment(),
        check=False,
    )


def words_of(done: "subprocess.CompletedProcess[str]") -> str:
    """What a program said, on one line: its own words where it marks them, else the end of all that was printed."""
    lines = f"{done.stderr}\n{done.stdout}".splitlines()
    marked = [line for line in lines if line.startswith(f"{done.args[0]}: ")]  # the rest greets, or is another's
    return " ".join(" ".join(marked or lines).split())[-400:] or f"exit {done.returncode}"


def on(cluster: str | None) -> tuple[str, ...]:
    """The option by which each program of SLURM is sent to a cluster; None: this machine's own."""
    return () if cluster is None else (f"--clusters={cluster}",)


def read_answer(text: str) -> tuple[str, str | None] | None:
    """The job's id and its cluster, if said, from what `sbatch --parsable` printed; None where there is no id.

    The last line counts. Programs in place of sbatch that answer in words are understood, whatever else they print.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = PARSABLE.fullmatch(lines[-1]) if lines else None
    found = found or next(filter(None, map(IN_WORDS.fullmatch, reversed(lines))), None)
    return (found["id"], found["cluster"]) if found else None
