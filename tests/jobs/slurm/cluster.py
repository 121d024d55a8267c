"""A real SLURM cluster of two nodes on this machine, for tests, which is stopped without touching any other.

It has its own daemons, ports, key and folder. It keeps no accounts on purpose: `sacct` fails, as on many clusters.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.command_line import alive, children, kill_if_alive, wait_until
from tests.debian import Cannot, provide

NODES = {"n1": "/dev/null", "n2": "/dev/zero"}  # the harmless device file that stands for each node's GPU
PACKAGES = ("slurm-wlm", "munge")
COMMANDS = ("slurmctld", "slurmd", "sbatch", "munged")
START_SECONDS = 60
STOP_SECONDS = 10

SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={munge}/socket
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool-%n
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SlurmdTimeout=15
ReturnToService=2
JobRequeue=1
KillWait=10
MinJobAge=300
MaxArraySize=1001
GresTypes=gpu
{nodes}
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Cluster:
    """A started cluster: what its clients need, and ways to make its nodes fail."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What to add to os.environ for SLURM's commands to speak to this cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def run(self, *command: str) -> str:
        """What a command of SLURM prints on this cluster; raises with its stderr where it fails."""
        done = subprocess.run(command, env=os.environ | self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} exited {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def start_node(self, name: str) -> None:
        """Start a node that is not running; the controller takes it back by itself."""
        _start_daemon(self, self.folder / f"slurmd-{name}.pid", "slurmd", "-N", name)

    def kill_node(self, name: str) -> None:
        """Kill a node's daemon and all that its jobs run, at once, as the death of a real node does."""
        pid_file = self.folder / f"slurmd-{name}.pid"
        if daemon := _daemon(self, pid_file):
            kill_if_alive(daemon)
        while pids := _job_processes(self, name):  # again, for what was started while we looked
            for pid in pids:
                kill_if_alive(pid)
        pid_file.unlink(missing_ok=True)

    def hurry(self, job_id: str) -> None:
        """Let a requeued job start in a second, rather than two minutes after it was requeued."""
        # not now: a node that ended the job refuses to start it again within the same second, and the job fails
        self.run("scontrol", "update", f"JobId={job_id}", "StartTime=now+1")

    def wait_until_idle(self, seconds: float = START_SECONDS) -> None:
        """Wait until every node is up and runs nothing; raises with the ends of the logs after `seconds`."""
        deadline = time.monotonic() + seconds
        wanted = [f"{name} idle" for name in NODES]
        seen = ""
        while seen.splitlines() != wanted:
            if time.monotonic() > deadline:
                raise RuntimeError(f"nodes not idle within {seconds:g} s: {seen}\n{_ends_of_logs(self.folder)}")
            time.sleep(0.1)
            try:
                seen = self.run("sinfo", "--noheader", "--Node", "--format=%N %T")
            except RuntimeError as error:  # the controller is not up yet
                seen = str(error)


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster with idle nodes in an empty folder, stopped whatever happens; Cannot where SLURM cannot be had."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise Cannot("a test cluster needs Linux, and root")
    for command in COMMANDS:
        provide(command, *PACKAGES)
    started = Cluster(folder.resolve())
    if (started.folder / "munge").is_symlink():
        raise RuntimeError(f"the cluster in {folder} has not been stopped")
    try:
        _write_settings(started.folder)
        _start_munge(started)
        _start_daemon(started, started.folder / "slurmctld.pid", "slurmctld", "-c")
        for name in NODES:
            started.start_node(name)
        started.wait_until_idle()
        yield started
    finally:
        _stop(started)


def _stop(cluster: Cluster) -> None:
    """Stop what was started in the folder of a cluster, and nothing else."""
    for name in NODES:
        cluster.kill_node(name)
    munge = cluster.folder / "munge"
    for pid_file in (cluster.folder / "slurmctld.pid", munge / "pid"):  # munged last: the controller speaks through it
        if pid := _daemon(cluster, pid_file):
            _end(pid)
        pid_file.unlink(missing_ok=True)
    if munge.is_symlink():
        shutil.rmtree(munge.resolve(), ignore_errors=True)  # a reboot empties /run
        munge.unlink()


def _write_settings(folder: Path) -> None:
    host = socket.gethostname()
    controller_port, *node_ports = _free_ports(1 + len(NODES))
    nodes = [
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=8000 Gres=gpu:1"
        for name, port in zip(NODES, node_ports, strict=True)
    ]
    munge, lines = _make_munge_folder(folder), "\n".join(nodes)
    settings = SLURM_CONF.format(host=host, controller_port=controller_port, folder=folder, munge=munge, nodes=lines)
    (folder / "slurm.conf").write_text(settings)
    gres = [f"NodeName={name} Name=gpu File={device}\n" for name, device in NODES.items()]
    (folder / "gres.conf").write_text("".join(gres))


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def _make_munge_folder(folder: Path) -> Path:
    """A folder for munged, which runs as its own user and so cannot reach into pytest's folders, which are private."""
    made = Path(tempfile.mkdtemp(prefix="test-munge-", dir="/run"))
    (folder / "munge").symlink_to(made)
    made.chmod(0o755)
    key = made / "key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    for path in (made, key):
        shutil.chown(path, "munge", "munge")
    return made


def _start_munge(cluster: Cluster) -> None:
    folder = (cluster.folder / "munge").resolve()
    files = [f"--{name}-file={folder / name}" for name in ("key", "log", "pid", "seed")]
    _start_daemon(cluster, folder / "pid", "munged", f"--socket={folder / 'socket'}", *files, user="munge")


def _start_daemon(cluster: Cluster, pid_file: Path, *command: str, user: str = "root") -> None:
    """Run a command that puts itself into the background; SLURM_CONF in its environment marks it as ours."""
    with (cluster.folder / f"{command[0]}-start.log").open("a") as log:
        done = subprocess.run(
            command,
            env=os.environ | cluster.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd="/",
            user=user,
            group=user,
            extra_groups=[],
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} exited {done.returncode}\n{_ends_of_logs(cluster.folder)}")
    # written after the command returned; without it nobody could stop it
    wait_until(lambda: _daemon(cluster, pid_file), f"{pid_file} of {' '.join(command)}", START_SECONDS)


def _ends_of_logs(folder: Path) -> str:
    logs = [*sorted(folder.glob("*.log")), *folder.glob("munge/log")]
    return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in logs)


