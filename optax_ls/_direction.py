"""The direction that L-BFGS makes of its memory.

The memory holds the last m pairs s = w' - w and y = g' - g, stacked on a leading axis of each
leaf, in a ring. With S = [s_1 ... s_m], Y = [y_1 ... y_m] and R the upper triangle of S'Y in the
order of age, the inverse Hessian approximation is (Byrd, Nocedal & Schnabel, Mathematical
Programming 63 (1994), 129-156, Theorem 2.2)::

    H = gamma I + [S  gamma Y] [ R^-T (D + gamma Y'Y) R^-1   -R^-T ] [ S'       ]
                               [ -R^-1                         0   ] [ gamma Y' ]

so that H g takes one sweep over the memory for all inner products and one for the combination.
R^-1 and Y'Y are kept in the state. Written by slot of the ring instead of by age, R^-1 is a
triangular matrix with rows and columns permuted alike, and a new pair changes only its own row
and column:

* dropping the oldest pair drops a first row and column of R, and so of R^-1;
* adding a newest pair adds a last column r, with <s, y> at its end, to R. In the inverse that is
  the column -R^-1 r / <s, y>, with 1 / <s, y> at its end.

Only that row and column are ever written, and only after all products have been taken: until then
H is computed from the matrices without the pair, and from its column and row. What stands in rows
and columns of empty slots is finite, and always met by a zero.

The products of the memory with a new y = g' - g are the differences of its products with g' and g,
as Byrd, Nocedal & Schnabel have it, so that a sweep over the memory is saved. Where y is short
beside g' such a difference has lost digits, and the sweep is made.

All inner products are real: a complex vector counts as the real one of twice its length.
"""

from typing import Any, NamedTuple, Optional

import chex
import jax
import jax.numpy as jnp

from . import _lanes, _memory, _numerics, _reductions, _scale, tree
from ._memory import Lesson, ScaleByLBFGSState


class Products(NamedTuple):
    """All inner products that one update needs.

    Of the memory with g and y; and of the new vectors g (the gradient), s and y (the pair) among
    themselves. y is that which enters, with its multiple ``bend`` of s.
    """

    s_g: jax.Array
    y_g: jax.Array
    s_y: jax.Array
    y_y: jax.Array
    bend: jax.Array
    new_gg: jax.Array
    new_sg: jax.Array
    new_yg: jax.Array
    new_ss: jax.Array
    new_sy: jax.Array
    new_yy: jax.Array


def norm(g: Any, dtype: Any, square: Optional[jax.Array] = None) -> Any:
    """The length of g, also where its square overflows; ``square`` is that if it is known."""
    square = _reductions.inner(g, g, dtype) if square is None else square

    def of_small_multiple() -> Any:
        small = 2.0 ** (_numerics.finfo(dtype).minexp // 2)
        wide = jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, dtype)), g)
        multiple = tree.scale(small, wide)
        return jnp.sqrt(_reductions.inner(multiple, multiple, dtype)) / small

    overflows = jnp.isinf(square)
    return jax.lax.cond(
        _lanes.any_lane(overflows),
        lambda: jnp.where(overflows, of_small_multiple(), jnp.sqrt(square)),
        lambda: jnp.sqrt(square),
    )


# A change of the gradient that is shorter than this part of it has lost digits in products that are
# taken as differences.
_LONG_ENOUGH = 1 / 4
# By which part of itself <s, y> may become smaller or larger, and which change is not worth a sweep
# over the memory.
_LEAST_BEND, _MOST_BEND = -0.7, 5.0
_SLIGHT_BEND = 0.1
# How much larger than their rounding values must change to say anything about a curvature.
_VISIBLE = 1000


def bent(sg: Any, ss: Any, sy: Any, values: Optional[tuple[Any, Any]]) -> jax.Array:
    """The multiple of s that is added to y for what the values at both ends of the pair say.

    <s, y> / |s|^2 is a mean of the second derivative between the ends. The cubic with the values f,
    f' and the slopes of both has <s, y> + 6 (f - f') + 3 <s, g + g'>, over |s|^2, at its newer end;
    with the multiple, y has that too (Zhang, Deng & Chen, Journal of Optimization Theory and
    Applications 102 (1999), 147-167).

    Args:
        sg: <s, g'>.
        ss: |s|^2.
        sy: <s, y>.
        values: f and f'; None for no multiple.
    """
    if values is None:
        return jnp.zeros_like(sy)
    before, after = values
    bend = 6 * (before - after) + 6 * sg - 3 * sy
    bend = jnp.clip(bend, _LEAST_BEND * sy, _MOST_BEND * sy)
    visible = jnp.abs(before - after) > _VISIBLE * _numerics.finfo(sy.dtype).eps * jnp.abs(before)
    worth = (sy > 0) & (ss > 0) & (jnp.abs(bend) > _SLIGHT_BEND * sy)
    worth = worth & visible & jnp.isfinite(after)
    return jnp.where(worth, bend / ss, 0)


