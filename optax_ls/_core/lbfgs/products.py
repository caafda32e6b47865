"""The inner products that L-BFGS makes a direction of: one sweep over the memory, seldom two.

The products of the memory with a new y = g' - g are the differences of its products with g' and g,
as Byrd, Nocedal & Schnabel have it, so that a sweep over the memory is saved. Where y is short
beside g' such a difference has lost digits, and the sweep is made.

y may be bent: get a multiple of s, for what the values of the objective say.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp

from .. import batching, numerics, reductions, sweep, tree
from . import memory as _memory
from .memory import Ends, ScaleByLBFGSState


class Products(NamedTuple):
    """All inner products that one update needs.

    Of the memory with g and y; and those of the new vectors g (the gradient), s and y (the pair). y
    is that which enters, with its multiple ``bend`` of s, which is None if it is taken as it is.
    """

    s_g: jax.Array
    y_g: jax.Array
    s_y: jax.Array
    y_y: jax.Array
    gg: jax.Array
    new_ss: jax.Array
    new_sy: jax.Array
    new_yy: jax.Array
    new_sg: jax.Array
    new_yg: jax.Array
    bend: Any


def norm(g: Any, dtype: Any, square: Optional[jax.Array] = None) -> Any:
    """The length of g, also where its square overflows; ``square`` is that if it is known."""
    square = reductions.inner(g, g, dtype) if square is None else square

    def of_small_multiple() -> Any:
        small = 2.0 ** (numerics.finfo(dtype).minexp // 2)
        wide = jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, dtype)), g)
        multiple = tree.scale(small, wide)
        return jnp.sqrt(reductions.inner(multiple, multiple, dtype)) / small

    overflows = jnp.isinf(square)
    return jax.lax.cond(
        batching.any_lane(overflows),
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


def bent(sg: Any, ss: Any, sy: Any, values: tuple[Any, Any]) -> jax.Array:
    """The multiple of s that is added to y for what the values at both ends of the pair say.

    <s, y> / |s|^2 is a mean of the second derivative between the ends. The cubic with the values f,
    f' and the slopes of both has <s, y> + 6 (f - f') + 3 <s, g + g'>, over |s|^2, at its newer end;
    with the multiple, y has that too (Zhang, Deng & Chen, Journal of Optimization Theory and
    Applications 102 (1999), 147-167).

    Args:
        sg: <s, g'>.
        ss: |s|^2.
        sy: <s, y>.
        values: f and f'.
    """
    before, after = values
    bend = 6 * (before - after) + 6 * sg - 3 * sy
    bend = jnp.clip(bend, _LEAST_BEND * sy, _MOST_BEND * sy)
    visible = jnp.abs(before - after) > _VISIBLE * numerics.finfo(sy.dtype).eps * jnp.abs(before)
    worth = (sy > 0) & (ss > 0) & (jnp.abs(bend) > _SLIGHT_BEND * sy)
    worth = worth & visible & jnp.isfinite(after)
    return jnp.where(worth, bend / ss, 0)


def _both_dots(rows_s: Any, rows_y: Any, g: Any, gg: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The products of both stacks of rows with a vector, side by side.

    XLA for CPUs computes each in one thread, and both in the same thread if they become ready
    together. So the second is made to wait for the square of the vector, which another thread
    knows long before the first is done.

    Args:
        rows_s: leaf with a leading axis of length m.
        rows_y: the same.
        g: leaf.
        gg: its square.
    """

    def with_g(rows: jax.Array, g: jax.Array) -> jax.Array:
        return sweep.dot(rows, g, gg.dtype)

    if g.size <= _memory.SMALL:
        return with_g(rows_s, g), with_g(rows_y, g)
    # No square is negative, which the compiler cannot know.
    return with_g(rows_s, g), batching.by_itself(~(gg < 0), with_g, rows_y, g)


def among_pair(ends: Ends, dtype: Any) -> Sequence[jax.Array]:
    """|s|^2, <s, y> and |y|^2."""
    return reductions.total(
        lambda *leaves: _among_pair(*leaves, dtype=dtype), _twice(ends), ((),) * 3, dtype
    )


def _twice(ends: Ends) -> tuple[Any, ...]:
    """The pair, and once more with the other sign.

    A difference that stands in one product only the compiler takes in the sweep for that, and
    makes no vector of it.
    """
    return *ends.pair, *ends.opposite.pair


def _among_pair(s: Any, y: Any, r: Any, z: Any, *, dtype: Any) -> list[jax.Array]:
    return sweep.dots([(r, r), (s, y), (z, z)], dtype)