def _daemon(cluster: Cluster, pid_file: Path) -> int | None:
    """The process that a pid file names, if it is ours: an old file's number may be another's by now."""
    try:
        pid = int(pid_file.read_text())
    except (OSError, ValueError):
        return None
    return pid if _mark(cluster) in _environment(pid) else None


def _mark(cluster: Cluster) -> str:
    return f"SLURM_CONF={cluster.environment['SLURM_CONF']}"


def _environment(pid: int) -> list[str]:
    """The environment that a process was started with; nothing once it has ended."""
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return []


def _job_processes(cluster: Cluster, node: str) -> list[int]:
    """What the jobs of a node run, the step daemons first: one that outlives its job reports the job's end."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    found = [pid for pid in pids if _is_step_daemon(pid, cluster, node)]
    found += [pid for pid in pids if {_mark(cluster), f"SLURMD_NODENAME={node}"} <= set(_environment(pid))]
    for pid in found:  # which grows: a child may have cleared its environment
        found += [child for child in children(pid) if alive(child) and child not in found]
    return found


def _is_step_daemon(pid: int, cluster: Cluster, node: str) -> bool:
    """Whether a process is a slurmstepd of a node; it overwrites its environment, but writes the node's log."""
    process = Path(f"/proc/{pid}")
    log = cluster.folder / f"slurmd-{node}.log"
    try:
        return process.joinpath("comm").read_text() == "slurmstepd\n" and any(
            path.readlink() == log for path in process.joinpath("fd").iterdir()
        )
    except OSError:  # it has ended
        return False


def _end(pid: int) -> None:
    """End a daemon, by force where it does not go by itself, and wait until it has gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while alive(pid):
        if time.monotonic() > deadline:
            kill_if_alive(pid)
        time.sleep(0.05)
