"""The loop of ``minimize``: flat, one evaluation of the objective in each iteration of the loop.

The objective therefore stands once in the program, and under :func:`jax.vmap` no element of the
batch waits for the line search of another.
"""

from collections.abc import Callable
from typing import Optional

import jax
import jax.numpy as jnp

from .._core import batching, numerics, tree
from .._core.linesearch.driver import LineSearch
from .._core.objective import Evaluation
from .._core.types import Params
from .bounds import Bounds
from .history import History
from .result import MinimizeStatus
from .state import MinimizeState
from .step import Vectors, advance, along
from .termination import Limits, Pause, Precision

Carry = tuple[MinimizeState, Optional[History]]


@numerics.promotes
def run(
    search: LineSearch,
    evaluate: Callable[[Params], Evaluation],
    value_dtype: numerics.DType,
    state: MinimizeState,
    limits: Limits,
    bounds: Optional[Bounds],
    pause: Optional[Pause],
    begin: jax.Array,
    history: Optional[History],
    report: Optional[Callable[[MinimizeState, jax.Array, jax.Array], jax.Array]],
) -> Carry:
    """Runs the loop from a state to the end, or to a pause, with the status RUNNING.

    ``value_dtype`` is the dtype of the values of ``evaluate``.
    The history is filled from row 0, which is the state after ``begin`` iterations. ``report`` is a
    function of the state, of whether the iterate moved, and of whether that was the end; it returns
    whether to stop.
    """
    precision = Precision.of(value_dtype, state.memory.params)

    def is_running(carry: Carry) -> jax.Array:
        state, _ = carry
        return state.status == int(MinimizeStatus.RUNNING)

    def goes_on(carry: Carry) -> jax.Array:
        if pause is None:
            return is_running(carry)
        return is_running(carry) & ~pause.is_due(carry[0].num_iters, carry[0].num_evals)

    def body(carry: Carry) -> Carry:
        state, history = carry
        new, moved = advance(search, evaluate, precision, limits, bounds, state)
        if history is not None:
            history = history.record(new.num_iters - begin, moved, new)
        if report is not None:
            continues = is_running((new, history))
            stop = report(new, moved, is_running(carry) & ~continues)
            code = jnp.asarray(int(MinimizeStatus.STOPPED_BY_CALLBACK), new.status.dtype)
            new = new._replace(status=jnp.where(stop & continues, code, new.status))
        return new, history

    # One condition for a whole batch, so that nothing selects between carries.
    state, history = jax.lax.while_loop(
        lambda carry: batching.any_element(goes_on(carry)), body, (state, history)
    )
    return state, history


@numerics.promotes
def best(state: MinimizeState, bounds: Optional[Bounds]) -> tuple[Vectors, jax.Array]:
    """The lowest point known and the value there; it may be a trial of an unfinished search."""
    memory, trial = state.memory, state.best
    is_lower = ~state.fresh & (trial.step > 0) & (trial.value < state.value)
    params = along(memory.params, trial.step, state.direction, bounds)
    there = Vectors(params, state.best_grad, state.best_aux), trial.value
    here = Vectors(memory.params, memory.updates, state.aux), state.value
    return tree.where(is_lower, there, here)
