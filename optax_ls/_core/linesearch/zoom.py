"""Bracketing and zooming until a step satisfies the strong Wolfe conditions.

The algorithm is Nocedal & Wright, Numerical Optimization (2006), Algorithms 3.5 (bracket) and 3.6
(zoom), for the conditions::

    phi(step) <= phi(0) + slope_rtol step phi'(0)        sufficient decrease   (3.7a)
    |phi'(step)| <= curv_rtol |phi'(0)|                  small curvature       (3.7b)

Deviations from the book, with their reasons:

* Near a minimum rounding hides the decrease that (3.7a) asks for. There the approximate test of
  Hager & Zhang, ACM TOMS 32 (2006), 113-137, termination T2, is enough::

      phi'(step) <= (2 slope_rtol - 1) phi'(0)  and  phi(step) <= phi(0) + approx_dec_rtol |phi(0)|

* A value that is not a number counts as infinite, so it becomes an end of the interval.
* An interval shorter than ``stepsize_precision`` ends the search at its best end, if that end
  has sufficient decrease.
"""

import dataclasses
from typing import NamedTuple, Optional

import chex
import jax.numpy as jnp

from .. import checks, numerics, tree
from ..types import Counter, Flag, Scalar
from . import conditions, interpolation
from .conditions import Message, Point, Sample

FLAG_INTERVAL_NOT_FOUND = (
    "The search reached the largest step allowed before it found an interval that contains a step "
    "of small curvature. Consider a larger max_learning_rate (max_step_size of Zoom)."
)
FLAG_INTERVAL_TOO_SMALL = "The interval searched became shorter than stepsize_precision."


class ZoomState(NamedTuple):
    """The state of a zoom search; its scalars have the search dtype."""

    step: Scalar  # the step to try next; once done, the step chosen
    done: Flag  # whether the search has ended
    failed: Flag  # whether it ended without a step that satisfies both conditions
    num_steps: Counter  # steps tried
    value_init: Scalar  # phi(0)
    slope_init: Scalar  # phi'(0)
    low: Point  # of sufficient decrease with the lowest value so far; the start if there is none
    high: Sample  # the other end of the interval; at infinity until an interval has been found
    former: Sample  # the end that left the interval last, for cubic interpolation
    # The amounts, at least 0, by which sufficient decrease and small curvature are missed: by low,
    # or by the last step if that was accepted or low is the start.
    decrease_error: Scalar
    curvature_error: Scalar

    @property
    def bracketed(self) -> Flag:
        """Bool, true if an interval that contains good steps has been found."""
        return jnp.isfinite(self.high.step)


