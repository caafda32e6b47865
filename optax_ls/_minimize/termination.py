"""When ``minimize`` restarts along steepest descent, and when it stops.

Near a minimum values change by rounding only, and a search among them may end anywhere. Two
observations tell this from a function that is not differentiable or a wrong gradient:

* A search fails, and the decrease that its slope predicted is less than rounding.
* The iterate moves, as the slopes ask, but the value has not decreased for a number of iterations.

In both cases steepest descent is tried once (see ``step.py``) before the value counts as settled.
"""

from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp

from .._core import numerics
from .result import MinimizeStatus

# Changes of the value below so many units in the last place are rounding; as in More-Thuente.
_NOISE = 256
# Iterations without a lower value before the restart, and from there to the end.
_PATIENCE = 10


class Limits(NamedTuple):
    """When to stop; the numbers are totals, and ``ftol`` is None for the default."""

    gtol: jax.Array
    ftol: Optional[jax.Array]
    num_iters: jax.Array
    num_evals: jax.Array

    def counted_from(self, num_iters: jax.Array, num_evals: jax.Array) -> "Limits":
        """The limits of a run that goes on after so many iterations and evaluations."""
        return self._replace(
            num_iters=numerics.add_counters(num_iters, self.num_iters),
            num_evals=numerics.add_counters(num_evals, self.num_evals),
        )


class Pause(NamedTuple):
    """When to leave the loop and go on later: at so many iterations or evaluations in total."""

    num_iters: jax.Array
    num_evals: jax.Array

    def is_due(self, num_iters: jax.Array, num_evals: jax.Array) -> jax.Array:
        """Whether one of the numbers is reached."""
        return (num_iters >= self.num_iters) | (num_evals >= self.num_evals)


class Progress(NamedTuple):
    """The progress of the values.

    Attributes:
        value_init: scalar of the search dtype, the objective at the start.
        lowest: scalar of the search dtype, the lowest value of all iterates.
        stalled: counter, iterations without progress.
        restarted_for_stall: bool, whether steepest descent was tried for that reason since the
            value last decreased.
        restarted: bool, whether the search under way is along steepest descent.
        hit_nonfinite: bool, whether that search has met a value that is not finite.
        settled: bool, whether the search that led to the last restart predicted no decrease
            larger than rounding.
    """

    value_init: jax.Array
    lowest: jax.Array
    stalled: jax.Array
    restarted_for_stall: jax.Array
    restarted: jax.Array
    hit_nonfinite: jax.Array
    settled: jax.Array

    @classmethod
    def init(cls, infinite: jax.Array) -> "Progress":
        """Before the first evaluation."""
        no = jnp.zeros((), bool)
        return cls(infinite, infinite, numerics.counter(), no, no, no, no)


class Outcome(NamedTuple):
    """The outcome of one evaluation; bools, and scalars of the search dtype.

    Attributes:
        is_first: whether it was the evaluation of the start.
        is_fresh: whether it was the first of a search.
        moved: whether the iterate moved.
        accepted: whether it moved to a step that the search accepted.
        failed: whether the search failed.
        is_finite: whether value, gradient and params of the trial are finite.
        is_tiny: whether a step of 1 changes the params by rounding only.
        predicted_decrease: minus the slope at the iterate.
        value_before: the objective at the iterate before.
        value: the objective at the iterate.
    """

    is_first: jax.Array
    is_fresh: jax.Array
    moved: jax.Array
    accepted: jax.Array
    failed: jax.Array
    is_finite: jax.Array
    is_tiny: jax.Array
    predicted_decrease: jax.Array
    value_before: jax.Array
    value: jax.Array

    @property
    def iterated(self) -> jax.Array:
        """Whether the evaluation ended an iteration."""
        return self.moved & ~self.is_first


