"""Bracketing and zooming until a step satisfies the strong Wolfe conditions.

A core: it knows phi(step) = f(params + step * updates) only through the numbers it is told. The
algorithm is Nocedal & Wright, Numerical Optimization (2006), Algorithms 3.5 (bracket) and 3.6
(zoom), for the conditions::

    phi(step) <= phi(0) + slope_rtol step phi'(0)        sufficient decrease   (3.7a)
    |phi'(step)| <= curv_rtol |phi'(0)|                  small curvature       (3.7b)

Deviations from the book, with their reasons:

* Near a minimum rounding hides the decrease (3.7a) asks for. Then the approximate test of Hager &
  Zhang, ACM TOMS 32 (2006), 113-137, termination T2, which looks at the slope, is as good::

      phi'(step) <= (2 slope_rtol - 1) phi'(0)  and  phi(step) <= phi(0) + approx_dec_rtol |phi(0)|

* A value that is not a number counts as infinite, so the bracket closes around it.
* An interval shorter than ``stepsize_precision`` ends the search at its best end, if that end
  has sufficient decrease.
"""

import dataclasses
from typing import Any, NamedTuple, Optional

import chex
import jax
import jax.numpy as jnp

from .. import checks, numerics
from . import conditions
from .conditions import Point

FLAG_INTERVAL_NOT_FOUND = (
    "The search reached the largest step allowed before it found an interval that contains a step "
    "of small curvature. Consider a larger max_learning_rate."
)
FLAG_INTERVAL_TOO_SMALL = "The interval searched became shorter than stepsize_precision."


class ZoomState(NamedTuple):
    """Where a zoom search stands; scalars of the search dtype unless said otherwise.

    Attributes:
        step: the step to try next; once ``done``, the step chosen.
        done: bool, whether the search has ended.
        failed: bool, whether it ended without satisfying both conditions.
        num_steps: counter, steps tried.
        start: phi at step 0.
        low: the best point so far: it has sufficient decrease (or is the start), and the lowest
            value of all such.
        high: the other end of the interval; meaningless until ``bracketed``.
        former: the end that left the interval last, for cubic interpolation; NaN if none has.
        bracketed: bool, whether an interval that contains good steps has been found.
        decrease_error: by how much sufficient decrease is missed; 0 if it is not.
        curvature_error: by how much small curvature is missed; 0 if it is not.
    """

    step: jax.Array
    done: jax.Array
    failed: jax.Array
    num_steps: jax.Array
    start: Point
    low: Point
    high: Point
    former: Point
    bracketed: jax.Array
    decrease_error: jax.Array
    curvature_error: jax.Array


