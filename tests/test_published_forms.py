"""Claim C6: the published forms of the recurrence against each other, and against ours.

`make bench-forms` times both in turn, round by round, so that whatever else the machine does slows both.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from bench.budget import count_parameters
from bench.corpus import Corpus, load_corpus
from bench.environment import synchronize
from bench.experiments.recipes import K_OPERATORS_PAPER
from bench.store import PRECISIONS, PUBLISHED_FORMS
from models import build
from tests.conftest import TINY_MODELS
from tests.meters import FREE_SHARE, PeakMemory, free_bytes
from tests.models.test_decay import LENGTHS, case, value_and_gradients
from tests.published_forms import forward_pass, published_forms, training_step

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
N_THREADS = 2
N_ROUNDS = 6  # the range of six rounds holds the median of all with 97 % confidence
N_STEPS = 10 if DEVICE.type == "cuda" else 1  # a round
ACTIONS = {"training step": training_step, "forward": forward_pass}
GAMMAS = (0.85, 0.95, 0.9925, 0.99925)
FLOAT = 4  # bytes


@pytest.fixture(autouse=True)
def _published() -> Iterator[None]:
    with published_forms():
        yield
    torch.set_num_threads(1)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("form", PUBLISHED_FORMS)
def test_a_published_form_has_the_values_and_gradients_of_the_recurrence(form, length):
    inputs = case(length, GAMMAS, torch.float64)
    expected, found = (value_and_gradients(name, inputs) for name in ("recurrent", form))
    for right, theirs in zip(expected, found, strict=True):
        torch.testing.assert_close(theirs, right, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("form", PUBLISHED_FORMS)
def test_a_model_with_a_published_form_has_the_logits_and_gradients_of_ours(form):
    tokens = torch.randint(65, (2, 16), generator=torch.Generator().manual_seed(1))
    found = {}
    for backend in ("chunked", form):
        torch.manual_seed(0)
        model = build(dataclasses.replace(TINY_MODELS["k_operators"], backend=backend)).eval().double()
        logits = model(tokens)
        found[backend] = [logits, *torch.autograd.grad(logits.square().sum(), list(model.parameters()))]
    for ours, theirs in zip(*found.values(), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-9, atol=1e-11)


def predicted_bytes(batch_size: int, context: int) -> int:
    """Of the larger form in training: of each layer four tensors (B, T, r, d) are kept for the backward pass."""
    config = K_OPERATORS_PAPER.model
    return 4 * config.n_k2 * FLOAT * batch_size * context * config.rank * config.d_model


@pytest.fixture(scope="module")
def text() -> Corpus:
    return load_corpus("synthetic", DEVICE)


@pytest.mark.timeout(1800)
@pytest.mark.benchmark(group="published forms")
@pytest.mark.parametrize("phase", ACTIONS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_both_forms_in_turn(benchmark, measured_in_turn, does_not_fit, text, phase, precision):
    """The preprint's model and batch, eager."""
    config = K_OPERATORS_PAPER
    known: dict[str, Any] = {
        "phase": phase,
        "model": "K-Operators (paper)",
        "architecture": "k_operators",
        "context": config.context,
        "batch_size": config.training.batch_size,
    }
    predicted, free = predicted_bytes(known["batch_size"], known["context"]), free_bytes(DEVICE)
    if predicted > FREE_SHARE * free:
        sizes = {"predicted_bytes": predicted, "free_bytes": free}
        does_not_fit += [{**known, **sizes, "backend": form} for form in PUBLISHED_FORMS]
        pytest.skip(f"does not fit: {predicted / 2**30:.1f} GiB predicted, {free / 2**30:.1f} GiB free")
    torch.set_num_threads(N_THREADS)
    steps = {form: ACTIONS[phase](config, form, getattr(torch, precision), text, DEVICE) for form in PUBLISHED_FORMS}
    losses, peaks, seconds = ({form: [] for form in PUBLISHED_FORMS} for _ in range(3))

    def in_turn() -> None:
        for number in range(N_ROUNDS):
            for form in PUBLISHED_FORMS[:: -1 if number % 2 else 1]:
                seconds[form].append(timed(steps[form], losses[form]))

    for form, step in 2 * list(steps.items()):  # the warm-up, whose memory is measured
        memory = PeakMemory(DEVICE)
        timed(step, losses[form])
        peaks[form].append(memory.bytes())
    benchmark.pedantic(in_turn, rounds=1, iterations=1)
    n_params = count_parameters(build(config.model)).n_params
    for form in PUBLISHED_FORMS:
        known |= {"backend": form, "dtype": precision, "n_params": n_params, "peak_bytes": max(peaks[form])}
        measured_in_turn.append(saved(seconds[form], losses[form], **known))


def timed(step: Callable[[], torch.Tensor], losses: list[float]) -> float:
    """The seconds of a round; its losses are appended."""
    started = time.perf_counter()
    found = [step() for _ in range(N_STEPS)]
    synchronize(DEVICE)
    elapsed = time.perf_counter() - started
    losses += [one.item() for one in found]
    return elapsed


def saved(seconds: list[float], losses: list[float], **known: Any) -> dict[str, Any]:
    """One form's measurement, as pytest-benchmark saves one."""
    median, n_tokens = statistics.median(seconds), N_STEPS * known["batch_size"] * known["context"]
    facts = {
        "n_tokens": n_tokens,
        "tokens_per_second": n_tokens / median,
        "seconds_per_step": median / N_STEPS,
        "losses": losses,
        "share_of_floor": None,
        "matmul_gflops": None,
        "n_threads": torch.get_num_threads(),
        "device": DEVICE.type,
        "mode": "eager",
        **known,
    }
    stats = {"min": min(seconds), "median": median, "max": max(seconds), "rounds": len(seconds), "data": seconds}
    name = ", ".join(map(str, (known["phase"], known["backend"], known["dtype"])))
    return {"group": "published forms", "name": name, "params": {}, "stats": stats, "extra_info": facts}