@dataclasses.dataclass(frozen=True)
class Zoom:
    """The zoom search; :func:`scale_by_zoom_linesearch` explains its settings.

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

    def __post_init__(self) -> None:
        checks.whole_number("max_steps", self.max_steps, at_least=1)
        checks.number("max_step_size", self.max_step_size, above=0, optional=True)
        checks.number("tol", self.tol, at_least=0)
        checks.number("increase_factor", self.increase_factor, above=0)
        checks.number("slope_rtol", self.slope_rtol, at_least=0, below=1)
        checks.number("curv_rtol", self.curv_rtol, at_least=0)
        checks.number("approx_dec_rtol", self.approx_dec_rtol, at_least=0, optional=True)
        checks.number("stepsize_precision", self.stepsize_precision, at_least=0)

    @property
    def _largest_step(self) -> chex.Numeric:
        return jnp.inf if self.max_step_size is None else self.max_step_size

    def start(self, value: Scalar, slope: Scalar, step: Scalar) -> ZoomState:
        """Begins a search from phi(0) and phi'(0), trying ``step`` first."""
        no, zero, infinite = jnp.zeros((), bool), jnp.zeros_like(step), jnp.full_like(step, jnp.inf)
        return ZoomState(
            step=jnp.minimum(step, self._largest_step),
            done=no,
            failed=no,
            num_steps=numerics.counter(),
            value_init=value,
            slope_init=slope,
            low=Point(zero, value, slope),
            high=Sample(infinite, infinite),
            former=Sample(infinite, infinite),
            decrease_error=infinite,
            curvature_error=infinite,
        )

    def advance(self, state: ZoomState, value: Scalar, slope: Scalar) -> ZoomState:
        """Takes phi(step) and phi'(step); accepts the step, chooses another, or gives up."""
        trial, low, high = Point(state.step, value, slope), state.low, state.high
        decrease_error, curvature_error = self._errors(state, trial)
        good = jnp.maximum(decrease_error, curvature_error) <= self.tol

        # Algorithms 3.5 and 3.6 share one table, since high lies at infinity before a bracket.
        comparable = state.bracketed | (low.step > 0)
        too_high = (decrease_error > self.tol) | (comparable & (value >= low.value))
        rising = ~too_high & (slope * (high.step - low.step) >= 0)
        new_low = tree.where(too_high, low, trial)
        new_high = tree.where(too_high, trial.sample, tree.where(rising, low.sample, high))
        former = tree.where(too_high | rising, high, low.sample)
        fraction = _interpolate(new_low, new_high, former)
        inside = new_low.step + fraction * (new_high.step - new_low.step)
        longer = jnp.minimum(state.step * self.increase_factor, self._largest_step)
        next_step = jnp.where(jnp.isfinite(new_high.step), inside, longer)

        num_steps = numerics.increment(state.num_steps)
        found = new_low.step > 0
        failed = ~good & (
            (num_steps >= self.max_steps)
            | self._ran_into_limit(new_high, trial.step)
            | (self._too_small(low, high) & found)
        )
        # A failed search takes the best step of sufficient decrease. If there is none, it takes
        # the last step, unless the value there is not finite.
        fallback = jnp.where(found, new_low.step, jnp.where(jnp.isfinite(value), trial.step, 0))
        at_trial = good | ~too_high | ~found
        return state._replace(
            step=jnp.where(good, trial.step, jnp.where(failed, fallback, next_step)),
            done=good | failed,
            failed=failed,
            num_steps=num_steps,
            low=new_low,
            high=new_high,
            former=former,
            decrease_error=jnp.where(at_trial, decrease_error, state.decrease_error),
            curvature_error=jnp.where(at_trial, curvature_error, state.curvature_error),
        )

    def _errors(self, state: ZoomState, trial: Point) -> tuple[Scalar, Scalar]:
        """The amounts by which the trial misses sufficient decrease and small curvature."""
        change = trial.value - state.value_init
        decrease = change - self.slope_rtol * trial.step * state.slope_init
        if self.approx_dec_rtol is not None:
            slope_excess = trial.slope - (2 * self.slope_rtol - 1) * state.slope_init
            value_excess = change - self.approx_dec_rtol * jnp.abs(state.value_init)
            decrease = jnp.minimum(decrease, jnp.maximum(slope_excess, value_excess))
        curvature = jnp.abs(trial.slope) - self.curv_rtol * jnp.abs(state.slope_init)
        return conditions.error(decrease), conditions.error(curvature)

    def _ran_into_limit(self, high: Sample, step: Scalar) -> Flag:
        return ~jnp.isfinite(high.step) & (step >= self._largest_step)

    def _too_small(self, low: Point, high: Sample) -> Flag:
        return jnp.abs(high.step - low.step) <= self.stepsize_precision

    def diagnose(self, state: ZoomState) -> list[Message]:
        """The messages of a search that failed."""
        header, *others = conditions.diagnose(state, state.low.step > 0, self.max_steps)
        limit = Message(self._ran_into_limit(state.high, state.step), FLAG_INTERVAL_NOT_FOUND, {})
        small = Message(self._too_small(state.low, state.high), FLAG_INTERVAL_TOO_SMALL, {})
        return [header, limit, small, *others]


def _interpolate(low: Point, high: Sample, former: Sample) -> Scalar:
    """The fraction of the way from ``low`` to ``high`` at which to look next.

    It is the minimiser of the cubic through three points and the slope at ``low``, else of the
    parabola through two (pages 58 and 59 of the book), each only well inside the interval; else
    the middle.
    """

    def inside(fraction: Scalar, margin: float) -> Flag:
        return (fraction > margin) & (fraction < 1 - margin)

    cubic = interpolation.cubic_of_three(low, high, former)
    parabola = interpolation.parabola(low, high)
    return jnp.where(inside(cubic, 0.2), cubic, jnp.where(inside(parabola, 0.1), parabola, 0.5))
