"""The L-BFGS direction H g: two passes over the memory, one for the inner products, one for H g.

The products of the memory with a new y = g' - g are the differences of its products with g' and g
(Byrd, Nocedal & Schnabel 1994, section 3.2). Where y is short compared with g', a difference loses
digits, and the products with y are computed in a third pass.

All inner products are real: a complex vector counts as the real one of twice its length.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .. import batching, numerics, reductions, tree
from .compact import Coefficients, Products
from .memory import row
from .scaling import Pair

# y counts as short where it is shorter than this fraction of the gradient.
_SHORT = 1 / 4
# The combination of up to so many pairs is unrolled into one fused loop. Of more pairs two matrix
# products are faster, but not of half types, which they would widen in memory.
_MAX_UNROLLED = 24


def has_curvature(pair: Pair) -> jax.Array:
    """Whether a pair keeps H positive definite: <s, y> > eps |s| |y|, whatever their scale."""
    finfo = numerics.finfo(pair.sy.dtype)
    lengths = jnp.sqrt(pair.ss) * jnp.sqrt(pair.yy)
    return jnp.asarray((pair.sy > finfo.eps * lengths) & (pair.sy > finfo.tiny))


Rows = tuple[Any, Any]
"""The stacks of all s and of all y: two trees like the params, with a leading axis of length m."""


def inner_products(
    coefficients: Coefficients, rows: Rows, slot: jax.Array, g: Any, s_and_y: tuple[Any, Any]
) -> tuple[Products, Pair]:
    """All inner products of an update, by one all-reduce, or two where y is short.

    Args:
        coefficients: before the update.
        rows: with the new pair in its slot.
        slot: of the new pair.
        g: tree, the gradient at the newer end of the pair.
        s_and_y: two trees, the new pair.
    """
    dtype, size = coefficients.s_g.dtype, coefficients.s_g.shape

    def local(*leaves: jax.Array) -> Sequence[jax.Array]:
        *_, s, y = leaves
        of_pair = [reductions.dot(*pair, dtype) for pair in ((s, s), (s, y), (y, y))]
        return *_with_gradient(*leaves[:3], dtype=dtype), *of_pair

    shapes = size, size, *((),) * 5
    sums = reductions.sums(local, (*rows, g, *s_and_y), shapes, dtype)
    ss, sy, yy = sums[4:]
    pair = Pair(ss, sy, yy, jnp.sum(jnp.where(jnp.arange(len(sums[0])) == slot, sums[0], 0)))
    return _products(coefficients, rows, slot, sums[:4], pair, jnp.zeros((), bool)), pair


def inner_products_of(
    coefficients: Coefficients,
    rows: Rows,
    slot: jax.Array,
    g: Any,
    pair: Pair,
    is_corrected: jax.Array,
) -> Products:
    """The inner products of an update with a pair whose own products are known.

    Args:
        coefficients: before the update.
        rows: with the new pair in its slot.
        slot: of the new pair.
        g: tree, the gradient at the newer end of the pair.
        pair: the products of the pair.
        is_corrected: bool, whether the y in the rows is not the change of the gradient.
    """
    dtype, size = coefficients.s_g.dtype, coefficients.s_g.shape
    local = functools.partial(_with_gradient, dtype=dtype)
    sums = reductions.sums(local, (*rows, g), (size, size, (), ()), dtype)
    return _products(coefficients, rows, slot, sums, pair, is_corrected)


def _with_gradient(
    rows_s: jax.Array, rows_y: jax.Array, g: jax.Array, *, dtype: Any
) -> Sequence[jax.Array]:
    products = (reductions.dot(rows, g, dtype) for rows in (rows_s, rows_y))
    return *products, *_squares_and_sizes(g, dtype=dtype)


def _squares_and_sizes(g: jax.Array, *, dtype: Any) -> Sequence[jax.Array]:
    return reductions.dot(g, g, dtype), jnp.sum(jnp.abs(g), dtype=dtype)


def norm(g: Any, dtype: Any) -> jax.Array:
    """The Euclidean norm of a tree; where its square overflows, the sum of absolute values."""
    local = functools.partial(_squares_and_sizes, dtype=dtype)
    return _norm(*reductions.sums(local, (g,), ((), ()), dtype))


def _norm(square: jax.Array, size: jax.Array) -> jax.Array:
    largest = numerics.finfo(size.dtype).max
    return jnp.where(jnp.isinf(square), jnp.minimum(size, largest), jnp.sqrt(square))


def _products(
    coefficients: Coefficients,
    rows: Rows,
    slot: jax.Array,
    sums: Sequence[jax.Array],
    pair: Pair,
    is_corrected: jax.Array,
) -> Products:
    """Completes the products with g and its norm by those with y."""
    s_g, y_g, square, size = sums
    is_short = pair.yy < _SHORT**2 * square
    in_own_pass = (coefficients.num_pairs > 0) & (is_short | is_corrected)
    differences = s_g - coefficients.s_g, y_g - coefficients.y_g

    def own_pass() -> Any:
        dtype = s_g.dtype
        y = jax.tree.map(lambda rows_y: row(rows_y, slot), rows[1])

        def local(rows_s: jax.Array, rows_y: jax.Array, y: jax.Array) -> Sequence[jax.Array]:
            return [reductions.dot(rows, y, dtype) for rows in (rows_s, rows_y)]

        exact = reductions.sums(local, (*rows, y), (s_g.shape, y_g.shape), dtype)
        return tree.where(in_own_pass, tuple(exact), differences)

    s_y, y_y = jax.lax.cond(batching.any_element(in_own_pass), own_pass, lambda: differences)
    here = jnp.arange(len(s_g)) == slot
    s_y, y_y = jnp.where(here, pair.sy, s_y), jnp.where(here, pair.yy, y_y)
    return Products(s_g, y_g, s_y, y_y, _norm(square, size))


def combine(rows: Rows, g: Any, factor: jax.Array, of_s: jax.Array, of_y: jax.Array) -> Any:
    """The tree ``factor g + S of_s + Y of_y`` in the dtypes of g, in one pass over the rows."""
    combined = functools.partial(_combined, factor=factor, of_s=of_s, of_y=of_y)
    return jax.tree.map(combined, g, *rows)


def _combined(
    g: jax.Array,
    rows_s: jax.Array,
    rows_y: jax.Array,
    *,
    factor: jax.Array,
    of_s: jax.Array,
    of_y: jax.Array,
) -> jax.Array:
    wide = numerics.at_least_float32(g.dtype)
    factor, of_s, of_y = (x.astype(wide) for x in (factor, of_s, of_y))
    total = factor * g
    if len(rows_s) > _MAX_UNROLLED and numerics.finfo(g.dtype).dtype == wide:
        for factors, rows in ((of_s, rows_s), (of_y, rows_y)):
            highest = jax.lax.Precision.HIGHEST
            total = total + jnp.tensordot(factors.astype(g.dtype), rows, axes=1, precision=highest)
        return total
    # Axes are kept, so that every term is one product of slices.
    of_s, of_y = (x.reshape(-1, *(1,) * g.ndim) for x in (of_s, of_y))
    total = total[None]
    for k in range(len(rows_s)):
        here = slice(k, k + 1)
        total = total + of_s[here] * rows_s[here] + of_y[here] * rows_y[here]
    return total[0].astype(g.dtype)
