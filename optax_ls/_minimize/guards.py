"""Errors of ``minimize``: where their tracebacks end, and derivatives that it does not have."""

import contextlib
import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._core.numerics import DType
from .._core.objective import Evaluation
from .._core.types import Tree, map_leaves

_CLOSED_OVER = (
    "minimize is not differentiable with respect to a value that fun closes over: pass the value "
    "in args, args=(value,), and set implicit_diff=True. If no derivative is wanted, apply "
    "jax.lax.stop_gradient to the value"
)

_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep
_INTERNAL = (_PACKAGE, os.path.dirname(jax.__file__) + os.sep, contextlib.__file__)


class ErrorsEndHere(contextlib.AbstractContextManager["ErrorsEndHere"]):
    """Tracebacks of errors that this package raises end in the user's code, or in the caller."""

    def __exit__(self, *raised: Any) -> None:
        last = end = raised[2]
        while last is not None:
            file = last.tb_frame.f_code.co_filename
            if not file.startswith(_INTERNAL):
                end = last
            last = last.tb_next
        if end is not None and file.startswith(_PACKAGE):
            end.tb_next = None


def transfers_and_infinities_allowed() -> contextlib.AbstractContextManager[object]:
    """Allows transfers of limits and counts, and infinities in states, where a mode forbids them.

    A search gets infinity for values that are not finite, and begins with infinite intervals.
    """
    to_device = jax.config.jax_transfer_guard_host_to_device  # type: ignore[attr-defined]
    to_host = jax.config.jax_transfer_guard_device_to_host  # type: ignore[attr-defined]
    forbids_infinities = jax.config.jax_debug_infs  # type: ignore[attr-defined]
    if to_device is None and to_host is None and not forbids_infinities:
        return contextlib.nullcontext()
    modes = contextlib.ExitStack()
    modes.enter_context(jax.transfer_guard("allow"))
    modes.enter_context(jax.debug_infs(False))
    return modes


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _not_differentiable(message: str, x: jax.Array) -> jax.Array:
    return x


@functools.partial(_not_differentiable.defjvp, symbolic_zeros=True)
def _raise_if_differentiated(
    message: str, primals: tuple[jax.Array], tangents: tuple[Any]
) -> tuple[jax.Array, Any]:
    if not isinstance(tangents[0], jax.custom_derivatives.SymbolicZero):
        raise TypeError(message)
    return primals[0], tangents[0]


def not_differentiable(message: str, tree: Tree) -> Tree:
    """The tree; a derivative with respect to a float in it raises TypeError with the message."""

    def guard(x: Any) -> Any:
        is_traced = isinstance(x, jax.core.Tracer) and jnp.issubdtype(x.dtype, jnp.inexact)
        return _not_differentiable(message, x) if is_traced else x

    return map_leaves(guard, tree)


def trace(
    evaluate: Callable[..., Evaluation], *like: Any
) -> tuple[Callable[..., Evaluation], list[jax.Array], DType]:
    """Traces the objective, once, for arguments of these shapes.

    Returns:
        The objective as a function of what it closes over and of its arguments; what it closes
        over, a derivative with respect to which raises TypeError; and the dtype of the value.
    """
    program, out = jax.make_jaxpr(evaluate, return_shape=True)(*like)

    def traced(closed_over: list[jax.Array], *args: Any) -> Evaluation:
        leaves = jax.core.eval_jaxpr(program.jaxpr, closed_over, *jax.tree.leaves(args))
        evaluation: Evaluation = jax.tree.unflatten(jax.tree.structure(out), leaves)
        return evaluation

    return traced, not_differentiable(_CLOSED_OVER, program.consts), out.value.dtype
