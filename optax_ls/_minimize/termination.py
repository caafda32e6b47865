"""The rules of ``minimize`` for a restart along steepest descent, and for its end.

Near a minimum values change by rounding only, and a search among them may end anywhere. Two
observations tell this from a function that is not differentiable or a wrong gradient:

* A search fails, and the decrease that its slope predicted is less than rounding: less than the
  value and the params at the iterate allow, or hidden by noise that its trials showed.
* The iterate moves, as the slopes require, but in a number of iterations the value has not
  decreased by more than rounding in all.

After any other search that failed, steepest descent is tried once (see ``step.py``). A search that
used all its trials on a straight line is followed by steepest descent as well.

Where the minimum is 0 and lies at a kink or an edge, the value falls relative to itself without
end, and search after search fails. A run ends if in many evaluations it has moved only along
steepest descent after such searches, or by short steps at values that are not finite.

A function without lower bound shows in trials: the value falls, and the slope gets no flatter. An
interval that has no flatter slope grows with every trial, so such trials in a row reach farther
than any scale that the function may have. Where other params curve the line, iterations after which
a negative value has doubled count instead, if they follow each other soon; and so do iterations in
which the value equals the slope along the params, <w, g> = f, since far out on a line it does.
"""

from typing import TYPE_CHECKING, NamedTuple, Optional, Union

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from .._core import numerics
from .._core.types import Counter, Params
from .result import MinimizeStatus

if TYPE_CHECKING:
    from .descent import Decision
    from .state import MinimizeState
    from .step import Scalars, Trial

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
# An iteration shows it if a value below the third number has doubled since the last one that did.
# Beside a saddle of value 0, smaller values double as often as they have bits. The first number of
# iterations shows that the fall has no end; each is forgotten within the second number of others.
_DOUBLINGS, _INTERVAL, _FIRST_DOUBLED = 24, 24, -1e-4
# Values below -max^0.4 that fall into values that are not finite do so by overflow; in float16,
# values below -1e4.
_HUGE, _LEAST_HUGE = 0.4, 1e4
# So much evidence of a fall, in trials, is enough where the run would end otherwise: if a search
# failed at a wall of values that are not finite, as log x at x = 0, or if rounding ends the run on
# a line.
_FALLS_TO_END = 16
# Far out on a line, a negative value equals the slope along the params. If the two differ by less
# than the first fraction, an iteration counts as a sixth of a doubling, once there is the evidence
# above. If they differ by less than the second, it forgets nothing. Where a run would end, rounding
# allows the third.
_LINE, _NEAR_LINE, _LINE_AT_END, _GROWTH = 0.01, 0.1, 0.5, 4
# An iteration crawls if it is along steepest descent after a search failed, or along a wall of
# values that are not finite: its search met them and its step is less than the first number. So
# many evaluations without any other iteration end the run.
_CRAWL, _CRAWLS = 0.01, 256


Reason = tuple[jax.Array, MinimizeStatus]
"""A condition, and the status that it gives."""


class Limits(NamedTuple):
    """The limits of a run; ``ftol`` is None for the default."""

    gtol: jax.Array
    ftol: Optional[jax.Array]
    num_iters: jax.Array
    num_evals: jax.Array

    def counted_from(self, state: "MinimizeState") -> "Limits":
        """The limits of a run that begins with a state, as arrays; the numbers become totals."""
        ftol = None if self.ftol is None else numerics.strong(self.ftol, state.value.dtype)
        return Limits(
            numerics.strong(self.gtol, state.value.dtype),
            ftol,
            numerics.increment(state.num_iters, numerics.counter(self.num_iters)),
            numerics.increment(state.num_evals, numerics.counter(self.num_evals)),
        )

    def reached(self, num_iters: jax.Array, num_evals: jax.Array) -> list[Reason]:
        """The reasons to stop at so many iterations and evaluations."""
        return [
            (num_iters >= self.num_iters, MinimizeStatus.ITERATION_LIMIT),
            (num_evals >= self.num_evals, MinimizeStatus.EVALUATION_LIMIT),
        ]


class Pause(NamedTuple):
    """The totals of iterations and evaluations at which to leave the loop and go on later."""

    num_iters: jax.Array
    num_evals: jax.Array

    def is_due(self, num_iters: jax.Array, num_evals: jax.Array) -> jax.Array:
        """True if one of the numbers is reached."""
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
        advanced: counter, evaluations in total at the last iteration that did not crawl.
        restarted: bool, whether the search under way is along steepest descent.
        hit_nonfinite: bool, whether that search has met a value that is not finite, or, along
            steepest descent, one of those before it back to the one that failed first.
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
    advanced: jax.Array
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