def update(before: Progress, outcome: Outcome) -> tuple[Progress, jax.Array]:
    """The progress after an evaluation, and whether the next direction is steepest descent."""
    finfo = numerics.finfo(outcome.value.dtype)
    size = jnp.maximum(jnp.abs(outcome.value), jnp.abs(before.value_init))
    is_lower = outcome.value < before.lowest
    # The best trial of a failed search along a direction of rounding is lower by rounding.
    is_visible = before.lowest - outcome.value > finfo.eps * size
    is_visible |= outcome.is_first | outcome.accepted | ~outcome.is_tiny
    has_progressed = is_lower & is_visible
    stalled = jnp.where(has_progressed, 0, before.stalled + outcome.iterated)
    is_stuck = outcome.iterated & (stalled >= _PATIENCE) & ~before.restarted_for_stall
    restarts = outcome.failed | is_stuck

    decrease = outcome.predicted_decrease
    rounding = jnp.maximum(_NOISE * finfo.eps * jnp.abs(outcome.value), finfo.eps * size)
    is_rounding = (decrease <= rounding) | (outcome.is_tiny & (decrease <= finfo.eps**0.5 * size))
    hit_nonfinite = (before.hit_nonfinite & ~outcome.is_fresh) | ~outcome.is_finite
    has_settled = jnp.where(outcome.failed, is_rounding & ~hit_nonfinite, is_stuck)
    has_settled &= size <= finfo.max**0.5  # otherwise the value decreases without end
    return Progress(
        value_init=jnp.where(outcome.is_first, outcome.value, before.value_init),
        lowest=jnp.where(is_lower, outcome.value, before.lowest),
        stalled=jnp.where(is_stuck, 0, stalled),
        restarted_for_stall=(before.restarted_for_stall & ~has_progressed) | is_stuck,
        restarted=restarts | (before.restarted & ~outcome.moved),
        hit_nonfinite=hit_nonfinite,
        settled=jnp.where(restarts & ~before.restarted, has_settled, before.settled),
    ), restarts


def status(
    before: Progress, after: Progress, outcome: Outcome, grad_norm: jax.Array, limits: Limits
) -> jax.Array:
    """The reason to stop after an evaluation, apart from limits; else RUNNING."""
    is_exhausted = outcome.failed & before.restarted
    if limits.ftol is None:
        has_settled = after.settled & after.restarted_for_stall & (after.stalled >= _PATIENCE)
    else:
        size = jnp.maximum(jnp.abs(outcome.value), jnp.abs(outcome.value_before))
        decrease = outcome.value_before - outcome.value
        has_settled = (limits.ftol > 0) & (decrease <= limits.ftol * size)
    has_settled = (outcome.iterated & has_settled) | (is_exhausted & after.settled)
    return _first_of(
        (_not_finite(outcome.value, grad_norm), MinimizeStatus.START_NOT_FINITE),
        (grad_norm <= limits.gtol, MinimizeStatus.GRADIENT_SMALL),
        (has_settled, MinimizeStatus.VALUE_SETTLED),
        (is_exhausted, MinimizeStatus.SEARCH_FAILED),
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


def status_before(state: Any, limits: Limits) -> jax.Array:
    """The reason not to go on from a state at all: it may satisfy new limits; else RUNNING."""
    found = _first_of(
        (_not_finite(state.value, state.grad_norm), MinimizeStatus.START_NOT_FINITE),
        (state.grad_norm <= limits.gtol, MinimizeStatus.GRADIENT_SMALL),
    )
    found = limit_reached(found, state.num_iters, state.num_evals, limits)
    found = jnp.where(state.num_evals > 0, found, int(MinimizeStatus.RUNNING))
    return numerics.counter(found)


def _not_finite(value: jax.Array, grad_norm: jax.Array) -> jax.Array:
    return ~(jnp.isfinite(value) & jnp.isfinite(grad_norm))


def _first_of(*reasons: tuple[jax.Array, MinimizeStatus]) -> jax.Array:
    found: Any = int(MinimizeStatus.RUNNING)
    for condition, code in reversed(reasons):
        found = jnp.where(condition, int(code), found)
    return jnp.asarray(found)
