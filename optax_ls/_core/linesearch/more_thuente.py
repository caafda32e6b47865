"""More & Thuente's search for a step that satisfies the strong Wolfe conditions.

The algorithm is that of More & Thuente, Line search algorithms with guaranteed sufficient decrease,
ACM TOMS 20 (1994), 286-307, for the conditions::

    phi(step) <= phi(0) + slope_rtol step phi'(0)        sufficient decrease   (1.1)
    |phi'(step)| <= curv_rtol |phi'(0)|                  small curvature       (1.2)

Deviations from the paper, with their reasons:

* Where phi differs from phi(0) by no more than rounding, its slopes are more exact than its values.
  There the trapezoidal rule gives the value from the slopes, if neither slope times the step is
  larger than a quarter of that rounding. A longer step may pass over hills, which the slopes at its
  ends do not show. Where phi equals phi(0) and the slope has fallen by half, the rule is used for
  any step: if the terms of phi cancel, their rounding is larger than that of phi. With the rule,
  (1.1) reads
  phi'(step) <= (2 slope_rtol - 1) phi'(0), which is the approximate test of Hager & Zhang, ACM TOMS
  32 (2006), 113-137, and interpolation uses consistent numbers.
* Values are kept as differences from phi(0). Nothing in the algorithm depends on phi(0), and
  differences have digits that sums would round away.
* A step where value or slope is not finite becomes a ceiling: later steps stay below it.
* A search that fails ends at its best step of sufficient decrease.
* Beside a step where phi is very large, the minimiser of the cubic is almost the best step. So
  within an interval the next step keeps a distance of 1/1000 of its width from the best one.
* A search ends if the change of phi is rounding and phi' at the trial equals phi' at an end of the
  interval to the last bit: the two steps are one point to the objective.
"""

import dataclasses
from typing import NamedTuple, Optional

import chex
import jax.numpy as jnp

from .. import checks, numerics, tree
from ..types import Counter, Flag, Scalar
from . import conditions, interpolation
from .conditions import Message, Point, Sample

# The distance that a step keeps from the best step, relative to the width of the interval.
_NEAREST_INTERPOLATION = 1e-3
# The limits of the distance from the last step to the next while the interval grows, relative to
# the move before (eq. 4.6 has the second for the paper's numerical results).
_NEAREST_EXTRAPOLATION, _FARTHEST_EXTRAPOLATION = 1.1, 4.0
# The factor by which an interval must shrink in two trials (page 291).
_SHRINKAGE = 0.66
# A step is short if neither slope times the step is larger than this fraction of rounding.
_SHORT = 0.25
# Where phi equals phi(0), the trapezoidal rule is used if the slope is less than this fraction of
# phi'(0). Beside a kink it is usually more.
_FLATTER = 0.5


class Interval(NamedTuple):
    """The interval that is searched; its scalars have the search dtype."""

    low: Point  # the end with the lowest value so far (the paper's alpha_l)
    high: Point  # the other end (alpha_u); at infinity until a minimiser is bracketed
    # Whether the search has passed from the auxiliary function psi, which is phi less the line of
    # sufficient decrease, to phi itself (page 298).
    original: Flag
    width_before: Scalar  # the width one trial before; infinite if nothing was bracketed then
    ceiling: Scalar  # the smallest step known not to be finite

    @property
    def bracketed(self) -> Flag:
        """Bool, true if the interval contains a minimiser."""
        return jnp.isfinite(self.high.step)

    @property
    def length(self) -> Scalar:
        """The distance from ``low`` to ``high``, negative if ``high`` is the smaller step."""
        return self.high.step - self.low.step


class MoreThuenteState(NamedTuple):
    """The state of a search; its scalars have the search dtype."""

    step: Scalar  # the step to try next; once done, the step chosen
    done: Flag  # whether the search has ended
    failed: Flag  # whether it ended without a step that satisfies both conditions
    num_steps: Counter  # steps tried
    value_init: Scalar  # phi(0), from which the values of all points are differences
    slope_init: Scalar  # phi'(0)
    best: Sample  # the lowest of the steps of sufficient decrease so far; step 0 if there is none
    interval: Interval
    # The amounts, at least 0, by which sufficient decrease and small curvature are missed: by best,
    # or by the last step if that was accepted or nothing is best.
    decrease_error: Scalar
    curvature_error: Scalar


