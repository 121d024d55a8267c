"""The forms of the recurrence are one function: values and gradients, at awkward lengths and every decay."""

import pytest
import torch
from torch import Tensor

from models import decay
from models.decay import chunked, longest_leaf, read_memory
from tests.conftest import CPU_BACKENDS

LENGTHS = (1, 2, 63, 64, 65, 130, 257)
GAMMAS = {  # one value a rank channel
    "paper": (0.85, 0.95, 0.9925, 0.99925),
    "fast": (0.05, 0.15, 0.3, 0.45),
    "mixed": (0.05, 0.5, 0.9, 0.9999),
}
B, D = 2, 5
NAMES = ("reads", "q", "k", "n", "gamma", "kernel")


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


def assert_near(found, exact, rtol, atol, of_gamma):
    """The reads and gradients are equal within `atol` of their largest entry; gamma's within `of_gamma`."""
    for name, (right, ours) in zip(NAMES, zip(exact, found, strict=True), strict=False):
        scale = max(right.abs().max().item(), 1.0)  # a sum over T positions rounds relative to its largest terms
        limit = scale * (of_gamma if name == "gamma" else atol)
        torch.testing.assert_close(ours.double(), right, rtol=rtol, atol=limit, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("gammas", GAMMAS.values(), ids=GAMMAS)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("backend", [name for name in CPU_BACKENDS if name != "recurrent"])
def test_every_form_agrees_with_the_recurrence_in_float64(backend, length, gammas):
    inputs = case(length, gammas, torch.float64)
    expected, found = (value_and_gradients(name, inputs) for name in ("recurrent", backend))
    for right, ours in zip(expected, found, strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("gammas", GAMMAS.values(), ids=GAMMAS)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_every_form_is_exact_to_float32_rounding(backend, length, gammas):
    if backend == "block" and min(gammas) < 0.55:
        gammas = tuple(max(gamma, 0.55) for gamma in gammas)  # below, the published arithmetic overflows float32
    exact = value_and_gradients("recurrent", case(length, gammas, torch.float64))
    found = value_and_gradients(backend, case(length, gammas, torch.float32))
    # gamma's gradient in `block`: a difference of sums with factors up to t = 128 in front
    of_gamma = 2 * decay.PUBLISHED_BLOCK * torch.finfo(torch.float32).eps if backend == "block" else 2e-6
    assert_near(found, exact, rtol=1e-5, atol=2e-6, of_gamma=of_gamma)


def folded(form: str, inputs: list[Tensor], gamma_min: float) -> list[Tensor]:
    """The reads plus a base kernel's, then their gradients with respect to each input and to the kernel."""
    q, k, n, gamma = inputs
    length = n.shape[1]
    kernel = torch.rand(length, length, generator=torch.Generator().manual_seed(1)).to(n.dtype).requires_grad_()
    if form == "chunked":
        reads = chunked(q, k, n, gamma, gamma_min=gamma_min, kernel=kernel.tril())
    else:
        reads = kernel.tril() @ n + read_memory(q, k, n, gamma, "recurrent")
    weights = torch.randn(reads.shape, generator=torch.Generator().manual_seed(0)).to(reads.dtype)
    return [reads, *torch.autograd.grad((reads * weights).sum(), [*inputs, kernel])]


@pytest.mark.parametrize("gammas", GAMMAS.values(), ids=GAMMAS)
@pytest.mark.parametrize("length", LENGTHS)
def test_a_base_kernel_and_a_bound_on_gamma_change_the_way_not_the_value(length, gammas):
    """With the bound, scores are taken in one product where it allows; against the recurrence in float64."""
    exact = folded("recurrent", case(length, gammas, torch.float64), 0.0)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-6)):
        found = folded("chunked", case(length, gammas, dtype), gamma_min=min(gammas))
        # in gamma's gradient, the middle's exponents, up to 64, meet in a difference of sums
        assert_near(found, exact, rtol=10 * tolerance, atol=tolerance, of_gamma=tolerance * decay.CHUNK / 2)


def test_the_longest_leaf_keeps_every_factor_in_range():
    for gamma_min in (0.0, 1e-30, 1e-6, 0.05, 0.15, 0.55, 0.85, 0.9999):
        leaf = longest_leaf(gamma_min)
        assert leaf & (leaf - 1) == 0
        assert 1 <= leaf <= decay.CHUNK
        assert leaf == 1 or gamma_min**-leaf < 1e31
    assert longest_leaf(0.85) == decay.CHUNK  # the paper's bound: no halving at all
    assert longest_leaf(0.15) == 32


def test_gammas_at_their_bound_stay_exact_in_float32():
    """The largest factors that a leaf may hold, in every channel: an error here would be an overflow, not rounding."""
    for bound in (0.85, 0.55, 0.15, 0.05):
        gammas = (bound,) * 4
        exact = folded("recurrent", case(257, gammas, torch.float64), 0.0)
        found = folded("chunked", case(257, gammas, torch.float32), bound)
        for name, (right, ours) in zip(NAMES, zip(exact, found, strict=True), strict=True):
            # gamma's gradient is a difference of sums in which the terms of the diagonal cancel
            tolerance = 5e-5 if name == "gamma" else 1e-6
            assert (ours.double() - right).abs().max() <= tolerance * right.abs().max(), (bound, name)


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


def test_the_cuda_kernel_is_never_replaced_by_another_form():
    with pytest.raises(RuntimeError, match=r"backend='fla' runs on CUDA, and this is on cpu; use backend='chunked'"):
        read_memory(*case(7, GAMMAS["paper"], torch.float32), "fla")


def test_chunks_are_crossed_in_these_tests():
    assert max(LENGTHS) > 2 * max(decay.CHUNK, decay.PUBLISHED_BLOCK)
