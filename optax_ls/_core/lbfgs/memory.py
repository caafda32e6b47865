"""The memory of L-BFGS: its state, and how a pair is written into it.

The memory holds the last m pairs s = w' - w and y = g' - g, stacked on a leading axis of each
leaf, in a ring. A new pair is put into its slot before anything is known of it, so that one sweep
over the rows tells all. What the state holds beside the rows is algebra on m x m matrices, which
``_direction.py`` explains and makes: a lesson. A pair that turns out to be of no use is wiped out.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import chex
import jax
import jax.numpy as jnp

from .. import batching, numerics, tree
from ..types import Params


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
        bends: ``(memory_size,)`` in the search dtype, the multiple of each s that is added to its
            y, in all fields but ``diff_updates_memory``; None where y is taken as it is.
    """

    count: chex.Numeric  # type: ignore[assignment]  # hides tuple.count, as Optax's does
    params: Params
    updates: Params
    diff_params_memory: Params
    diff_updates_memory: Params
    weights_memory: jax.Array
    num_pairs: jax.Array
    inverse_r: jax.Array
    gram_y: jax.Array
    s_dot_g: jax.Array
    y_dot_g: jax.Array
    bends: Any


# What has so many entries at most is in the cache: there the number of calls counts, not of sweeps.
SMALL = 2**14


class Ends(NamedTuple):
    """The two ends of a step, which makes the pair s = w' - w, y = g' - g.

    Attributes:
        params: tree, w.
        grad: tree like the params, g.
        new_params: the same, w'.
        new_grad: the same, g'.
        known: s and y if they have been computed, else None.
    """

    params: Any
    grad: Any
    new_params: Any
    new_grad: Any
    known: Optional[tuple[Any, Any]] = None

    @property
    def pair(self) -> tuple[Any, Any]:
        """The pair."""
        if self.known is not None:
            return self.known
        return tree.sub(self.new_params, self.params), tree.sub(self.new_grad, self.grad)

    @property
    def opposite(self) -> "Ends":
        """The ends of the step back, whose pair is the same but for the sign."""
        known = self.known
        return Ends(self.new_params, self.new_grad, self.params, self.grad, known)

    def with_small_pair(self) -> "Ends":
        """With the pair, if it is small: a large one is taken from the ends where it is needed."""
        small = sum(leaf.size for leaf in jax.tree.leaves(self.params)) <= SMALL
        return self._replace(known=self.pair) if small else self


class Lesson(NamedTuple):
    """What a new pair teaches: where it stands, and the numbers of the state with it.

    Attributes:
        good: bool, whether the pair stays.
        replaced: bool, whether it was put into the rows, in place of the oldest.
        slot: counter, where it stands.
        column: ``(memory_size,)``, by slots, the column of the pair in R^-1, but for 1 / <s, y>.
        y_y: ``(memory_size,)``, by slots, the products of its y with the older ones.
        sy: scalar of the search dtype, <s, y>; 1 if the pair may not stay.
        yy: scalar likewise, <y, y>; 0 if the pair does not stay.
        sg: scalar likewise, <s, g>; 0 if the pair does not stay.
        yg: scalar likewise, <y, g>; 0 if the pair does not stay.
        weights_memory: see :class:`ScaleByLBFGSState`, as all that follow.
        num_pairs: likewise.
        s_dot_g: likewise.
        y_dot_g: likewise.
        bends: likewise.
    """

    good: jax.Array
    replaced: jax.Array
    slot: jax.Array
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
    bends: Optional[jax.Array]

    @property
    def numbers(self) -> dict[str, jax.Array]:
        """The fields that are those of the state."""
        fields = self._asdict()
        return {name: fields[name] for name in ScaleByLBFGSState._fields if name in fields}


def _in_slot(condition: Any, x: jax.Array, part: jax.Array, slot: jax.Array, axis: int = 0) -> Any:
    """``x`` with a part in a slot of an axis, where the condition holds."""
    if condition is True:
        return jax.lax.dynamic_update_index_in_dim(x, part, slot, axis)
    # Writing beyond the last slot is writing nothing.
    place = (slice(None),) * axis + (jnp.where(condition, slot, x.shape[axis]),)
    return x.at[place].set(part, mode="drop")


def _with_pair(condition: Any, rows: tuple[Any, Any], ends: Ends, slot: jax.Array) -> Any:
    def put(x: jax.Array, part: jax.Array) -> Any:
        return _in_slot(condition, x, part, slot)

    return tuple(jax.tree.map(put, *both) for both in zip(rows, ends.pair, strict=True))


