"""More & Thuente's search for a step that satisfies the strong Wolfe conditions.

A core: it knows phi(step) = f(params + step * updates) only through the numbers it is told. The
algorithm is that of More & Thuente, Line search algorithms with guaranteed sufficient decrease,
ACM TOMS 20 (1994), 286-307, for the conditions::

    phi(step) <= phi(0) + slope_rtol step phi'(0)        sufficient decrease   (1.1)
    |phi'(step)| <= curv_rtol |phi'(0)|                  small curvature       (1.2)

Deviations from the paper, with their reasons:

* Where phi differs from phi(0) by no more than rounding, its values say nothing, but its slopes
  still do. There the value is replaced by what the trapezoidal rule makes of the slopes. (1.1) then
  reads phi'(step) <= (2 slope_rtol - 1) phi'(0), which is the approximate test of Hager & Zhang,
  ACM TOMS 32 (2006), 113-137, and interpolation works on from consistent numbers.
* Values are kept as differences from phi(0). Nothing in the algorithm depends on phi(0), and
  differences have digits that sums would round away.
* A step where value or slope is not finite becomes a ceiling: later steps stay below.
* A search that fails ends at its best step of sufficient decrease.
* Next to a step where phi is beyond all measure a cubic ends where it begins. So within an interval
  the next step stays off the best one by a thousandth of its length, where there is something to
  be seen.
* A search ends where rounding makes one point of two steps: phi' is the same at both, to the bit,
  and phi says nothing.
"""

import dataclasses
from typing import Any, NamedTuple, Optional

import chex
import jax
import jax.numpy as jnp

from .. import checks, numerics
from . import conditions
from .conditions import Point

# How near to the best step, relative to the interval, a step may come.
_NEAREST_INTERPOLATION = 1e-3
# How far beyond the last step the next may lie while the interval grows (eq. 4.6 has the second
# for the paper's numerical results), and by what an interval must shrink in two trials (page 291).
_NEAREST_EXTRAPOLATION, _FARTHEST_EXTRAPOLATION = 1.1, 4.0
_SHRINKAGE = 0.66


class Interval(NamedTuple):
    """Where a minimiser is known to be; scalars of the search dtype unless said otherwise.

    Attributes:
        next_step: the step in it to try next; infinite where rounding has made one point of the
            last trial and an end.
        low: the end with the lowest value so far (the paper's alpha_l).
        high: the other end (alpha_u); meaningless until ``bracketed``.
        bracketed: bool, whether the interval is known to contain a minimiser.
        original: bool, whether the search has gone over from the auxiliary function psi, which is
            phi less the line of sufficient decrease, to phi itself (page 298).
        width: length of the interval one trial before.
        width_before: length of the interval two trials before.
        ceiling: the smallest step known not to be finite.
    """

    next_step: jax.Array
    low: Point
    high: Point
    bracketed: jax.Array
    original: jax.Array
    width: jax.Array
    width_before: jax.Array
    ceiling: jax.Array


class MoreThuenteState(NamedTuple):
    """Where a search stands; scalars of the search dtype unless said otherwise.

    Attributes:
        step: the step to try next; once ``done``, the step chosen.
        done: bool, whether the search has ended.
        failed: bool, whether it ended without satisfying both conditions.
        num_steps: counter, steps tried.
        value_init: phi(0), from which the values of all points are differences.
        start: phi at step 0; its value is 0.
        best: the lowest of the steps of sufficient decrease so far; the start if there is none.
        interval: see :class:`Interval`.
        decrease_error: by how much sufficient decrease is missed; 0 if it is not.
        curvature_error: by how much small curvature is missed; 0 if it is not.
    """

    step: jax.Array
    done: jax.Array
    failed: jax.Array
    num_steps: jax.Array
    value_init: jax.Array
    start: Point
    best: Point
    interval: Interval
    decrease_error: jax.Array
    curvature_error: jax.Array


