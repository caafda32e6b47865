"""One iteration of the loop of ``minimize``: one evaluation of the objective.

It evaluates a trial point, advances the line search, and decides. If the search has ended it moves
the iterate, adds the pair to the memory and computes the next direction.

A search has failed if it gave up and no trial was lower than the iterate, or if its step was too
short to change the params. Then the pairs are dropped and steepest descent is tried in relative
coordinates: x_i = D_i u_i with D_i = |x_i| + eps max |x|, which suits params of very different
sizes. ``termination.py`` decides whether that is the end. Steepest descent also follows a search
that gave up on a straight line, because it has hardly moved.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp

from .._core import batching, isolation, numerics, reductions, tree
from .._core.lbfgs.memory import ScaleByLBFGSState, read_row, write_row
from .._core.linesearch import driver
from .._core.linesearch.driver import LineSearch
from .._core.objective import Evaluation
from .._core.types import Params, Scalar, State, Tree, map_leaves
from . import termination
from .bounds import Bounds, masked
from .descent import Decision, new_direction
from .result import MinimizeStatus
from .state import Best, MinimizeState
from .subspace import FreeEntries
from .termination import Limits, Precision, Progress

# A search ends if a trial differs from the best one by less than this fraction of the decrease.
_LEAST_GAIN = 0.003
# Beside a kink no slope is small. A search ends beyond it, at a step of sufficient decrease, if the
# line rises there and at an earlier trial, and its slope has not fallen by more than the second
# factor since then. The weak Wolfe conditions accept such a step: Lewis & Overton, Mathematical
# Programming 141 (2013), 135-163.
_SLOPE_RTOL, _FLATTENING = 1e-4, 2
# The path of a search bends where bounds change its slope by more than this fraction.
_LEAST_BEND = 0.1


class Vectors(NamedTuple):
    """The vectors at a point.

    Attributes:
        params: tree.
        grad: tree like the params, the conjugate of what :func:`jax.grad` gives.
        aux: auxiliary output.
    """

    params: Params
    grad: Params
    aux: Any


class Trial(NamedTuple):
    """The numbers of a trial point; scalars of the search dtype unless said otherwise.

    Attributes:
        step: along the direction.
        value: the objective there.
        grad_norm: the largest absolute value in the gradient there.
        slope_init: the slope at the iterate.
        slope: the slope at the trial.
        rounding: the largest change of the value if a param at the iterate changes by a unit.
        radial_slope: the slope along the params themselves, at the iterate.
        is_finite: bool, whether value, gradient and params are finite.
        is_bent: bool, whether the path to it bends at bounds; None without bounds.
    """

    step: jax.Array
    value: jax.Array
    grad_norm: jax.Array
    slope_init: jax.Array
    slope: jax.Array
    rounding: jax.Array
    radial_slope: jax.Array
    is_finite: jax.Array
    is_bent: Optional[jax.Array]

    @property
    def as_best(self) -> Best:
        """The trial as the best one of its search."""
        return Best(self.step, self.value, self.grad_norm)


def along(params: Tree, step: Scalar, direction: Params, bounds: Optional[Bounds] = None) -> Tree:
    """``params + step * direction`` in the dtypes of ``params``, projected onto the bounds."""

    def move(p: jax.Array, d: jax.Array) -> jax.Array:
        wide = jnp.promote_types(p.dtype, jnp.float32)
        moved = p.astype(wide) + (step * d.astype(wide)).astype(wide)
        finfo = jnp.finfo(p.dtype)
        if finfo.bits < 32:
            # Otherwise the compiler may omit the rounding, and the objective sees other params.
            moved = jax.lax.reduce_precision(moved, finfo.nexp, finfo.nmant)
        return moved.astype(p.dtype)

    moved = map_leaves(move, params, direction)
    return moved if bounds is None else bounds.project(moved)


def _change_by_rounding(p: jax.Array, g: jax.Array) -> jax.Array:
    """The changes of the value if params p change by a unit of rounding; g is their gradient."""
    wide = jnp.promote_types(p.dtype, jnp.float32)  # the product may overflow in float16
    return termination.unit(p.dtype) * (p.astype(wide) * g)


def evaluate_trial(
    search: LineSearch,
    evaluate: Callable[[Params], Evaluation],
    bounds: Optional[Bounds],
    state: MinimizeState,
) -> tuple[Vectors, Trial]:
    """Evaluates the objective at the step that the search asks for; first of all at the start."""
    dtype, iterate = state.value.dtype, state.memory
    first_step = first_step_of(state.progress, state.step)
    first_step = search.start(state.value, -jnp.ones_like(state.value), first_step).step
    step = jnp.where(state.fresh, first_step, state.search.step).astype(dtype)
    step = jnp.where(state.num_evals == 0, 0, step)
    params = along(iterate.params, step, state.direction, bounds)
    before = Evaluation(state.value, iterate.updates, state.aux)

    def evaluated(params: Params, before: Evaluation) -> Evaluation:
        found = evaluate(params)
        return numerics.keep_types(found._replace(grad=tree.conj(found.grad)), before)

    is_running = state.status == int(MinimizeStatus.RUNNING)
    value, grad, aux = isolation.isolate(
        is_running, evaluated, lambda _, before: before, params, before
    )
    steep, steep_before = grad, iterate.updates
    if bounds is not None:
        steep = bounds.projected_gradient(params, grad)
        steep_before = bounds.projected_gradient(iterate.params, iterate.updates)
    rounding = jax.tree.map(_change_by_rounding, iterate.params, steep_before)
    # NaN where a param is not finite.
    steep = jax.tree.map(lambda g, p: g + (p - p), steep, params)
    grad_norm, rounding = reductions.maxima((steep, rounding), dtype)

    grads: tuple[Params, ...] = iterate.updates, grad
    if bounds is not None:
        grads = *grads, masked(grad, bounds.moving(params, state.direction))
    pairs = [(iterate.params, steep_before), *((state.direction, g) for g in grads)]
    radial_slope, slope_init, slope, *beyond = reductions.inner(pairs, dtype)
    is_bent = None
    if bounds is not None:
        # Entries stop at their bounds at a step of 1. The slope there is that of the side on which
        # the value falls, and 0 if there is none: then the step is the minimum.
        (ahead,) = beyond
        largest = jnp.maximum(jnp.abs(slope_init), jnp.abs(slope))
        is_bent = (step > 1) & (jnp.abs(ahead - slope) > _LEAST_BEND * largest)
        at_kink = jnp.where(slope > 0, slope, jnp.minimum(ahead, 0))
        slope = jnp.where(step < 1, slope, jnp.where(step > 1, ahead, at_kink))
    is_finite = jnp.isfinite(value) & jnp.isfinite(grad_norm)
    numbers = step, value, grad_norm, slope_init, slope, rounding, radial_slope
    return Vectors(params, grad, aux), Trial(*numbers, is_finite, is_bent)


def first_step_of(progress: Progress, last_step: jax.Array) -> jax.Array:
    """The first step of a search: 1, or the last step if the value seems to fall without end."""
    is_falling = termination.seems_unbounded(progress)
    return jnp.where(is_falling, jnp.maximum(last_step, 1), 1).astype(last_step.dtype)


class Scalars(NamedTuple):
    """The fields of :class:`MinimizeState` that are scalars."""

    value: jax.Array
    grad_norm: jax.Array
    search: Any
    fresh: jax.Array
    best: Best
    rise: jax.Array
    progress: Progress
    step: jax.Array
    num_iters: jax.Array
    num_evals: jax.Array
    status: jax.Array

    @classmethod
    def of(cls, state: MinimizeState) -> "Scalars":
        """Those of a state."""
        return cls(*(getattr(state, name) for name in cls._fields))


def advance_search(search: LineSearch[State], state: Scalars, trial: Trial) -> State:
    """The state of the search after a trial, which is the first of the search if it is fresh."""
    first_step = first_step_of(state.progress, state.step)
    begun = driver.begin(search, state.value, trial.slope_init, first_step)
    begun = tree.where(state.fresh, numerics.keep_types(begun, state.search), state.search)
    value = jnp.where(trial.is_finite, trial.value, jnp.inf)
    return driver.observe(search, begun, value, trial.slope)


class SearchEnd(NamedTuple):
    """The end of a search, as a trial shows it.

    Attributes:
        done: bool, the search ends.
        accepted: bool, it ends at the trial, which may even be higher by rounding.
        is_lower: bool, the trial is the lowest of the search and lower than the iterate.
        rise: as in :class:`MinimizeState`.
    """

    done: jax.Array
    accepted: jax.Array
    is_lower: jax.Array
    rise: jax.Array


def end_of_search(state: Scalars, trial: Trial, searched: Any, best: Best) -> SearchEnd:
    """Decides whether a search ends; ``best`` is its lowest trial before, or the iterate."""
    is_first = state.num_evals == 0
    uphill = state.fresh & ~(trial.slope_init < 0)
    is_lower = ~is_first & trial.is_finite & (trial.value < best.value)
    # At a kink, trials on either side of it approach one value, and no slope is small.
    gain = jnp.abs(trial.value - best.value)
    decrease = state.value - jnp.minimum(best.value, trial.value)
    gains_nothing = (best.step > 0) & trial.is_finite & (gain <= _LEAST_GAIN * decrease)
    if trial.is_bent is not None:
        # Interpolation between steps on both sides of a bend misleads.
        gains_nothing |= trial.is_bent & (best.step > 0) & ~is_lower
    decreases = trial.value - state.value <= _SLOPE_RTOL * trial.step * trial.slope_init
    rise = jnp.where(state.fresh, 0, state.rise)
    stays_steep = (rise > 0) & (rise <= _FLATTENING * trial.slope)
    is_beyond = trial.is_finite & decreases & stays_steep
    # Where rounding hides the decrease a search may go up, but never above the start.
    not_above = trial.is_finite & (trial.value <= state.progress.value_init)
    # If nothing changes, the step is too short to change the params.
    stays = (trial.value == state.value) & (trial.slope == trial.slope_init)
    stays &= trial.grad_norm == state.grad_norm
    found = searched.done & ~searched.failed & ~uphill & ~stays & not_above
    return SearchEnd(
        done=~is_first & (searched.done | uphill | gains_nothing | is_beyond),
        accepted=~is_first & (found | is_beyond),
        is_lower=is_lower,
        rise=jnp.where(trial.slope > 0, trial.slope, rise),
    )


def decide(
    precision: Precision, limits: Limits, state: Scalars, trial: Trial, searched: Any
) -> tuple[Decision, Scalars]:
    """Decides what follows from a trial that the search has been advanced with."""
    is_first = state.num_evals == 0
    best = state.best._replace(
        step=jnp.where(state.fresh, 0, state.best.step),
        value=jnp.where(state.fresh, state.value, state.best.value),
    )
    is_done, accepted, is_lower, rise = end_of_search(state, trial, searched, best)
    moves = is_first | accepted | (is_done & (is_lower | (best.step > 0)))
    failed = is_done & ~moves
    to_trial = is_first | accepted | is_lower
    arrival = tree.where(to_trial, trial.as_best, best)

    falls, flattens = termination.shows_fall(best.value, trial)
    value = jnp.where(moves, arrival.value, state.value)
    is_pair = moves & ~is_first
    decision = Decision(
        moves=moves,
        to_trial=to_trial,
        accepted=accepted,
        failed=failed,
        keeps_best=is_lower & ~is_done,
        new_direction=moves | failed,
        # A search that gives up where the slope is no flatter had a direction of the wrong scale.
        restarts=failed | (moves & searched.done & searched.failed & ~flattens),
        is_pair=is_pair,
        # After a search that failed the pairs are kept until steepest descent has succeeded: that
        # may be the end.
        drops_pairs=moves & state.progress.restarted,
        step=arrival.step,
        values=(state.value, value),
    )
    new = Scalars(
        value=value,
        grad_norm=jnp.where(moves, arrival.grad_norm, state.grad_norm),
        search=searched,
        fresh=decision.new_direction,
        best=tree.where(decision.keeps_best, trial.as_best, best),
        rise=rise,
        progress=termination.update(precision, state, trial, decision, falls, flattens),
        step=jnp.where(is_pair, arrival.step, state.step),
        num_iters=state.num_iters + is_pair,
        num_evals=numerics.increment(state.num_evals),
        status=state.status,
    )
    status = termination.status(precision, state.progress, new, trial, decision, limits)
    new = new._replace(status=status)
    # Under vmap the loop goes on until all elements have stopped; this holds those that have.
    is_running = state.status == int(MinimizeStatus.RUNNING)
    return batching.hold(
        is_running,
        (decision, numerics.keep_types(new, state)),
        (tree.zeros_like(decision), state),
    )


def advance(
    search: LineSearch,
    evaluate: Callable[[Params], Evaluation],
    precision: Precision,
    limits: Limits,
    bounds: Optional[Bounds],
    state: MinimizeState,
) -> tuple[MinimizeState, jax.Array]:
    """The state after one more evaluation, and whether the iterate moved."""
    at_trial, trial = evaluate_trial(search, evaluate, bounds, state)
    scalars = Scalars.of(state)
    searched = jax.lax.cond(  # the evaluation of the start belongs to no search
        batching.any_element(state.num_evals > 0),
        functools.partial(advance_search, search),
        lambda scalars, _: scalars.search,
        *(scalars, trial),
    )
    decision, scalars = decide(precision, limits, scalars, trial, searched)
    memory, best = state.memory, (state.best_grad, state.best_aux)
    best = tree.where(decision.keeps_best, (at_trial.grad, at_trial.aux), best)

    # The iterate moves to the trial, or to the best trial before it, or not.
    before = Vectors(memory.params, memory.updates, state.aux)
    params = along(memory.params, decision.step, state.direction, bounds)
    chosen = tree.where(decision.to_trial, (at_trial.grad, at_trial.aux), best)
    iterate = tree.where(decision.moves, Vectors(params, *chosen), before)

    free = None
    if bounds is not None:
        free = FreeEntries(
            bounds.free(memory.params, memory.updates), bounds.free(iterate.params, iterate.grad)
        )
    coefficients = memory.coefficients.without_pairs(decision.drops_pairs)
    slot = coefficients.next_slot
    pair = tree.sub(iterate.params, memory.params), tree.sub(iterate.grad, memory.updates)
    pair = tree.where(decision.is_pair, pair, read_row(memory.rows, slot))
    rows = write_row(memory.rows, slot, pair)
    coefficients, next_direction = jax.lax.cond(
        batching.any_element(decision.new_direction),
        new_direction,
        lambda coefficients, direction, *_: (coefficients, direction),
        *(coefficients, state.direction, rows, pair, iterate.params, iterate.grad),
        *(decision, scalars.grad_norm, bounds, free),
    )
    count = numerics.increment(jnp.asarray(memory.count), decision.moves)
    memory = ScaleByLBFGSState(count, iterate.params, iterate.grad, rows[0], rows[1], *coefficients)
    new = state._replace(
        **scalars._asdict(),
        memory=memory,
        aux=iterate.aux,
        direction=next_direction,
        best_grad=best[0],
        best_aux=best[1],
    )
    return new, decision.moves