def inner_products(
    state: ScaleByLBFGSState,
    ends: Ends,
    slot: jax.Array,
    values: Optional[tuple[Any, Any]] = None,
    among: Optional[Sequence[jax.Array]] = None,
) -> tuple[Products, jax.Array]:
    """All inner products that one update needs, and |g|.

    If the pair is not in the rows, only what is not about it means anything.

    Args:
        state: has the pair in the rows of its slot.
        ends: of the step that makes the pair.
        slot: of the pair.
        values: see :func:`bent`.
        among: what :func:`among_pair` gives, if that is known.
    """
    dtype = state.weights_memory.dtype
    if values is None and reductions.may_be_exchanged():
        products = _at_once(state, ends, slot)
    else:
        products = _in_turn(state, ends, slot, values, among)
    return products, norm(ends.new_grad, dtype, products.gg)


def _in_turn(
    state: ScaleByLBFGSState,
    ends: Ends,
    slot: jax.Array,
    values: Optional[tuple[Any, Any]] = None,
    among: Optional[Sequence[jax.Array]] = None,
) -> Products:
    """One sweep over the memory, and one all-reduce; two of each where y is short, or bent."""
    dtype, size = state.s_dot_g.dtype, len(state.s_dot_g)
    rows = state.diff_params_memory, state.diff_updates_memory

    def with_rows(rows_s: Any, rows_y: Any, g: Any, *pair: Any) -> Sequence[jax.Array]:
        gg = sweep.dot(g, g, dtype)
        products = *_both_dots(rows_s, rows_y, g, gg), gg
        return products if not pair else (*products, *_among_pair(*pair, dtype=dtype))

    trees = (*rows, ends.new_grad, *(_twice(ends) if among is None else ()))
    shapes = (size,), (size,), *((),) * (4 if among is None else 1)
    s_g, y_g, gg, *found = reductions.total(with_rows, trees, shapes, dtype)
    ss, sy, yy = found if among is None else among
    sg, yg = _of_pair(s_g, slot), _of_pair(y_g, slot)
    loses_digits, bend = yy < _LONG_ENOUGH**2 * gg, None
    if values is not None:
        bend = bent(sg, ss, sy, values)
        loses_digits |= bend != 0
        y_g = y_g + state.bends * s_g
        yg, sy, yy = yg + bend * sg, sy + bend * ss, yy + bend * (2 * sy + bend * ss)

    def directly() -> tuple[jax.Array, ...]:
        s, y = ends.pair
        if bend is not None:
            y = jax.tree.map(lambda y, s: (y + bend * s).astype(y.dtype), y, s)
        s_y, y_y, _ = reductions.total(with_rows, (*rows, y), shapes[:3], dtype)
        return s_y, y_y if bend is None else y_y + state.bends * s_y

    s_y, y_y = jax.lax.cond(
        (state.num_pairs > 0) & loses_digits,
        directly,
        lambda: (s_g - state.s_dot_g, y_g - state.y_dot_g),
    )
    return Products(s_g, y_g, s_y, y_y, gg, ss, sy, yy, sg, yg, bend)


def _at_once(state: ScaleByLBFGSState, ends: Ends, slot: jax.Array) -> Products:
    """What :func:`_in_turn` gives without values, of several devices by one all-reduce in any case.

    No device knows whether y is short before all have exchanged their sums. So each takes the
    products with y in the first sweep, wanted or not.
    """
    dtype, size = state.s_dot_g.dtype, len(state.s_dot_g)
    rows = state.diff_params_memory, state.diff_updates_memory

    def local(rows_s: Any, rows_y: Any, *ends: Any) -> Sequence[jax.Array]:
        step = Ends(*ends)
        vectors = step.new_grad, step.pair[1]
        s_g, s_y = sweep.dot_with_each(rows_s, vectors, dtype)
        y_g, y_y = sweep.dot_with_each(rows_y, vectors, dtype)
        gg = sweep.dot(step.new_grad, step.new_grad, dtype)
        return s_g, y_g, s_y, y_y, gg, *_among_pair(*_twice(step), dtype=dtype)

    def alone(told: Any, rows_s: Any, rows_y: Any, *ends: Any) -> Sequence[jax.Array]:
        state, slot = told
        state = state._replace(diff_params_memory=rows_s, diff_updates_memory=rows_y)
        return _in_turn(state, Ends(*ends), slot)[: len(shapes)]

    shapes = ((size,),) * 4 + ((),) * 4
    numbers: dict[str, Any] = dict.fromkeys(ScaleByLBFGSState._fields)
    numbers |= {
        "num_pairs": jnp.asarray(state.num_pairs),
        "s_dot_g": state.s_dot_g,
        "y_dot_g": state.y_dot_g,
    }
    told = ScaleByLBFGSState(**numbers), slot
    sums = reductions.total(local, (*rows, *ends[:4]), shapes, dtype, alone, told)
    of_pair = (_of_pair(products, slot) for products in sums[:2])
    return Products._make([*sums, *of_pair, None])


def _of_pair(products: jax.Array, slot: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(jnp.arange(len(products)) == slot, products, 0))
