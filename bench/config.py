"""The config of a run, its run id, and reading both from JSON and `--set` overrides."""

import dataclasses
import difflib
import hashlib
import json
import math
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

from pydantic import StrictInt, TypeAdapter, ValidationError

from bench.corpora import CORPORA
from bench.dotted import dotted
from bench.errors import ConfigError, first_problem
from bench.record import PLAIN_NAME, run_name
from models import ARCHITECTURES, FITTED
from models.base import require

PROTOCOL_VERSION = 1  # raised when a changed default or rule would change a number under an unchanged config

Mode = Literal["exact", "fast"]
MODES: tuple[Mode, ...] = get_args(Mode)
MOST = 2**31 - 1  # of any whole number in a config
MOST_LAYERS = 10_000
MOST_STEPS = 99_999_999  # for the newest checkpoint is the last by name
MOST_WINDOWS = 2**20  # of a step: what bench/batches.py reserves in its counter


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The optimizer, its schedule and the batches."""

    n_steps: int
    learning_rate: float  # peak
    final_learning_rate: float
    warmup_steps: int
    schedule: Literal["k_operators", "nanogpt", "nanogpt_2023"]
    betas: tuple[float, float]
    weight_decay: float
    eps: float = 1e-8
    grouping: Literal["simple", "grouped", "plain_embeddings"] = "simple"
    clip_norm: float = 1.0
    batch_size: int = 64  # windows per step
    eval_every: int = 250  # steps; also at step 0 and the last

    def __post_init__(self) -> None:
        for name in ("n_steps", "batch_size", "eval_every"):
            require(getattr(self, name) >= 1, f"{name}={getattr(self, name)} must be at least 1")
        for name in ("learning_rate", "eps", "clip_norm"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"{name}={value} must be positive and finite")
        require(
            self.n_steps <= MOST_STEPS,
            f"n_steps={self.n_steps} must be at most {MOST_STEPS:,}: checkpoints are named by steps of 8 digits",
        )
        require(
            self.batch_size <= MOST_WINDOWS,
            f"batch_size={self.batch_size} must be at most {MOST_WINDOWS:,}: more would repeat the next step's",
        )
        require(0 <= self.warmup_steps <= self.n_steps, f"warmup_steps={self.warmup_steps} must be 0 to n_steps")
        require(
            0 <= self.final_learning_rate <= self.learning_rate,
            f"final_learning_rate={self.final_learning_rate} must be 0 to learning_rate={self.learning_rate}",
        )
        require(all(0 <= beta < 1 for beta in self.betas), f"betas={self.betas} must each be in [0, 1)")
        require(0 <= self.weight_decay < math.inf, f"weight_decay={self.weight_decay} must be finite, not negative")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All settings of a run that may change its numbers, except mode and seed."""

    architecture: str  # a key of models.ARCHITECTURES or models.FITTED
    model: Any  # that architecture's config
    context: StrictInt  # tokens in a training or evaluation window
    training: TrainingConfig | None  # None for a fitted model
    corpus: str = "tinyshakespeare"
    n_sampled_batches: StrictInt = 200  # of the `sampled` protocol

    def __post_init__(self) -> None:
        expected = _config_type(self.architecture)
        require(isinstance(self.model, expected), f"architecture {self.architecture!r} needs a {expected.__name__}")
        require(self.context >= 1, f"context={self.context} must be at least 1")
        longest = getattr(self.model, "context", self.context)
        require(
            self.context <= longest,
            f"context={self.context} is longer than the model's context={longest}; lower it or set model.context",
        )
        require(self.corpus in CORPORA, f"corpus={self.corpus!r} is not one of {sorted(CORPORA)}")
        require(
            self.model.vocab_size == CORPORA[self.corpus].vocab_size,
            f"vocab_size={self.model.vocab_size}, but {self.corpus} has {CORPORA[self.corpus].vocab_size} characters",
        )
        fitted = self.architecture in FITTED
        what = "is fitted: it takes no training config" if fitted else "is trained: it needs a training config"
        require(fitted == (self.training is None), f"{self.architecture!r} {what}")
        require(self.n_sampled_batches >= 1, f"n_sampled_batches={self.n_sampled_batches} must be at least 1")
        for key, value in dotted(dataclasses.asdict(self)).items():
            if isinstance(value, int):
                require(
                    value <= MOST, f"{key}={value} must be at most {MOST:,}: products of two counts must fit 64 bits"
                )
        depth = getattr(getattr(self.model, "free_sizes", None), "depth", None)
        if depth is not None:
            n_layers = getattr(self.model, depth)
            require(
                n_layers <= MOST_LAYERS,
                f"model.{depth}={n_layers} must be at most {MOST_LAYERS:,}: each layer is Python objects of its own",
            )


