"""Sizes that meet a budget: the config of an architecture whose value on one axis is a target, and the changed sizes.

A value is a polynomial in the sizes, of degree 2 in the width and of degree 1 in each other size: a few counted models
predict all shapes. The returned size has been counted, too.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tabulate import tabulate

from bench.budget import count_parameters
from bench.errors import ConfigError
from models import ARCHITECTURES, build
from models.base import FreeSizes

MAX_WIDTH, MAX_DEPTH = 1024, 32
WIDTH_NODES = (96, 192, 384)  # three points define a parabola; two thirds of a multiple of 3 need no rounding
NODES = (1, 2)  # two points define a line
ROUNDING = 0.002  # SwiGLU's hidden width is rounded, which changes a value by less than this from width 64 on
N_NEAREST = 10  # shapes counted to report the nearest where none fits
EQUALLY_NEAR = 0.1  # shapes whose changes differ by less are chosen by their value


class Budget(NamedTuple):
    """The values of a config on the axes that may be held equal."""

    params: int  # all; a tied one counts once
    without_positions: int  # nanoGPT's convention
    live: int  # those that can act on the output
    forward_flops: int  # of one token: 2 a multiply-add of the matrix products


AXES = Budget._fields


@dataclass(frozen=True, kw_only=True)
class Size:
    """A config that meets a target."""

    config: Any
    value: int  # of `config` on the axis
    target: int
    deviation: float  # value / target - 1
    changes: tuple[str, ...]  # from the starting shape, as text


def free_sizes(config: Any) -> FreeSizes:
    """The free sizes of a config; ConfigError where it has none."""
    found = getattr(config, "free_sizes", None)
    if not isinstance(found, FreeSizes):
        known = ", ".join(name for name, (kind, _) in ARCHITECTURES.items() if hasattr(kind, "free_sizes"))
        raise ConfigError(f"{type(config).__name__} has no free sizes; architectures that have them: {known}")
    return found


@lru_cache(maxsize=4096)
def budget_of(config: Any, context: int) -> Budget:
    """The value of `config` on every axis, for windows of `context` tokens."""
    free_sizes(config)
    with torch.device("meta"):  # shapes only: no memory, no random numbers
        model = build(config)
    counted = count_parameters(model)
    return Budget(
        params=counted.n_params,
        without_positions=counted.n_params_without_positions,
        live=counted.n_live_params,
        forward_flops=2 * model.forward_macs_per_token(context),
    )


def fit_size(config: Any, *, axis: str, target: int, tolerance: float = 0.01, context: int | None = None) -> Size:
    """The config within `tolerance` of `target` on `axis` whose shape is nearest to that of `config`.

    Of shapes about equally near, the one nearest to the target. `context` matters for FLOPs; default: the model's own.
    ConfigError with the nearest config where none is within tolerance.
    """
    if axis not in AXES:
        raise ConfigError(f"axis {axis!r} is not one of {', '.join(AXES)}")
    if target < 1 or not 0 < tolerance < 1:
        raise ConfigError(f"target={target} must be at least 1 and tolerance={tolerance} between 0 and 1")
    free_sizes(config)  # ConfigError where it has none
    length = context or config.context
    closest: list[Any] = []
    for shapes in _shapes(config):
        off = np.abs(predict(config, shapes, axis, length) / target - 1)
        found = _nearest_shape(config, shapes[off <= tolerance + ROUNDING], axis, target, tolerance, length)
        if found is not None:
            return found
        closest = [_resized(config, shapes[i]) for i in np.argsort(off, kind="stable")[:N_NEAREST]]
    best = min((_sized(config, one, axis, target, length) for one in closest), key=_closeness)
    raise ConfigError(
        f"no {type(config).__name__} up to {MAX_WIDTH} wide and {MAX_DEPTH} deep is within {100 * tolerance:.3g} % of "
        f"{target:,} {axis}: the nearest has {best.value:,} ({100 * best.deviation:+.3g} %), "
        f"with {_sizes_text(best.config)}; raise the tolerance, or start from a config whose other fields "
        "(vocab_size, context, ...) leave room"
    )


def _nearest_shape(
    start: Any, shapes: NDArray[np.int64], axis: str, target: int, tolerance: float, context: int
) -> Size | None:
    def change(config: Any) -> int:
        return round(shape_change(start, config) / EQUALLY_NEAR)

    candidates = sorted((_resized(start, sizes) for sizes in shapes), key=change)
    for _, equally_near in itertools.groupby(candidates, key=change):
        sizes = [_sized(start, one, axis, target, context) for one in equally_near]
        fitting = [size for size in sizes if abs(size.deviation) <= tolerance]
        if fitting:
            return min(fitting, key=_closeness)
    return None


def shape_change(start: Any, config: Any) -> float:
    """The distance of two shapes of one architecture: the sum of |log| of the factors between their ratios."""
    free = free_sizes(start)
    before, after = free.ratios_of(start), free.ratios_of(config)
    factors = [after[name] / before[name] for name in before]
    if free.last is not None:
        factors.append(getattr(config, free.last) / getattr(start, free.last))
    return sum(abs(math.log(factor)) for factor in factors)


def set_arguments(config: Any) -> list[str]:
    """The `--set` arguments that give a cell the sizes of `config`."""
    return [f"model.{name}={getattr(config, name)}" for name in free_sizes(config).fields()]


def size_text(size: Size, axis: str, budgets: dict[str, Budget]) -> str:
    """A size as text; `budgets` are columns, under their names."""
    rows = [[name, *(f"{getattr(budget, name):,}" for budget in budgets.values())] for name in AXES]
    return "\n".join(
        [
            f"{axis} {size.value:,}, target {size.target:,}: {size.deviation:+.2%}, with {_sizes_text(size.config)}",
            f"changed: {'; '.join(size.changes) or 'nothing'}",
            "",
            tabulate(rows, ["", *budgets], colalign=["left", *["right"] * len(budgets)], disable_numparse=True),
        ]
    )


# all shapes, and their predicted values -------------------------------------------------------------------------------


def _shapes(start: Any) -> Iterable[NDArray[np.int64]]:
    """Rows of sizes, in the order of `fields()`: first with the last resort unchanged, then with all its choices."""
    free = free_sizes(start)
    tries: list[Sequence[int]] = [()]
    if free.last is not None:
        now = getattr(start, free.last)
        tries = [(now,), sorted({now, *free.last_choices})]
    for last in tries:
        rows = [
            (width, depth, *within, *resort)
            for width in range(1, MAX_WIDTH + 1)
            for within in ([(one,) for one in free.choices(start, width)] if free.choices else [()])
            for resort in ([(one,) for one in last] if free.last else [()])
            for depth in range(1, MAX_DEPTH + 1)
        ]
        yield np.array(rows, dtype=np.int64)


def predict(start: Any, shapes: NDArray[np.int64], axis: str, context: int) -> NDArray[np.float64]:
    """The value of each row of `shapes`, by the polynomial through a grid of counted models."""
    nodes = [WIDTH_NODES, *[NODES] * (shapes.shape[1] - 1)]
    grid = [getattr(budget_of(_resized(start, sizes), context), axis) for sizes in itertools.product(*nodes)]
    counted = np.array(grid, dtype=np.float64).reshape([len(points) for points in nodes])
    values: NDArray[np.float64] = np.broadcast_to(counted, (len(shapes), *counted.shape))
    for column, points in zip(shapes.T, nodes, strict=True):
        values = np.einsum("np,np...->n...", _lagrange(column, points), values)
    return values


def _lagrange(x: NDArray[np.int64], points: Sequence[int]) -> NDArray[np.float64]:
    """The weight of the value at each point in the polynomial's value at `x`. (n,) -> (n, points)"""
    weights = [
        np.prod([(x - other) / (point - other) for other in points if other != point], axis=0) for point in points
    ]
    return np.stack(weights, axis=1)


def _resized(start: Any, sizes: Iterable[int]) -> Any:
    return dataclasses.replace(start, **dict(zip(free_sizes(start).fields(), map(int, sizes), strict=True)))


def _sized(start: Any, config: Any, axis: str, target: int, context: int) -> Size:
    value, changes = getattr(budget_of(config, context), axis), tuple(_changes(start, config))
    return Size(config=config, value=value, target=target, deviation=value / target - 1, changes=changes)


def _closeness(size: Size) -> tuple[float, list[str]]:
    return abs(size.deviation), set_arguments(size.config)  # ties are broken by the sizes, as text


def _changes(start: Any, config: Any) -> Iterable[str]:
    free = free_sizes(start)
    for name in free.fields():
        before, after = getattr(start, name), getattr(config, name)
        if before != after:
            yield f"{name} {before} -> {after}"
    now = free.ratios_of(config)
    for name, before in free.ratios_of(start).items():
        if before != now[name]:
            yield f"{name} {now[name]:.3g} instead of {before:.3g}"


def _sizes_text(config: Any) -> str:
    return ", ".join(f"{name}={getattr(config, name)}" for name in free_sizes(config).fields())
