"""The work of a run: what two runs must share to take equally long, the FLOPs of a step, the tokens of evaluations."""

import math
from functools import lru_cache
from typing import Any

import torch

from bench.budget import train_flops
from bench.config import RunConfig
from bench.corpora import CORPORA
from bench.evaluate import KNOCKOUT_EVERY, SAMPLED_WINDOWS
from models import KOperatorsConfig, build, readings_of

Shape = tuple[str, Any, int, int]  # architecture, model config, context, batch size
DEFAULT_FORM = KOperatorsConfig.backend  # of the recurrence


def shape_of(config: RunConfig) -> Shape:
    """The settings that determine the work of a training step: not seeds, rates, schedules or the number of steps."""
    assert config.training is not None
    return config.architecture, config.model, config.context, config.training.batch_size


def form_of(config: RunConfig) -> str:
    """The form of the recurrence (forms of equal FLOPs take unequal times); the default for models without one."""
    return str(getattr(config.model, "backend", DEFAULT_FORM))


@lru_cache(maxsize=4096)
def step_flops(config: RunConfig) -> float:
    """FLOPs of the matrix products of one training step, from the model's closed form."""
    assert config.training is not None
    # not on the meta device, whose imports in torch take longer than building the model
    with torch.random.fork_rng(devices=[]):
        model = build(config.model)
    return train_flops(model.forward_macs_per_token(config.context), config.training.batch_size * config.context)


def n_evaluated_tokens(config: RunConfig) -> int:
    """Tokens that a run reads in its sweeps, without parts of its model, and, for its best and its last weights, in the
    other protocols.
    """
    training, corpus = config.training, CORPORA[config.corpus]
    assert training is not None
    n_sweeps = math.ceil(training.n_steps / training.eval_every) + 1
    n_permuted, n_strided = 2, 2 * 2  # each in sweeps: windows that overlap by half are twice as many
    n_paths, n_parts = n_knockouts(config.model)
    in_quarters = n_sweeps * n_paths + n_parts
    n_sampled = 2 * config.n_sampled_batches * SAMPLED_WINDOWS * config.context
    n_test = round(corpus.test_share * corpus.n_characters)
    n_swept = (n_sweeps + n_permuted + n_strided + in_quarters / KNOCKOUT_EVERY) * corpus.n_evaluated
    return round(n_swept) + n_sampled + n_test


@lru_cache(maxsize=4096)
def n_knockouts(model_config: Any) -> tuple[int, int]:
    """How many times a model is scored with and without a part: at each evaluation, and at the best step."""
    with torch.random.fork_rng(devices=[]):
        model = build(model_config)
    read = readings_of(model)
    n_paths, n_parts = len(read.paths(model)), len(read.parts(model))
    return n_paths + bool(n_paths), n_parts + bool(n_parts)  # and once complete
