"""When ``minimize`` restarts along steepest descent, and when it stops.

Near a minimum values change by rounding only, and a search among them may end anywhere. Two
observations tell this from a function that is not differentiable or a wrong gradient:

* A search fails, and the decrease that its slope predicted is less than rounding: less than the
  value and the params at the iterate allow, or hidden by noise that its trials showed.
* The iterate moves, as the slopes ask, but in a number of iterations the value has not decreased by
  more than rounding in all.

After any other search that failed, steepest descent is tried once (see ``step.py``). A search that
used all its trials on a straight line is followed by steepest descent as well.

A function without lower bound shows in trials: the value falls, and the slope gets no flatter. An
interval that has no flatter slope grows with every trial, so such trials in a row reach farther
than any scale that the function may have. Where other params curve the line, iterations after which
a negative value has doubled count instead, if they follow each other soon; and so do iterations in
which the value equals the slope along the params, <w, g> = f, since far out on a line it does.
"""

from typing import TYPE_CHECKING, NamedTuple, Optional, Union

import jax
import jax.numpy as jnp

from .._core import numerics
from .._core.types import Counter
from .result import MinimizeStatus

if TYPE_CHECKING:
    from .state import MinimizeState

# A predicted decrease below the first number of units in the last place is invisible, and one
# below the second may be if many terms are added up.
_INVISIBLE, _NOISE = 4, 64
# The value counts as settled if so many iterations do not lower it visibly in all.
_PATIENCE = 8
# Trials in a row that show a fall without end. A search that multiplies its step by 4 is then at
# 4^64 = 3e38 times its first step, which is the range of float32.
_FALLS = 64
# A trial shows it if the value falls by this fraction of itself, and if the slope is at least this
# fraction of that at the iterate.
_FALL, _STEEP = 0.01, 0.9
# An iteration shows it if a negative value has doubled since the last one that did. So many show
# that the fall has no end; each is forgotten within so many other iterations.
_DOUBLINGS, _INTERVAL = 24, 24
# Values below -max^0.4 that fall into values that are not finite do so by overflow.
_HUGE = 0.4
# So much evidence of a fall, in trials, is enough where the run would end otherwise: if a search
# failed at a wall of values that are not finite, as log x at x = 0, or if rounding ends the run on
# a line.
_FALLS_TO_END = 16
# Far out on a line, a negative value equals the slope along the params. If the two differ by less
# than the first fraction, an iteration counts as a sixth of a doubling, once there is the evidence
# above. If they differ by less than the second, it forgets nothing. Where a run would end, rounding
# allows the third.
_LINE, _NEAR_LINE, _LINE_AT_END, _GROWTH = 0.01, 0.1, 0.5, 4
# An iteration crawls along a wall of values that are not finite if its search met them and its step
# is less than the first number. So many in a row end the run.
_CRAWL, _CRAWLS = 0.01, 32


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
        lowest: scalar of the search dtype, the value when it last decreased by more than rounding.
        stalled: counter, iterations since then.
        falling: counter, trials that showed a fall without end, and two for each doubling; halved
            after any other search whose last trial showed that the fall ends.
        doubled: scalar of the search dtype, the value at the last doubling of a negative value.
        growing: counter, ``_INTERVAL`` for each doubling, ``_GROWTH`` for each other iteration on a
            line, less one for each that is not even near one.
        crawled: counter, iterations in a row that crawled along a wall of values that are not
            finite.
        restarted: bool, whether the search under way is along steepest descent.
        hit_nonfinite: bool, whether that search has met a value that is not finite.
        met_noise: bool, whether it has met a value that does not follow its slopes.
        settled: bool, whether the last search before steepest descent failed and predicted no
            decrease larger than rounding.
    """

    value_init: jax.Array
    lowest: jax.Array
    stalled: jax.Array
    falling: jax.Array
    doubled: jax.Array
    growing: jax.Array
    crawled: jax.Array
    restarted: jax.Array
    hit_nonfinite: jax.Array
    met_noise: jax.Array
    settled: jax.Array

    @classmethod
    def init(cls, infinite: jax.Array) -> "Progress":
        """Before the first evaluation."""
        no, zero = jnp.zeros((), bool), numerics.counter()
        return cls(infinite, infinite, zero, zero, infinite, zero, zero, no, no, no, no)

    @property
    def evidence(self) -> jax.Array:
        """Counter, the evidence of a fall without end in units of trials; ``_FALLS`` are enough."""
        per_trial = numerics.counter(_DOUBLINGS * _INTERVAL // _FALLS)
        return jnp.maximum(self.falling, jax.lax.div(self.growing, per_trial))


class Outcome(NamedTuple):
    """The outcome of one evaluation; bools, and scalars of the search dtype.

    Attributes:
        is_first: whether it was the evaluation of the start.
        is_fresh: whether it was the first of a search.
        moved: whether the iterate moved.
        accepted: whether it moved to a step that the search accepted.
        failed: whether the search failed.
        restarts: whether the next search is along steepest descent.
        is_finite: whether value, gradient and params of the trial are finite.
        falls: whether the trial showed a fall without end.
        flattens: whether the trial showed that the fall ends.
        predicted_decrease: minus the slope at the iterate.
        relative_slope: the largest absolute value of a param times its derivative, at the iterate
            before.
        radial_slope: the slope along the params themselves, at the iterate before.
        is_noisy: whether the trial showed that rounding hides the predicted decrease.
        step: of the iterate along the direction, if it moved.
        value_before: the objective at the iterate before.
        value: the objective at the iterate.
    """

    is_first: jax.Array
    is_fresh: jax.Array
    moved: jax.Array
    accepted: jax.Array
    failed: jax.Array
    restarts: jax.Array
    is_finite: jax.Array
    falls: jax.Array
    flattens: jax.Array
    predicted_decrease: jax.Array
    relative_slope: jax.Array
    radial_slope: jax.Array
    is_noisy: jax.Array
    step: jax.Array
    value_before: jax.Array
    value: jax.Array

    @property
    def iterated(self) -> jax.Array:
        """Whether the evaluation ended an iteration."""
        return self.moved & ~self.is_first

    @property
    def rounding(self) -> jax.Array:
        """The change of the value if it or the params change by one unit in the last place."""
        largest = jnp.maximum(jnp.abs(self.value_before), self.relative_slope)
        return float(numerics.finfo(self.value.dtype).eps) * largest

    def is_line(self, rtol: float) -> jax.Array:
        """Whether the value is negative and equals the slope along the params, as on a line."""
        return jnp.abs(self.radial_slope - self.value_before) < -rtol * self.value_before


def fall(
    lowest: jax.Array, value: jax.Array, slope_init: jax.Array, slope: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Whether a trial shows a fall without end, and whether it shows that the fall ends.

    Args:
        lowest: the lowest value of the search before.
        value: that of the trial.
        slope_init: the slope at the iterate.
        slope: the slope at the trial.
    """
    is_steep = slope <= _STEEP * slope_init
    is_far_lower = (value < 0) & (lowest - value >= -_FALL * value)
    return is_steep & is_far_lower, ~is_steep | (value > lowest)


