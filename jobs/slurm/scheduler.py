"""The state of our arrays in SLURM. Records and leases come first, and job accounting is not needed."""

import json
import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass

from pydantic import TypeAdapter

from bench.errors import UserError
from bench.files import replace
from bench.store import Store
from jobs.layout import ENDED_FILE
from jobs.slurm.commands import on, run_program, words_of
from jobs.slurm.submission import NAME_PREFIX, Submission, read_job, submissions

PENDING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
RUNNING = {"RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}
QUEUE_FIELDS = "%j|%F|%K|%T|%N|%r"  # name, array's job, index, state, node, reason
NUMBER = r"[0-9]{1,18}"
ACCOUNT_LINE = re.compile(rf"{NUMBER}(_({NUMBER}|\[[0-9,-]+(%[0-9]+)?\]))?\|[A-Z]")  # 12|, 12_3| or 12_[4-7%2]|
DEFAULT_MAX_ARRAY_SIZE = 1000  # where SLURM cannot be asked; its own default is 1001, counted from 0


class SchedulerError(UserError):
    """SLURM cannot be asked, or refuses."""


@dataclass(frozen=True, kw_only=True)
class TaskState:
    """One task of an array, as SLURM sees it."""

    job_id: str  # 123_4, or 123 where it was submitted by itself
    state: str
    node: str
    reason: str
    cluster: str | None = None  # None: the one that this machine belongs to

    @property
    def active(self) -> bool:
        """Whether it is queued or running."""
        return self.state in PENDING or self.state in RUNNING

    @property
    def queued(self) -> bool:
        """Whether it waits."""
        return self.state in PENDING


NOTED = TypeAdapter(dict[int, TaskState])  # how the tasks of a submission ended, by index


def ask(*command: str) -> str:
    """The answer of a SLURM command. SchedulerError with SLURM's own words where there is none."""
    try:
        done = run_program(*command)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SchedulerError(f"{command[0]}: {error}; is this a login node of a SLURM cluster?") from error
    if done.returncode:
        raise SchedulerError(f"{' '.join(command[:2])}: {words_of(done)}")
    return done.stdout


def queue(clusters: Iterable[str | None] = (None,)) -> dict[tuple[str, int], TaskState]:
    """Our tasks in the controllers of some clusters, ended ones for some minutes, by submission's name and index."""
    shown = ("--noheader", "--array", "--states=all", f"--user={os.getuid()}", f"--format={QUEUE_FIELDS}")
    return read_queues({cluster: ask("squeue", *on(cluster), *shown) for cluster in clusters})


def read_queues(texts: Mapping[str | None, str]) -> dict[tuple[str, int], TaskState]:
    """The lines of `squeue` by cluster. Of several jobs of one name, an active one counts, else the latest."""
    found: list[tuple[tuple[str, int], tuple[bool, int], TaskState]] = []
    for cluster, line in ((cluster, line) for cluster, text in texts.items() for line in text.splitlines()):
        words = line.strip().split("|")
        if len(words) != len(QUEUE_FIELDS.split("|")) or not words[0].startswith(NAME_PREFIX):
            continue
        name, job, index, state, node, reason = words
        in_array = re.fullmatch(NUMBER, index) is not None
        job_id = f"{job}_{index}" if in_array else job
        seen = TaskState(job_id=job_id, state=state, node=node, reason=reason, cluster=cluster)
        rank = seen.active, int(job) if re.fullmatch(NUMBER, job) else 0
        found.append(((name, int(index) if in_array else 0), rank, seen))
    return {key: seen for key, _, seen in sorted(found, key=lambda one: one[1])}


def accounts(job_ids: Iterable[str], cluster: str | None = None) -> dict[str, str]:
    """Job ids -> their last states from `sacct`, as submitit reads it; empty where the cluster keeps no accounts."""
    from submitit.slurm.slurm import SlurmInfoWatcher

    wanted = [word for one in sorted({one.split("_")[0] for one in job_ids}) for word in ("-j", one)]
    with suppress(SchedulerError):
        shown = ("-o", "JobID,State,NodeList", "--noheader", "--parsable2")
        answer = ask("sacct", *on(cluster), *shown, *wanted) if wanted else ""
        lines = [line for line in answer.splitlines() if ACCOUNT_LINE.match(line)]  # not what a site greets with
        states = SlurmInfoWatcher().read_info("\n".join(["JobID|State|NodeList", *lines]))
        return {job_id: facts["State"].split()[0] for job_id, facts in states.items() if facts.get("State")}
    return {}


def tasks_by_run(store: Store) -> dict[str, TaskState]:
    """Run id -> the task it was last given to: an active one, else the last submitted of those that SLURM remembers.

    States of ended tasks are stored next to their plans, since a cluster without accounting forgets them in minutes.
    SchedulerError where there are submissions and SLURM cannot be asked.
    """
    earlier = [one for one in submissions(store) if not one.measures]
    if not earlier:
        return {}
    known = queue(clusters_of(earlier))
    found: dict[str, TaskState] = {}
    for submission in earlier:
        for index, state in _states(submission, known, store).items():
            for run_id in submission.tasks[index]:
                if run_id not in found or not found[run_id].active:
                    found[run_id] = state
    return found


def clusters_of(some: Iterable[Submission]) -> list[str | None]:
    """The clusters that some submissions may have gone to, each once."""
    return list(dict.fromkeys(cluster for one in some for cluster in (one.clusters or (None,))))


def found_in_queue(submission: Submission) -> tuple[str, str | None] | None:
    """The job and the cluster of a submission whose name is in the queue."""
    seen = next((one for (name, _), one in queue(clusters_of([submission])).items() if name == submission.name), None)
    return (seen.job_id.split("_")[0], seen.cluster) if seen else None


def _states(submission: Submission, known: dict[tuple[str, int], TaskState], store: Store) -> dict[int, TaskState]:
    """The states of a submission's tasks: from the queue, else as noted before, else from the accounts."""
    folder = submission.folder(store)
    noted: dict[int, TaskState] = {}
    with suppress(OSError, ValueError):
        noted = NOTED.validate_json((folder / ENDED_FILE).read_bytes())  # ignores the fields of earlier versions
    job, cluster = read_job(folder) or (None, None)
    if cluster is None and submission.clusters:  # and where it may be on several, a number alone says nothing
        job, cluster = (job if len(submission.clusters) == 1 else None), submission.clusters[0]
    states, unknown = dict(noted), []
    for index in range(len(submission.tasks)):
        if (submission.name, index) in known:
            states[index] = known[submission.name, index]
        elif index not in noted and job is not None:
            unknown.append((index, f"{job}_{index}" if len(submission.tasks) > 1 else job))
    accounted = accounts((job_id for _, job_id in unknown), cluster)
    for index, job_id in unknown:
        if job_id in accounted:
            word = TaskState(job_id=job_id, state=accounted[job_id], node="", reason="", cluster=cluster)
            if not word.active:  # else the accounts are behind: the controller knows every job that is alive
                states[index] = word
    ended = {index: state for index, state in states.items() if not state.active}
    if ended != noted:
        with suppress(OSError):  # a courtesy to whoever asks later
            content = {index: asdict(state) for index, state in sorted(ended.items())}
            replace(folder / ENDED_FILE, json.dumps(content).encode())
    return states


def settings(cluster: str | None = None) -> dict[str, str]:
    """`scontrol show config` as key and value."""
    lines = ask("scontrol", *on(cluster), "show", "config").splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def max_array_size(clusters: Iterable[str] | None = None) -> int:
    """How many tasks an array may have on each cluster; its largest index is one less than SLURM's MaxArraySize."""
    with suppress(SchedulerError, KeyError, ValueError):
        return max(min(int(settings(cluster)["MaxArraySize"]) for cluster in (clusters or (None,))), 1)
    return DEFAULT_MAX_ARRAY_SIZE
