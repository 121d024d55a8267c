"""The hand-written backward of RMSNorm is the gradient of its definition."""

import pytest
import torch

from models.norm import plain_rms_norm, rms_norm


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("shape", [(5,), (3, 7), (2, 63, 16), (2, 257, 5)])
def test_values_and_gradients_are_those_of_the_definition(shape, dtype, tolerance):
    generator = torch.Generator().manual_seed(0)
    x, weights = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    scale = torch.rand(shape[-1], generator=generator, dtype=torch.float64) + 0.5
    exact = value_and_gradients(plain_rms_norm, x, scale, weights)
    found = value_and_gradients(rms_norm, *(one.to(dtype) for one in (x, scale, weights)))
    for right, ours in zip(exact, found, strict=True):
        limit = tolerance * max(right.abs().max().item(), 1.0)
        torch.testing.assert_close(ours.double(), right, rtol=tolerance, atol=limit)


def test_a_row_of_zeros_gives_zeros_and_finite_gradients():
    x = torch.zeros(2, 4, requires_grad=True)
    y = rms_norm(x, torch.ones(4))
    y.sum().backward()
    assert torch.equal(y, torch.zeros(2, 4))
    assert torch.equal(x.grad, torch.full((2, 4), 1e4))  # 1 / sqrt(eps)


def value_and_gradients(function, x, scale, weights):
    x, scale = (one.clone().requires_grad_() for one in (x, scale))
    y = function(x, scale)
    return [y, *torch.autograd.grad((y * weights).sum(), [x, scale])]