def seems_unbounded(progress: Progress) -> jax.Array:
    """Whether half of the trials have been seen that show a fall without end."""
    return progress.falling >= _FALLS // 2


def is_noise(
    step: jax.Array, change: jax.Array, slope_init: jax.Array, slope: jax.Array
) -> jax.Array:
    """Whether the value at a trial shows that rounding hides the decrease for a step of 1.

    After a short step with hardly another slope, the value should have followed the line. It is
    noise if it has changed by more than a quarter of what the line does in a step of 1. A gradient
    that is wrong by a factor of 16 changes it by less. After a longer step, it is noise if nothing
    has changed although the slopes at both ends ask for it.

    Args:
        step: of the trial.
        change: of the value since the iterate.
        slope_init: the slope at the iterate.
        slope: the slope at the trial.
    """
    size = jnp.abs(slope_init)
    is_straight = jnp.abs(slope - slope_init) <= 0.5 * size
    departs = jnp.abs(change - step * slope_init) >= 0.25 * size
    is_constant = (change == 0) & (step >= 1) & (jnp.abs(slope_init + slope) >= size)
    return jnp.where(step <= 1 / 64, is_straight & departs, is_constant)


def update(before: Progress, outcome: Outcome) -> Progress:
    """The progress after an evaluation."""
    value, eps = outcome.value, float(numerics.finfo(outcome.value.dtype).eps)
    visible = _INVISIBLE * eps * jnp.abs(value)
    # Where a search failed, its best trial may be lower by rounding of the params.
    visible = jnp.where(outcome.accepted, visible, jnp.maximum(visible, outcome.rounding))
    is_lower = outcome.is_first | (before.lowest - value > visible)
    doubles = outcome.iterated & (value < 2 * jnp.minimum(before.doubled, 0))
    on_line = jnp.where(before.evidence >= _FALLS_TO_END, _GROWTH, 0)
    off_line = jnp.where(outcome.is_line(_NEAR_LINE), 0, -1)
    growth = jnp.where(outcome.is_line(_LINE), on_line, off_line)
    growth = jnp.where(doubles, _INTERVAL, growth)
    falling = before.falling + outcome.falls + 2 * doubles
    half = jax.lax.div(falling, numerics.counter(2))
    has_flattened = (outcome.iterated | outcome.failed) & outcome.is_finite & outcome.flattens
    hit_nonfinite = (before.hit_nonfinite & ~outcome.is_fresh) | ~outcome.is_finite
    crawled = jnp.where(hit_nonfinite & (outcome.step < _CRAWL), before.crawled + 1, 0)
    met_noise = (before.met_noise & ~outcome.is_fresh) | outcome.is_noisy
    decrease = outcome.predicted_decrease
    is_hidden = decrease <= jnp.where(met_noise, eps**-0.75, _NOISE) * outcome.rounding
    is_hidden |= before.stalled >= _PATIENCE // 2
    has_settled = outcome.failed & is_hidden & ~hit_nonfinite
    return Progress(
        value_init=jnp.where(outcome.is_first, value, before.value_init),
        lowest=jnp.where(is_lower, value, before.lowest),
        stalled=jnp.where(is_lower, 0, before.stalled + outcome.iterated),
        falling=jnp.where(has_flattened & ~doubles, half, falling),
        doubled=jnp.where(doubles, value, before.doubled),
        growing=jnp.maximum(before.growing + outcome.iterated * growth, 0),
        crawled=jnp.where(outcome.iterated, crawled, before.crawled),
        restarted=outcome.restarts | (before.restarted & ~outcome.moved),
        hit_nonfinite=hit_nonfinite,
        met_noise=met_noise,
        settled=jnp.where(outcome.restarts & ~before.restarted, has_settled, before.settled),
    )