@dataclasses.dataclass(frozen=True)
class MoreThuente:
    """The core and its settings; see :func:`scale_by_more_thuente_linesearch` for their meaning.

    Invariant (page 290): of all steps tried, ``low`` has the lowest value, and phi falls from it
    towards ``high``; so once bracketed, the interval between them contains a minimiser.
    """

    max_steps: chex.Numeric
    max_step_size: Optional[chex.Numeric] = None
    slope_rtol: chex.Numeric = 1e-4
    curv_rtol: chex.Numeric = 0.9
    noise_rtol: Optional[chex.Numeric] = None
    interval_rtol: chex.Numeric = 1e-10

    needs_slope = True

    def __post_init__(self) -> None:
        checks.whole_number("max_linesearch_steps", self.max_steps, at_least=1)
        checks.number("max_learning_rate", self.max_step_size, above=0, optional=True)
        checks.number("slope_rtol", self.slope_rtol, at_least=0, below=1)
        checks.number("curv_rtol", self.curv_rtol, at_least=0)
        checks.number("noise_rtol", self.noise_rtol, at_least=0, optional=True)
        checks.number("interval_rtol", self.interval_rtol, at_least=0)

    @property
    def _largest_step(self) -> chex.Numeric:
        return jnp.inf if self.max_step_size is None else self.max_step_size

    def start(self, value: jax.Array, slope: jax.Array, step: jax.Array) -> MoreThuenteState:
        """Begins a search from phi(0) and phi'(0), trying ``step`` first."""
        no = jnp.zeros((), bool)
        here = Point(jnp.zeros_like(step), jnp.zeros_like(value), slope)
        infinite = jnp.full_like(step, jnp.inf)
        step = jnp.minimum(step, self._largest_step)
        return MoreThuenteState(
            step=step,
            done=no,
            failed=no,
            num_steps=numerics.counter(),
            value_init=value,
            start=here,
            best=here,
            interval=Interval(step, here, here, no, no, infinite, infinite, infinite),
            decrease_error=infinite,
            curvature_error=infinite,
        )

    def errors(self, start: Point, point: Point) -> tuple[jax.Array, jax.Array]:
        """By how much ``point`` misses sufficient decrease and small curvature."""
        decrease = conditions.missing_decrease(start, point, self.slope_rtol)
        curvature = conditions.missing_curvature(start, point, self.curv_rtol)
        return conditions.error(decrease), conditions.error(curvature)

    def advance(
        self, state: MoreThuenteState, value: jax.Array, slope: jax.Array
    ) -> MoreThuenteState:
        """Takes phi(step) and phi'(step); accepts, says where to look next, or gives up."""
        interval = self._narrow(state.interval, state, value, slope)
        return self._conclude(state, interval, value, slope)._replace(interval=interval)

    def _conclude(
        self, state: MoreThuenteState, interval: Interval, value: jax.Array, slope: jax.Array
    ) -> MoreThuenteState:
        """Whether the search ends with the trial, and where; ``state`` has no interval."""
        finite, trial = self._trial(state, value, slope)
        decrease_error, curvature_error = self.errors(state.start, trial)
        decreased = finite & (decrease_error <= 0)
        good = decreased & (curvature_error <= 0)
        better = decreased & ((state.best.step == 0) | (trial.value < state.best.value))
        best = conditions.choose(better, trial, state.best)

        num_steps = numerics.increment(state.num_steps)
        failed = ~good & ((num_steps >= self.max_steps) | self._stuck(interval, trial, decreased))
        # A failed search takes its best step of sufficient decrease; if there is none the last
        # one, unless phi is not finite there.
        fallback = jnp.where(best.step > 0, best.step, jnp.where(finite, trial.step, 0))
        at_best = failed & (best.step > 0)
        best_errors = self.errors(state.start, best)
        return state._replace(
            step=jnp.where(good, trial.step, jnp.where(failed, fallback, interval.next_step)),
            done=good | failed,
            failed=failed,
            num_steps=num_steps,
            best=best,
            decrease_error=jnp.where(at_best, best_errors[0], decrease_error),
            curvature_error=jnp.where(at_best, best_errors[1], curvature_error),
        )

    def _trial(
        self, state: MoreThuenteState, value: jax.Array, slope: jax.Array
    ) -> tuple[jax.Array, Point]:
        """Whether phi is finite at the step tried, and the point."""
        finite = jnp.isfinite(value) & jnp.isfinite(slope)
        return finite, Point(state.step, self._difference(state, value, slope), slope)

    def _difference(self, state: MoreThuenteState, value: jax.Array, slope: jax.Array) -> jax.Array:
        """The value less phi(0), or where rounding drowns that what the slopes say it should be."""
        trapezoid = state.step * (state.start.slope + slope) / 2
        return jnp.where(self._drowned(state, value), trapezoid, value - state.value_init)

    def _drowned(self, state: MoreThuenteState, value: jax.Array) -> jax.Array:
        """Whether the value differs from phi(0) by no more than rounding."""
        rtol = self.noise_rtol
        if rtol is None:
            rtol = 256 * numerics.finfo(value.dtype).eps
        return jnp.abs(value - state.value_init) < rtol * jnp.abs(state.value_init)

    def _narrow(
        self, interval: Interval, state: MoreThuenteState, value: jax.Array, slope: jax.Array
    ) -> Interval:
        """The interval with the trial in it, and the next step (sections 2 to 4).

        Of a trial that is not finite nothing is learnt but to stay below it. ``state`` has no
        interval.
        """
        start, low, high = state.start, interval.low, interval.high
        finite, trial = self._trial(state, value, slope)
        decreased = conditions.missing_decrease(start, trial, self.slope_rtol) <= 0
        original = interval.original | (finite & decreased & (trial.slope >= 0))
        use_psi = ~original & ~decreased & (trial.value <= low.value)
        line = jnp.where(use_psi, self.slope_rtol * start.slope, 0)

        def less_the_line(point: Point) -> Point:
            return Point(point.step, point.value - line * point.step, point.slope - line)

        x, y, p = less_the_line(low), less_the_line(high), less_the_line(trial)
        higher = p.value > x.value
        turned = ~higher & (p.slope * jnp.sign(x.slope) < 0)
        bracketed = interval.bracketed | (finite & (higher | turned))
        nearest = jnp.where(state.num_steps > 0, _NEAREST_EXTRAPOLATION, -1.0)
        bounds = (
            p.step + nearest * (p.step - x.step),
            p.step + _FARTHEST_EXTRAPOLATION * (p.step - x.step),
        )
        step = _next_step(x, y, p, higher, turned, interval.bracketed, bounds)

        new_low = conditions.choose(higher | ~finite, low, trial)
        new_high = conditions.choose(
            finite & higher, trial, conditions.choose(finite & turned, low, high)
        )
        width = jnp.abs(new_high.step - new_low.step)
        halfway = new_low.step + (new_high.step - new_low.step) / 2
        too_wide = bracketed & (width >= _SHRINKAGE * interval.width_before)
        least = _NEAREST_INTERPOLATION * (new_high.step - new_low.step)
        too_near = bracketed & (jnp.abs(step - new_low.step) < jnp.abs(least))
        step = jnp.where(too_near, new_low.step + least, step)
        step = jnp.minimum(jnp.where(too_wide, halfway, step), self._largest_step)
        step = jnp.where(step >= interval.ceiling, (new_low.step + interval.ceiling) / 2, step)
        at_end = (trial.slope == low.slope) | (trial.slope == high.slope)
        same = interval.bracketed & at_end & self._drowned(state, value)
        step = jnp.where(same, jnp.inf, jnp.where(finite, step, (low.step + trial.step) / 2))
        measured = finite & bracketed
        return Interval(
            next_step=step,
            low=new_low,
            high=new_high,
            bracketed=bracketed,
            original=original,
            width=jnp.where(measured, width, interval.width),
            width_before=jnp.where(measured, interval.width, interval.width_before),
            ceiling=jnp.where(finite, interval.ceiling, trial.step),
        )

    def _stuck(self, interval: Interval, trial: Point, decreased: jax.Array) -> jax.Array:
        """Whether the next step cannot help: outside the interval, or at a limit already tried."""
        step, low, high = interval.next_step, interval.low.step, interval.high.step
        left, right = jnp.minimum(low, high), jnp.maximum(low, high)
        outside = (step <= left) | (step >= right)
        short = right - left <= self.interval_rtol * right
        at_limit = decreased & (trial.step >= self._largest_step)
        nowhere = ~jnp.isfinite(step) | (step == low)
        return (interval.bracketed & (outside | short)) | at_limit | nowhere

    def diagnose(self, state: MoreThuenteState) -> list[tuple[Any, str, dict[str, Any]]]:
        """What to print of a failed search: conditions, messages and their fields."""
        decreased = state.best.step > 0
        return conditions.diagnose(state, state.value_init, decreased, self.max_steps)


