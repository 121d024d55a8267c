"""The four forms of the recurrence are one function: values and gradients, at awkward lengths and every decay."""

import pytest
import torch
from torch import Tensor

from models import decay
from models.decay import BACKENDS, read_memory

LENGTHS = (1, 2, 63, 64, 65, 130, 257)
GAMMAS = {  # one value a rank channel
    "paper": (0.85, 0.95, 0.9925, 0.99925),
    "fast": (0.05, 0.15, 0.3, 0.45),
    "mixed": (0.05, 0.5, 0.9, 0.9999),
}
B, D = 2, 5


def case(length: int, gammas: tuple[float, ...], dtype: torch.dtype) -> list[Tensor]:
    """q, k, n, gamma that want gradients."""
    generator = torch.Generator().manual_seed(length)
    rank = len(gammas)
    q, k = (torch.nn.functional.normalize(torch.randn(B, length, rank, generator=generator), dim=-1) for _ in range(2))
    n = torch.randn(B, length, D, generator=generator)
    return [x.to(dtype).requires_grad_() for x in (q, k, n, torch.tensor(gammas))]


def value_and_gradients(backend: str, inputs: list[Tensor]) -> list[Tensor]:
    """The reads, then the gradient of a fixed weighted sum of them with respect to each input."""
    q, k, n, gamma = inputs
    reads = read_memory(q, k, n, gamma, backend)
    weights = torch.randn(reads.shape, generator=torch.Generator().manual_seed(0)).to(reads.dtype)
    return [reads, *torch.autograd.grad((reads * weights).sum(), inputs)]


@pytest.mark.parametrize("gammas", GAMMAS.values(), ids=GAMMAS)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "recurrent"])
def test_every_form_agrees_with_the_recurrence_in_float64(backend, length, gammas):
    inputs = case(length, gammas, torch.float64)
    expected, found = (value_and_gradients(name, inputs) for name in ("recurrent", backend))
    for right, ours in zip(expected, found, strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("gammas", GAMMAS.values(), ids=GAMMAS)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_form_is_exact_to_float32_rounding(backend, length, gammas):
    if backend == "block" and min(gammas) < 0.55:
        gammas = tuple(max(gamma, 0.55) for gamma in gammas)  # below, the published arithmetic overflows float32
    exact = value_and_gradients("recurrent", case(length, gammas, torch.float64))
    found = value_and_gradients(backend, case(length, gammas, torch.float32))
    for name, right, ours in zip(("reads", "q", "k", "n", "gamma"), exact, found, strict=True):
        scale = max(right.abs().max().item(), 1.0)  # a sum over T positions rounds relative to its largest terms
        tolerance = 2e-6 * scale
        if backend == "block" and name == "gamma":  # a difference of sums with factors up to t = 128 in front
            tolerance = 2 * decay.PUBLISHED_BLOCK * torch.finfo(torch.float32).eps * scale
        torch.testing.assert_close(
            ours.double(), right, rtol=1e-5, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_chunked_stays_finite_where_powers_of_gamma_underflow():
    inputs = case(200, (1e-6, 1e-3, 1 - 1e-6, 0.5), torch.float32)
    for tensor in value_and_gradients("chunked", inputs):
        assert tensor.isfinite().all()


def test_the_recurrence_is_what_the_formula_says():
    q, k, n, gamma = (x.detach() for x in case(7, GAMMAS["mixed"], torch.float64))
    expected = torch.zeros(B, 7, D, dtype=torch.float64)
    for i in range(7):
        for j in range(i + 1):
            weight = (q[:, i] * gamma ** (i - j) * k[:, j]).sum(-1)
            expected[:, i] += weight[:, None] * n[:, j]
    torch.testing.assert_close(read_memory(q, k, n, gamma, "recurrent"), expected, rtol=1e-12, atol=1e-12)


def test_the_published_block_overflows_where_its_config_refuses_it():
    reads = read_memory(*case(128, (0.3,), torch.float32), "block")
    assert not reads.isfinite().all()


def test_chunks_are_crossed_in_these_tests():
    assert max(LENGTHS) > 2 * max(decay.CHUNK, decay.PUBLISHED_BLOCK)
