"""The engine: runs any core along a direction.

A core answers questions about one number and does nothing else (reverse communication, as
MINPACK-2's ``dcsrch``)::

    state = core.start(value, slope, step)  # phi(0), phi'(0), the first step to try
    state = core.advance(state, value, slope)  # phi(step), phi'(step)
    state.done, state.failed, state.step  # the verdict; until then, what to try next

The engine owns params, objective and gradient. It calls the objective at one place of the program,
the body of its loop, so one copy of it is compiled.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp
import numpy as np

from .. import checks, numerics, reductions, transforms, tree
from .. import objective as _objective
from ..types import GradientTransformationExtraArgs, Params
from .conditions import Message


class LinesearchCore(Protocol):
    """What the engine asks of a core."""

    @property
    def needs_slope(self) -> bool:
        """Whether ``advance`` looks at the slope."""
        ...

    def start(self, value: jax.Array, slope: jax.Array, step: jax.Array) -> Any:
        """Begins a search from phi(0) and phi'(0), trying ``step`` first."""
        ...

    def advance(self, state: Any, value: jax.Array, slope: jax.Array) -> Any:
        """Takes phi(step) and phi'(step)."""
        ...

    def diagnose(self, state: Any) -> list[Message]:
        """The messages of a search that failed."""
        ...


class _Trip(NamedTuple):
    """The carry of the engine's loop: the core's state, and the last evaluation and its step.

    The step is NaN before the first evaluation.
    """

    search: Any
    step: jax.Array
    found: _objective.Evaluation


def _scaled(step: jax.Array, updates: Any, params: Any) -> Any:
    """``step * updates`` in the dtypes of ``params``; a step of 0 is 0, whatever the updates."""
    return jax.tree.map(
        lambda u, p: numerics.strong(jnp.where(step == 0, 0, step * u), p.dtype),
        updates,
        params,
    )


def _search(
    core: LinesearchCore,
    evaluate: Callable[[Any], _objective.Evaluation],
    params: Any,
    updates: Any,
    value_init: jax.Array,
    grad: Any,
    last: _objective.Evaluation,
    step: jax.Array,
) -> _Trip:
    """Runs a core until it is done and the step it chose is the one evaluated last.

    Args:
        core: the search.
        evaluate: the objective.
        params: where the search begins.
        updates: the direction.
        value_init: the objective there.
        grad: the gradient there, conjugated if it is complex.
        last: any evaluation of the types that ``evaluate`` returns. It is not read, but in its
            place others are written, so best it is one that nobody needs any more.
        step: the step to try first.
    """
    dtype = step.dtype

    def unfinished(trip: _Trip) -> Any:
        return ~trip.search.done | (trip.step != trip.search.step)

    def told(trip: _Trip, value: jax.Array, slope_init: jax.Array, slope: jax.Array) -> Any:
        begun = core.start(value_init, slope_init, step)
        search = tree.where(jnp.isnan(trip.step), begun, trip.search)
        advanced = numerics.keep_types(core.advance(search, value, slope), search)
        # Once done, a trip only goes back to the step that the core fell back to.
        return tree.where(search.done, search, advanced)

    def advance(trip: _Trip) -> _Trip:
        step = trip.search.step
        found = evaluate(transforms.apply_updates(params, _scaled(step, updates, params)))
        found = numerics.keep_types(found, trip.found)
        # The slope at the start is taken here too, so that the two share one all-reduce.
        grads = (grad, tree.conj(found.grad)) if core.needs_slope else (grad,)
        slope_init, *slope = reductions.slopes(updates, grads, dtype)
        # Cores hear of any value that is not finite, minus infinity too, as of a wall.
        value = jnp.where(jnp.isfinite(found.value), found.value, jnp.inf)
        search = told(trip, value, slope_init, *(slope or [jnp.full((), jnp.nan, dtype)]))
        return _Trip(search, step, found)

    begun = core.start(value_init, -jnp.ones_like(step), step)
    return jax.lax.while_loop(unfinished, advance, _Trip(begun, jnp.full_like(step, jnp.nan), last))


def transformation(
    name: str,
    core: LinesearchCore,
    first_step: Callable[[jax.Array], chex.Numeric],
    make_state: Callable[..., Any],
    make_info: Callable[[Any], Any],
    *,
    store_grad: bool,
    has_aux: bool,
    aux_like: Any,
    verbose: bool,
) -> GradientTransformationExtraArgs:
    """The transformation that scales updates by the step that ``core`` finds.

    Args:
        name: the public name, for messages.
        core: the search.
        first_step: the step to try first, of the learning rate before.
        make_state: the class of the state.
        make_info: the info of a core's state.
        store_grad: whether to evaluate gradients, and keep that at the step chosen.
        has_aux: whether the objective has auxiliary output.
        aux_like: an example of it, to keep that at the step chosen; None drops it.
        verbose: whether to print why a search failed.
    """
    if aux_like is not None and not has_aux:
        raise ValueError("aux_like is an example of the objective's aux: set has_aux=True as well")
    checks.arrays("aux_like", aux_like)

    def init(params: Params) -> Any:
        checks.float_leaves("params", params)
        dtype = numerics.search_dtype(params)
        nothing = core.start(*(jnp.full((), jnp.inf, dtype),) * 2, jnp.ones((), dtype))
        return make_state(
            learning_rate=jnp.ones((), dtype),
            value=jnp.full((), jnp.inf, dtype),
            grad=numerics.zeros_alike(params) if store_grad else None,
            info=make_info(nothing),
            aux=jax.tree.map(lambda x: jnp.zeros(np.shape(x), jnp.result_type(x)), aux_like),
        )

    def update(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        value: Any = None,
        grad: Any = None,
        value_fn: Any = None,
        **extra_args: Any,
    ) -> Any:
        checks.given(name, params=params, value=value, grad=grad, value_fn=value_fn)
        checks.state_of(name, state, make_state)
        checks.float_leaves("params", params)
        checks.same_structure("updates", updates, "params", params)
        checks.same_structure("grad", grad, "params", params)
        if store_grad:
            checks.same_structure("state.grad", state.grad, "params", params)
        params = jax.tree.map(jnp.asarray, params)
        dtype = state.value.dtype
        evaluate = _objective.bind(
            value_fn, extra_args, dtype=dtype, has_aux=has_aux, with_grad=store_grad
        )

        def evaluate_and_check_aux(point: Any) -> _objective.Evaluation:
            found = evaluate(point)
            if aux_like is None:
                return found._replace(aux=None)
            checks.same_structure("aux", found.aux, "aux_like", state.aux, dtypes=True)
            return found

        value = numerics.strong(checks.scalar("value must be", value), dtype)
        last = _objective.Evaluation(value, state.grad, state.aux)
        step = numerics.strong(first_step(state.learning_rate), dtype)
        trip = _search(core, evaluate_and_check_aux, params, updates, value, grad, last, step)
        if verbose:
            _print_if_failed(name, core, trip.search)
        new_state = make_state(
            learning_rate=trip.search.step,
            value=trip.found.value,
            grad=trip.found.grad,
            info=make_info(trip.search),
            aux=trip.found.aux,
        )
        return _scaled(trip.search.step, updates, params), new_state

    return GradientTransformationExtraArgs(init, update)


def _print_if_failed(name: str, core: LinesearchCore, search: Any) -> None:
    def say(condition: jax.Array, message: str, fields: dict[str, Any]) -> None:
        jax.lax.cond(condition, lambda: jax.debug.print(message, **fields), lambda: None)

    say(search.failed, f"INFO: {name}:", {})
    for condition, message, fields in core.diagnose(search):
        say(search.failed & condition, message, fields)