def _next_step(
    x: Point,
    y: Point,
    p: Point,
    higher: jax.Array,
    turned: jax.Array,
    bracketed: jax.Array,
    bounds: tuple[jax.Array, jax.Array],
) -> jax.Array:
    """The next step to try, by the four cases of section 4.

    Args:
        x: the end of the interval with the lowest value.
        y: its other end.
        p: the trial.
        higher: whether the trial is higher than ``x``.
        turned: whether not, and the slope at the trial has the other sign than at ``x``.
        bracketed: whether ``x`` and ``y`` bracketed a minimiser before the trial.
        bounds: where the next step may lie while nothing is bracketed.
    """
    nearest, farthest = bounds
    flatter = jnp.abs(p.slope) < jnp.abs(x.slope)
    steeper = ~higher & ~turned & ~flatter

    def closer(a: jax.Array, b: jax.Array, to: jax.Array) -> jax.Array:
        return jnp.where(jnp.abs(a - to) < jnp.abs(b - to), a, b)

    def farther(a: jax.Array, b: jax.Array, to: jax.Array) -> jax.Array:
        return jnp.where(jnp.abs(a - to) > jnp.abs(b - to), a, b)

    # Every case has its cubic, between two of the three points, which it looks at from one of them.
    here = conditions.choose(higher, x, p)
    there = conditions.choose(higher, p, conditions.choose(steeper, y, x))
    fraction, exists = conditions.cubic_fraction(here, there)
    cubic = here.step + fraction * (there.step - here.step)
    secant = conditions.secant_minimum(p, x)

    # Case 1: a higher value. Between the cubic and the parabola, nearer to the cubic if that is
    # nearer to x.
    parabola = conditions.parabola_minimum(x, p)
    nearer = jnp.abs(cubic - x.step) < jnp.abs(parabola - x.step)
    case_1 = jnp.where(nearer, cubic, cubic + (parabola - cubic) / 2)

    # Case 2: a lower value, a slope of the other sign. The minimum of the cubic or of the secant,
    # whichever is farther from the trial.
    case_2 = farther(cubic, secant, p.step)

    # Case 3: a lower value, a slope of the same sign but flatter. The cubic counts only if its
    # minimum lies beyond the trial.
    beyond = jnp.where(p.step > x.step, farthest, nearest)
    ahead = jnp.where(exists & (fraction < 0), cubic, beyond)
    limit = p.step + _SHRINKAGE * (y.step - p.step)
    inner = closer(ahead, secant, p.step)
    inner = jnp.where(p.step > x.step, jnp.minimum(limit, inner), jnp.maximum(limit, inner))
    outer = jnp.clip(farther(ahead, secant, p.step), nearest, farthest)
    case_3 = jnp.where(bracketed, inner, outer)

    # Case 4: a lower value, a slope of the same sign and no flatter.
    case_4 = jnp.where(bracketed, cubic, beyond)

    same_sign = jnp.where(flatter, case_3, case_4)
    return jnp.where(higher, case_1, jnp.where(turned, case_2, same_sign))
