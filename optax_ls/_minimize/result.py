"""The result of ``minimize``: its status, its message, and the table that it prints."""

import enum
import functools
import operator
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp
import numpy as np

from .history import History


class MinimizeStatus(enum.IntEnum):
    """Why :func:`minimize` stopped.

    Attributes:
        RUNNING: it has not.
        GRADIENT_SMALL: no entry of the gradient is larger than ``gtol``. A success.
        VALUE_SETTLED: the value has stopped decreasing, by ``ftol`` or up to rounding. A success.
        ITERATION_LIMIT: ``max_iters`` iterations were made.
        EVALUATION_LIMIT: ``max_evals`` evaluations were made.
        SEARCH_FAILED: no lower value was found, not along steepest descent either, although the
            slope predicted one.
        START_NOT_FINITE: something in params, value or gradient at the start is NaN or infinite.
        STOPPED_BY_CALLBACK: the callback returned True.
        UNBOUNDED: the value falls without end.
    """

    RUNNING = 0
    GRADIENT_SMALL = 1
    VALUE_SETTLED = 2
    ITERATION_LIMIT = 3
    EVALUATION_LIMIT = 4
    SEARCH_FAILED = 5
    START_NOT_FINITE = 6
    STOPPED_BY_CALLBACK = 7
    UNBOUNDED = 8

    @property
    def success(self) -> bool:
        """Whether the params are a minimum, up to the tolerances."""
        return self in (MinimizeStatus.GRADIENT_SMALL, MinimizeStatus.VALUE_SETTLED)

    @property
    def message(self) -> str:
        """A sentence for people."""
        return _MESSAGES[self]


_MESSAGES = {
    MinimizeStatus.RUNNING: "Not finished.",
    MinimizeStatus.GRADIENT_SMALL: "The gradient is small: no entry is larger than gtol.",
    MinimizeStatus.VALUE_SETTLED: "The value has settled: it has stopped decreasing.",
    MinimizeStatus.ITERATION_LIMIT: "Stopped at the limit of iterations, max_iters.",
    MinimizeStatus.EVALUATION_LIMIT: "Stopped at the limit of evaluations, max_evals.",
    MinimizeStatus.SEARCH_FAILED: (
        "The line search failed, along steepest descent too: these are the best params found. "
        "Is the gradient that of the value, and continuous?"
    ),
    MinimizeStatus.START_NOT_FINITE: (
        "The start, its value or its gradient is NaN or infinite: start elsewhere."
    ),
    MinimizeStatus.STOPPED_BY_CALLBACK: "Stopped by the callback.",
    MinimizeStatus.UNBOUNDED: (
        "The value falls without end: the function has no minimum. Is its sign right? Is a penalty "
        "or a bound missing?"
    ),
}


class MinimizeResult(NamedTuple):
    """The result of :func:`minimize`.

    Scalars are of the search dtype unless said otherwise. Printed, it is a small table.

    Attributes:
        params: tree, the best params found, in the types of those given.
        value: the objective there.
        grad: tree like the params, its gradient as :func:`jax.grad` gives it.
        aux: auxiliary output there; None without ``has_aux``.
        num_iters: counter, iterations, also those before a resumed state.
        num_evals: counter, evaluations of the objective with its gradient, likewise.
        status: counter, a :class:`MinimizeStatus`: why it stopped.
        state: a :class:`MinimizeState`, to go on from.
        history: a :class:`History`; None unless asked for.
    """

    params: Any
    value: jax.Array
    grad: Any
    aux: Any
    num_iters: jax.Array
    num_evals: jax.Array
    status: jax.Array
    state: Any
    history: Optional[History]

    @property
    def success(self) -> jax.Array:
        """Bool: whether the gradient is small or the value has settled."""
        successes = (int(status) for status in MinimizeStatus if status.success)
        return functools.reduce(operator.or_, (self.status == code for code in successes))

    @property
    def message(self) -> str:
        """Why it stopped, in a sentence; for many runs at once, how many stopped for which reason.

        Only on the host: under :func:`jax.jit` there is only ``status``.
        """
        if np.ndim(self.status) == 0:
            return MinimizeStatus(int(self.status)).message
        codes, counts = np.unique(np.asarray(self.status), return_counts=True)
        return "; ".join(
            f"{count} of {np.size(self.status)}: {MinimizeStatus(int(code)).message}"
            for code, count in zip(codes, counts, strict=True)
        )

    def __str__(self) -> str:
        if not all(_is_known(x) for x in (self.value, self.status)):
            return f"MinimizeResult(params={self.params}, value={self.value}, status={self.status})"
        leaves = jax.tree.leaves(self.params)
        largest = max(
            (float(jnp.max(jnp.abs(leaf), initial=0)) for leaf in jax.tree.leaves(self.grad)),
            default=0.0,
        )
        dtypes = ", ".join(sorted({str(leaf.dtype) for leaf in leaves})) or "none"
        rows = [
            ("value", _span(self.value, ".10g")),
            ("max |grad|", f"{largest:.3g}"),
            ("iterations", _span(self.num_iters, "d")),
            ("evaluations", _span(self.num_evals, "d")),
            ("params", f"{sum(np.size(leaf) for leaf in leaves):,} of {dtypes}"),
            ("success", _span(self.success, "")),
        ]
        lines = [f"  {name:12} {value}" for name, value in rows]
        return "\n".join(["MinimizeResult", *lines, f"  {self.message}"])

    def __repr__(self) -> str:
        return str(self)


def _is_known(x: Any) -> bool:
    return isinstance(x, (jax.Array, np.ndarray)) and not isinstance(x, jax.core.Tracer)


def _span(x: Any, spec: str) -> str:
    """A number, or from where to where many reach."""
    x = np.asarray(x)
    if x.ndim == 0:
        return format(x.item(), spec)
    if x.size == 0:
        return "none"
    if x.dtype == bool:
        return f"{np.count_nonzero(x)} of {x.size}"
    return f"{format(x.min().item(), spec)} to {format(x.max().item(), spec)}"
