"""A trial of ``minimize``: one evaluation along the direction, and what becomes of it.

Where a minimisation stands is in :class:`MinimizeState`. ``attempt`` makes the next trial; ``tell``
and ``judge`` decide, and know only scalars. Between them ``is_tiny`` may look at vectors again.
"""

import enum
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._core import batching, numerics, reductions, tree
from .._core.lbfgs import memory as _memory
from .._core.linesearch.driver import LineSearch
from .._core.objective import Evaluation
from . import termination
from .result import MinimizeStatus


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
    watch: termination.Watch
    step: jax.Array
    num_iters: jax.Array
    num_evals: jax.Array
    status: jax.Array


def start(core: LineSearch, params: Any, aux_like: Any, memory_size: int) -> MinimizeState:
    """The state before the first evaluation."""
    dtype = numerics.search_dtype(params)
    memory = _memory.start(params, memory_size, bending=True)
    zeros, no = memory.params, jnp.zeros((), bool)
    infinite, zero = jnp.full((), jnp.inf, dtype), jnp.zeros((), dtype)
    aux = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), aux_like)
    iterate = jax.tree.map(numerics.strong, params)
    return MinimizeState(
        memory=memory._replace(params=iterate),
        value=infinite,
        aux=aux,
        grad_norm=infinite,
        direction=zeros,
        search=jax.tree.map(numerics.strong, core.start(infinite, infinite, zero + 1)),
        fresh=no,
        best=Best(zero, infinite, infinite, zeros, aux),
        watch=termination.Watch.start(infinite),
        step=zero,
        num_iters=numerics.counter(),
        num_evals=numerics.counter(),
        status=numerics.counter(),
    )


class Trial(NamedTuple):
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


def along(params: Any, step: jax.Array, direction: Any) -> Any:
    """``params + step * direction`` in the dtypes of ``params``."""

    def move(p: jax.Array, d: jax.Array) -> jax.Array:
        wide = jnp.promote_types(p.dtype, jnp.float32)
        moved = p.astype(wide) + (step * d.astype(wide)).astype(wide)
        finfo = numerics.finfo(p.dtype)
        if finfo.bits < 32:
            # Or else the compiler may drop the rounding, and the objective sees other params.
            moved = jax.lax.reduce_precision(moved, finfo.nexp, finfo.nmant)
        return moved.astype(p.dtype)

    return jax.tree.map(move, params, direction)


def next_trial(core: LineSearch, state: MinimizeState) -> tuple[jax.Array, Any]:
    """The step to try next, and the params there."""
    dtype = state.value.dtype
    first_step = core.start(state.value, -jnp.ones_like(state.value), jnp.ones((), dtype)).step
    step = jnp.where(state.fresh, first_step, state.search.step).astype(dtype)
    step = jnp.where(state.num_evals == 0, 0, step)
    return step, along(state.memory.params, step, state.direction)


def attempt(core: LineSearch, evaluate: Callable[[Any], Evaluation], state: MinimizeState) -> Trial:
    dtype = state.value.dtype
    step, params = next_trial(core, state)
    found = evaluate(params)
    value, aux = numerics.keep_types((found.value, found.aux), (state.value, state.aux))
    grad = tree.cast_like(tree.conj(found.grad), state.memory.updates)
    # In one sweep with the norm: it is NaN if any of the params is not finite.
    (grad_norm,) = reductions.maxima((jax.tree.map(lambda g, p: g + 0 * p, grad, params),), dtype)
    finite = jnp.isfinite(value) & jnp.isfinite(grad_norm)
    slope_init, slope = reductions.slopes(state.direction, (state.memory.updates, grad), dtype)
    return Trial(step, params, value, grad, aux, grad_norm, slope_init, slope, finite)


class Told(NamedTuple):
    """What the core says to a trial.

    Attributes:
        search: the next state of the core.
        done: bool, whether the search ends, for whatever reason.
        chosen: bool, whether it ends where the core wants it.
    """

    search: Any
    done: jax.Array
    chosen: jax.Array


def _course(state: MinimizeState) -> tuple[jax.Array, jax.Array]:
    """Whether the minimisation goes on, and whether it does with the evaluation of the start."""
    # Under vmap the lanes that have stopped make every trip too, and nothing comes of it.
    running = batching.in_lane(state.status == int(MinimizeStatus.RUNNING))
    return running, running & (state.num_evals == 0)


def tell(core: LineSearch, state: MinimizeState, trial: Trial) -> Told:
    """Tells the core of a trial; state and trial come without trees."""
    running, first = _course(state)

    def begun(search: Any) -> Any:
        new = core.start(state.value, trial.slope_init, jnp.ones_like(state.step))
        return tree.where(state.fresh, numerics.keep_types(new, search), search)

    search = batching.in_place(state.num_evals >= 0, begun, state.search)
    # Cores hear of any value that is not finite, minus infinity too, as of a wall.
    value = jnp.where(trial.finite, trial.value, jnp.inf)
    search = core.advance(search, value, trial.slope)
    search = numerics.keep_types(search, state.search)

    uphill = state.fresh & ~(trial.slope_init < 0)
    done = running & ~first & (search.done | uphill)
    # Where rounding hides the decrease a core may go up, but never above the start.
    not_above = trial.finite & (trial.value <= state.watch.value_init)
    chosen = done & ~search.failed & ~uphill & not_above
    return Told(tree.where(running, search, state.search), done, chosen)


