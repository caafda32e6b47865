"""When ``minimize`` restarts and when it stops: what it watches of the course of values.

Values near a minimum are rounding, and a search among them finds what it likes. Two things tell
that from a function which is not what it should be:

* A search fails, and its direction promised no decrease that rounding would show.
* The iterate moves, as slopes tell it to, but the value has not fallen for a number of iterations.

Either way steepest descent is tried once (see ``_descent.py``) before the value counts as settled.
"""

from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp

from .._core import numerics
from .result import MinimizeStatus

# What changes of the value are rounding, in units of the last place; as in the More-Thuente core.
_NOISE = 256
# After so many iterations without a lower value comes the restart, and after as many more the end.
_PATIENCE = 10


class Limits(NamedTuple):
    """When to stop; the numbers are totals, and ``ftol`` is None for the default."""

    gtol: jax.Array
    ftol: Optional[jax.Array]
    num_iters: jax.Array
    num_evals: jax.Array


class Watch(NamedTuple):
    """The course of values, as far as it matters.

    Attributes:
        value_init: scalar of the search dtype, the objective at the start.
        lowest: scalar of the search dtype, the lowest value of all iterates.
        stalled: counter, iterations without progress.
        stalled_before: bool, whether steepest descent was tried for that reason since the value
            last fell.
        restarted: bool, whether the search under way is along steepest descent.
        walled: bool, whether that search has come upon a value that is not finite.
        settled: bool, whether the search that led to the last restart promised nothing visible.
    """

    value_init: jax.Array
    lowest: jax.Array
    stalled: jax.Array
    stalled_before: jax.Array
    restarted: jax.Array
    walled: jax.Array
    settled: jax.Array

    @classmethod
    def start(cls, infinite: jax.Array) -> "Watch":
        """Before the first evaluation."""
        no = jnp.zeros((), bool)
        return cls(infinite, infinite, numerics.counter(), no, no, no, no)


class Trip(NamedTuple):
    """What a trip of the loop did; booleans, and scalars of the search dtype.

    Attributes:
        first: whether it was the evaluation of the start.
        fresh: whether it was the first of a search.
        moved: whether the iterate moved.
        chosen: whether to where the search wanted it.
        failed: whether the search failed.
        finite: whether value, gradient and params of the trial are finite.
        tiny: whether a whole step along the direction is rounding, relative to the params.
        promise: the decrease for a step of 1 by the slope at the iterate.
        value_before: the objective at the iterate before.
        value: the objective at the iterate.
    """

    first: jax.Array
    fresh: jax.Array
    moved: jax.Array
    chosen: jax.Array
    failed: jax.Array
    finite: jax.Array
    tiny: jax.Array
    promise: jax.Array
    value_before: jax.Array
    value: jax.Array

    @property
    def iterated(self) -> jax.Array:
        """Whether the trip ended an iteration."""
        return self.moved & ~self.first


def watch(before: Watch, trip: Trip) -> tuple[Watch, jax.Array]:
    """The course after a trip, and whether the next direction is to be steepest descent."""
    eps = numerics.finfo(trip.value.dtype).eps
    size = jnp.maximum(jnp.abs(trip.value), jnp.abs(before.value_init))
    lower = trip.value < before.lowest
    # The best point of a failed search along rounding is lower by rounding.
    visible = trip.first | trip.chosen | ~trip.tiny | (before.lowest - trip.value > eps * size)
    progress = lower & visible
    stalled = jnp.where(progress, 0, before.stalled + trip.iterated)
    stuck = trip.iterated & (stalled >= _PATIENCE) & ~before.stalled_before
    restart = trip.failed | stuck

    invisible = trip.promise <= jnp.maximum(_NOISE * eps * jnp.abs(trip.value), eps * size)
    invisible = invisible | (trip.tiny & (trip.promise <= eps**0.5 * size))
    walled = (before.walled & ~trip.fresh) | ~trip.finite
    falling_for_ever = size > numerics.finfo(size.dtype).max ** 0.5
    now_settled = jnp.where(trip.failed, invisible & ~walled, stuck) & ~falling_for_ever
    return Watch(
        value_init=jnp.where(trip.first, trip.value, before.value_init),
        lowest=jnp.where(lower, trip.value, before.lowest),
        stalled=jnp.where(stuck, 0, stalled),
        stalled_before=(before.stalled_before & ~progress) | stuck,
        restarted=restart | (before.restarted & ~trip.moved),
        walled=walled,
        settled=jnp.where(restart & ~before.restarted, now_settled, before.settled),
    ), restart


def status(
    before: Watch, after: Watch, trip: Trip, grad_norm: jax.Array, limits: Limits
) -> jax.Array:
    """Why to stop after a trip, if so; the limits of numbers come later."""
    exhausted = trip.failed & before.restarted
    if limits.ftol is None:
        settled = after.settled & after.stalled_before & (after.stalled >= _PATIENCE)
        settled = trip.iterated & settled
    else:
        size = jnp.maximum(jnp.abs(trip.value), jnp.abs(trip.value_before))
        decrease = trip.value_before - trip.value
        settled = trip.iterated & (limits.ftol > 0) & (decrease <= limits.ftol * size)
    return _first_of(
        (~jnp.isfinite(trip.value) | ~jnp.isfinite(grad_norm), MinimizeStatus.START_NOT_FINITE),
        (grad_norm <= limits.gtol, MinimizeStatus.GRADIENT_SMALL),
        (settled | (exhausted & after.settled), MinimizeStatus.VALUE_SETTLED),
        (exhausted, MinimizeStatus.SEARCH_FAILED),
    )


def limit_reached(
    status: jax.Array, num_iters: jax.Array, num_evals: jax.Array, limits: Limits
) -> jax.Array:
    """The status, or that of a limit reached if there is no other reason to stop."""
    return jnp.where(
        status != int(MinimizeStatus.RUNNING),
        status,
        _first_of(
            (num_iters >= limits.num_iters, MinimizeStatus.ITERATION_LIMIT),
            (num_evals >= limits.num_evals, MinimizeStatus.EVALUATION_LIMIT),
        ),
    )


def at_once(
    value: jax.Array,
    grad_norm: jax.Array,
    num_iters: jax.Array,
    num_evals: jax.Array,
    limits: Limits,
) -> jax.Array:
    """Why not to go on from a state at all, if so: it may satisfy new limits as it is."""
    found = _first_of(
        (~jnp.isfinite(value) | ~jnp.isfinite(grad_norm), MinimizeStatus.START_NOT_FINITE),
        (grad_norm <= limits.gtol, MinimizeStatus.GRADIENT_SMALL),
    )
    found = limit_reached(found, num_iters, num_evals, limits)
    return jnp.where(num_evals > 0, found, int(MinimizeStatus.RUNNING))


def _first_of(*reasons: tuple[jax.Array, MinimizeStatus]) -> jax.Array:
    found: Any = int(MinimizeStatus.RUNNING)
    for condition, code in reversed(reasons):
        found = jnp.where(condition, int(code), found)
    return jnp.asarray(found)
