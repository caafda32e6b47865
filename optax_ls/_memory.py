"""The memory of L-BFGS: its state, and how a pair is written into it.

The memory holds the last m pairs s = w' - w and y = g' - g, stacked on a leading axis of each
leaf, in a ring. What the state holds beside them is algebra on m x m matrices, which
``_direction.py`` explains and makes: a lesson.
"""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

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
        inverse_r: ``(memory_size, memory_size)`` in the search dtype, R^-1 by slots.
        gram_y: ``(memory_size, memory_size)`` in the search dtype, Y'Y by slots.
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
    """What a new pair teaches: all of the state after it that is no tree, and where it goes.

    Attributes:
        good: bool, whether the pair enters.
        slot: counter, where it enters.
        bend: scalar of the search dtype, the multiple of s that is added to y.
        weights_memory: see :class:`ScaleByLBFGSState`, as all that follow.
        num_pairs: likewise.
        inverse_r: likewise.
        gram_y: likewise.
        s_dot_g: likewise.
        y_dot_g: likewise.
    """

    good: jax.Array
    slot: jax.Array
    bend: jax.Array
    weights_memory: jax.Array
    num_pairs: jax.Array
    inverse_r: jax.Array
    gram_y: jax.Array
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
    return Lesson(
        good=jnp.zeros((), bool),
        slot=jnp.zeros_like(same["num_pairs"]),
        bend=jnp.zeros((), state.weights_memory.dtype),
        **same,
    )


def with_pair(
    condition: Any,
    rows: tuple[Any, Any],
    pair: tuple[Any, Any],
    slot: jax.Array,
    bend: jax.Array,
) -> Any:
    """The trees of rows with the pair in a slot, y bent, where the condition holds."""

    def put(rows: jax.Array, row: jax.Array) -> jax.Array:
        # Selecting the row, not all rows, lets the compiler write in place.
        return rows.at[slot].set(jnp.where(condition, row, rows[slot]))

    s, y = pair
    return jax.tree.map(put, rows, (s, plus_multiple(y, bend, s)))


def write(state: ScaleByLBFGSState, s: Any, y: Any, lesson: Lesson) -> ScaleByLBFGSState:
    """The state after a lesson."""
    rows = state.diff_params_memory, state.diff_updates_memory
    told = lesson.good, rows, (s, y), lesson.slot, lesson.bend

    @jax.custom_jvp  # a loop has no reverse derivative; what happens in it has
    def written(condition: Any, rows: Any, *told: Any) -> Any:
        return _lanes.once(condition, with_pair, rows, *told)

    written.defjvp(lambda primals, tangents: jax.jvp(with_pair, primals, tangents))
    return with_rows(state, written(*told), lesson)


def with_rows(state: ScaleByLBFGSState, rows: tuple[Any, Any], lesson: Lesson) -> ScaleByLBFGSState:
    """The state after a lesson, with the rows that it has then."""
    return state._replace(diff_params_memory=rows[0], diff_updates_memory=rows[1], **lesson.numbers)


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