def unit(dtype: DTypeLike) -> float:
    """The unit of rounding: eps; for half types eps / 16, so that ``_NOISE`` of them are 4 eps.

    Their sums are accumulated in float32, and 64 eps of bfloat16 are half of the value.
    """
    finfo = jnp.finfo(dtype)
    return float(finfo.eps) * (1 if finfo.bits >= 32 else _INVISIBLE / _NOISE)


class Precision(NamedTuple):
    """The precision of a run.

    Attributes:
        value: the unit of rounding of the value that ``fun`` returns.
        params: that of the leaf of the params with the fewest digits.
        largest: the largest value.
    """

    value: float
    params: float
    largest: float

    @classmethod
    def of(cls, value_dtype: numerics.DType, params: Params) -> "Precision":
        """That of a function and its params; the value is converted to the search dtype."""
        dtypes = value_dtype, numerics.search_dtype(params)
        narrower = min(dtypes, key=lambda dtype: dtype.itemsize)
        units = [unit(leaf.dtype) for leaf in jax.tree.leaves(params)]
        return cls(unit(narrower), max(units, default=1.0), float(jnp.finfo(narrower).max))


def shows_fall(lowest: jax.Array, trial: "Trial") -> tuple[jax.Array, jax.Array]:
    """Two bools: a trial shows a fall without end; it shows that the fall ends.

    ``lowest`` is the lowest value of the search before.
    """
    is_steep = trial.slope <= _STEEP * trial.slope_init
    is_far_lower = (trial.value < 0) & (lowest - trial.value >= -_FALL * trial.value)
    return is_steep & is_far_lower, ~is_steep | (trial.value > lowest)


def _is_line(value: jax.Array, trial: "Trial", rtol: float) -> jax.Array:
    """True if the value at the iterate is negative and the slope along the params, as on a line."""
    return jnp.abs(trial.radial_slope - value) < -rtol * value


def seems_unbounded(progress: Progress) -> jax.Array:
    """True if half as many trials as are needed have shown a fall without end."""
    return progress.falling >= _FALLS // 2


def _is_noise(trial: "Trial", change: jax.Array) -> jax.Array:
    """True if the value at a trial shows that rounding hides the decrease for a step of 1.

    After a short step along which the slope hardly changes, the value should follow the line. It is
    noise if it departs from the line by more than a quarter of the change along it in a step of 1.
    A gradient that is wrong by a factor of 16 causes less. After a longer step, it is noise if the
    value is the same although the slopes at both ends require a change. ``change`` is that of the
    value since the iterate.
    """
    step, slope_init, slope = trial.step, trial.slope_init, trial.slope
    size = jnp.abs(slope_init)
    is_straight = jnp.abs(slope - slope_init) <= 0.5 * size
    departs = jnp.abs(change - step * slope_init) >= 0.25 * size
    is_constant = (change == 0) & (step >= 1) & (jnp.abs(slope_init + slope) >= size)
    return jnp.where(step <= 1 / 64, is_straight & departs, is_constant)


def update(
    precision: Precision,
    state: "Scalars",
    trial: "Trial",
    decision: "Decision",
    falls: jax.Array,
    flattens: jax.Array,
) -> Progress:
    """The progress after an evaluation; for ``falls`` and ``flattens`` see :func:`shows_fall`."""
    before, is_first = state.progress, state.num_evals == 0
    (value_before, value), iterated = decision.values, decision.is_pair
    is_counted = trial.is_finite & ~is_first
    num_evals = numerics.increment(state.num_evals)

    # Rounding: the change of the value if it or the params change by one unit.
    of_value = precision.value * jnp.abs(value_before)
    rounding = jnp.maximum(of_value, trial.rounding)
    visible = _INVISIBLE * precision.value * jnp.abs(value)
    # Where a search failed, its best trial may be lower by rounding of the params.
    visible = jnp.where(decision.accepted, visible, jnp.maximum(visible, rounding))
    is_lower = is_first | (before.lowest - value > visible)

    # A fall without end, in trials and in iterations.
    doubles = iterated & (value < 2 * jnp.minimum(before.doubled, _FIRST_DOUBLED))
    on_line = jnp.where(before.evidence >= _FALLS_TO_END, _GROWTH, 0)
    off_line = jnp.where(_is_line(value_before, trial, _NEAR_LINE), 0, -1)
    growth = jnp.where(_is_line(value_before, trial, _LINE), on_line, off_line)
    growth = jnp.where(doubles, _INTERVAL, growth)
    falling = before.falling + (is_counted & falls) + 2 * doubles
    half = jax.lax.div(falling, numerics.counter(2))
    has_flattened = (iterated | decision.failed) & trial.is_finite & flattens

    # The search under way, and those before it along steepest descent.
    goes_on = ~state.fresh | before.restarted
    hit_nonfinite = (before.hit_nonfinite & goes_on) | ~trial.is_finite
    crawls = before.restarted | (hit_nonfinite & (decision.step < _CRAWL))
    is_noisy = is_counted & _is_noise(trial, trial.value - value_before)
    met_noise = (before.met_noise & ~state.fresh) | is_noisy
    noise = precision.value**-0.75 * of_value, precision.params**-0.75 * trial.rounding
    is_hidden = -trial.slope_init <= jnp.where(met_noise, jnp.maximum(*noise), _NOISE * rounding)
    is_hidden |= before.stalled >= _PATIENCE // 2
    has_settled = decision.failed & is_hidden & ~hit_nonfinite
    return Progress(
        value_init=jnp.where(is_first, value, before.value_init),
        lowest=jnp.where(is_lower, value, before.lowest),
        stalled=jnp.where(is_lower, 0, before.stalled + iterated),
        falling=jnp.where(has_flattened & ~doubles, half, falling),
        doubled=jnp.where(doubles, value, before.doubled),
        growing=jnp.maximum(before.growing + iterated * growth, 0),
        advanced=jnp.where(decision.moves & ~crawls, num_evals, before.advanced),
        restarted=decision.restarts | (before.restarted & ~decision.moves),
        hit_nonfinite=hit_nonfinite,
        met_noise=met_noise,
        settled=jnp.where(decision.restarts & ~before.restarted, has_settled, before.settled),
    )


