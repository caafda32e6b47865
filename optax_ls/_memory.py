"""The memory of L-BFGS: its state, and how a pair is written into it.

The memory holds the last m pairs s = w' - w and y = g' - g, stacked on a leading axis of each
leaf, in a ring. What the state holds beside them is algebra on m x m matrices, which
``_direction.py`` explains and makes: a lesson.
"""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from . import _base, _lanes, _numerics


class ScaleByLBFGSState(NamedTuple):
    """State of :func:`scale_by_lbfgs`.

    Attributes:
        count: counter, updates so far.
        params: tree, the params of the last update; zeros before the first.
        updates: tree like the params, the gradient of the last update; zeros before the first.
        diff_params_memory: tree like the params with a leading axis of length ``memory_size``,
            the s of each pair; zeros in empty slots.
        diff_updates_memory: the same for y.
        weights_memory: ``(memory_size,)`` in the search dtype, rho = 1 / <s, y> of each pair;
            zero in empty slots.
        num_pairs: counter, pairs that have entered; the next goes to slot
            ``num_pairs % memory_size``.
        inverse_r: ``(memory_size, memory_size)`` in the search dtype, R^-1 by slots; whatever is
            finite in rows and columns of empty slots.
        gram_y: the same for Y'Y.
        s_dot_g: ``(memory_size,)`` in the search dtype, the products of each s with ``updates``.
        y_dot_g: the same for y.
    """

    count: chex.Numeric  # type: ignore[assignment]  # hides tuple.count, as Optax's does
    params: _base.Params
    updates: _base.Params
    diff_params_memory: _base.Params
    diff_updates_memory: _base.Params
    weights_memory: jax.Array
    num_pairs: jax.Array
    inverse_r: jax.Array
    gram_y: jax.Array
    s_dot_g: jax.Array
    y_dot_g: jax.Array


class Lesson(NamedTuple):
    """What a new pair teaches: where it goes, and the numbers of the state with it.

    Attributes:
        good: bool, whether the pair enters.
        slot: counter, where it enters.
        bend: scalar of the search dtype, the multiple of s that is added to y.
        column: ``(memory_size,)``, by slots, the column of the pair in R^-1, but for 1 / <s, y>.
        y_y: ``(memory_size,)``, by slots, the products of its y with the older ones.
        sy: scalar of the search dtype, <s, y>; 1 if the pair may not enter.
        yy: scalar likewise, <y, y>; 0 if the pair does not enter.
        sg: scalar likewise, <s, g>; 0 if the pair does not enter.
        yg: scalar likewise, <y, g>; 0 if the pair does not enter.
        weights_memory: see :class:`ScaleByLBFGSState`, as all that follow.
        num_pairs: likewise.
        s_dot_g: likewise.
        y_dot_g: likewise.
    """

    good: jax.Array
    slot: jax.Array
    bend: jax.Array
    column: jax.Array
    y_y: jax.Array
    sy: jax.Array
    yy: jax.Array
    sg: jax.Array
    yg: jax.Array
    weights_memory: jax.Array
    num_pairs: jax.Array
    s_dot_g: jax.Array
    y_dot_g: jax.Array

    @property
    def numbers(self) -> dict[str, jax.Array]:
        """The fields that are those of the state."""
        fields = self._asdict()
        return {name: fields[name] for name in ScaleByLBFGSState._fields if name in fields}


def nothing_learnt(state: ScaleByLBFGSState) -> Lesson:
    """The lesson that changes nothing."""
    same = {name: getattr(state, name) for name in Lesson._fields if hasattr(state, name)}
    nothing = jnp.zeros_like(state.weights_memory)
    zero = jnp.zeros((), nothing.dtype)
    return Lesson(
        good=jnp.zeros((), bool),
        slot=jnp.zeros_like(same["num_pairs"]),
        bend=zero,
        column=nothing,
        y_y=nothing,
        sy=zero + 1,
        yy=zero,
        sg=zero,
        yg=zero,
        **same,
    )