@dataclass(frozen=True, kw_only=True)
class Run:
    """One config to be trained once. The label and the replicate change no number."""

    label: str
    config: RunConfig
    seed: StrictInt | None  # None for a fitted model
    mode: Mode  # "exact" for a fitted model, which has no other arithmetic
    replicate: StrictInt = 0

    def __post_init__(self) -> None:
        require(self.mode in MODES, f"mode={self.mode!r} is not one of {MODES}")
        require(
            PLAIN_NAME.fullmatch(self.label) is not None,
            f"label={self.label!r} must be at most 80 letters, digits, '-', '_' and '.', not at the start",
        )
        require(self.seed is None or 0 <= self.seed < 2**31, f"seed={self.seed} must be 0 to 2^31 - 1")
        fitted = self.config.architecture in FITTED
        require(fitted == (self.seed is None), f"seed={self.seed}: trained models need a seed, fitted ones have none")
        require(
            not fitted or self.mode == "exact",
            f"mode={self.mode!r}: {self.config.architecture!r} is counted and has no other mode; leave --mode out",
        )

    @property
    def run_id(self) -> str:
        """12 hex digits of the sha256 over all that may change a number; fields at their default do not count."""
        identity = {
            "config": without_defaults(read_config(to_json(self.config))),  # 1 and 1.0 are one value
            "corpus_sha256": CORPORA[self.config.corpus].sha256,
            "protocol_version": PROTOCOL_VERSION,
            "mode": self.mode,
            "seed": self.seed,
            "replicate": self.replicate,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def name(self) -> str:
        """A label for people; never parsed."""
        return run_name(self.label, self.seed) + (f"-r{self.replicate}" if self.replicate else "")


def without_defaults(config: Any) -> dict[str, Any]:
    """The fields of a config dataclass that differ from their default, as JSON values."""
    return {
        field.name: without_defaults(value) if dataclasses.is_dataclass(value) else value
        for field in dataclasses.fields(config)
        if (value := getattr(config, field.name)) != field.default
    }


def to_json(config: RunConfig | Run) -> dict[str, Any]:
    """Every field, defaults included, as JSON values: what a record stores."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return plain


def read_config(data: dict[str, Any]) -> RunConfig:
    """A RunConfig from JSON values; a missing field means its default. ConfigError names an unknown or wrong key."""
    _refuse_unknown(RunConfig, data, "")
    config_type = _config_type(data.get("architecture", ""))
    fields = dict(data)
    fields["model"] = _read(config_type, data.get("model", {}), "model")
    if data.get("training") is not None:
        fields["training"] = _read(TrainingConfig, data["training"], "training")
    return _read(RunConfig, fields, "")


def read_run(data: dict[str, Any]) -> Run:
    """A Run from the JSON values of `to_json`."""
    _refuse_unknown(Run, data, "")
    return _read(Run, {**data, "config": read_config(data["config"])}, "")


def override(config: RunConfig, assignments: list[str]) -> RunConfig:
    """`config` with `key.path=value` assignments applied; a value is a TOML literal, anything else a string."""
    data = to_json(config)
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator:
            raise ConfigError(f"--set {assignment}: write it as key.path=value, e.g. training.learning_rate=3e-3")
        *parents, key = path.strip().split(".")
        target = data
        for depth, parent in enumerate(parents):
            if not isinstance(target.get(parent), dict):
                raise ConfigError(f"--set {assignment}: {'.'.join(parents[: depth + 1])} is not a group of keys")
            target = target[parent]
        target[key] = _literal(text.strip())
    return read_config(data)


def _literal(text: str) -> Any:
    if text == "null":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _config_type(architecture: object) -> type:
    known = {**ARCHITECTURES, **FITTED}
    if not isinstance(architecture, str) or architecture not in known:
        hint = _suggestion(str(architecture), known)
        raise ConfigError(f"architecture {architecture!r} is not one of {sorted(known)}{hint}")
    return known[architecture][0]


def _read(target: type, data: Any, path: str) -> Any:
    """`data` as the dataclass `target`. Types are strict: true is no number, 1.0 no count, and "1" neither."""
    if not isinstance(data, dict):
        raise ConfigError(f"{path or 'config'} must be a group of keys, not {data!r}")
    _refuse_unknown(target, data, path)
    try:
        if target in (RunConfig, Run):  # whose groups of keys are objects by now, which strict types would refuse
            return _adapter(target).validate_python(data)
        return _adapter(target).validate_json(json.dumps(data, default=str), strict=True)  # a list for a tuple
    except ValidationError as error:
        key, message = first_problem(error)
        full_key = ".".join(filter(None, (path, key)))
        raise ConfigError(f"{full_key}: {message}" if full_key else message) from error


@lru_cache
def _adapter(target: type) -> TypeAdapter[Any]:
    """The type checker of a dataclass; making it takes ten times as long as a check."""
    return TypeAdapter(target)


def _refuse_unknown(target: type, data: dict[str, Any], path: str) -> None:
    known = [field.name for field in dataclasses.fields(target)]
    for key in data:
        if key not in known:
            full_key = f"{path}.{key}" if path else key
            raise ConfigError(f"unknown key {full_key}{_suggestion(key, known)}; known: {', '.join(known)}")


def _suggestion(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""
