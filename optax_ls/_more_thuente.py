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

from . import _checks, _lanes, _line, _numerics
from ._line import Point

# How near to the best step, relative to the interval, a step may come.
_NEAREST_INTERPOLATION = 1e-3
# How far beyond the last step the next may lie while the interval grows (eq. 4.6 has the second
# for the paper's numerical results), and by what an interval must shrink in two trials (page 291).
_NEAREST_EXTRAPOLATION, _FARTHEST_EXTRAPOLATION = 1.1, 4.0
_SHRINKAGE = 0.66


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
        low: the end of the interval with the lowest value so far (the paper's alpha_l).
        high: its other end (alpha_u); meaningless until ``bracketed``.
        bracketed: bool, whether the interval is known to contain a minimiser.
        original: bool, whether the search has gone over from the auxiliary function psi, which is
            phi less the line of sufficient decrease, to phi itself (page 298).
        width: length of the interval one trial before.
        width_before: length of the interval two trials before.
        ceiling: the smallest step known not to be finite.
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
    low: Point
    high: Point
    bracketed: jax.Array
    original: jax.Array
    width: jax.Array
    width_before: jax.Array
    ceiling: jax.Array
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
        _checks.whole_number("max_linesearch_steps", self.max_steps, at_least=1)
        _checks.number("max_learning_rate", self.max_step_size, above=0, optional=True)
        _checks.number("slope_rtol", self.slope_rtol, at_least=0, below=1)
        _checks.number("curv_rtol", self.curv_rtol, at_least=0)
        _checks.number("noise_rtol", self.noise_rtol, at_least=0, optional=True)
        _checks.number("interval_rtol", self.interval_rtol, at_least=0)

    @property
    def _largest_step(self) -> chex.Numeric:
        return jnp.inf if self.max_step_size is None else self.max_step_size

    def start(self, value: jax.Array, slope: jax.Array, step: jax.Array) -> MoreThuenteState:
        """Begins a search from phi(0) and phi'(0), trying ``step`` first."""
        no = jnp.zeros((), bool)
        here = Point(jnp.zeros_like(step), jnp.zeros_like(value), slope)
        infinite = jnp.full_like(step, jnp.inf)
        return MoreThuenteState(
            step=jnp.minimum(step, self._largest_step),
            done=no,
            failed=no,
            num_steps=_numerics.counter(),
            value_init=value,
            start=here,
            best=here,
            low=here,
            high=here,
            bracketed=no,
            original=no,
            width=infinite,
            width_before=infinite,
            ceiling=infinite,
            decrease_error=infinite,
            curvature_error=infinite,
        )

    def errors(self, start: Point, point: Point) -> tuple[jax.Array, jax.Array]:
        """By how much ``point`` misses sufficient decrease and small curvature."""
        decrease = _line.missing_decrease(start, point, self.slope_rtol)
        curvature = _line.missing_curvature(start, point, self.curv_rtol)
        return _line.error(decrease), _line.error(curvature)

    def advance(
        self, state: MoreThuenteState, value: jax.Array, slope: jax.Array
    ) -> MoreThuenteState:
        """Takes phi(step) and phi'(step); accepts, says where to look next, or gives up."""
        finite = jnp.isfinite(value) & jnp.isfinite(slope)
        trial = Point(state.step, self._difference(state, value, slope), slope)
        decrease_error, curvature_error = self.errors(state.start, trial)
        decreased = finite & (decrease_error <= 0)
        good = decreased & (curvature_error <= 0)
        better = decreased & ((state.best.step == 0) | (trial.value < state.best.value))
        best = _line.choose(better, trial, state.best)

        # In a loop of its own, of which XLA for CPUs makes one piece.
        searched = _lanes.in_place(state.num_steps >= 0, self._narrow, state, trial)
        searched = searched._replace(best=best)
        walled = self._wall_in(state)
        moved = MoreThuenteState(
            *jax.tree.map(lambda a, b: jnp.where(finite, a, b), searched, walled)
        )

        num_steps = _numerics.increment(state.num_steps)
        hopeless = self._stuck(moved, trial, decreased) | self._same(state, value, trial)
        failed = ~good & ((num_steps >= self.max_steps) | hopeless)
        # A failed search takes its best step of sufficient decrease; if there is none the last
        # one, unless phi is not finite there.
        fallback = jnp.where(best.step > 0, best.step, jnp.where(finite, trial.step, 0))
        at_best = failed & (best.step > 0)
        best_errors = self.errors(state.start, best)
        return moved._replace(
            step=jnp.where(good, trial.step, jnp.where(failed, fallback, moved.step)),
            done=good | failed,
            failed=failed,
            num_steps=num_steps,
            best=best,
            decrease_error=jnp.where(at_best, best_errors[0], decrease_error),
            curvature_error=jnp.where(at_best, best_errors[1], curvature_error),
        )

    def _difference(self, state: MoreThuenteState, value: jax.Array, slope: jax.Array) -> jax.Array:
        """The value less phi(0), or where rounding drowns that what the slopes say it should be."""
        trapezoid = state.step * (state.start.slope + slope) / 2
        return jnp.where(self._drowned(state, value), trapezoid, value - state.value_init)

    def _drowned(self, state: MoreThuenteState, value: jax.Array) -> jax.Array:
        """Whether the value differs from phi(0) by no more than rounding."""
        rtol = self.noise_rtol
        if rtol is None:
            rtol = 256 * _numerics.finfo(value.dtype).eps
        return jnp.abs(value - state.value_init) < rtol * jnp.abs(state.value_init)

    def _narrow(self, state: MoreThuenteState, trial: Point) -> MoreThuenteState:
        """The interval with ``trial`` in it, and the next step (sections 2 to 4)."""
        start, low, high = state.start, state.low, state.high
        decreased = _line.missing_decrease(start, trial, self.slope_rtol) <= 0
        original = state.original | (decreased & (trial.slope >= 0))
        use_psi = ~original & ~decreased & (trial.value <= low.value)
        line = jnp.where(use_psi, self.slope_rtol * start.slope, 0)

        def less_the_line(point: Point) -> Point:
            return Point(point.step, point.value - line * point.step, point.slope - line)

        x, y, p = less_the_line(low), less_the_line(high), less_the_line(trial)
        higher = p.value > x.value
        turned = ~higher & (p.slope * jnp.sign(x.slope) < 0)
        bracketed = state.bracketed | higher | turned
        nearest = jnp.where(state.num_steps > 0, _NEAREST_EXTRAPOLATION, -1.0)
        bounds = (
            p.step + nearest * (p.step - x.step),
            p.step + _FARTHEST_EXTRAPOLATION * (p.step - x.step),
        )
        step = _next_step(x, y, p, higher, turned, state.bracketed, bounds)

        new_low = _line.choose(higher, low, trial)
        new_high = _line.choose(higher, trial, _line.choose(turned, low, high))
        width = jnp.abs(new_high.step - new_low.step)
        halfway = new_low.step + (new_high.step - new_low.step) / 2
        too_wide = bracketed & (width >= _SHRINKAGE * state.width_before)
        least = _NEAREST_INTERPOLATION * (new_high.step - new_low.step)
        too_near = bracketed & (jnp.abs(step - new_low.step) < jnp.abs(least))
        step = jnp.where(too_near, new_low.step + least, step)
        step = jnp.minimum(jnp.where(too_wide, halfway, step), self._largest_step)
        step = jnp.where(step >= state.ceiling, (new_low.step + state.ceiling) / 2, step)
        return state._replace(
            step=step,
            low=new_low,
            high=new_high,
            bracketed=bracketed,
            original=original,
            width=jnp.where(bracketed, width, state.width),
            width_before=jnp.where(bracketed, state.width, state.width_before),
        )

    def _wall_in(self, state: MoreThuenteState) -> MoreThuenteState:
        """The state after a step that is not finite: nothing learnt but to stay below it."""
        return state._replace(step=(state.low.step + state.step) / 2, ceiling=state.step)

    def _stuck(self, state: MoreThuenteState, trial: Point, decreased: jax.Array) -> jax.Array:
        """Whether the next step cannot help: outside the interval, or at a limit already tried."""
        left = jnp.minimum(state.low.step, state.high.step)
        right = jnp.maximum(state.low.step, state.high.step)
        outside = (state.step <= left) | (state.step >= right)
        short = right - left <= self.interval_rtol * right
        at_limit = decreased & (trial.step >= self._largest_step)
        nowhere = ~jnp.isfinite(state.step) | (state.step == state.low.step)
        return (state.bracketed & (outside | short)) | at_limit | nowhere

    def _same(self, state: MoreThuenteState, value: jax.Array, trial: Point) -> jax.Array:
        """Whether rounding has made one point of the trial and an end of the interval."""
        ends = (trial.slope == state.low.slope) | (trial.slope == state.high.slope)
        return state.bracketed & ends & self._drowned(state, value)

    def diagnose(self, state: MoreThuenteState) -> list[tuple[Any, str, dict[str, Any]]]:
        """What to print of a failed search: conditions, messages and their fields."""
        decreased = state.best.step > 0
        return _line.diagnose(state, state.value_init, decreased, self.max_steps)


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
    here = _line.choose(higher, x, p)
    there = _line.choose(higher, p, _line.choose(steeper, y, x))
    fraction, exists = _line.cubic_fraction(here, there)
    cubic = here.step + fraction * (there.step - here.step)
    secant = _line.secant_minimum(p, x)

    # Case 1: a higher value. Between the cubic and the parabola, nearer to the cubic if that is
    # nearer to x.
    parabola = _line.parabola_minimum(x, p)
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