def inner_products(
    state: ScaleByLBFGSState,
    g: Any,
    s: Any,
    y: Any,
    values: Optional[tuple[Any, Any]] = None,
) -> Products:
    """One sweep over the memory, and one all-reduce; two of each where y is short, or bent.

    Args:
        state: before the pair.
        g: tree, the gradient.
        s: tree, the step.
        y: tree, the change of the gradient.
        values: see :func:`bent`.
    """
    dtype, size = state.weights_memory.dtype, state.weights_memory.shape[0]
    rows = state.diff_params_memory, state.diff_updates_memory

    def with_rows(rows_s: Any, rows_y: Any, vector: Any) -> list[jax.Array]:
        return [_reductions.dot(rows, vector, dtype) for rows in (rows_s, rows_y)]

    def of_leaf(rows_s: Any, rows_y: Any, g: Any, s: Any, y: Any) -> list[jax.Array]:
        among_new = (g, g), (s, g), (y, g), (s, s), (s, y), (y, y)
        products = [_reductions.dot(a, b, dtype) for a, b in among_new]
        return [*with_rows(rows_s, rows_y, g), *products]

    of_rows = ((size,), (size,))
    s_g, y_g, gg, sg, yg, ss, sy, yy = _reductions.total(
        of_leaf, (*rows, g, s, y), (*of_rows, *((),) * 6), dtype
    )
    bend = bent(sg, ss, sy, values)

    def directly() -> tuple[jax.Array, ...]:
        bent_y = _memory.plus_multiple(y, bend, s)
        return tuple(_reductions.total(with_rows, (*rows, bent_y), of_rows, dtype))

    short = yy < _LONG_ENOUGH**2 * gg
    s_y, y_y = jax.lax.cond(
        (state.num_pairs > 0) & (short | (bend != 0)),
        directly,
        lambda: (s_g - state.s_dot_g, y_g - state.y_dot_g),
    )
    return Products(
        s_g=s_g,
        y_g=y_g,
        s_y=s_y,
        y_y=y_y,
        bend=bend,
        new_gg=gg,
        new_sg=sg,
        new_yg=yg + bend * sg,
        new_ss=ss,
        new_sy=sy + bend * ss,
        new_yy=yy + bend * (2 * sy + bend * ss),
    )


def _has_curvature(products: Products) -> Any:
    """Whether the new pair keeps H positive definite (a cautious update, free of scale)."""
    finfo = _numerics.finfo(products.new_sy.dtype)
    lengths = jnp.sqrt(products.new_ss) * jnp.sqrt(products.new_yy)
    return (products.new_sy > finfo.eps * lengths) & (products.new_sy > finfo.tiny)


def learn(
    state: ScaleByLBFGSState,
    products: Products,
    allowed: chex.Numeric = True,
    forget: chex.Numeric = False,
) -> Lesson:
    """What to do with the pair: it enters in place of the oldest, if it has curvature.

    Args:
        state: has the algebra of the memory without the pair.
        products: of memory, gradient and pair.
        allowed: bool, whether the pair may enter at all.
        forget: bool, whether to drop the older pairs first.
    """
    slots = jnp.arange(state.weights_memory.shape[0])
    slot = jnp.where(forget, 0, state.num_pairs) % len(slots)
    rho, new = state.weights_memory, slots == slot
    old = (rho != 0) & ~jnp.asarray(forget)
    older = old & ~new
    may_enter = jnp.asarray(allowed) & _has_curvature(products)
    sy = jnp.where(may_enter, products.new_sy, 1)
    column = jnp.where(older, -_dot(state.inverse_r, jnp.where(older, products.s_y, 0)) / sy, 0)
    y_y = jnp.where(older, products.y_y, 0)
    good = may_enter & jnp.all(jnp.isfinite(column) & jnp.isfinite(y_y))

    def if_good(x: jax.Array) -> jax.Array:
        return jnp.where(good, x, 0)

    here = good & new  # where the pair enters: one at most is true
    num_pairs = jnp.where(forget, 0, jnp.asarray(state.num_pairs))
    return Lesson(
        good=good,
        slot=slot,
        bend=products.bend,
        column=if_good(column),
        y_y=if_good(y_y),
        sy=sy,
        yy=if_good(products.new_yy),
        sg=if_good(products.new_sg),
        yg=if_good(products.new_yg),
        weights_memory=jnp.where(here, 1 / sy, jnp.where(old, rho, 0)),
        num_pairs=jnp.where(good, _numerics.increment(num_pairs), num_pairs),
        s_dot_g=jnp.where(here, products.new_sg, products.s_g),
        y_dot_g=jnp.where(here, products.new_yg, products.y_g),
    )


