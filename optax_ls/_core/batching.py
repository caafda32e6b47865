"""Control flow that stays cheap under :func:`jax.vmap`.

Over many lanes scalars are arrays, a conditional takes both branches, and a loop whose lanes end
at different times selects between its whole carry before and after. What is here asks one question
for all lanes, and leaves it to the functions it is given to hold single lanes still.

Two lanes deep (a vmap of a vmap) it is right as well, only not as cheap.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@jax.custom_batching.custom_vmap
def any_lane(condition: jax.Array) -> jax.Array:
    """Whether a condition holds; under :func:`jax.vmap`, whether it does in any lane."""
    return condition


@any_lane.def_vmap
def _any_of_lanes(size: int, batched: Any, condition: jax.Array) -> tuple[Any, bool]:
    return any_lane(jnp.any(condition) if batched[0] else condition), False


@jax.custom_batching.custom_vmap
def in_lane(condition: jax.Array) -> jax.Array:
    """True; under :func:`jax.vmap`, the condition of each lane.

    For a condition that holds wherever there is but one lane, such as that its loop goes on. The
    compiler then selects nothing by it.
    """
    return jnp.ones_like(condition)


@in_lane.def_vmap
def _each_lane(size: int, batched: Any, condition: jax.Array) -> tuple[Any, bool]:
    return condition, batched[0]


@jax.custom_batching.custom_vmap
def _true_over_lanes(condition: jax.Array) -> jax.Array:
    return condition


@_true_over_lanes.def_vmap
def _true(size: int, batched: Any, condition: jax.Array) -> tuple[Any, bool]:
    return jnp.ones((), bool), False


def axes(batched: Any) -> Any:
    """The ``in_axes`` of :func:`jax.vmap` for what a rule of ``custom_vmap`` is told has lanes."""
    return jax.tree.map(lambda has_lanes: 0 if has_lanes else None, batched)


def once(condition: jax.Array, fn: Callable[..., Any], carry: Any, *inputs: Any) -> Any:
    """``fn(mask, carry, *inputs)`` where the condition holds, else ``carry``; changed in place.

    A conditional copies what its branches hand on. A loop of at most one trip does not.

    Args:
        condition: scalar.
        fn: a function that closes over no array. ``mask`` is True; under :func:`jax.vmap` it is the
            condition of the lane, and where that does not hold ``fn`` must return ``carry``.
        carry: tree of arrays.
        inputs: trees of arrays.
    """

    @jax.custom_batching.custom_vmap
    def call(condition: Any, carry: Any, inputs: Any) -> Any:
        return _at_most_once(condition, lambda carry: fn(True, carry, *inputs), carry)

    @call.def_vmap
    def over_lanes(size: int, batched: Any, condition: Any, carry: Any, inputs: Any) -> Any:
        condition, carry = jax.tree.map(
            lambda x, is_batched: x if is_batched else jnp.broadcast_to(x, (size, *x.shape)),
            (condition, carry),
            tuple(batched[:2]),
        )
        lanes = jax.vmap(
            lambda mask, carry, inputs: fn(mask, carry, *inputs),
            in_axes=(0, 0, axes(batched[2])),
            axis_size=size,
        )
        out = _at_most_once(
            jnp.any(condition),
            lambda carry: lanes(condition, carry, inputs),  # type: ignore[no-untyped-call]
            carry,
        )
        return out, jax.tree.map(lambda _: True, out)

    return call(condition, carry, inputs)


def apart(flag: jax.Array, fn: Callable[..., Any], *inputs: Any) -> Any:
    """``fn(*inputs)``, computed by itself, before all that uses it.

    The compiler computes small things once more in every loop over a vector that they scale or
    select in, and under :func:`jax.vmap` for every element of it. It does not move them out of a
    branch of a conditional.

    Args:
        flag: scalar, which is always true, though the compiler cannot know.
        fn: a function of arrays.
        inputs: trees of arrays.
    """
    like = jax.eval_shape(fn, *inputs)
    return jax.lax.cond(
        any_lane(flag),
        fn,
        lambda *inputs: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like),
        *inputs,
    )


def by_itself(flag: jax.Array, fn: Callable[..., Any], *inputs: Any) -> Any:
    """``fn(*inputs)``, which on a CPU and outside of :func:`jax.vmap` is computed :func:`apart`.

    XLA for CPUs runs what is ready at the same time side by side, and nothing within a branch is
    ready before all of its inputs are. Elsewhere a branch costs, and brings nothing.

    Args:
        flag: as for :func:`apart`.
        fn: a function of arrays.
        inputs: trees of arrays.
    """
    if jax.default_backend() != "cpu":
        return fn(*inputs)
    return apart(_true_over_lanes(flag), fn, *inputs)


def in_place(flag: jax.Array, fn: Callable[..., Any], old: Any, *inputs: Any) -> Any:
    """``fn(old, *inputs)``, of the types of ``old`` and in its place, apart from the rest.

    It stands in a loop of one trip. XLA for CPUs compiles and calls each operation within by
    itself; but if the loop touches less than 1 kB, the whole of it.

    Args:
        flag: as for :func:`apart`.
        fn: a function of trees of arrays.
        old: tree of arrays.
        inputs: trees of arrays.
    """
    return _at_most_once(any_lane(flag), lambda old: fn(old, *inputs), old)


def with_derivatives_of(plain: Callable[..., Any], fast: Callable[..., Any]) -> Callable[..., Any]:
    """``fast``, which has the values of ``plain``, with the derivatives of ``plain``.

    Args:
        plain: a function of trees of arrays that closes over no array.
        fast: the same.
    """
    fn = jax.custom_jvp(fast)

    @fn.defjvp
    def derivative(primals: Any, tangents: Any) -> Any:
        def of_numbers(primal: jax.Array, tangent: Any) -> Any:
            if jnp.issubdtype(primal.dtype, jnp.inexact):
                return tangent
            # JAX before 0.5 gives integers for the tangents of integers.
            return np.zeros(primal.shape, jax.dtypes.float0)

        return jax.jvp(plain, primals, jax.tree.map(of_numbers, primals, tangents))

    return fn


def unknown(integers: Sequence[int], x: jax.Array) -> list[jax.Array]:
    """Integers that the compiler does not know.

    What differs in nothing else is compiled once for all of them. Under :func:`jax.vmap` they are
    the same in all lanes.

    Args:
        integers: not negative.
        x: an input of the program, not empty.
    """
    # No count is negative, which the compiler cannot know.
    flag = any_lane(jnp.count_nonzero(x.reshape(-1)[:1]) >= 0)
    known = [jnp.asarray(number, jnp.uint32) for number in integers]
    return list(in_place(flag, lambda _: known, jax.tree.map(jnp.zeros_like, known)))


def _at_most_once(condition: jax.Array, fn: Callable[[Any], Any], carry: Any) -> Any:
    def trip(pair: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
        return jnp.zeros_like(pair[0]), fn(pair[1])

    return jax.lax.while_loop(lambda pair: pair[0], trip, (condition, carry))[1]