def _wiped(condition: Any, rows: tuple[Any, Any], slot: jax.Array) -> Any:
    return jax.tree.map(lambda x: _in_slot(condition, x, jnp.zeros_like(x[0]), slot), rows)


def _with_column(condition: Any, matrices: tuple[jax.Array, jax.Array], lesson: Lesson) -> Any:
    def put(x: jax.Array, part: jax.Array, axis: int = 0) -> Any:
        return _in_slot(condition, x, part, lesson.slot, axis)

    inverse_r, gram_y = matrices
    here = jnp.arange(len(lesson.column)) == lesson.slot
    column = jnp.where(here, 1 / lesson.sy, lesson.column)
    y_y = jnp.where(here, lesson.yy, lesson.y_y)
    # A newest pair has a column in the triangle, but of a row only what stands in that.
    inverse_r = put(put(inverse_r, jnp.zeros_like(column)), column, axis=1)
    return inverse_r, put(put(gram_y, y_y), y_y, axis=1)


def _where(condition: jax.Array, fn: Callable[..., Any], carry: Any, *inputs: Any) -> Any:
    """:func:`batching.once`, with the derivatives of ``fn``: a loop has no reverse derivative."""

    def changed(condition: Any, carry: Any, *inputs: Any) -> Any:
        return batching.once(condition, fn, carry, *inputs)

    return batching.with_derivatives_of(fn, changed)(condition, carry, *inputs)


def put_pair(
    state: ScaleByLBFGSState, ends: Ends, slot: jax.Array, condition: jax.Array
) -> ScaleByLBFGSState:
    """The state with a pair in the rows of a slot, where the condition holds."""
    rows = state.diff_params_memory, state.diff_updates_memory
    s, y = _where(condition, _with_pair, rows, ends, slot)
    return state._replace(diff_params_memory=s, diff_updates_memory=y)


def settle(state: ScaleByLBFGSState, lesson: Lesson) -> ScaleByLBFGSState:
    """The state after a lesson on the pair in its rows, which stays or is wiped out."""
    rows = state.diff_params_memory, state.diff_updates_memory
    s, y = _where(lesson.replaced & ~lesson.good, _wiped, rows, lesson.slot)
    matrices = state.inverse_r, state.gram_y
    inverse_r, gram_y = _where(lesson.good, _with_column, matrices, lesson)
    return state._replace(
        diff_params_memory=s,
        diff_updates_memory=y,
        inverse_r=inverse_r,
        gram_y=gram_y,
        **lesson.numbers,
    )


def arrived(mask: Any, before: Any, after: Any) -> Any:
    """``after``, to be written in the place of ``before``; see :func:`batching.once`."""
    return tree.where(mask, after, before)


def arrive(state: ScaleByLBFGSState, ends: Ends, turned: jax.Array) -> ScaleByLBFGSState:
    """The state at the newer end.

    Its params and gradient are written in place. A compiler can do that if they are seen to be read
    no more: so they wait for ``turned``, and what follows should read them and not the ends.

    Args:
        state: its params and gradient are at the older end.
        ends: of the step.
        turned: bool, always true, of something that is made of all that reads the older end.
    """
    before, after = (state.params, state.updates), (ends.new_params, ends.new_grad)
    params, grad = _where(turned, arrived, before, after)
    return state._replace(params=params, updates=grad)


def start(params: Any, memory_size: int, *, bending: bool = False) -> ScaleByLBFGSState:
    """The state before the first update, with an empty memory.

    Args:
        params: tree.
        memory_size: how many pairs there may be.
        bending: whether multiples of s are to be added to y.
    """
    dtype = numerics.search_dtype(params)
    zeros = numerics.zeros_alike(params)
    memory = numerics.zeros_alike(params, memory_size)
    row, square = jnp.zeros((memory_size,), dtype), jnp.zeros((memory_size, memory_size), dtype)
    return ScaleByLBFGSState(
        count=numerics.counter(),
        params=zeros,
        updates=zeros,
        diff_params_memory=memory,
        diff_updates_memory=memory,
        weights_memory=row,
        num_pairs=numerics.counter(),
        inverse_r=square,
        gram_y=square,
        s_dot_g=row,
        y_dot_g=row,
        bends=row if bending else None,
    )
