"""The L-BFGS direction H g: two passes over the memory, one for the inner products, one for H g.

The products of the memory with a new y = g' - g are the differences of its products with g' and g
(Byrd, Nocedal & Schnabel 1994, section 3.2). Where y is short compared with g', a difference loses
digits, and the products with y are computed in a third pass.

All inner products are real: a complex vector counts as the real one of twice its length.
"""

from typing import Any, Optional, Union

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from .. import batching, numerics, reductions, tree
from ..types import Arrays, Flag, Params
from .compact import Coefficients, PairProducts, Products
from .memory import Pair, Rows

# y is short if it is shorter than this fraction of the gradient.
_SHORT = 1 / 4
# Up to this number of pairs, the combination is unrolled into one fused loop. Beyond, two matrix
# products are faster, but not for half types, which they would widen in memory.
_MAX_UNROLLED = 24


def inner_products(
    coefficients: Coefficients,
    rows: Rows,
    slot: jax.Array,
    g: Params,
    pair: Pair,
    values: Optional[tuple[jax.Array, jax.Array]] = None,
    directly: Union[bool, Flag] = False,
) -> Products:
    """All inner products of an update, by one all-reduce; by two where y is short or corrected.

    Args:
        coefficients: before the update.
        rows: with the new pair in its slot.
        slot: of the new pair.
        g: the gradient at the newer end of the pair.
        pair: the new pair.
        values: the objective at both ends, to correct y; None leaves it as it is.
        directly: bool, whether the products with the new y must not be differences.
    """
    dtype, size = coefficients.s_g.dtype, coefficients.s_g.shape

    def local(rows_s: jax.Array, rows_y: jax.Array, *vectors: jax.Array) -> Arrays:
        g, s, y = vectors
        factors = (rows_s, g), (rows_y, g), (g, g), (s, s), (s, y), (y, y)
        sizes = jnp.abs(s).astype(dtype) * jnp.abs(y).astype(dtype)
        return [*(reductions.dot(*two, dtype) for two in factors), jnp.sum(sizes)]

    shapes = size, size, *((),) * 5
    s_g, y_g, gg, ss, sy, yy, sy_size = reductions.sums(local, (*rows, g, *pair), shapes, dtype)
    here = jnp.arange(len(s_g)) == slot
    of_pair, bend = PairProducts(ss, sy, yy, jnp.sum(jnp.where(here, s_g, 0)), sy_size), None
    needs_third_pass = (yy < _SHORT**2 * gg) | directly
    bends = coefficients.bends
    if values is not None and bends is not None:
        bend = curvature_correction(of_pair, *values)
        needs_third_pass |= bend != 0
        of_pair = corrected(of_pair, bend)
        y_g += jnp.where(here, bend, bends) * s_g
    needs_third_pass &= coefficients.num_pairs > 0
    differences = s_g - coefficients.s_g, y_g - coefficients.y_g

    def third_pass() -> tuple[jax.Array, jax.Array]:
        def local(rows_s: jax.Array, rows_y: jax.Array, y: jax.Array) -> Arrays:
            return [reductions.dot(rows, y, dtype) for rows in (rows_s, rows_y)]

        s, y = pair
        if bend is not None:
            y = jax.tree.map(lambda s, y: (y + bend * s).astype(y.dtype), s, y)
        s_y, y_y = reductions.sums(local, (*rows, y), (size, size), dtype)
        if bends is not None:
            y_y += bends * s_y
        return tree.where(needs_third_pass, (s_y, y_y), differences)

    s_y, y_y = jax.lax.cond(batching.any_element(needs_third_pass), third_pass, lambda: differences)
    s_y, y_y = jnp.where(here, of_pair.sy, s_y), jnp.where(here, of_pair.yy, y_y)
    return Products(s_g, y_g, s_y, y_y, of_pair, bend, gg)


# A correction adds at least and at most so many times <s, y>; less is not worth a third pass.
_LEAST_CORRECTION, _LARGEST_CORRECTION = 0.1, 5.0
# A change of the value by fewer units of rounding shows no curvature.
_VISIBLE = 1000


def curvature_correction(pair: PairProducts, value: jax.Array, new_value: jax.Array) -> jax.Array:
    """The multiple of s to add to y for the curvature that the values at both ends show.

    <s, y> / |s|^2 is a mean of the second derivative along the step. The cubic with the values f
    and f' and the slopes of both ends has <s, y> + 6 (f - f') + 3 <s, g + g'>, over |s|^2, at its
    newer end; with the multiple y has that too (Zhang, Deng & Chen, Journal of Optimization Theory
    and Applications 102 (1999), 147-167). A correction that would lower <s, y> is left out: where
    the step crosses a kink the cubic is wrong, and directions become far too long.
    """
    ss, sy, _, sg, _ = pair
    decrease = value - new_value
    change = jnp.minimum(6 * decrease + 6 * sg - 3 * sy, _LARGEST_CORRECTION * sy)
    is_visible = jnp.abs(decrease) > _VISIBLE * jnp.finfo(sy.dtype).eps * jnp.abs(value)
    is_worth = (sy > 0) & (ss > 0) & (change > _LEAST_CORRECTION * sy)
    return jnp.where(is_worth & is_visible & jnp.isfinite(new_value), change / ss, 0)


def corrected(pair: PairProducts, multiple: jax.Array) -> PairProducts:
    """The products of a pair with a multiple of s added to y."""
    ss, sy, yy, sg, sy_size = pair
    yy += multiple * (2 * sy + multiple * ss)
    return PairProducts(ss, sy + multiple * ss, yy, sg, sy_size + jnp.abs(multiple) * ss)


def norm(g: Params, dtype: DTypeLike) -> jax.Array:
    """The Euclidean norm of a tree, also where its square overflows; two passes."""
    (largest,) = reductions.maxima((g,), dtype)
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    scaled = jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, dtype)) / scale, g)
    return scale * jnp.sqrt(*reductions.inner([(scaled, scaled)], dtype))


def scaled(factor: jax.Array, g: Params) -> Any:
    """The tree ``factor g`` in the dtypes of g: :func:`combine` without pairs."""
    return jax.tree.map(
        lambda x: (factor.astype(numerics.at_least_float32(x.dtype)) * x).astype(x.dtype), g
    )


def combine(rows: Rows, g: Params, factor: jax.Array, of_s: jax.Array, of_y: jax.Array) -> Any:
    """The tree ``factor g + S of_s + Y of_y`` in the dtypes of g, in one pass over the rows."""

    def of_leaf(g: jax.Array, rows_s: jax.Array, rows_y: jax.Array) -> jax.Array:
        wide = numerics.at_least_float32(g.dtype)
        a, b, c = (x.astype(wide) for x in (factor, of_s, of_y))
        total = a * g
        if len(rows_s) > _MAX_UNROLLED and jnp.finfo(g.dtype).dtype == wide:
            highest = jax.lax.Precision.HIGHEST
            for factors, rows in ((b, rows_s), (c, rows_y)):
                factors = factors.astype(g.dtype)
                total = total + jnp.tensordot(factors, rows, axes=1, precision=highest)
            return total.astype(g.dtype)
        # Axes are kept, so that every term is one product of slices.
        b, c = (x.reshape(-1, *(1,) * g.ndim) for x in (b, c))
        total = total[None]
        for k in range(len(rows_s)):
            here = slice(k, k + 1)
            total = total + b[here] * rows_s[here] + c[here] * rows_y[here]
        return total[0].astype(g.dtype)

    return jax.tree.map(of_leaf, g, *rows)
