"""The L-BFGS direction H g: two passes over the memory, one for the inner products, one for H g.

The products of the memory with a new y = g' - g are the differences of its products with g' and g
(Byrd, Nocedal & Schnabel 1994, section 3.2). Where y is short compared with g', a difference loses
digits, and the products with y are computed in a third pass.

All inner products are real: a complex vector counts as the real one of twice its length.
"""

import functools
from collections.abc import Sequence
from typing import Any, Union

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from .. import batching, numerics, reductions, tree
from ..types import Flag, Params
from .compact import Coefficients, Pair, Products

# y counts as short where it is shorter than this fraction of the gradient.
_SHORT = 1 / 4
# The combination of up to so many pairs is unrolled into one fused loop. Of more pairs two matrix
# products are faster, but not of half types, which they would widen in memory.
_MAX_UNROLLED = 24


Rows = tuple[Params, Params]
"""The stacks of all s and of all y: two trees like the params, with a leading axis of length m."""


def inner_products(
    coefficients: Coefficients,
    rows: Rows,
    slot: jax.Array,
    g: Params,
    s_and_y: tuple[Params, Params],
    directly: Union[bool, Flag] = False,
) -> Products:
    """All inner products of an update, by one all-reduce; by two where y is short.

    Args:
        coefficients: before the update.
        rows: with the new pair in its slot.
        slot: of the new pair.
        g: tree, the gradient at the newer end of the pair.
        s_and_y: two trees, the new pair.
        directly: bool, whether the products with the new y must not be differences.
    """
    dtype, size = coefficients.s_g.dtype, coefficients.s_g.shape

    def local(rows_s: jax.Array, rows_y: jax.Array, *vectors: jax.Array) -> Sequence[jax.Array]:
        g, s, y = vectors
        pairs = (rows_s, g), (rows_y, g), (g, g), (s, s), (s, y), (y, y)
        return [reductions.dot(*pair, dtype) for pair in pairs]

    shapes = size, size, (), (), (), ()
    s_g, y_g, gg, ss, sy, yy = reductions.sums(local, (*rows, g, *s_and_y), shapes, dtype)
    here = jnp.arange(len(s_g)) == slot
    pair = Pair(ss, sy, yy, jnp.sum(jnp.where(here, s_g, 0)))
    in_own_pass = ((yy < _SHORT**2 * gg) | directly) & (coefficients.num_pairs > 0)
    differences = s_g - coefficients.s_g, y_g - coefficients.y_g

    def own_pass() -> tuple[jax.Array, jax.Array]:
        def local(rows_s: jax.Array, rows_y: jax.Array, y: jax.Array) -> Sequence[jax.Array]:
            return [reductions.dot(rows, y, dtype) for rows in (rows_s, rows_y)]

        s_y, y_y = reductions.sums(local, (*rows, s_and_y[1]), (size, size), dtype)
        return tree.where(in_own_pass, (s_y, y_y), differences)

    s_y, y_y = jax.lax.cond(batching.any_element(in_own_pass), own_pass, lambda: differences)
    s_y, y_y = jnp.where(here, pair.sy, s_y), jnp.where(here, pair.yy, y_y)
    return Products(s_g, y_g, s_y, y_y, pair, gg)


def norm(g: Params, dtype: DTypeLike) -> jax.Array:
    """The Euclidean norm of a tree, also where its square overflows; two passes."""
    (largest,) = reductions.maxima((g,), dtype)
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    scaled = jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, dtype)) / scale, g)
    return scale * jnp.sqrt(reductions.inner(scaled, scaled, dtype))


def combine(rows: Rows, g: Params, factor: jax.Array, of_s: jax.Array, of_y: jax.Array) -> Any:
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