@dataclasses.dataclass(frozen=True)
class MoreThuente:
    """More & Thuente's search; :func:`scale_by_more_thuente_linesearch` explains its settings.

    Invariant (page 290): of all steps tried, ``low`` has the lowest value, and phi falls from it
    towards ``high``; so once bracketed, the interval between them contains a minimiser.
    """

    max_steps: chex.Numeric
    max_step_size: Optional[chex.Numeric] = None
    slope_rtol: chex.Numeric = 1e-4
    curv_rtol: chex.Numeric = 0.9
    noise_rtol: Optional[chex.Numeric] = None
    interval_rtol: chex.Numeric = 1e-10

    def __post_init__(self) -> None:
        checks.whole_number("max_steps", self.max_steps, at_least=1)
        checks.number("max_step_size", self.max_step_size, above=0, optional=True)
        checks.number("slope_rtol", self.slope_rtol, at_least=0, below=1)
        checks.number("curv_rtol", self.curv_rtol, at_least=0)
        checks.number("noise_rtol", self.noise_rtol, at_least=0, optional=True)
        checks.number("interval_rtol", self.interval_rtol, at_least=0)

    @property
    def _largest_step(self) -> chex.Numeric:
        return jnp.inf if self.max_step_size is None else self.max_step_size

    def start(self, value: Scalar, slope: Scalar, step: Scalar) -> MoreThuenteState:
        """Begins a search from phi(0) and phi'(0), trying ``step`` first."""
        no, zero, infinite = jnp.zeros((), bool), jnp.zeros_like(step), jnp.full_like(step, jnp.inf)
        return MoreThuenteState(
            step=jnp.minimum(step, self._largest_step),
            done=no,
            failed=no,
            num_steps=numerics.counter(),
            value_init=value,
            slope_init=slope,
            best=Sample(zero, infinite),
            interval=Interval(
                low=Point(zero, zero, slope),
                high=Point(infinite, zero, slope),
                original=no,
                width_before=infinite,
                ceiling=infinite,
            ),
            decrease_error=infinite,
            curvature_error=infinite,
        )

    def advance(self, state: MoreThuenteState, value: Scalar, slope: Scalar) -> MoreThuenteState:
        """Takes phi(step) and phi'(step); accepts the step, chooses another, or gives up."""
        trial, hidden = self._trial(state, value, slope)
        finite = jnp.isfinite(value) & jnp.isfinite(slope)
        decrease = trial.value - self.slope_rtol * trial.step * state.slope_init
        curvature = jnp.abs(slope) - self.curv_rtol * jnp.abs(state.slope_init)
        decreased = finite & (decrease <= 0)
        good = decreased & (curvature <= 0)
        better = decreased & (trial.value < state.best.value)
        best = tree.where(better, trial.sample, state.best)

        interval, next_step = self._narrow(state, trial, finite, decreased)
        # To the objective, the trial and an end of the interval are one point.
        low, high = state.interval.low, state.interval.high
        at_end = hidden & ((slope == low.slope) | (slope == high.slope))
        num_steps = numerics.increment(state.num_steps)
        failed = ~good & (
            (num_steps >= self.max_steps)
            | (decreased & (trial.step >= self._largest_step))
            | (state.interval.bracketed & at_end)
            | self._exhausted(interval, next_step)
        )
        # A failed search takes its best step of sufficient decrease. If there is none, it takes
        # the last step, unless phi is not finite there.
        found = best.step > 0
        fallback = jnp.where(found, best.step, jnp.where(finite, trial.step, 0))
        at_trial = good | better | ~found
        return state._replace(
            step=jnp.where(good, trial.step, jnp.where(failed, fallback, next_step)),
            done=good | failed,
            failed=failed,
            num_steps=num_steps,
            best=best,
            interval=interval,
            decrease_error=jnp.where(at_trial, conditions.error(decrease), 0),
            curvature_error=jnp.where(at_trial, conditions.error(curvature), state.curvature_error),
        )

    def _trial(self, state: MoreThuenteState, value: Scalar, slope: Scalar) -> tuple[Point, Flag]:
        """The trial, and bool, whether rounding hides its difference from phi(0)."""
        eps = jnp.finfo(value.dtype).eps
        rtol = 256 * eps if self.noise_rtol is None else self.noise_rtol
        change, rounding = value - state.value_init, rtol * jnp.abs(state.value_init)
        is_flatter = jnp.abs(slope) < _FLATTER * jnp.abs(state.slope_init)
        is_equal = (change == 0) & is_flatter & (rtol > 0)
        hidden = is_equal | (jnp.abs(change) < rounding)
        steeper = jnp.maximum(jnp.abs(state.slope_init), jnp.abs(slope))
        is_short = is_equal | (state.step * steeper < _SHORT * rounding)
        trapezoid = state.step * (state.slope_init + slope) / 2
        return Point(state.step, jnp.where(hidden & is_short, trapezoid, change), slope), hidden

    def _narrow(
        self, state: MoreThuenteState, trial: Point, finite: Flag, decreased: Flag
    ) -> tuple[Interval, Scalar]:
        """The interval updated with the trial, and the next step (sections 2 to 4).

        A trial that is not finite only lowers the ceiling.
        """
        old = state.interval
        low, high = old.low, old.high
        original = old.original | (decreased & (trial.slope >= 0))
        use_psi = ~original & ~decreased & (trial.value <= low.value)
        line = jnp.where(use_psi, self.slope_rtol * state.slope_init, 0)

        def less_the_line(point: Point) -> Point:
            return Point(point.step, point.value - line * point.step, point.slope - line)

        x, y, p = less_the_line(low), less_the_line(high), less_the_line(trial)
        higher = finite & (p.value > x.value)
        lower = finite & ~higher
        turned = lower & (p.slope * jnp.sign(x.slope) < 0)
        # The paper's program has no lower bound for the second step.
        nearest = jnp.where(state.num_steps > 0, _NEAREST_EXTRAPOLATION, -1.0)
        step = _next_step(x, y, p, higher, turned, old.bracketed, nearest)

        new = Interval(
            low=tree.where(lower, trial, low),
            high=tree.where(higher, trial, tree.where(turned, low, high)),
            original=original,
            width_before=jnp.where(finite, jnp.abs(old.length), old.width_before),
            ceiling=jnp.where(finite, old.ceiling, trial.step),
        )
        return new, self._safeguard(step, finite, old.width_before, new)

    def _safeguard(
        self, step: Scalar, finite: Flag, width_before: Scalar, interval: Interval
    ) -> Scalar:
        """The step that interpolation suggests, kept within the limits.

        ``interval`` is the interval after the trial, and ``width_before`` the width of that two
        trials before. ``finite`` is whether the trial was finite.
        """
        low, length, width = interval.low.step, interval.length, jnp.abs(interval.length)
        too_near = jnp.abs(step - low) < _NEAREST_INTERPOLATION * width
        inside = jnp.where(too_near, low + _NEAREST_INTERPOLATION * length, step)
        inside = jnp.where(width < _SHRINKAGE * width_before, inside, low + length / 2)
        step = jnp.minimum(jnp.where(interval.bracketed, inside, step), self._largest_step)
        blocked = ~finite | (step >= interval.ceiling)
        return jnp.where(blocked, (low + interval.ceiling) / 2, step)

    def _exhausted(self, interval: Interval, step: Scalar) -> Flag:
        """True if the next step is not inside the interval, or if that is too short."""
        left = jnp.minimum(interval.low.step, interval.high.step)
        right = jnp.maximum(interval.low.step, interval.high.step)
        inside = (left < step) & (step < right)
        return ~inside | (right - left < self.interval_rtol * right)

    def diagnose(self, state: MoreThuenteState) -> list[Message]:
        """The messages of a search that failed."""
        return conditions.diagnose(state, state.best.step > 0, self.max_steps)


