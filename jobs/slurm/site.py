"""Site settings of every SLURM job: partition, account, memory and the like, and the origin of each value.

Order: `--slurm key=value`, then BENCH_SLURM_<KEY>, then jobs/slurm.local.toml, then the profile, then nothing: what is
not set is not asked for. Values end in a shell script, so keys are on a list, each is checked by what it may hold, and
all are quoted.
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
from jobs.slurm.commands import CLUSTER_VARIABLES, MOVES_OURS
from jobs.slurm.paths import as_named

PROFILES = Path(__file__).parent.parent / "profiles"
LOCAL_FILE = Path(__file__).parent.parent / "slurm.local.toml"  # this checkout's own, ignored by git
ENVIRONMENT_PREFIX = "BENCH_SLURM_"
WORD = "A-Za-z0-9_.,:@%+=/"
ALPHABETS = {  # what a value may hold: a pattern, and the same in words
    "name": (re.compile(rf"[{WORD}-]{{1,128}}"), "may hold only letters, digits and _.,:@%+=/- (at most 128)"),
    "choice": (re.compile(rf"[{WORD}|-]{{1,128}}"), "may hold only letters, digits and _.,:@%+=/-| (at most 128)"),
    "features": (re.compile(rf"[{WORD}|&*()\[\]-]{{1,512}}"), "may hold only letters, digits and _.,:@%+=/-|&*()[]"),
    "hosts": (re.compile(rf"[{WORD}\[\]-]{{1,2048}}"), "may hold only letters, digits and _.,:@%+=/-[]"),
    "size": (re.compile(r"[0-9]{1,12}([KMGTkmgt][Bb]?)?"), "must be a number and K, M, G or T, e.g. 16G"),
    "text": (re.compile(r"[^\\]{1,512}"), "may hold no backslash, which sbatch would drop (at most 512)"),
}
LEAST_TIMEOUT_MINUTES = 30  # below it submitit takes every preemption for a time-out
MARGIN = 1.5  # of a time limit over the time measured: nodes differ, and file systems have bad days
START_MINUTES = 5  # of a job: its modules, Python, torch, the compiler
UNMEASURED_TIMEOUT_MINUTES = 240  # where nothing has been measured; a run that needs more is requeued
PART_NAMES = ("cpu", "gpu")  # tables of a profile: what only jobs of that kind ask for
Device = Literal["cpu", "cuda"]


def _one_line(value: str) -> str:
    if not value.isprintable() or not value.strip():
        raise ValueError(f"{value!r} must be one line of printable characters")
    return value


def _holds(kind: str) -> AfterValidator:
    """A check against one of ALPHABETS."""

    def check(value: str) -> str:
        pattern, words = ALPHABETS[kind]
        if not pattern.fullmatch(value):
            raise ValueError(f"{value[:200]!r} {words}")
        return value

    return AfterValidator(check)


def _option(value: str) -> str:
    """An option of sbatch that is neither one of our keys nor what a launch sets itself, in full or abbreviated."""
    if (match := OPTION.fullmatch(value)) is None:
        raise ValueError(f"{value!r}: write it as --option or --option=value")
    for key in SBATCH_FIELDS:
        if key.replace("_", "-").startswith(match["name"]):
            raise ValueError(f"{value!r}: that is the key {key}")
    for ours in SET_BY_US:
        if ours.startswith(match["name"]) or match["name"].startswith("ntasks"):
            raise ValueError(f"{value!r}: a launch sets --{ours} itself, or could not work with it")
    return value


def _each_once(options: tuple[str, ...]) -> tuple[str, ...]:
    names = [one.partition("=")[0] for one in options]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{twice[0]} stands there twice")
    return options


Name = Annotated[str, _holds("name")]
Size = Annotated[str, _holds("size")]
Hosts = Annotated[str, _holds("hosts")]
Line = Annotated[str, AfterValidator(_one_line)]
Text = Annotated[Line, _holds("text")]
Count = Annotated[int, Field(ge=1)]


class Site(BaseModel):
    """The requests of one kind of job. A field that is None gives no line in the script."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)  # account = 123456

    # given to sbatch as they are
    partition: Name | None = None
    account: Name | None = None
    qos: Name | None = None
    constraint: Annotated[str, _holds("features")] | None = None
    reservation: Name | None = None
    clusters: Name | None = None  # also given to squeue, sacct, scontrol and scancel
    nodelist: Hosts | None = None
    exclude: Hosts | None = None
    exclusive: Literal["user", "mcs", "topo"] | bool | None = None
    licenses: Annotated[str, _holds("choice")] | None = None
    wckey: Name | None = None
    comment: Text | None = None
    gres: Name | None = None
    gpus: Count | Name | None = None
    gpus_per_node: Count | Name | None = None
    cpus_per_task: Count | None = None
    hint: Literal["compute_bound", "memory_bound", "multithread", "nomultithread"] | None = None
    mem: Size | None = None
    mem_per_cpu: Size | None = None
    mem_per_gpu: Size | None = None
    nice: int | None = None
    # ours
    timeout_min: Annotated[int, Field(ge=LEAST_TIMEOUT_MINUTES)] | None = None  # whatever was measured
    array_parallelism: Annotated[int, Field(ge=1)] = 256  # tasks of an array at a time
    max_array_size: Annotated[int, Field(ge=1)] | None = None  # where `scontrol show config` cannot be asked
    signal_delay_s: Annotated[int, Field(ge=10)] = 120  # warning before the time limit
    device: Device | None = None
    use_srun: bool = False
    sbatch_args: Annotated[tuple[Annotated[Text, AfterValidator(_option)], ...], AfterValidator(_each_once)] = ()
    srun_args: tuple[Line, ...] = ()
    python: Line | None = None  # the nodes' interpreter; by default the one that launches
    setup: tuple[Line, ...] = ()  # lines of shell before the program, e.g. "module load cuda"; only from files

    @property
    def asks_for_gpu(self) -> bool:
        """Whether SLURM allocates a GPU to the jobs."""
        return self.gpus is not None or self.gpus_per_node is not None or (self.gres or "").startswith("gpu")

    @property
    def cluster_names(self) -> tuple[str, ...]:
        """The clusters that jobs may go to; none: the one of this machine."""
        return tuple(filter(None, (self.clusters or "").split(",")))

    @property
    def sbatch_options(self) -> dict[str, Any]:
        """What a script asks for, as option -> value; True for an option without one."""
        asked = {name: getattr(self, name) for name in SBATCH_FIELDS}
        pairs = [one.removeprefix("--").partition("=") for one in self.sbatch_args]
        more = {name: value or True for name, _, value in pairs}
        return {name: value for name, value in (asked | more).items() if value is not None and value is not False}


