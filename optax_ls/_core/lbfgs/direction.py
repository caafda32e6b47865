"""The direction that L-BFGS makes of its memory.

The memory holds the last m pairs s = w' - w and y = g' - g, stacked on a leading axis of each
leaf, in a ring. With S = [s_1 ... s_m], Y = [y_1 ... y_m] and R the upper triangle of S'Y in the
order of age, the inverse Hessian approximation is (Byrd, Nocedal & Schnabel, Mathematical
Programming 63 (1994), 129-156, Theorem 2.2)::

    H = gamma I + [S  gamma Y] [ R^-T (D + gamma Y'Y) R^-1   -R^-T ] [ S'       ]
                               [ -R^-1                         0   ] [ gamma Y' ]

so that H g takes one sweep over the memory for all inner products (``_products.py``), and one for
the combination.
R^-1 and Y'Y are kept in the state. Written by slot of the ring instead of by age, R^-1 is a
triangular matrix with rows and columns permuted alike, and a new pair changes only its own row
and column:

* dropping the oldest pair drops a first row and column of R, and so of R^-1;
* adding a newest pair adds a last column r, with <s, y> at its end, to R. In the inverse that is
  the column -R^-1 r / <s, y>, with 1 / <s, y> at its end.

Only that row and column of the matrices are ever written, and only once H g has its weights: until
then they are computed from the matrices without the pair, and from its column and row. What stands
in rows and columns of empty slots is finite, and always met by a zero.

All inner products are real: a complex vector counts as the real one of twice its length.
"""

from typing import Any, NamedTuple, Optional

import chex
import jax
import jax.numpy as jnp

from .. import batching, numerics
from . import memory as _memory
from . import products as _products
from . import scaling
from .memory import Ends, Lesson, ScaleByLBFGSState
from .products import Products


def _has_curvature(products: Products) -> Any:
    """Whether the new pair keeps H positive definite (a cautious update, free of scale)."""
    finfo = numerics.finfo(products.new_sy.dtype)
    lengths = jnp.sqrt(products.new_ss) * jnp.sqrt(products.new_yy)
    return (products.new_sy > finfo.eps * lengths) & (products.new_sy > finfo.tiny)


def learn(
    state: ScaleByLBFGSState,
    products: Products,
    slot: jax.Array,
    replaced: jax.Array,
    forget: jax.Array,
) -> Lesson:
    """What to do with the pair in the rows: it stays if it has curvature.

    Args:
        state: has the algebra of the memory without the pair.
        products: of memory, gradient and pair.
        slot: where the pair stands.
        replaced: bool, whether it does.
        forget: bool, whether to drop the older pairs.
    """
    rho, new = state.weights_memory, jnp.arange(state.weights_memory.shape[0]) == slot
    older = (rho != 0) & ~forget & ~(new & replaced)
    may_stay = replaced & _has_curvature(products)
    sy = jnp.where(may_stay, products.new_sy, 1)
    column = jnp.where(older, -_dot(state.inverse_r, jnp.where(older, products.s_y, 0)) / sy, 0)
    y_y = jnp.where(older, products.y_y, 0)
    good = may_stay & jnp.all(jnp.isfinite(column) & jnp.isfinite(y_y))

    def if_good(x: jax.Array) -> jax.Array:
        return jnp.where(good, x, 0)

    def with_new(x: jax.Array, of_new: jax.Array) -> jax.Array:
        return jnp.where(new & replaced, if_good(of_new), x)

    others = ~forget if len(rho) > 1 else ~(forget | replaced)  # whether there may be any
    before = jnp.where(forget, 0, jnp.asarray(state.num_pairs))
    return Lesson(
        good=good,
        replaced=replaced,
        slot=slot,
        column=if_good(column),
        y_y=if_good(y_y),
        sy=sy,
        yy=if_good(products.new_yy),
        sg=if_good(products.new_sg),
        yg=if_good(products.new_yg),
        weights_memory=with_new(jnp.where(older, rho, 0), 1 / sy),
        num_pairs=jnp.where(good, numerics.increment(before), jnp.where(others, before, 0)),
        s_dot_g=with_new(products.s_g, products.new_sg),
        y_dot_g=with_new(products.y_g, products.new_yg),
        bends=state.bends if products.bend is None else with_new(state.bends, products.bend),
    )