def _next_step(
    x: Point, y: Point, p: Point, higher: Flag, turned: Flag, bracketed: Flag, nearest: Scalar
) -> Scalar:
    """The next step by the four cases of section 4.

    ``x`` is the end of the interval with the lowest value, ``y`` the other end, ``p`` the trial.
    ``higher``: the value at ``p`` is higher than at ``x``. ``turned``: it is not, and the slopes
    have different signs. ``bracketed``: ``x`` and ``y`` bracketed a minimiser before the trial.

    Moves are measured from the trial, in units of its distance from ``x``, which lies at -1;
    ``nearest`` is the shortest while nothing is bracketed.
    """
    flatter = jnp.abs(p.slope) < jnp.abs(x.slope)
    unit = p.step - x.step
    end = tree.where(higher | turned | flatter, x, y)
    fraction, exists = interpolation.cubic(p, end)
    cubic = fraction * (end.step - p.step) / unit
    secant = -interpolation.secant(p, x)

    # Case 1: a higher value. The cubic if its minimiser is nearer to x than that of the parabola,
    # else the mean of the two.
    parabola = interpolation.parabola(x, p) - 1
    case_1 = jnp.where(cubic < parabola, cubic, (cubic + parabola) / 2)

    # Case 2: a lower value, a slope of the other sign. The minimiser farther from the trial.
    case_2 = jnp.where(cubic < secant, cubic, secant)

    # Case 3: a lower value, a slope of the same sign but flatter. The cubic counts only if its
    # minimiser lies beyond the trial. Within an interval the nearer one is taken, else the farther.
    beyond = jnp.where(unit > 0, _FARTHEST_EXTRAPOLATION, nearest)
    ahead = jnp.where(exists & (cubic > 0), cubic, beyond)
    limit = _SHRINKAGE * (y.step - p.step) / unit
    inner = jnp.minimum(limit, jnp.minimum(ahead, secant))
    outer = jnp.maximum(nearest, jnp.minimum(jnp.maximum(ahead, secant), _FARTHEST_EXTRAPOLATION))
    case_3 = jnp.where(bracketed, inner, outer)

    # Case 4: a lower value, a slope of the same sign and no flatter.
    case_4 = jnp.where(bracketed, cubic, beyond)

    same_sign = jnp.where(flatter, case_3, case_4)
    return p.step + unit * jnp.where(higher, case_1, jnp.where(turned, case_2, same_sign))