SBATCH_FIELDS = tuple(Site.model_fields)[: list(Site.model_fields).index("timeout_min")]
OPTION = re.compile(r"--(?P<name>[a-z][a-z0-9-]+)(=.+)?")
SET_BY_US = (  # and what would make sbatch do something else than to submit this script
    *("array", "error", "job-name", "nodes", "no-requeue", "ntasks", "open-mode", "output", "requeue", "signal"),
    *("time", "time-min", "parsable", "quiet", "test-only", "wait", "wrap", "uid", "gid", "help", "usage", "version"),
)
ONE_OF = {"GPUs": ("gres", "gpus_per_node", "gpus"), "memory": ("mem", "mem_per_cpu", "mem_per_gpu")}


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
    exported = {name: os.environ[name] for name in CLUSTER_VARIABLES if os.environ.get(name)}
    layers: list[tuple[str, dict[str, Any]]] = [(name, {"clusters": text}) for name, text in exported.items()]
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
    for what, keys in ONE_OF.items():
        given = [f"{key} ({origins[key]})" for key in keys if getattr(site, key) is not None]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} each ask for {what}; sites accept one of them or none")
    if origins.get("clusters") in exported and len({*exported.values()}) > 1:
        both = " and ".join(f"{name}={text}" for name, text in exported.items())
        raise ConfigError(f"{both} are exported and differ; name one with --slurm clusters=NAME")
    if "all" in site.cluster_names:  # the same number may be another job on each
        raise ConfigError(f"clusters ({origins['clusters']}): name each, as in c1,c2, so that jobs are found again")
    return Chosen(site=site, origins=origins)


def timeout_minutes(seconds: float | None) -> int:
    """The time limit of a job whose runs take `seconds` (None: not known), in whole minutes."""
    if seconds is None:
        return UNMEASURED_TIMEOUT_MINUTES
    return max(math.ceil(MARGIN * seconds / 60) + START_MINUTES, LEAST_TIMEOUT_MINUTES)


def overruled(site: Site) -> list[str]:
    """A warning for each exported variable that overrides the script, or that would if it were passed on."""
    found = []
    for name, value in sorted(os.environ.items()):
        key = {"timelimit": "time"}.get(key := name.removeprefix("SBATCH_").lower(), key)
        ours = getattr(site, key, None) if key in SBATCH_FIELDS else None
        if name in CLUSTER_VARIABLES:
            found.append(f"{name}={value!r} is exported; all commands go to clusters={site.clusters}")
        elif name in MOVES_OURS:
            found.append(f"{name}={value!r} is exported and not passed on; unset it before sbatch by hand")
        elif name.startswith("SBATCH_"):
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
    files_only = {"setup", "python", "srun_args", "sbatch_args"}  # they hold shell words, or a list
    if key in files_only and origin.startswith(("-", "B")):
        raise ConfigError(
            f"{key} ({origin}): it holds shell words or options, so it is read only from a profile's file"
        )
    if key in ("time", "timeout"):
        raise ConfigError(f"{key} ({origin}): the time limit is timeout_min, in whole minutes")
    if key not in Site.model_fields:
        close = difflib.get_close_matches(key, list(Site.model_fields), n=1)
        hint = f", did you mean {close[0]}?" if close else ""
        raise ConfigError(f"{key!r} ({origin}): unknown key{hint}; known: {', '.join(Site.model_fields)}")
