"""The state of ``minimize`` between two evaluations of the objective."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._core import numerics, placement
from .._core.lbfgs import memory
from .._core.lbfgs.memory import ScaleByLBFGSState
from .._core.linesearch import driver
from .._core.linesearch.driver import LineSearch
from .._core.types import Params
from .termination import Progress


class Best(NamedTuple):
    """The lowest trial of the search under way; scalars of the search dtype.

    Attributes:
        step: the step to it; 0 if no trial was lower than the iterate.
        value: the objective there.
        grad_norm: the largest absolute value in the gradient there.
    """

    step: jax.Array
    value: jax.Array
    grad_norm: jax.Array


class MinimizeState(NamedTuple):
    """The state of :func:`minimize` between two evaluations; all that it needs to go on.

    Scalars are of the search dtype unless said otherwise.

    Attributes:
        memory: a :class:`ScaleByLBFGSState`; its ``params`` are the iterate, its ``updates`` the
            gradient there (the conjugate of what :func:`jax.grad` gives), its ``count`` the
            number of iterates so far.
        value: the objective at the iterate; infinite before the first evaluation.
        aux: auxiliary output at the iterate; None if there is none.
        grad_norm: the largest absolute value in the gradient; with bounds, in the projected
            gradient.
        direction: tree like the params, the direction of the search.
        search: the state of the line search.
        fresh: bool, whether the search along ``direction`` has yet to begin.
        best: see :class:`Best`.
        rise: the slope at the last trial of the search where the line rose; 0 if there was none.
        best_grad: tree like the params, the gradient at the best trial, as ``memory.updates``.
        best_aux: auxiliary output at the best trial.
        progress: the progress of the values, see :class:`Progress`.
        step: the step of the last iteration.
        num_iters: counter, iterations.
        num_evals: counter, evaluations of the objective with its gradient.
        status: counter, a :class:`MinimizeStatus`.
    """

    memory: ScaleByLBFGSState
    value: jax.Array
    aux: Any
    grad_norm: jax.Array
    direction: Params
    search: Any
    fresh: jax.Array
    best: Best
    rise: jax.Array
    best_grad: Params
    best_aux: Any
    progress: Progress
    step: jax.Array
    num_iters: jax.Array
    num_evals: jax.Array
    status: jax.Array


def init(search: LineSearch, params: Params, aux_like: Any, memory_size: int) -> MinimizeState:
    """The state before the first evaluation."""
    dtype = numerics.search_dtype(params)
    empty = memory.init(params, memory_size, corrects=True)
    zeros, infinite, zero = empty.params, jnp.full((), jnp.inf, dtype), jnp.zeros((), dtype)
    aux = jax.tree.map(placement.zeros, aux_like)
    state = MinimizeState(
        memory=empty._replace(params=jax.tree.map(numerics.strong, params)),
        value=infinite,
        aux=aux,
        grad_norm=infinite,
        direction=zeros,
        search=driver.begin(search, infinite, infinite, zero + 1),
        fresh=jnp.zeros((), bool),
        best=Best(zero, infinite, infinite),
        rise=zero,
        best_grad=zeros,
        best_aux=aux,
        progress=Progress.init(infinite),
        step=zero,
        num_iters=numerics.counter(),
        num_evals=numerics.counter(),
        status=numerics.counter(),
    )
    return placement.beside(state, params)
