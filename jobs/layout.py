"""Names of the files in run folders and in a store's work folder."""

from bench import process

# in a run's folder, with its checkpoints, leases and progress
RUN_FILE = "run.json"  # what a worker needs to know, written by the launcher
LOG_FILE = "log.txt"
CAUSE_FILE = "cause"  # the class of the error that ended the last attempt, for `jobs why`
CANCEL_FILE = process.CANCEL_FILE  # the run was cancelled, until it is launched again
LAUNCHER_GONE = "LauncherGone"  # in place of an error: the worker stopped since its launcher was killed

# in the work folder
JOBS_FOLDER = "jobs"  # a folder a submission to SLURM: its plan, scripts and logs
MEASURED_FOLDER = "measured"  # seconds that runs take, from `launch --measure`
CACHE_FOLDER = "compile-cache"  # of earlier versions; now one cache serves every store: jobs/cache.py

# in a submission's folder
PLAN_FILE = "plan.json"
JOB_FILE = "job.json"  # which job it became
ENDED_FILE = "ended.json"  # how its tasks ended, as last seen
