"""The memory of L-BFGS in the space of the free entries, for runs with bounds.

All inner products leave the fixed entries out. A pair whose s lies mostly among them is not used,
since its y shows their curvature.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple, Union

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from .._core import numerics, reductions, tree
from .._core.lbfgs.compact import Coefficients, PairProducts, Products, add_pair
from .._core.lbfgs.memory import Rows
from .._core.types import Flag, Params, Scalar

# A pair takes part if the free entries have at least this fraction of its <s, s>.
_LEAST_FREE = 0.1
# The entries of a leaf that are read at once, where leaves are not sharded. With 10 pairs and 1e6
# params in float32 on a CPU, parts take less than half the time of whole leaves (a factor of 2.2 on
# JAX 0.10.2 and 0.12.0.1). A number larger than any leaf turns parts off.
_PART = 1 << 13


class FreeEntries(NamedTuple):
    """Trees of bools: the entries that were free at an iterate, and those that are now."""

    before: Params
    now: Params

    def changes(self, s: Params, dtype: DTypeLike) -> tuple[Flag, Flag, Flag]:
        """Three bools, by one all-reduce.

        Returns:
            Whether the entries differ, whether any is fixed in one of the two, and whether the
            free ones have at least a tenth of <s, s>.
        """

        def local(before: jax.Array, now: jax.Array, s: jax.Array) -> Sequence[jax.Array]:
            free = jnp.where(now, s, jnp.zeros_like(s))
            counts = (jnp.sum(x, dtype=dtype) for x in (before != now, ~(before & now)))
            return [*counts, reductions.dot(free, free, dtype), reductions.dot(s, s, dtype)]

        num_changed, num_fixed, free, whole = reductions.sums(local, (*self, s), ((),) * 4, dtype)
        return num_changed > 0, num_fixed > 0, free >= _LEAST_FREE * whole


def scaling_of(pair: tuple[Params, Params], dtype: DTypeLike) -> jax.Array:
    """<s, y> / <y, y> of a pair; 0 without curvature."""
    s, y = pair
    sy, yy = reductions.inner([(s, y), (y, y)], dtype)
    has_curvature = (sy > 0) & (yy > 0) & jnp.isfinite(sy + yy)
    return jnp.where(has_curvature, sy, 0) / jnp.where(has_curvature, yy, 1)


def masked_products(
    rows_s: jax.Array, rows_y: jax.Array, free: jax.Array, dtype: DTypeLike
) -> Sequence[jax.Array]:
    """S'S, S'Y and Y'Y of the free entries, row k with pair k, and the <s, s> of all entries."""

    def with_pair(s_and_y: tuple[jax.Array, jax.Array]) -> Sequence[jax.Array]:
        s, y = (jnp.where(free, x, jnp.zeros_like(x)) for x in s_and_y)
        pairs = (rows_s, s), (rows_s, y), (rows_y, y), (s_and_y[0], s_and_y[0])
        return [reductions.dot(*pair, dtype) for pair in pairs]

    # One pair after the other, since all masked rows at once would double the memory.
    products: Sequence[jax.Array] = jax.lax.map(with_pair, (rows_s, rows_y))
    return products


def masked_products_by_parts(
    rows_s: jax.Array, rows_y: jax.Array, free: jax.Array, dtype: DTypeLike
) -> Sequence[jax.Array]:
    """The same, part by part of the leading axis of the leaf, so each part stays in the cache."""
    size = max(1, _PART * len(free) // free.size)
    num_parts = len(free) // size

    def part(begin: Union[int, Scalar], size: int) -> Sequence[jax.Array]:
        cut = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=begin, slice_size=size)
        return masked_products(cut(rows_s, axis=1), cut(rows_y, axis=1), cut(free, axis=0), dtype)

    rest = part(num_parts * size, len(free) - num_parts * size)
    add = lambda k, total: tree.add(total, part(k * size, size))  # noqa: E731
    total: Sequence[jax.Array] = jax.lax.fori_loop(0, num_parts, add, rest)
    return total


def of_free_entries(
    coefficients: Coefficients, rows: Rows, slot: jax.Array, free: Params
) -> Coefficients:
    """The coefficients of the pairs among the entries that are free, a tree of bools.

    ``slot`` is that of the next pair, whose rows count as empty.
    """
    dtype, size = coefficients.s_g.dtype, len(coefficients.s_g)

    def local(rows_s: jax.Array, rows_y: jax.Array, free: jax.Array) -> Sequence[jax.Array]:
        # On several devices, parts of a sharded leaf would have to be gathered.
        by_parts = free.ndim > 0 and free.size > _PART and jax.device_count() == 1
        return (masked_products_by_parts if by_parts else masked_products)(
            rows_s, rows_y, free, dtype
        )

    shapes = (size, size), (size, size), (size, size), (size,)
    s_s, s_y, y_y, whole = reductions.sums(local, (*rows, free), shapes, dtype)
    if coefficients.bends is not None:
        bends = coefficients.bends
        change = bends[:, None] * s_y.T
        y_y = y_y + change + change.T + bends[:, None] * s_s * bends[None, :]
        s_y = s_y + bends[:, None] * s_s
    ss, zero = jnp.diagonal(s_s), jnp.zeros_like(whole)
    empty = coefficients._replace(
        rho=zero, s_g=zero, y_g=zero, inverse_r=jnp.zeros_like(s_y), gram_y=jnp.zeros_like(y_y)
    )

    def add(age: jax.Array, old: Coefficients) -> Coefficients:
        k = jax.lax.rem(slot + age, numerics.counter(size))
        # |s| |y| is the bound of <|s|, |y|> that these products give.
        largest = jnp.sqrt(ss[k]) * jnp.sqrt(y_y[k, k])
        pair = PairProducts(ss[k], s_y[k, k], y_y[k, k], zero[0], largest)
        products = Products(zero, zero, s_y[k], y_y[k], pair, None, zero[0])
        exists = (ss[k] >= _LEAST_FREE * whole[k]) & (k < coefficients.num_pairs)
        new, _ = add_pair(old, k, products, exists)
        return new._replace(num_pairs=old.num_pairs, s_g=zero, y_g=zero, bends=old.bends)

    new: Coefficients = jax.lax.fori_loop(1, size, add, empty)
    return new