@dataclasses.dataclass(frozen=True)
class Zoom:
    """The core and its settings; see :func:`scale_by_zoom_linesearch` for their meaning.

    Invariant (page 60 of the book): once bracketed, the interval between ``low`` and ``high``
    contains steps that satisfy both conditions, ``low`` has the lowest value of all steps with
    sufficient decrease, and phi at ``low`` falls towards ``high``.
    """

    max_steps: chex.Numeric
    max_step_size: Optional[chex.Numeric] = None
    tol: chex.Numeric = 0.0
    increase_factor: chex.Numeric = 2.0
    slope_rtol: chex.Numeric = 1e-4
    curv_rtol: chex.Numeric = 0.9
    approx_dec_rtol: Optional[chex.Numeric] = 1e-6
    stepsize_precision: chex.Numeric = 1e-5

    needs_slope = True

    def __post_init__(self) -> None:
        checks.whole_number("max_linesearch_steps", self.max_steps, at_least=1)
        checks.number("max_learning_rate", self.max_step_size, above=0, optional=True)
        checks.number("tol", self.tol, at_least=0)
        checks.number("increase_factor", self.increase_factor, above=0)
        checks.number("slope_rtol", self.slope_rtol, at_least=0, below=1)
        checks.number("curv_rtol", self.curv_rtol, at_least=0)
        checks.number("approx_dec_rtol", self.approx_dec_rtol, at_least=0, optional=True)
        checks.number("stepsize_precision", self.stepsize_precision, at_least=0)

    @property
    def _largest_step(self) -> chex.Numeric:
        return jnp.inf if self.max_step_size is None else self.max_step_size

    def start(self, value: jax.Array, slope: jax.Array, step: jax.Array) -> ZoomState:
        """Begins a search from phi(0) and phi'(0), trying ``step`` first."""
        no = jnp.zeros((), bool)
        here = Point(jnp.zeros_like(step), value, slope)
        nowhere = Point(*(jnp.full_like(step, jnp.nan),) * 3)
        infinite = jnp.full_like(value, jnp.inf)
        return ZoomState(
            step=jnp.minimum(step, self._largest_step),
            done=no,
            failed=no,
            num_steps=numerics.counter(),
            start=here,
            low=here,
            high=nowhere,
            former=nowhere,
            bracketed=no,
            decrease_error=infinite,
            curvature_error=infinite,
        )

    def errors(self, start: Point, point: Point) -> tuple[jax.Array, jax.Array]:
        """By how much ``point`` misses sufficient decrease and small curvature."""
        decrease = conditions.missing_decrease(start, point, self.slope_rtol)
        if self.approx_dec_rtol is not None:
            slope_excess = point.slope - (2 * self.slope_rtol - 1) * start.slope
            value_excess = point.value - start.value - self.approx_dec_rtol * jnp.abs(start.value)
            decrease = jnp.minimum(decrease, jnp.maximum(slope_excess, value_excess))
        curvature = conditions.missing_curvature(start, point, self.curv_rtol)
        return conditions.error(decrease), conditions.error(curvature)

    def advance(self, state: ZoomState, value: jax.Array, slope: jax.Array) -> ZoomState:
        """Takes phi(step) and phi'(step); accepts, says where to look next, or gives up."""
        trial = Point(state.step, value, slope)
        low, high, bracketed = state.low, state.high, state.bracketed
        decrease_error, curvature_error = self.errors(state.start, trial)
        good = jnp.maximum(decrease_error, curvature_error) <= self.tol

        # Algorithms 3.5 and 3.6 share one table. Before a bracket, high lies at infinity.
        comparable = bracketed | (low.step > 0)
        too_high = (decrease_error > self.tol) | (comparable & (value >= low.value))
        towards_high = jnp.where(bracketed, high.step - low.step, 1)
        turned = ~too_high & (slope * towards_high >= 0)
        leaving = conditions.choose(too_high | turned, high, low)
        new_high = conditions.choose(too_high, trial, conditions.choose(turned, low, high))
        new_low = conditions.choose(too_high, low, trial)
        new_bracketed = bracketed | too_high | turned
        former = conditions.choose(bracketed, leaving, state.former)

        longer = jnp.minimum(state.step * self.increase_factor, self._largest_step)
        next_step = jnp.where(new_bracketed, _interpolate(new_low, new_high, former), longer)

        num_steps = numerics.increment(state.num_steps)
        failed = ~good & (
            (num_steps >= self.max_steps)
            | self._ran_into_limit(new_bracketed, trial.step)
            | self._too_small(bracketed, low, high) & (new_low.step > 0)
        )
        # A failed search takes the best step of sufficient decrease; if there is none the last
        # one, unless the value there is not finite.
        last = jnp.where(jnp.isfinite(value), trial.step, 0)
        fallback = jnp.where(new_low.step > 0, new_low.step, last)
        errors_low = self.errors(state.start, new_low)
        to_low = failed & (new_low.step > 0)
        return ZoomState(
            step=jnp.where(good, trial.step, jnp.where(failed, fallback, next_step)),
            done=good | failed,
            failed=failed,
            num_steps=num_steps,
            start=state.start,
            low=new_low,
            high=new_high,
            former=former,
            bracketed=new_bracketed,
            decrease_error=jnp.where(to_low, errors_low[0], decrease_error),
            curvature_error=jnp.where(to_low, errors_low[1], curvature_error),
        )

    def _ran_into_limit(self, bracketed: jax.Array, step: jax.Array) -> jax.Array:
        return ~bracketed & (step >= self._largest_step)

    def _too_small(self, bracketed: jax.Array, low: Point, high: Point) -> jax.Array:
        return bracketed & (jnp.abs(high.step - low.step) <= self.stepsize_precision)

    def diagnose(self, state: ZoomState) -> list[tuple[Any, str, dict[str, Any]]]:
        """What to print of a failed search: conditions, messages and their fields."""
        header, *verdicts = conditions.diagnose(
            state, state.start.value, state.low.step > 0, self.max_steps
        )
        limit = self._ran_into_limit(state.bracketed, state.step)
        small = self._too_small(state.bracketed, state.low, state.high)
        reasons: list[tuple[Any, str, dict[str, Any]]] = [
            (limit, FLAG_INTERVAL_NOT_FOUND, {}),
            (small, FLAG_INTERVAL_TOO_SMALL, {}),
        ]
        return [header, *reasons, *verdicts]


def _interpolate(low: Point, high: Point, former: Point) -> jax.Array:
    """Where to look in the interval: at the minimum of a cubic, else of a parabola, else halfway.

    The cubic goes through three points and the slope at ``low``, the parabola through two (pages
    58 and 59 of the book). Each is trusted only well inside the interval.
    """
    width = jnp.abs(high.step - low.step)
    left = jnp.minimum(low.step, high.step)

    def inside(step: jax.Array, margin: float) -> jax.Array:
        return (step > left + margin * width) & (step < left + (1 - margin) * width)

    cubic = conditions.cubic_minimum_of_three(low, high, former)
    parabola = conditions.parabola_minimum(low, high)
    halfway = (low.step + high.step) / 2
    fallback = jnp.where(inside(parabola, 0.1), parabola, halfway)
    return jnp.where(inside(cubic, 0.2), cubic, fallback)
