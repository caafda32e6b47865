"""Sums and maxima over all entries of trees: one pass, and over many devices one all-reduce.

All inner products are real: a complex vector counts as the real one of twice its length.
"""

from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from . import exchange, numerics, placement
from .types import Arrays, Scalar


def dot(x: jax.Array, y: jax.Array, dtype: DTypeLike) -> jax.Array:
    """The real inner product of two arrays; leading axes that only ``x`` has remain.

    Half-precision entries are accumulated in float32.
    """
    if jnp.iscomplexobj(x):
        return dot(x.real, y.real, dtype) + dot(x.imag, y.imag, dtype)
    axes = tuple(range(x.ndim - y.ndim, x.ndim)), tuple(range(y.ndim))
    return placement.contract(x, y, axes, numerics.at_least_float32(x.dtype)).astype(dtype)


def inner(pairs: Sequence[tuple[chex.ArrayTree, chex.ArrayTree]], dtype: DTypeLike) -> Arrays:
    """The real inner products of several pairs of trees, all of one structure."""

    def of_leaves(*leaves: jax.Array) -> Arrays:
        wide = jnp.result_type(*leaves)
        each = [x.astype(wide) for x in leaves]
        return [dot(x, y, dtype) for x, y in zip(each[::2], each[1::2], strict=True)]

    trees = [jax.tree.map(jnp.asarray, tree) for pair in pairs for tree in pair]
    return sums(of_leaves, trees, ((),) * len(pairs), dtype)


def sums(
    local: Callable[..., Arrays],
    trees: Sequence[chex.ArrayTree],
    shapes: Sequence[tuple[int, ...]],
    dtype: DTypeLike,
    join: Callable[..., jax.Array] = jnp.add,
) -> Arrays:
    """The sums over all leaves of ``local(*leaves)``; zeros if there are none.

    Args:
        local: a function of arrays that returns several sums over their entries.
        trees: of one structure; their leaves have the same shape except for leading axes.
        shapes: the shapes of the arrays that ``local`` returns.
        dtype: their dtype.
        join: ``jnp.add``, or ``jnp.maximum`` for maxima instead of sums.
    """
    groups = list(zip(*map(jax.tree.leaves, trees), strict=True))
    if not groups:
        return [jnp.zeros(shape, dtype) for shape in shapes]
    return exchange.joined(local, groups, shapes, join)


def maxima(trees: Sequence[chex.ArrayTree], dtype: DTypeLike) -> Sequence[Scalar]:
    """The largest absolute value in each of several trees of one structure; 0 if there is none."""

    def local(*leaves: jax.Array) -> Arrays:
        return [jnp.max(jnp.abs(x), initial=0).astype(dtype) for x in leaves]

    return sums(local, trees, ((),) * len(trees), dtype, jnp.maximum)