def status(
    precision: Precision,
    before: Progress,
    after: "Scalars",
    trial: "Trial",
    decision: "Decision",
    limits: Limits,
) -> jax.Array:
    """The reason to stop after an evaluation; else RUNNING."""
    (value_before, value), progress = decision.values, after.progress
    invisible = _INVISIBLE * precision.value * jnp.abs(value)
    is_last_search = before.restarted
    if trial.is_bent is None:
        # With bounds, directions far from a minimum have predicted hardly any decrease.
        is_last_search |= (-trial.slope_init <= invisible) & (before.stalled > 0)
    if limits.ftol is None:
        has_settled = progress.stalled >= _PATIENCE
    else:
        size = jnp.maximum(jnp.abs(value), jnp.abs(value_before))
        has_settled = (limits.ftol > 0) & (value_before - value <= limits.ftol * size)
    has_settled = (decision.is_pair & has_settled) | (
        decision.failed & progress.settled & is_last_search
    )
    huge, evidence = max(precision.largest**_HUGE, _LEAST_HUGE), progress.evidence
    is_huge = progress.lowest < -huge
    has_overflowed = progress.hit_nonfinite & jnp.where(
        decision.failed, is_huge | (evidence >= _FALLS_TO_END), is_huge & (evidence > 0)
    )
    is_line = (evidence >= _FALLS_TO_END) & _is_line(value_before, trial, _LINE_AT_END)
    has_crawled = decision.is_pair & (after.num_evals - progress.advanced >= _CRAWLS)
    has_failed = (decision.failed & before.restarted) | has_crawled
    is_unbounded = (evidence >= _FALLS) | has_overflowed | ((has_settled | has_failed) & is_line)
    return _first_of(
        (_not_finite(value, after.grad_norm), MinimizeStatus.START_NOT_FINITE),
        (is_unbounded, MinimizeStatus.UNBOUNDED),
        (after.grad_norm <= limits.gtol, MinimizeStatus.GRADIENT_SMALL),
        (has_settled, MinimizeStatus.VALUE_SETTLED),
        (has_failed, MinimizeStatus.SEARCH_FAILED),
        *limits.reached(after.num_iters, after.num_evals),
    )


def status_before(state: "MinimizeState", limits: Limits) -> jax.Array:
    """The reason not to go on from a state at all: it may satisfy new limits; else RUNNING."""
    found = _first_of(
        (_not_finite(state.value, state.grad_norm), MinimizeStatus.START_NOT_FINITE),
        (state.grad_norm <= limits.gtol, MinimizeStatus.GRADIENT_SMALL),
        *limits.reached(state.num_iters, state.num_evals),
    )
    found = jnp.where(state.num_evals > 0, found, int(MinimizeStatus.RUNNING))
    return numerics.counter(found)


def _not_finite(value: jax.Array, grad_norm: jax.Array) -> jax.Array:
    return ~(jnp.isfinite(value) & jnp.isfinite(grad_norm))


def _first_of(*reasons: Reason) -> jax.Array:
    found: Union[int, Counter] = int(MinimizeStatus.RUNNING)
    for condition, code in reversed(reasons):
        found = jnp.where(condition, int(code), found)
    return jnp.asarray(found)
