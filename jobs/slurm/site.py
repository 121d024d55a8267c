"""Site settings of every SLURM job: partition, account, memory and the like, and the origin of each value.

Order: `--slurm key=value`, then BENCH_SLURM_<KEY>, then jobs/slurm.local.toml, then the profile, then nothing: what is
not set is not asked for. Values end in a shell script, so keys are on a list and values have a narrow alphabet.
"""

import difflib
import math
import os
import re
import shlex
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from bench.errors import ConfigError, first_problem
from jobs.slurm.paths import as_named

PROFILES = Path(__file__).parent.parent / "profiles"
LOCAL_FILE = Path(__file__).parent.parent / "slurm.local.toml"  # this checkout's own, ignored by git
ENVIRONMENT_PREFIX = "BENCH_SLURM_"
VALUE = re.compile(r"[A-Za-z0-9_.,:@%+=/-]{1,128}")
LEAST_TIMEOUT_MINUTES = 30  # below it submitit takes every preemption for a time-out
MARGIN = 1.5  # of a time limit over the time measured: nodes differ, and file systems have bad days
START_MINUTES = 5  # of a job: its modules, Python, torch, the compiler
UNMEASURED_TIMEOUT_MINUTES = 240  # where nothing has been measured; a run that needs more is requeued
PART_NAMES = ("cpu", "gpu")  # tables of a profile: what only jobs of that kind ask for
Device = Literal["cpu", "cuda"]


def _narrow(value: str) -> str:
    if not VALUE.fullmatch(value):
        raise ValueError(f"{value!r} may hold only letters, digits and _.,:@%+=/- (at most 128)")
    return value


def _one_line(value: str) -> str:
    if not value.isprintable() or not value.strip():
        raise ValueError(f"{value!r} must be one line of printable characters")
    return value


Value = Annotated[str, AfterValidator(_narrow)]
Line = Annotated[str, AfterValidator(_one_line)]


class Site(BaseModel):
    """The requests of one kind of job. A field that is None gives no line in the script."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)  # account = 123456

    # given to sbatch as they are
    partition: Value | None = None
    account: Value | None = None
    qos: Value | None = None
    constraint: Value | None = None
    reservation: Value | None = None
    exclude: Value | None = None
    licenses: Value | None = None
    wckey: Value | None = None
    gres: Value | None = None
    gpus_per_node: Annotated[int, Field(ge=1)] | Value | None = None
    cpus_per_task: Annotated[int, Field(ge=1)] | None = None
    mem: Value | None = None
    mem_per_cpu: Value | None = None
    nice: int | None = None
    # ours
    timeout_min: Annotated[int, Field(ge=LEAST_TIMEOUT_MINUTES)] | None = None  # whatever was measured
    array_parallelism: Annotated[int, Field(ge=1)] = 256  # tasks of an array at a time
    max_array_size: Annotated[int, Field(ge=1)] | None = None  # where `scontrol show config` cannot be asked
    signal_delay_s: Annotated[int, Field(ge=10)] = 120  # warning before the time limit
    device: Device | None = None
    use_srun: bool = False
    srun_args: tuple[Value, ...] = ()
    python: Line | None = None  # the nodes' interpreter; by default the one that launches
    setup: tuple[Line, ...] = ()  # lines of shell before the program, e.g. "module load cuda"; only from files

    @property
    def asks_for_gpu(self) -> bool:
        """Whether SLURM allocates a GPU to the jobs."""
        return self.gpus_per_node is not None or (self.gres or "").startswith("gpu")


SBATCH_FIELDS = tuple(Site.model_fields)[: list(Site.model_fields).index("timeout_min")]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A site's values for one kind of job, and where each came from."""

    site: Site
    origins: dict[str, str] = field(default_factory=dict)

    def describe(self) -> str:
        """`partition=debug (profile mysite), mem=8G (--slurm)`."""
        parts = [f"{key}={getattr(self.site, key)} ({origin})" for key, origin in sorted(self.origins.items())]
        return ", ".join(parts) or "nothing: the site's defaults"


