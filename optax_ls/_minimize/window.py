"""A loop whose lanes, under :func:`jax.vmap`, do not all make their trips together.

A batched loop turns until its last lane has stopped, and in every trip all lanes pass through the
cache. Where lanes are many and small, only those in a window make trips, and as some stop others
enter in their places. So what is in the window stays in the cache, and a lane that takes long keeps
none waiting but the last ones.

That is for CPUs, for the sake of their caches. Other devices are kept busy by many lanes at once,
and several devices may have the lanes spread among them: there all make their trips together.
"""

import functools
from collections.abc import Callable
from typing import Any, Optional

import jax
import jax.numpy as jnp

from .._core import batching

# How many lanes make trips at a time. Calls weigh on the trips of fewer, and more bring nothing.
_WIDTH = 128
# How many of them stop before others enter, which costs a third of a trip.
_ENOUGH = 10
# How much of the cache next to a core the window may take. Larger lanes go on together, which keeps
# more than one core busy.
_MOST_BYTES = 5 * 2**17


def loop(
    running: Callable[[Any], jax.Array],
    trip: Callable[[Any, Any], Any],
    carry: Any,
    inputs: Any,
    *,
    in_turns: bool,
) -> Any:
    """Makes trips while ``running(carry)``; under :func:`jax.vmap`, while any lane does.

    Args:
        running: of a carry, a scalar.
        trip: ``trip(carry, inputs)`` is the next carry. Under :func:`jax.vmap` it must leave the
            carry of a lane that is not running as it is.
        carry: tree of arrays.
        inputs: tree of arrays.
        in_turns: whether lanes may take turns. Then ``running`` and ``trip`` close over no array,
            lanes know nothing of each other, and nobody is told of a trip.
    """

    def together(carry: Any, inputs: Any) -> Any:
        # With one answer for all lanes nothing selects between carries.
        return jax.lax.while_loop(
            lambda carry: batching.any_lane(running(carry)),
            lambda carry: trip(carry, inputs),
            carry,
        )

    if not in_turns or jax.default_backend() != "cpu" or jax.device_count() > 1:
        return together(carry, inputs)

    @jax.custom_batching.custom_vmap
    def call(carry: Any, inputs: Any) -> Any:
        return jax.lax.while_loop(running, lambda carry: trip(carry, inputs), carry)

    @call.def_vmap
    def over_lanes(size: int, batched: Any, carry: Any, inputs: Any) -> tuple[Any, Any]:
        window = min(size, _WIDTH) * _bytes_of_lane(size, batched, carry, inputs)
        pays = window <= _MOST_BYTES and size >= 2 * _WIDTH
        if not any(jax.tree.leaves(batched)) or not pays:
            return _batched(together, size, batched, carry, inputs)
        axes = batching.axes(tuple(batched))

        @jax.custom_batching.custom_vmap
        def turns(carry: Any, inputs: Any) -> Any:
            return _take_turns(running, trip, size, carry, inputs, axes)

        # A vmap of a vmap has all its lanes make their trips together.
        all_lanes = jax.vmap(together, in_axes=axes, axis_size=size)
        turns.def_vmap(functools.partial(_batched, all_lanes))
        return turns(carry, inputs), jax.tree.map(lambda _: True, carry)

    return call(carry, inputs)


def _batched(
    fn: Callable[[Any, Any], Any], size: int, batched: Any, carry: Any, inputs: Any
) -> tuple[Any, Any]:
    """What :func:`jax.vmap` makes of ``fn``, as a rule for ``custom_vmap``."""
    any_lanes = any(jax.tree.leaves(batched))
    if any_lanes:  # there are none where only tangents have lanes
        fn = jax.vmap(fn, in_axes=batching.axes(tuple(batched)), axis_size=size)
    out = fn(carry, inputs)
    return out, jax.tree.map(lambda _: any_lanes, out)


def _bytes_of_lane(size: int, batched: Any, carry: Any, inputs: Any) -> float:
    """What a trip of one lane may touch that belongs to no other."""

    def of_one(x: jax.Array, has_lanes: bool) -> float:
        return x.size * x.dtype.itemsize / (size if has_lanes else 1)

    of_carry, of_inputs = batched
    own = jax.tree.map(lambda x, has: of_one(x, has) if has else 0.0, inputs, of_inputs)
    return float(sum(jax.tree.leaves((jax.tree.map(of_one, carry, of_carry), own))))


def _take_turns(
    running: Callable[[Any], jax.Array],
    trip: Callable[[Any, Any], Any],
    size: int,
    carry: Any,
    inputs: Any,
    axes: Any,
) -> Any:
    """The loop over all lanes, of which those in the window make trips.

    Whenever enough of them have stopped, others enter in their places. What has stopped is kept in
    the order in which it left, and is put in the order of the lanes at the end.

    Args:
        running: as for :func:`loop`.
        trip: as for :func:`loop`.
        size: how many lanes there are.
        carry: tree of arrays.
        inputs: tree of arrays.
        axes: a pair of trees like carry and inputs: None for what all lanes share, 0 for what has
            lanes.
    """
    axes_of_carry, axes_of_inputs = axes
    still_running = jax.vmap(running)
    trips = jax.vmap(trip, in_axes=(0, axes_of_inputs))
    places = jnp.arange(_WIDTH)

    def of_lanes(lanes: jax.Array, x: jax.Array, axis: Optional[int]) -> jax.Array:
        return x if axis is None else x.at[lanes].get(mode="clip")

    def turn(turning: Any) -> Any:
        left, window, lanes, num_left, _ = turning
        theirs = jax.tree.map(functools.partial(of_lanes, lanes), inputs, axes_of_inputs)
        waiting = size - _WIDTH - num_left
        # When nobody is waiting any more the window waits for all.
        enough = jnp.where(waiting > 0, _ENOUGH, _WIDTH)
        window = jax.lax.while_loop(
            lambda window: jnp.count_nonzero(~still_running(window)) < enough,
            lambda window: trips(window, theirs),
            window,
        )
        stopped = ~still_running(window)
        # Those that have stopped come first. To sort pairs would take three times as long.
        order = jnp.sort(jnp.where(stopped, 0, _WIDTH) + places) % _WIDTH
        left = jax.tree.map(
            lambda all_x, x: jax.lax.dynamic_update_slice_in_dim(all_x, x[order], num_left, 0),
            left,
            (window, lanes),
        )
        next_lanes = _WIDTH + num_left + jnp.cumsum(stopped) - 1
        enter = stopped & (next_lanes < size)

        def entered(x: jax.Array, all_x: jax.Array, axis: Optional[int]) -> jax.Array:
            new = of_lanes(next_lanes, all_x, axis)
            return jax.vmap(jnp.where, in_axes=(0, axis, 0))(enter, new, x)

        window = jax.tree.map(entered, window, carry, axes_of_carry)
        lanes = jnp.where(enter, next_lanes, lanes)
        return left, window, lanes, num_left + jnp.count_nonzero(enter), waiting > 0

    def first(x: jax.Array, axis: Optional[int]) -> jax.Array:
        return jnp.broadcast_to(x, (_WIDTH, *x.shape)) if axis is None else x[:_WIDTH]

    window = jax.tree.map(first, carry, axes_of_carry)
    left = jax.tree.map(lambda x: jnp.zeros((size, *x.shape[1:]), x.dtype), (window, places))
    start = left, window, places, jnp.zeros_like(places[0]), jnp.ones((), bool)
    (carry, lanes), *_ = jax.lax.while_loop(lambda turning: turning[-1], turn, start)
    back = jnp.argsort(lanes)
    return jax.tree.map(lambda x: x[back], carry)