def is_tiny(asked: jax.Array, params: Any, direction: Any, dtype: Any) -> jax.Array:
    """Whether a whole step along the direction is rounding, relative to the params.

    Args:
        asked: whether the answer matters; it costs two sweeps over vectors.
        params: tree.
        direction: tree like the params.
        dtype: the search dtype.
    """

    def look() -> jax.Array:
        size, length = reductions.maxima((params, direction), dtype)
        # Near a minimum a change of sqrt(eps) relative to the params changes the value by eps.
        return jnp.asarray(length <= numerics.finfo(dtype).eps ** 0.5 * size)

    tiny: jax.Array = jax.lax.cond(batching.any_lane(asked), look, lambda: jnp.zeros((), bool))
    return tiny


class Deed(enum.IntFlag):
    """What a trip may do with its trial.

    Attributes:
        MOVE: the iterate moves, to the trial or to the best one before.
        TURN: a new direction is due.
        KEEP: the trial is the best one so far of a search that goes on.
        BACK: the search ends elsewhere than at the trial.
        RESTART: the new direction is steepest descent.
        LEARN: the pair may enter the memory.
        FORGET: the memory drops the older pairs.
    """

    MOVE = enum.auto()
    TURN = enum.auto()
    KEEP = enum.auto()
    BACK = enum.auto()
    RESTART = enum.auto()
    LEARN = enum.auto()
    FORGET = enum.auto()


class Verdict(NamedTuple):
    """What a trip does with its trial, as one number.

    A loop of one trip gets a copy of each number that it writes. XLA for CPUs hands copies of which
    none waits for another to several threads, and on few params that takes longer than what the
    loop computes.

    Attributes:
        deeds: int32, a sum of :class:`Deed`.
    """

    deeds: jax.Array

    def has(self, any_of: Deed) -> jax.Array:
        """Whether any of the deeds is among them."""
        return (self.deeds & int(any_of)) != 0

    @classmethod
    def of(cls, deeds: dict[Deed, jax.Array]) -> "Verdict":
        """The deeds that are true."""
        bits = [jnp.where(holds, np.int32(deed), np.int32(0)) for deed, holds in deeds.items()]
        return cls(functools.reduce(jnp.bitwise_or, bits, jnp.zeros((), jnp.int32)))


def without_trees(state: MinimizeState) -> MinimizeState:
    best = state.best._replace(grad=None, aux=None)
    memory: Any = None
    return state._replace(memory=memory, aux=None, direction=None, best=best)


def judge(
    before: tuple[Verdict, MinimizeState],
    told: Told,
    trial: Trial,
    tiny: jax.Array,
    limits: termination.Limits,
) -> tuple[Verdict, MinimizeState]:
    """The verdict and the next state, all else that is a matter of scalars.

    Args:
        before: a verdict that is replaced, and the state.
        told: what the core says.
        trial: of the trip; like the states, without trees.
        tiny: see :func:`is_tiny`.
        limits: when to stop.
    """
    _, state = before
    done, chosen = told.done, told.chosen
    running, first = _course(state)
    nothing = state.best._replace(step=jnp.zeros_like(state.step), value=state.value)
    best = tree.where(state.fresh, nothing, state.best)
    lower = running & ~first & trial.finite & (trial.value < best.value)
    moved = first | chosen | (done & (lower | (best.step > 0)))
    failed = done & ~moved
    to_trial = first | chosen | lower
    here = Best(trial.step, trial.value, trial.grad_norm, None, None)
    arrival = tree.where(to_trial, here, best)

    trip = termination.Trip(
        first=first,
        fresh=state.fresh,
        moved=moved,
        chosen=chosen,
        failed=failed,
        finite=trial.finite,
        tiny=tiny,
        promise=-trial.slope_init,
        value_before=state.value,
        value=jnp.where(moved, arrival.value, state.value),
    )
    watch, restart = termination.watch(state.watch, trip)
    grad_norm = jnp.where(moved, arrival.grad_norm, state.grad_norm)
    num_iters = state.num_iters + trip.iterated
    num_evals = numerics.increment(state.num_evals)
    status = termination.status(state.watch, watch, trip, grad_norm, limits)
    new = state._replace(
        value=trip.value,
        grad_norm=grad_norm,
        fresh=moved | failed,
        best=tree.where(lower & ~done, here, best),
        watch=watch,
        step=jnp.where(trip.iterated, arrival.step, state.step),
        num_iters=num_iters,
        num_evals=num_evals,
        status=termination.limit_reached(status, num_iters, num_evals, limits),
    )
    new = tree.where(running, jax.tree.map(numerics.keep_types, new, state), state)
    deeds = {
        Deed.MOVE: moved,
        Deed.TURN: moved | failed,
        Deed.KEEP: lower & ~done,
        Deed.BACK: (moved & ~to_trial) | failed,
        Deed.RESTART: restart,
        Deed.LEARN: moved & ~restart & ~first,
        # After a search that failed the pairs are kept until steepest descent succeeds: that may be
        # the end.
        Deed.FORGET: moved & (state.watch.restarted | restart),
    }
    return Verdict.of(deeds), new