def _dot(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    return jnp.tensordot(matrix, vector, axes=1, precision=jax.lax.Precision.HIGHEST)


class Weights(NamedTuple):
    """H g as a combination: ``g`` times the gradient, plus ``s`` and ``y`` times the memory."""

    g: jax.Array
    s: jax.Array
    y: jax.Array


def weigh(state: ScaleByLBFGSState, lesson: Lesson, gamma: jax.Array) -> Weights:
    """The weights of H g after a lesson, by the formula at the top of this module.

    Args:
        state: has R^-1 and Y'Y before the lesson.
        lesson: of the pair.
        gamma: the factor of the identity.
    """
    rho, column, y_y = lesson.weights_memory, lesson.column, lesson.y_y
    here = lesson.good & (jnp.arange(len(rho)) == lesson.slot)
    older = (rho != 0) & ~here

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
    s, y = jnp.where(here, new_s, of_s), jnp.where(here, new_y, of_y)
    y = -gamma * y
    return Weights(gamma, s if lesson.bends is None else s + lesson.bends * y, y)


def combine(rows_s: Any, rows_y: Any, g: Any, weights: Weights) -> Any:
    """The combination of trees that ``weights`` are for.

    Args:
        rows_s: tree with a leading axis of length m, each s.
        rows_y: the same for y.
        g: tree.
        weights: of them all.
    """
    return jax.tree.map(
        lambda *leaves: _combination(*leaves, weights=tuple(weights)), g, rows_s, rows_y
    )


# Up to so many pairs their combination is one fused loop. Such a loop over more vectors at once is
# slower than one matrix product for each stack; but for half types, which a product would want
# widened in memory.
_MOST_UNROLLED = 24


@jax.jit  # traced once for all leaves of one shape
def _combination(g: Any, rows_s: Any, rows_y: Any, *, weights: Any) -> Any:
    wide = numerics.at_least_float32(g.dtype)
    of_g, of_s, of_y = (weight.astype(wide) for weight in weights)
    total = of_g * g
    if len(rows_s) > _MOST_UNROLLED and numerics.finfo(g.dtype).dtype == wide:
        for weights_of_rows, rows in ((of_s, rows_s), (of_y, rows_y)):
            total = total + _dot(weights_of_rows.astype(g.dtype), rows)
        return total
    for slot in range(len(rows_s)):  # unrolled, so that all becomes one fused sweep
        total = total + of_s[slot] * rows_s[slot] + of_y[slot] * rows_y[slot]
    return total.astype(g.dtype)


def propose(
    state: ScaleByLBFGSState,
    ends: Ends,
    allowed: chex.Numeric = True,
    forget: chex.Numeric = False,
    values: Optional[Any] = None,
    *,
    scale: scaling.Scale = scaling.of_newest,
    factor: float = 1.0,
) -> tuple[Any, ScaleByLBFGSState]:
    """H g with the pair in the memory, times a factor, and the memory with it, at the newer end.

    Args:
        state: before the pair. Its params and gradient may be None, and then stay so.
        ends: of the step that makes the pair; g is the gradient at the newer.
        allowed: bool, whether the pair may enter if it has curvature.
        forget: bool, whether the older pairs are dropped.
        values: the objective at both ends, to bend y by; None leaves it.
        scale: gives the factor gamma of the identity.
        factor: of H g.
    """
    ends = ends.with_small_pair()
    allowed, forget = jnp.asarray(allowed), jnp.asarray(forget)
    slot = jnp.where(forget, 0, state.num_pairs) % len(state.weights_memory)
    state = _memory.put_pair(state, ends, slot, allowed)

    def algebra(
        numbers: Any, products: Products, g_norm: jax.Array, *pair: Any
    ) -> tuple[Lesson, Weights]:
        lesson = learn(numbers, products, *pair)
        gamma = scale(numbers, lesson, products.new_ss, g_norm)
        weights = weigh(numbers, lesson, gamma)
        return lesson, Weights(*(factor * weight for weight in weights))

    # Of one device these go on while the pair is written; several exchange all sums in one.
    alone, dtype = jax.device_count() == 1, state.weights_memory.dtype
    among = _products.among_pair(ends, dtype) if alone else None
    none: dict[str, Any] = {"params": None, "updates": None}
    ever = jnp.asarray(state.num_pairs) >= 0  # always, which the compiler cannot know
    told = state._replace(**none), ends, slot, values, among
    # By itself, so that nothing else is ready when it begins: see _products._both_dots.
    products = batching.by_itself(ever, _products.inner_products, *told)
    none.update(diff_params_memory=None, diff_updates_memory=None)
    numbers = state._replace(**none)
    lesson, weights = batching.apart(ever, algebra, numbers, *products, slot, allowed, forget)
    state, g = _memory.settle(state, lesson), ends.new_grad
    if state.params is not None:
        state = _memory.arrive(state, ends, lesson.num_pairs >= 0)
        g = state.updates
    return combine(state.diff_params_memory, state.diff_updates_memory, g, weights), state
