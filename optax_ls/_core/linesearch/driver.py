"""Runs a line search along a direction: the protocol of a search, and the transformations' driver.

A line search knows only scalars: phi(step) = f(params + step * updates) and its slope phi'(step).
It does not call the objective, but says which step to evaluate next (reverse communication, as
MINPACK-2's ``dcsrch``)::

    state = search.start(value, slope, step)  # phi(0), phi'(0), the first step to try
    state = search.advance(state, value, slope)  # phi(step), phi'(step)
    state.done, state.failed, state.step  # until it is done, the step to try next

The driver has params, objective and gradient. It calls the objective at one place of the program,
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


class LineSearch(Protocol):
    """A line search by reverse communication."""

    @property
    def needs_slope(self) -> bool:
        """Whether ``advance`` uses the slope."""
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


class _Carry(NamedTuple):
    """The carry of the driver's loop.

    Attributes:
        search: the state of the search.
        step: scalar of the search dtype, the step evaluated last; NaN before the first evaluation.
        found: the evaluation at that step.
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
    search: LineSearch,
    evaluate: Callable[[Any], _objective.Evaluation],
    params: Any,
    updates: Any,
    value_init: jax.Array,
    grad: Any,
    buffer: _objective.Evaluation,
    step: jax.Array,
) -> _Carry:
    """Runs a search until it is done and its step is the one evaluated last.

    Args:
        search: the line search.
        evaluate: the objective.
        params: where the search begins.
        updates: the direction.
        value_init: the objective at ``params``.
        grad: the gradient there, conjugated if it is complex.
        buffer: any evaluation of the types that ``evaluate`` returns. It is not read. The loop
            writes into its memory, so it should be one that is not needed any more.
        step: the step to try first.
    """
    dtype, first_step = step.dtype, step

    def unfinished(carry: _Carry) -> Any:
        # A search may fall back to a step before the last. Then that is evaluated once more.
        return ~carry.search.done | (carry.step != carry.search.step)

    def iterate(carry: _Carry) -> _Carry:
        step = carry.search.step
        found = evaluate(transforms.apply_updates(params, _scaled(step, updates, params)))
        found = numerics.keep_types(found, carry.found)
        # The slope at the start is computed here too, so that the two share one all-reduce.
        grads = (grad, tree.conj(found.grad)) if search.needs_slope else (grad,)
        slope_init, *slopes = reductions.slopes(updates, grads, dtype)
        slope = slopes[0] if slopes else jnp.full((), jnp.nan, dtype)
        started = search.start(value_init, slope_init, first_step)
        state = tree.where(jnp.isnan(carry.step), started, carry.search)
        # The search treats minus infinity like every other value that is not finite.
        value = jnp.where(jnp.isfinite(found.value), found.value, jnp.inf)
        advanced = numerics.keep_types(search.advance(state, value, slope), state)
        return _Carry(tree.where(state.done, state, advanced), step, found)

    first = search.start(value_init, -jnp.ones_like(step), step)
    return jax.lax.while_loop(
        unfinished, iterate, _Carry(first, jnp.full_like(step, jnp.nan), buffer)
    )


def transformation(
    name: str,
    search: LineSearch,
    first_step: Callable[[jax.Array], chex.Numeric],
    make_state: Callable[..., Any],
    make_info: Callable[[Any], Any],
    *,
    store_grad: bool,
    has_aux: bool,
    aux_like: Any,
    verbose: bool,
) -> GradientTransformationExtraArgs:
    """The transformation that scales updates by the step that ``search`` finds.

    Args:
        name: the public name, for messages.
        search: the line search.
        first_step: a function of the last learning rate that returns the step to try first.
        make_state: the class of the state.
        make_info: a function of the search's state that returns the info.
        store_grad: whether to evaluate gradients, and keep the one at the step chosen.
        has_aux: whether the objective has auxiliary output.
        aux_like: an example of it, to keep the one at the step chosen; None keeps none.
        verbose: whether to print why a search failed.
    """
    if aux_like is not None and not has_aux:
        raise ValueError("aux_like is an example of the objective's aux: set has_aux=True as well")
    checks.arrays("aux_like", aux_like)

    def init(params: Params) -> Any:
        checks.float_leaves("params", params)
        dtype = numerics.search_dtype(params)
        unused = search.start(*(jnp.full((), jnp.inf, dtype),) * 2, jnp.ones((), dtype))
        return make_state(
            learning_rate=jnp.ones((), dtype),
            value=jnp.full((), jnp.inf, dtype),
            grad=numerics.zeros_alike(params) if store_grad else None,
            info=make_info(unused),
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
        buffer = _objective.Evaluation(value, state.grad, state.aux)
        step = numerics.strong(first_step(state.learning_rate), dtype)
        end = _search(search, evaluate_and_check_aux, params, updates, value, grad, buffer, step)
        if verbose:
            _print_if_failed(name, search, end.search)
        new_state = make_state(
            learning_rate=end.search.step,
            value=end.found.value,
            grad=end.found.grad,
            info=make_info(end.search),
            aux=end.found.aux,
        )
        return _scaled(end.search.step, updates, params), new_state

    return GradientTransformationExtraArgs(init, update)


def _print_if_failed(name: str, search: LineSearch, state: Any) -> None:
    title = Message(True, f"INFO: {name}:", {})
    for message in [title, *search.diagnose(state)]:
        jax.lax.cond(
            state.failed & message.condition,
            lambda message=message: jax.debug.print(message.text, **message.numbers),
            lambda: None,
        )