def choose_site(profile: str | None, assignments: list[str], part: str) -> Chosen:
    """The values for jobs of a kind, `cpu` or `gpu`. ConfigError names the key, its origin and what is wrong."""
    layers: list[tuple[str, dict[str, Any]]] = []
    if profile is not None:
        layers.append((f"profile {profile}", _read_part(_profile_path(profile), part)))
    if LOCAL_FILE.is_file():
        layers.append((f"{LOCAL_FILE.parent.name}/{LOCAL_FILE.name}", _read_part(LOCAL_FILE, part)))
    for name, text in sorted(os.environ.items()):
        if name.startswith(ENVIRONMENT_PREFIX):
            layers.append((name, {name.removeprefix(ENVIRONMENT_PREFIX).lower(): text}))
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator:
            raise ConfigError(f"--slurm {assignment!r}: write it as key=value, e.g. partition=gpu")
        layers.append(("--slurm", {key.strip().replace("-", "_"): text.strip()}))
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        for key, value in layer.items():
            _check_key(key, origin)
            values[key], origins[key] = value, origin
    try:
        site = Site.model_validate(values)
    except ValidationError as error:
        location, reason = first_problem(error)
        key = location.partition(".")[0]
        raise ConfigError(f"{key} ({origins[key]}): {reason}") from error
    if site.gres is not None and site.gpus_per_node is not None:
        raise ConfigError(
            f"gres ({origins['gres']}) and gpus_per_node ({origins['gpus_per_node']}) both ask for GPUs; sites accept "
            "one of them or none"
        )
    return Chosen(site=site, origins=origins)


def timeout_minutes(seconds: float | None) -> int:
    """The time limit of a job whose runs take `seconds` (None: not known), in whole minutes."""
    if seconds is None:
        return UNMEASURED_TIMEOUT_MINUTES
    return max(math.ceil(MARGIN * seconds / 60) + START_MINUTES, LEAST_TIMEOUT_MINUTES)


def overruled(site: Site) -> list[str]:
    """A warning for each exported SBATCH_ variable, which overrides the script."""
    found = []
    for name, value in sorted(os.environ.items()):
        if name.startswith("SBATCH_"):
            key = {"timelimit": "time"}.get(key := name.removeprefix("SBATCH_").lower(), key)
            ours = getattr(site, key, None) if key in SBATCH_FIELDS else None
            over = f"{key}={ours}" if ours is not None else f"the script's {key}"
            found.append(
                f"{name}={value!r} is exported, and sbatch takes it over {over}; unset it if that is not meant"
            )
    return found


def job_python(site: Site) -> str:
    """The shell words that start Python on a node."""
    return site.python or shlex.quote(str(as_named(Path(sys.executable))))


def profile_names() -> list[str]:
    """The profiles in the profiles folder."""
    return sorted(path.stem for path in PROFILES.glob("*.toml"))


def _profile_path(profile: str) -> Path:
    """A profile by name, or by the path of its file."""
    path = Path(profile) if profile.endswith(".toml") else PROFILES / f"{profile}.toml"
    if not path.is_file() or (not profile.endswith(".toml") and path.parent != PROFILES):
        names = ", ".join(profile_names())
        raise ConfigError(f"--profile {profile}: there is no {path.name}; there are {names}; copy one, or name a file")
    return path


def _read_part(path: Path, part: str) -> dict[str, Any]:
    """A file's values for every job, and over them those of its table `part`."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    parts = {name: content.pop(name, {}) for name in PART_NAMES}
    if not all(isinstance(table, dict) for table in parts.values()):
        raise ConfigError(f"{path}: cpu and gpu must be tables, [cpu] and [gpu]")
    if "device" in content:
        raise ConfigError(f"{path}: device belongs into [cpu] or [gpu]")
    return {**content, **parts[part]}


def _check_key(key: str, origin: str) -> None:
    files_only = {"setup", "python", "srun_args"}  # they hold shell words
    if key in files_only and origin.startswith(("-", "B")):
        raise ConfigError(f"{key} ({origin}): it holds shell words, so it is read only from a profile's file")
    if key in ("time", "timeout"):
        raise ConfigError(f"{key} ({origin}): the time limit is timeout_min, in whole minutes")
    if key not in Site.model_fields:
        close = difflib.get_close_matches(key, list(Site.model_fields), n=1)
        hint = f", did you mean {close[0]}?" if close else ""
        raise ConfigError(f"{key!r} ({origin}): unknown key{hint}; known: {', '.join(Site.model_fields)}")
