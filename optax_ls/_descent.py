"""The loop of ``minimize``: flat, one trip for one evaluation.

Every trip evaluates the objective at one trial point, the first trip at the start, and tells the
core of the line search what it found. A trip that ends a search also moves the iterate, brings the
pair into the memory, and computes the next direction. So the objective stands once in the program,
and under :func:`jax.vmap` no lane waits for the searches of another.

A search counts as failed if the core gives up and no step it tried has a lower value. Then, or if
the value has not fallen for some iterations, the memory is dropped and steepest descent is tried
in relative coordinates: x_i = D_i u_i with D_i = |x_i| + eps max |x|, which suits params of very
different sizes. Whether that is the end is for ``_stopping.py`` to say.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp

from . import _lanes, _memory, _numerics, _reductions, _stopping, tree
from ._engine import LinesearchCore
from ._objective import Evaluation
from ._result import History, MinimizeStatus


class Best(NamedTuple):
    """The lowest trial of the search under way.

    Attributes:
        step: scalar of the search dtype; 0 if no trial was lower than the iterate.
        value: scalar of the search dtype.
        grad_norm: scalar of the search dtype, the largest absolute value in the gradient.
        grad: tree like the params, the conjugate of what :func:`jax.grad` gives.
        aux: auxiliary output there.
    """

    step: jax.Array
    value: jax.Array
    grad_norm: jax.Array
    grad: Any
    aux: Any


class MinimizeState(NamedTuple):
    """Where :func:`minimize` stands between two evaluations; all that it needs to go on.

    Scalars are of the search dtype unless said otherwise.

    Attributes:
        memory: a :class:`ScaleByLBFGSState`; its ``params`` are the iterate, its ``updates`` the
            gradient there (the conjugate of what :func:`jax.grad` gives), its ``count`` the
            number of iterates so far.
        value: the objective at the iterate; infinite before the first evaluation.
        aux: auxiliary output at the iterate; None if there is none.
        grad_norm: the largest absolute value in the gradient.
        direction: tree like the params, along which the search goes.
        search: the state of the core.
        fresh: bool, whether the search along ``direction`` has yet to begin.
        best: see :class:`Best`.
        watch: what tells when to restart and when to stop.
        step: the step of the last iteration.
        num_iters: counter, iterations.
        num_evals: counter, evaluations of the objective with its gradient.
        status: counter, a :class:`MinimizeStatus`.
    """

    memory: _memory.ScaleByLBFGSState
    value: jax.Array
    aux: Any
    grad_norm: jax.Array
    direction: Any
    search: Any
    fresh: jax.Array
    best: Best
    watch: _stopping.Watch
    step: jax.Array
    num_iters: jax.Array
    num_evals: jax.Array
    status: jax.Array


def start(core: LinesearchCore, params: Any, aux_like: Any, memory_size: int) -> MinimizeState:
    """The state before the first evaluation."""
    dtype = _numerics.search_dtype(params)
    memory = _memory.start(params, memory_size)
    zeros, no = memory.params, jnp.zeros((), bool)
    infinite, zero = jnp.full((), jnp.inf, dtype), jnp.zeros((), dtype)
    aux = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), aux_like)
    iterate = jax.tree.map(_numerics.strong, params)
    return MinimizeState(
        memory=memory._replace(params=iterate),
        value=infinite,
        aux=aux,
        grad_norm=infinite,
        direction=zeros,
        search=jax.tree.map(_numerics.strong, core.start(infinite, infinite, zero + 1)),
        fresh=no,
        best=Best(zero, infinite, infinite, zeros, aux),
        watch=_stopping.Watch.start(infinite),
        step=zero,
        num_iters=_numerics.counter(),
        num_evals=_numerics.counter(),
        status=_numerics.counter(),
    )


class _Trial(NamedTuple):
    """A point along the direction, and what the objective is there."""

    step: jax.Array
    params: Any
    value: jax.Array
    grad: Any
    aux: Any
    grad_norm: jax.Array
    slope_init: jax.Array
    slope: jax.Array
    finite: jax.Array
    tiny: jax.Array


def _along(params: Any, step: jax.Array, direction: Any) -> Any:
    """``params + step * direction`` in the dtypes of ``params``."""

    def move(p: jax.Array, d: jax.Array) -> jax.Array:
        wide = jnp.promote_types(p.dtype, jnp.float32)
        moved = p.astype(wide) + (step * d.astype(wide)).astype(wide)
        finfo = _numerics.finfo(p.dtype)
        if finfo.bits < 32:
            # Or else the compiler may drop the rounding, and the objective sees other params.
            moved = jax.lax.reduce_precision(moved, finfo.nexp, finfo.nmant)
        return moved.astype(p.dtype)

    return jax.tree.map(move, params, direction)


def _next_trial(core: LinesearchCore, state: MinimizeState) -> tuple[jax.Array, Any]:
    """The step to try next, and the params there."""
    dtype = state.value.dtype
    first_step = core.start(state.value, -jnp.ones_like(state.value), jnp.ones((), dtype)).step
    step = jnp.where(state.fresh, first_step, state.search.step).astype(dtype)
    step = jnp.where(state.num_evals == 0, 0, step)
    return step, _along(state.memory.params, step, state.direction)


def _try(
    core: LinesearchCore, evaluate: Callable[[Any], Evaluation], types: Any, state: MinimizeState
) -> _Trial:
    dtype = state.value.dtype
    step, params = _next_trial(core, state)
    found = evaluate(jax.tree.map(_numerics.like, params, types))
    value, aux = _numerics.keep_types((found.value, found.aux), (state.value, state.aux))
    grad = tree.cast_like(tree.conj(found.grad), state.memory.updates)
    grad_norm, size, length = _reductions.maxima((grad, params, state.direction), dtype)
    finite = jnp.isfinite(value) & jnp.isfinite(grad_norm) & jnp.isfinite(size)
    # Near a minimum a change of sqrt(eps) relative to the params changes the value by eps.
    tiny = length <= _numerics.finfo(dtype).eps ** 0.5 * size
    slope_init, slope = _reductions.slopes(state.direction, (state.memory.updates, grad), dtype)
    return _Trial(step, params, value, grad, aux, grad_norm, slope_init, slope, finite, tiny)


class _Verdict(NamedTuple):
    """What a trip does with its trial.

    Attributes:
        moved: bool, whether the iterate moves: to the trial, or to the best one before.
        to_trial: bool, whether to the trial.
        keep: bool, whether the trial is the best one so far of a search that goes on.
        turned: bool, whether a new direction is due.
        restart: bool, whether that is steepest descent.
        state: the next state, but for its trees.
    """

    moved: jax.Array
    to_trial: jax.Array
    keep: jax.Array
    turned: jax.Array
    restart: jax.Array
    state: MinimizeState


def _without_trees(state: MinimizeState) -> MinimizeState:
    best = state.best._replace(grad=None, aux=None)
    memory: Any = None
    return state._replace(memory=memory, aux=None, direction=None, best=best)


def _judge(
    core: LinesearchCore, state: MinimizeState, trial: _Trial, limits: _stopping.Limits
) -> _Verdict:
    """Everything about a trip that is a matter of scalars; state and trial come without trees."""
    # Under vmap the lanes that have stopped make every trip too, and nothing comes of it.
    running = state.status == int(MinimizeStatus.RUNNING)
    first = running & (state.num_evals == 0)
    begun = core.start(state.value, trial.slope_init, jnp.ones_like(state.step))
    search = tree.where(state.fresh, _numerics.keep_types(begun, state.search), state.search)
    # Cores hear of any value that is not finite, minus infinity too, as of a wall.
    value = jnp.where(trial.finite, trial.value, jnp.inf)
    search = core.advance(search, value, trial.slope)

    nothing = state.best._replace(step=jnp.zeros_like(state.step), value=state.value)
    best = tree.where(state.fresh, nothing, state.best)
    lower = running & ~first & trial.finite & (trial.value < best.value)
    uphill = state.fresh & ~(trial.slope_init < 0)
    done = running & ~first & (search.done | uphill)
    # Where rounding hides the decrease a core may go up, but never above the start.
    not_above = trial.finite & (trial.value <= state.watch.value_init)
    chosen = done & ~search.failed & ~uphill & not_above
    moved = first | chosen | (done & (lower | (best.step > 0)))
    failed = done & ~moved
    to_trial = first | chosen | lower
    here = Best(trial.step, trial.value, trial.grad_norm, None, None)
    arrival = tree.where(to_trial, here, best)

    trip = _stopping.Trip(
        first=first,
        fresh=state.fresh,
        moved=moved,
        chosen=chosen,
        failed=failed,
        finite=trial.finite,
        tiny=trial.tiny,
        promise=-trial.slope_init,
        value_before=state.value,
        value=jnp.where(moved, arrival.value, state.value),
    )
    watch, restart = _stopping.watch(state.watch, trip)
    grad_norm = jnp.where(moved, arrival.grad_norm, state.grad_norm)
    num_iters = state.num_iters + trip.iterated
    num_evals = _numerics.increment(state.num_evals)
    status = _stopping.status(state.watch, watch, trip, grad_norm, limits)
    new = state._replace(
        value=trip.value,
        grad_norm=grad_norm,
        search=search,
        fresh=moved | failed,
        best=tree.where(lower & ~done, here, best),
        watch=watch,
        step=jnp.where(trip.iterated, arrival.step, state.step),
        num_iters=num_iters,
        num_evals=num_evals,
        status=_stopping.limit_reached(status, num_iters, num_evals, limits),
    )
    new = tree.where(running, jax.tree.map(_numerics.keep_types, new, state), state)
    return _Verdict(moved, to_trial, lower & ~done, moved | failed, restart, new)


def _steepest_descent(mask: Any, direction: Any, params: Any, grad: Any) -> Any:
    """The direction of steepest descent in relative coordinates, where it is 1 long at most."""
    dtype = _numerics.search_dtype(params)
    (largest,) = _lanes.computed(_reductions.maxima((params,), dtype))
    floor = jnp.where(largest > 0, float(_numerics.finfo(dtype).eps) * largest, 1)
    units = jax.tree.map(lambda p: jnp.abs(p).astype(dtype) + floor, params)
    relative = jax.tree.map(jnp.multiply, units, grad)
    scale = -_lanes.computed(jnp.minimum(1, 1 / _memory.norm(relative, dtype)))
    # Scaled before the units come in again: with large params the product would overflow.
    steepest = jax.tree.map(jnp.multiply, units, tree.scale(scale, relative))
    return tree.where(mask, tree.cast_like(steepest, direction), direction)


class _Point(NamedTuple):
    """Params, the conjugate of what :func:`jax.grad` gives there, and auxiliary output."""

    params: Any
    grad: Any
    aux: Any


class _Seldom(NamedTuple):
    """What most trips leave as it is, since most searches end with their first trial.

    Attributes:
        arrival: where a search ends.
        best: gradient and auxiliary output of the best trial so far of one that goes on.
    """

    arrival: _Point
    best: tuple[Any, Any]


def _not_at_trial(
    mask: Any, seldom: _Seldom, iterate: _Point, direction: Any, step: jax.Array, verdict: Any
) -> _Seldom:
    """Keeps the trial as the best one so far; or goes back, to that or to where the search began.

    Args:
        mask: as for :func:`_lanes.once`.
        seldom: arrival at the trial.
        iterate: where the search began.
        direction: tree like the params.
        step: to the best trial.
        verdict: whether to keep the trial, whether to go back, whether the iterate moves.
    """
    (trial, best), (keep, back, moved) = seldom, verdict
    there = _Point(_along(iterate.params, step, direction), *best)
    arrival = tree.where(mask & back, tree.where(moved, there, iterate), trial)
    return _Seldom(arrival, tree.where(mask & keep, (trial.grad, trial.aux), best))


class _Turn(NamedTuple):
    """What a trip that ends a search changes: the memory with the iterate, and the direction."""

    memory: _memory.ScaleByLBFGSState
    direction: Any
    aux: Any


def _turned(
    mask: Any,
    turn: _Turn,
    arrival: _Point,
    pair: tuple[Any, Any],
    values: tuple[jax.Array, jax.Array],
    flags: tuple[jax.Array, jax.Array],
    restart: jax.Array,
) -> _Turn:
    """The turn at ``arrival``: the memory learns the pair and gives a new direction."""
    old, (allowed, forget) = turn.memory, flags

    def propose() -> Any:
        allowed_here = allowed & mask
        return _memory.propose(old, arrival.grad, *pair, allowed_here, forget, values, factor=-1.0)

    # In a branch, so that all has been read before the rows are written: then they are written in
    # place. The compiler cannot know that a counter is never negative.
    downhill, lesson = jax.lax.cond(
        _lanes.any_lane(jnp.asarray(old.count) >= 0),
        propose,
        lambda: (arrival.grad, _memory.nothing_learnt(old)),
    )
    # A lane that does not turn may learn nothing; of the rest, only this changes without a pair.
    s_dot_g, y_dot_g = tree.where(
        mask, (lesson.s_dot_g, lesson.y_dot_g), (old.s_dot_g, old.y_dot_g)
    )
    lesson = lesson._replace(s_dot_g=s_dot_g, y_dot_g=y_dot_g)
    rows = old.diff_params_memory, old.diff_updates_memory
    rows = _lanes.once(lesson.good, _memory.with_pair, rows, pair, lesson.slot, lesson.bend)
    memory = _memory.with_rows(old, rows, lesson)
    downhill = _lanes.once(restart, _steepest_descent, downhill, arrival.params, arrival.grad)
    params, grad, direction, aux = tree.where(
        mask,
        (arrival.params, arrival.grad, downhill, arrival.aux),
        (old.params, old.updates, turn.direction, turn.aux),
    )
    return _Turn(memory._replace(params=params, updates=grad), direction, aux)


def _advance(
    core: LinesearchCore,
    evaluate: Callable[[Any], Evaluation],
    types: Any,
    limits: _stopping.Limits,
    state: MinimizeState,
) -> tuple[MinimizeState, jax.Array]:
    """One trip: the state after one more evaluation, and whether the iterate moved."""
    trial = _try(core, evaluate, types, state)

    numbers, no = _without_trees(state), jnp.zeros((), bool)
    verdict = _lanes.apart(
        state.num_evals >= 0,
        functools.partial(_judge, core),
        _Verdict(no, no, no, no, no, numbers),
        numbers,
        trial._replace(params=None, grad=None, aux=None),
        limits,
    )

    iterate = _Point(state.memory.params, state.memory.updates, state.aux)
    back = verdict.turned & ~(verdict.moved & verdict.to_trial)
    arrival, (best_grad, best_aux) = _lanes.once(
        verdict.keep | back,
        _not_at_trial,
        _Seldom(_Point(trial.params, trial.grad, trial.aux), (state.best.grad, state.best.aux)),
        iterate,
        state.direction,
        state.best.step,
        (verdict.keep, back, verdict.moved),
    )
    # Outside of the turn, which overwrites the iterate.
    pair = (
        tree.sub(arrival.params, state.memory.params),
        tree.sub(arrival.grad, state.memory.updates),
    )
    # After a search that failed the pairs are kept until steepest descent succeeds: that may be
    # the end.
    forget = verdict.moved & (state.watch.restarted | verdict.restart)
    allowed = verdict.moved & ~verdict.restart & (state.num_evals > 0)
    turn = _lanes.once(
        verdict.turned,
        _turned,
        _Turn(state.memory, state.direction, state.aux),
        arrival,
        pair,
        (state.value, verdict.state.value),
        (allowed, forget),
        verdict.restart,
    )
    count = _numerics.add_counters(jnp.asarray(state.memory.count), verdict.moved)
    new = verdict.state._replace(
        memory=turn.memory._replace(count=count),
        aux=turn.aux,
        direction=turn.direction,
        best=verdict.state.best._replace(grad=best_grad, aux=best_aux),
    )
    return new, verdict.moved


def run(
    core: LinesearchCore,
    evaluate: Callable[[Any], Evaluation],
    types: Any,
    state: MinimizeState,
    limits: _stopping.Limits,
    history: Optional[History],
    report: Optional[Callable[[MinimizeState, jax.Array, jax.Array], jax.Array]],
) -> tuple[MinimizeState, Optional[History]]:
    """The loop.

    Args:
        core: the line search.
        evaluate: the objective.
        types: tree whose leaves have the types in which the objective wants its params.
        state: where to begin.
        limits: when to stop.
        history: to be filled, or None.
        report: is told of states, whether the iterate moved, and whether that was the end; it
            returns whether to stop. None if nobody wants to know.
    """
    begin = state.num_iters
    status = _stopping.at_once(
        state.value, state.grad_norm, state.num_iters, state.num_evals, limits
    )
    state = state._replace(status=_numerics.strong(status, state.status.dtype))
    if history is not None:
        history = history.record(jnp.zeros_like(begin), state.num_evals > 0, state)

    def running(state: MinimizeState) -> jax.Array:
        return state.status == int(MinimizeStatus.RUNNING)

    def goes_on(carry: Any) -> Any:
        # With one answer for all lanes nothing selects between carries. _judge holds still those
        # that have stopped.
        return _lanes.any_lane(running(carry[0]))

    def body(carry: Any) -> Any:
        state, history = carry
        new, moved = _advance(core, evaluate, types, limits, state)
        if history is not None:
            history = history.record(new.num_iters - begin, moved, new)
        if report is not None:
            stop = report(new, moved, running(state) & ~running(new))
            code = jnp.asarray(int(MinimizeStatus.STOPPED_BY_CALLBACK), new.status.dtype)
            new = new._replace(status=jnp.where(stop & running(new), code, new.status))
        return new, history

    final: tuple[MinimizeState, Optional[History]] = jax.lax.while_loop(
        goes_on, body, (state, history)
    )
    return final


def best(state: MinimizeState) -> tuple[Any, jax.Array, Any, Any]:
    """The lowest point known, which may be a trial of a search cut short, in params, value, ...

    Returns:
        Params, value, the conjugate of what :func:`jax.grad` gives, auxiliary output.
    """
    memory, trial = state.memory, state.best
    lower = ~state.fresh & (trial.step > 0) & (trial.value < state.value)
    params = _along(memory.params, trial.step, state.direction)
    there = params, trial.value, trial.grad, trial.aux
    here = memory.params, state.value, memory.updates, state.aux
    return tuple(tree.where(lower, there, here))
