"""The loop of ``minimize``: flat, one trip for one evaluation.

Every trip evaluates the objective at one trial point, the first trip at the start, and tells the
core of the line search what it found. A trip that ends a search also moves the iterate, brings the
pair into the memory, and computes the next direction. So the objective stands once in the program,
and under :func:`jax.vmap` no lane waits for the searches of another.

A search counts as failed if the core gives up and no step it tried has a lower value. Then, or if
the value has not fallen for some iterations, the memory is dropped and steepest descent is tried
in relative coordinates: x_i = D_i u_i with D_i = |x_i| + eps max |x|, which suits params of very
different sizes. Whether that is the end is for ``termination.py`` to say.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp

from .._core import batching, numerics, reductions, tree
from .._core.lbfgs import direction as _direction
from .._core.lbfgs import memory as _memory
from .._core.lbfgs import products as _products
from .._core.lbfgs import scaling
from .._core.linesearch.driver import LineSearch
from .._core.objective import Evaluation, Traced
from . import termination
from . import trial as _trial
from . import window as _window
from .result import History, MinimizeStatus
from .trial import Deed, MinimizeState, Verdict


def _steepest_descent(mask: Any, direction: Any, params: Any, grad: Any) -> Any:
    """The direction of steepest descent in relative coordinates, where it is 1 long at most."""
    dtype = numerics.search_dtype(params)
    (largest,) = reductions.maxima((params,), dtype)
    floor = jnp.where(largest > 0, float(numerics.finfo(dtype).eps) * largest, 1)
    units = jax.tree.map(lambda p: jnp.abs(p).astype(dtype) + floor, params)
    relative = jax.tree.map(jnp.multiply, units, grad)
    scale = -jnp.minimum(1, 1 / _products.norm(relative, dtype))
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
    mask: Any, seldom: _Seldom, iterate: _Point, direction: Any, step: jax.Array, verdict: Verdict
) -> _Seldom:
    """Keeps the trial as the best one so far; or goes back, to that or to where the search began.

    Args:
        mask: as for :func:`batching.once`.
        seldom: arrival at the trial.
        iterate: where the search began.
        direction: tree like the params.
        step: to the best trial.
        verdict: of the trip.
    """
    trial, best = seldom
    there = _Point(_trial.along(iterate.params, step, direction), *best)
    goal = tree.where(verdict.has(Deed.MOVE), there, iterate)
    return _Seldom(
        tree.where(mask & verdict.has(Deed.BACK), goal, trial),
        tree.where(mask & verdict.has(Deed.KEEP), (trial.grad, trial.aux), best),
    )


class _Turn(NamedTuple):
    """What a trip that ends a search changes, beside the iterate.

    Attributes:
        memory: without params and gradient, which belong to the iterate.
        direction: tree like the params.
    """

    memory: _memory.ScaleByLBFGSState
    direction: Any


def _turned(
    mask: Any,
    turn: _Turn,
    iterate: _Point,
    arrival: _Point,
    values: tuple[jax.Array, jax.Array],
    verdict: Verdict,
) -> _Turn:
    """The turn at ``arrival``: the memory learns the pair and gives a new direction."""
    old, flags = turn.memory, (verdict.has(Deed.LEARN) & mask, verdict.has(Deed.FORGET))
    ends = _memory.Ends(iterate.params, iterate.grad, arrival.params, arrival.grad)
    downhill, memory = _direction.propose(
        old, ends, *flags, values, scale=scaling.generous, factor=-1.0
    )
    # A lane that does not turn may learn nothing; of the rest, only this changes without a pair.
    s_dot_g, y_dot_g = tree.where(
        mask, (memory.s_dot_g, memory.y_dot_g), (old.s_dot_g, old.y_dot_g)
    )
    memory = memory._replace(s_dot_g=s_dot_g, y_dot_g=y_dot_g)
    downhill = batching.once(
        verdict.has(Deed.RESTART), _steepest_descent, downhill, arrival.params, arrival.grad
    )
    return _Turn(memory, tree.where(mask, downhill, turn.direction))


def _advance(
    core: LineSearch,
    evaluate: Callable[[Any], Evaluation],
    limits: termination.Limits,
    state: MinimizeState,
) -> tuple[MinimizeState, jax.Array]:
    """One trip: the state after one more evaluation, and whether the iterate moved."""
    trial = _trial.attempt(core, evaluate, state)
    numbers = trial._replace(params=None, grad=None, aux=None)
    scalars = _trial.without_trees(state)
    told = _trial.tell(core, scalars, numbers)
    # Of a search that ended where it should, nobody asks.
    asked = told.done & ~told.chosen
    tiny = _trial.is_tiny(asked, trial.params, state.direction, state.value.dtype)
    before = Verdict.of({}), scalars._replace(search=told.search)
    verdict, next_scalars = batching.in_place(
        state.num_evals >= 0, _trial.judge, before, told, numbers, tiny, limits
    )

    iterate = _Point(state.memory.params, state.memory.updates, state.aux)
    arrival, (best_grad, best_aux) = batching.once(
        verdict.has(Deed.KEEP | Deed.BACK),
        _not_at_trial,
        _Seldom(_Point(trial.params, trial.grad, trial.aux), (state.best.grad, state.best.aux)),
        iterate,
        state.direction,
        next_scalars.best.step,
        verdict,
    )
    none: dict[str, Any] = {"params": None, "updates": None}
    turn = batching.once(
        verdict.has(Deed.TURN),
        _turned,
        _Turn(state.memory._replace(**none), state.direction),
        iterate,
        arrival,
        (state.value, next_scalars.value),
        verdict,
    )
    # Apart from the turn, which still reads where it comes from, and visibly after it: that no
    # counter is negative the compiler cannot know. Each part in a loop of its own, side by side.
    moved = verdict.has(Deed.MOVE) & (turn.memory.num_pairs >= 0)
    parts = zip(iterate, arrival, strict=True)
    iterate = _Point(*(batching.once(moved, _memory.arrived, *both) for both in parts))
    memory = turn.memory._replace(
        params=iterate.params,
        updates=iterate.grad,
        count=numerics.add_counters(jnp.asarray(state.memory.count), verdict.has(Deed.MOVE)),
    )
    new = next_scalars._replace(
        memory=memory,
        aux=iterate.aux,
        direction=turn.direction,
        best=next_scalars.best._replace(grad=best_grad, aux=best_aux),
    )
    return new, verdict.has(Deed.MOVE)


def run(
    core: LineSearch,
    objective: Traced,
    state: MinimizeState,
    limits: termination.Limits,
    history: Optional[History],
    report: Optional[Callable[[MinimizeState, jax.Array, jax.Array], jax.Array]],
) -> tuple[MinimizeState, Optional[History]]:
    """The loop.

    Args:
        core: the line search.
        objective: what to minimise.
        state: where to begin.
        limits: when to stop.
        history: to be filled, or None.
        report: is told of states, whether the iterate moved, and whether that was the end; it
            returns whether to stop. None if nobody wants to know.
    """
    status = termination.at_once(
        state.value, state.grad_norm, state.num_iters, state.num_evals, limits
    )
    state = state._replace(status=numerics.strong(status, state.status.dtype))
    if history is not None:
        history = history.record(jnp.zeros_like(state.num_iters), state.num_evals > 0, state)

    def running(carry: Any) -> Any:
        state, _ = carry
        return state.status == int(MinimizeStatus.RUNNING)

    # Lanes of a vmap that have stopped are held still by judge.
    def trip(carry: Any, inputs: Any) -> Any:
        (state, history), (arrays, limits, begin) = carry, inputs
        new, moved = _advance(core, lambda p: objective.evaluate(p, arrays), limits, state)
        if history is not None:
            history = history.record(new.num_iters - begin, moved, new)
        if report is not None:
            goes_on = running((new, history))
            stop = report(new, moved, running(carry) & ~goes_on)
            code = jnp.asarray(int(MinimizeStatus.STOPPED_BY_CALLBACK), new.status.dtype)
            new = new._replace(status=jnp.where(stop & goes_on, code, new.status))
        return new, history

    final: tuple[MinimizeState, Optional[History]] = _window.loop(
        running,
        trip,
        (state, history),
        (objective.arrays, limits, state.num_iters),
        in_turns=objective.is_pure and report is None,
    )
    return final


def best(state: MinimizeState) -> tuple[Any, jax.Array, Any, Any]:
    """The lowest point known, which may be a trial of a search cut short, in params, value, ...

    Returns:
        Params, value, the conjugate of what :func:`jax.grad` gives, auxiliary output.
    """
    memory, trial = state.memory, state.best
    lower = ~state.fresh & (trial.step > 0) & (trial.value < state.value)
    params = _trial.along(memory.params, trial.step, state.direction)
    there = params, trial.value, trial.grad, trial.aux
    here = memory.params, state.value, memory.updates, state.aux
    return tuple(tree.where(lower, there, here))