def _dot(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    return jnp.tensordot(matrix, vector, axes=1, precision=jax.lax.Precision.HIGHEST)


class Weights(NamedTuple):
    """H g as a combination: ``g`` times the gradient, plus ``s`` and ``y`` times the memory.

    ``new_s`` and ``new_y`` are the weights of the pair itself, which is not among the rows yet; the
    rows in its slot have none.
    """

    g: jax.Array
    s: jax.Array
    y: jax.Array
    new_s: jax.Array
    new_y: jax.Array


def weigh(state: ScaleByLBFGSState, lesson: Lesson, gamma: jax.Array) -> Weights:
    """The weights of H g after a lesson, by the formula at the top of this module.

    Args:
        state: has R^-1 and Y'Y before the lesson.
        lesson: of the pair.
        gamma: the factor of the identity.
    """
    rho, column, y_y = lesson.weights_memory, lesson.column, lesson.y_y
    older = (rho != 0) & ~(lesson.good & (jnp.arange(len(rho)) == lesson.slot))

    def of_older(x: jax.Array) -> jax.Array:
        return jnp.where(older, x, 0)

    s_g, y_g = of_older(lesson.s_dot_g), of_older(lesson.y_dot_g)
    new_y = jnp.where(lesson.good, lesson.sg / lesson.sy, 0)
    of_y = of_older(_dot(state.inverse_r, s_g)) + column * lesson.sg
    gram_y = of_older(_dot(state.gram_y, of_y)) + y_y * new_y
    new_gram_y = _dot(y_y, of_y) + lesson.yy * new_y
    # Divided by 1 where nothing is, so that derivatives exist.
    inner = of_older(of_y) / jnp.where(older, rho, 1) + gamma * (gram_y - y_g)
    new_inner = lesson.sg + gamma * (new_gram_y - lesson.yg)
    of_s = of_older(_dot(inner, state.inverse_r))
    new_s = _dot(column, inner) + jnp.where(lesson.good, new_inner / lesson.sy, 0)
    of_y, new_y = -gamma * of_y, -gamma * new_y
    return Weights(gamma, of_s, of_y, new_s + lesson.bend * new_y, new_y)


def combine(rows_s: Any, rows_y: Any, g: Any, s: Any, y: Any, weights: Weights) -> Any:
    """The combination of trees that ``weights`` are for.

    Args:
        rows_s: tree with a leading axis of length m, the older s.
        rows_y: the same for y.
        g: tree.
        s: tree, of the pair.
        y: tree, of the pair.
        weights: of them all.
    """
    return jax.tree.map(
        lambda *leaves: _combination(*leaves, weights=tuple(weights)), g, s, y, rows_s, rows_y
    )


# Up to so many pairs their combination is one fused loop. Such a loop over more vectors at once is
# slower than one matrix product for each stack; but for half types, which a product would want
# widened in memory.
_MOST_UNROLLED = 24


@jax.jit  # traced once for all leaves of one shape
def _combination(g: Any, s: Any, y: Any, rows_s: Any, rows_y: Any, *, weights: Any) -> Any:
    wide = _numerics.at_least_float32(g.dtype)
    of_g, of_rows_s, of_rows_y, of_s, of_y = (weight.astype(wide) for weight in weights)
    total = of_g * g + of_s * s + of_y * y
    if len(rows_s) > _MOST_UNROLLED and _numerics.finfo(g.dtype).dtype == wide:
        for weights_of_rows, rows in ((of_rows_s, rows_s), (of_rows_y, rows_y)):
            total = total + _dot(weights_of_rows.astype(g.dtype), rows)
        return total
    for slot in range(len(rows_s)):  # unrolled, so that all becomes one fused sweep
        total = total + of_rows_s[slot] * rows_s[slot] + of_rows_y[slot] * rows_y[slot]
    return total.astype(g.dtype)


def propose(
    state: ScaleByLBFGSState,
    g: Any,
    s: Any,
    y: Any,
    allowed: chex.Numeric = True,
    forget: chex.Numeric = False,
    values: Optional[Any] = None,
    *,
    scale: _scale.Scale = _scale.of_newest,
    factor: float = 1.0,
) -> tuple[Any, Lesson]:
    """H g with the pair in the memory, times a factor, and what is to be written there.

    Args:
        state: before the pair.
        g: tree, the gradient.
        s: tree, the step.
        y: tree, the change of the gradient.
        allowed: bool, whether the pair may enter if it has curvature.
        forget: bool, whether the older pairs are dropped.
        values: the objective at both ends of the pair, to bend y by; None leaves it.
        scale: gives the factor gamma of the identity.
        factor: of H g.
    """

    def algebra(numbers: Any, products: Products, *rest: Any) -> tuple[Lesson, Weights]:
        *flags, g_norm = rest
        lesson = learn(numbers, products, *flags)
        weights = weigh(numbers, lesson, scale(numbers, lesson, products.new_ss, g_norm))
        return lesson, Weights(*(factor * weight for weight in weights))

    none: dict[str, Any] = dict.fromkeys(
        ("params", "updates", "diff_params_memory", "diff_updates_memory")
    )
    products = inner_products(state, g, s, y, values)
    g_norm = norm(g, products.new_gg.dtype, products.new_gg)
    flags = jnp.asarray(allowed), jnp.asarray(forget)
    told = state._replace(**none), products, *flags, g_norm
    lesson, weights = _lanes.apart(jnp.asarray(state.num_pairs) >= 0, algebra, *told)
    rows = state.diff_params_memory, state.diff_updates_memory
    return combine(*rows, g, s, y, weights), lesson
