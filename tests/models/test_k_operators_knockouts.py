"""A knocked-out path adds nothing, an averaged kernel knows distances alone, and the weights come back bit for bit."""

import pytest
import torch

from bench.evaluate import KNOCKOUT_EVERY, knockout_losses, replaced, sweep, sweep_starts, window_losses
from models import READINGS, KOperators, build, readings_of
from models.k_operators import K2
from models.k_operators_readings import averaged, by_distance, parts, paths, read_kernels
from tests.conftest import CONTEXT, TINY_MODELS
from tests.small_models import N_K2, k_operators, layers_of, some_tokens


def without(model: KOperators, path: str, monkeypatch: pytest.MonkeyPatch, only: K2 | None = None) -> torch.Tensor:
    """The logits when `mix` leaves a path out, which is obviously a knock-out."""
    usual = K2.mix

    def mix(self: K2, n: torch.Tensor) -> torch.Tensor:
        base, recurrent = self.contributions(n)
        if only is not None and self is not only:
            return usual(self, n)
        return recurrent if path == "base" else base

    with monkeypatch.context() as patch:
        patch.setattr(K2, "mix", mix)
        return model(some_tokens())


@pytest.mark.parametrize("path", ["base", "recurrent"])
def test_a_knock_out_leaves_the_other_path(path, monkeypatch):
    model, x = k_operators().eval(), some_tokens()
    right = without(model, path, monkeypatch)
    with replaced(paths(model)[path]):
        torch.testing.assert_close(model(x), right)
    assert not torch.allclose(model(x), right)
    for i, layer in enumerate(layers_of(model), start=1):
        right = without(model, path, monkeypatch, only=layer)
        with replaced(parts(model)[f"{path} {i}"]):
            torch.testing.assert_close(model(x), right)


@pytest.mark.parametrize(
    ("options", "present"),
    [({}, {"base", "recurrent"}), ({"paths": "base"}, {"base"}), ({"paths": "recurrent"}, {"recurrent"})],
)
def test_parts_are_those_of_the_paths_there_are(options, present):
    model = k_operators(**options)
    assert set(paths(model)) == present
    of_layers = {f"{path} {i}" for path in present for i in range(1, N_K2 + 1)}
    averages = {"averaged kernels"} if "base" in present else set()
    assert set(parts(model)) == present | of_layers | averages
    assert ("kernel_by_distance" in read_kernels(model)) == ("base" in present)


def test_an_averaged_kernel_depends_on_distance_alone_and_keeps_its_means():
    kernel = torch.randn(6, 6)
    found = averaged(kernel)
    for distance in range(6):
        diagonal = found.diagonal(-distance)
        torch.testing.assert_close(diagonal, kernel.diagonal(-distance).mean().expand(6 - distance))
    assert torch.equal(found, found.tril())
    torch.testing.assert_close(by_distance(found), by_distance(kernel))
    torch.testing.assert_close(averaged(found), found)


@pytest.mark.parametrize("options", [{}, {"shared_base": True}])
def test_kernels_are_read_by_distance_one_row_for_each(options):
    model = k_operators(**options)
    rows = read_kernels(model)["kernel_by_distance"]
    assert len(rows) == (1 if options else N_K2)
    bases = [layer.base for layer in layers_of(model)]
    for row, base in zip(rows, bases, strict=False):
        assert len(row) == len(base)
        assert row[2] == pytest.approx(
            sum(base[i, i - 2].item() for i in range(2, len(base))) / (len(base) - 2), rel=1e-5
        )


@pytest.mark.parametrize("options", [{}, {"shared_base": True}])
def test_every_weight_comes_back_bit_for_bit_also_after_an_error(options):
    model = k_operators(**options)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(KeyError), replaced([one for some in parts(model).values() for one in some]):
        raise KeyError
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_losses_are_of_every_fourth_window_and_none_is_the_complete_model(corpus):
    torch.manual_seed(0)
    model = build(TINY_MODELS["k_operators"])
    losses, n_tokens = knockout_losses(model, corpus.val, CONTEXT, parts(model))
    starts = sweep_starts(corpus.val, CONTEXT)[::KNOCKOUT_EVERY]
    assert n_tokens == len(starts) * CONTEXT
    assert losses["none"] == pytest.approx(sweep(model, corpus.val, CONTEXT)[::4].mean().item(), rel=1e-6)
    with torch.no_grad():
        for layer in layers_of(model):
            layer.base.zero_()
    assert losses["base"] == pytest.approx(window_losses(model, corpus.val, starts, CONTEXT).mean().item(), rel=1e-6)


def test_a_loss_that_is_not_finite_is_none(corpus):
    model = build(TINY_MODELS["k_operators"])
    broken = {"broken": [(model.head.out.weight, torch.full_like(model.head.out.weight, torch.nan))]}
    losses, _ = knockout_losses(model, corpus.val, CONTEXT, broken)
    assert losses["broken"] is None
    assert losses["none"] is not None


def test_most_models_have_nothing_to_knock_out():
    assert set(READINGS) == {KOperators}
    nothing = readings_of(build(TINY_MODELS["lstm"]))
    assert nothing.paths(None) == nothing.parts(None) == nothing.weights(None) == {}