def status(
    before: Progress, after: Progress, outcome: Outcome, grad_norm: jax.Array, limits: Limits
) -> jax.Array:
    """The reason to stop after an evaluation, apart from limits; else RUNNING."""
    value, finfo = outcome.value, numerics.finfo(outcome.value.dtype)
    invisible = _INVISIBLE * finfo.eps * jnp.abs(value)
    is_invisible = (outcome.predicted_decrease <= invisible) & (before.stalled > 0)
    if limits.ftol is None:
        has_settled = after.stalled >= _PATIENCE
    else:
        size = jnp.maximum(jnp.abs(value), jnp.abs(outcome.value_before))
        has_settled = (limits.ftol > 0) & (outcome.value_before - value <= limits.ftol * size)
    has_settled = (outcome.iterated & has_settled) | (
        outcome.failed & after.settled & (before.restarted | is_invisible)
    )
    is_huge, evidence = after.lowest < -(finfo.max**_HUGE), after.evidence
    has_overflowed = after.hit_nonfinite & jnp.where(
        outcome.failed, is_huge | (evidence >= _FALLS_TO_END), is_huge & (evidence > 0)
    )
    is_line = (evidence >= _FALLS_TO_END) & outcome.is_line(_LINE_AT_END)
    has_failed = (outcome.failed & before.restarted) | (after.crawled >= _CRAWLS)
    is_unbounded = (evidence >= _FALLS) | has_overflowed | ((has_settled | has_failed) & is_line)
    return _first_of(
        (_not_finite(value, grad_norm), MinimizeStatus.START_NOT_FINITE),
        (is_unbounded, MinimizeStatus.UNBOUNDED),
        (grad_norm <= limits.gtol, MinimizeStatus.GRADIENT_SMALL),
        (has_settled, MinimizeStatus.VALUE_SETTLED),
        (has_failed, MinimizeStatus.SEARCH_FAILED),
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


def status_before(state: "MinimizeState", limits: Limits) -> jax.Array:
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
    found: Union[int, Counter] = int(MinimizeStatus.RUNNING)
    for condition, code in reversed(reasons):
        found = jnp.where(condition, int(code), found)
    return jnp.asarray(found)
