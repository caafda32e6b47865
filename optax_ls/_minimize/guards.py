"""Errors of ``minimize``: where their tracebacks end, and derivatives that it does not have."""

import contextlib
import functools
import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, Optional

import jax
import jax.numpy as jnp

from .._core.objective import Evaluation
from .._core.types import Params, Tree

_CLOSED_OVER = (
    "minimize is not differentiable with respect to a value that fun closes over: pass the value "
    "in args, args=(value,), and set implicit_diff=True. If no derivative is wanted, apply "
    "jax.lax.stop_gradient to the value"
)

_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep
_INTERNAL = (_PACKAGE, os.path.dirname(jax.__file__) + os.sep, contextlib.__file__)


class ErrorsEndHere(contextlib.AbstractContextManager["ErrorsEndHere"]):
    """Tracebacks of errors that this package raises end in the user's code, or in the caller."""

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        last = end = trace
        while last is not None:
            file = last.tb_frame.f_code.co_filename
            if not file.startswith(_INTERNAL):
                end = last
            last = last.tb_next
        if end is not None and file.startswith(_PACKAGE):
            end.tb_next = None


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _not_differentiable(message: str, arrays: list[jax.Array]) -> list[jax.Array]:
    return arrays


@functools.partial(_not_differentiable.defjvp, symbolic_zeros=True)
def _raise_if_differentiated(
    message: str, primals: tuple[list[jax.Array]], tangents: tuple[list[Any]]
) -> tuple[list[jax.Array], list[Any]]:
    if any(not isinstance(x, jax.custom_derivatives.SymbolicZero) for x in tangents[0]):
        raise TypeError(message)
    return primals[0], tangents[0]


def not_differentiable(message: str, tree: Tree) -> Tree:
    """The tree; a derivative with respect to a float in it raises TypeError with the message."""
    leaves, structure = jax.tree.flatten(tree)
    traced = [
        isinstance(x, jax.core.Tracer) and jnp.issubdtype(x.dtype, jnp.inexact) for x in leaves
    ]
    chosen = [x for x, is_traced in zip(leaves, traced, strict=True) if is_traced]
    if not chosen:
        return tree
    guarded = iter(_not_differentiable(message, chosen))
    same: Tree = jax.tree.unflatten(
        structure,
        [next(guarded) if is_traced else x for x, is_traced in zip(leaves, traced, strict=True)],
    )
    return same


def trace(
    evaluate: Callable[[Params], Evaluation], params: Params
) -> tuple[Callable[[Params], Evaluation], Evaluation]:
    """Traces the objective, once, for params of these shapes.

    Returns:
        The traced objective, and an :class:`Evaluation` of shapes and dtypes. A derivative of the
        traced objective with respect to a value that it closes over raises TypeError.
    """
    program, like = jax.make_jaxpr(evaluate, return_shape=True)(params)
    structure = jax.tree.structure(like)
    consts = not_differentiable(_CLOSED_OVER, program.consts)

    def traced(params: Params) -> Evaluation:
        out = jax.core.eval_jaxpr(program.jaxpr, consts, *jax.tree.leaves(params))
        evaluation: Evaluation = jax.tree.unflatten(structure, out)
        return evaluation

    return traced, like