class Stacks(NamedTuple):
    """What of the state has an axis for the slots and is written in place."""

    s: Any
    y: Any
    inverse_r: jax.Array
    gram_y: jax.Array

    @classmethod
    def of(cls, state: ScaleByLBFGSState) -> "Stacks":
        """Those of a state."""
        rows = state.diff_params_memory, state.diff_updates_memory
        return cls(*rows, state.inverse_r, state.gram_y)


def with_pair(condition: Any, stacks: Stacks, pair: tuple[Any, Any], lesson: Lesson) -> Stacks:
    """The stacks with a pair in its slot, y bent, where the condition holds."""
    (s, y), slot, size = pair, lesson.slot, len(lesson.column)

    def put(x: jax.Array, part: jax.Array, axis: int = 0) -> Any:
        if condition is True:
            return jax.lax.dynamic_update_index_in_dim(x, part, slot, axis)
        # Writing beyond the last slot is writing nothing.
        place = (slice(None),) * axis + (jnp.where(condition, slot, size),)
        return x.at[place].set(part, mode="drop")

    here = jnp.arange(size) == slot
    column = jnp.where(here, 1 / lesson.sy, lesson.column)
    y_y = jnp.where(here, lesson.yy, lesson.y_y)
    return Stacks(
        jax.tree.map(put, stacks.s, s),
        jax.tree.map(put, stacks.y, plus_multiple(y, lesson.bend, s)),
        # A newest pair has a column in the triangle, but of a row only what stands in that.
        put(put(stacks.inverse_r, jnp.zeros_like(column)), column, axis=1),
        put(put(stacks.gram_y, y_y), y_y, axis=1),
    )


def write(state: ScaleByLBFGSState, s: Any, y: Any, lesson: Lesson) -> ScaleByLBFGSState:
    """The state after a lesson."""

    @jax.custom_jvp  # a loop has no reverse derivative; what happens in it has
    def written(condition: Any, stacks: Any, *told: Any) -> Any:
        return _lanes.once(condition, with_pair, stacks, *told)

    @written.defjvp
    def derivative(primals: Any, tangents: Any) -> Any:
        def of_numbers(primal: jax.Array, tangent: Any) -> Any:
            if jnp.issubdtype(primal.dtype, jnp.inexact):
                return tangent
            # JAX before 0.5 gives integers for the tangents of integers.
            return np.zeros(primal.shape, jax.dtypes.float0)

        return jax.jvp(with_pair, primals, jax.tree.map(of_numbers, primals, tangents))

    return with_stacks(state, written(lesson.good, Stacks.of(state), (s, y), lesson), lesson)


def with_stacks(state: ScaleByLBFGSState, stacks: Stacks, lesson: Lesson) -> ScaleByLBFGSState:
    """The state after a lesson, with the stacks that it has then."""
    return state._replace(
        diff_params_memory=stacks.s,
        diff_updates_memory=stacks.y,
        inverse_r=stacks.inverse_r,
        gram_y=stacks.gram_y,
        **lesson.numbers,
    )


def plus_multiple(y: Any, bend: jax.Array, s: Any) -> Any:
    """The tree ``y + bend * s`` in the dtypes of ``y``."""
    return jax.tree.map(lambda y, s: (y + bend * s).astype(y.dtype), y, s)


def start(params: Any, memory_size: int) -> ScaleByLBFGSState:
    """The state before the first update; the memory is empty."""
    dtype = _numerics.search_dtype(params)
    zeros = _numerics.zeros_alike(params)
    memory = _numerics.zeros_alike(params, memory_size)
    row, square = jnp.zeros((memory_size,), dtype), jnp.zeros((memory_size, memory_size), dtype)
    return ScaleByLBFGSState(
        count=_numerics.counter(),
        params=zeros,
        updates=zeros,
        diff_params_memory=memory,
        diff_updates_memory=memory,
        weights_memory=row,
        num_pairs=_numerics.counter(),
        inverse_r=square,
        gram_y=square,
        s_dot_g=row,
        y_dot_g=row,
    )
