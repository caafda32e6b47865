"""Counts the evaluations of an objective, independently of the solvers' own counters.

The counted objective is an ordinary function of JAX. An evaluation with gradient passes its value
to a callback on the host. That is an ``io_callback``, an effect, which the compiler neither drops
nor repeats. An evaluation of the value alone uses a ``pure_callback``, which the compiler drops if,
and only if, nothing uses the value, as it would drop the evaluation itself. So the counts are those
of the evaluations that are computed.

The callback stops the run with an exception as soon as its result is known. Until then the solver
sees only its own values.
"""

import math
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback


class Stop(Exception):
    """The result of the run is known; ``Tally.end`` is the reason."""


class Tally:
    """The evaluations of one run that the host has seen.

    ``end`` is None until the run is stopped, and then "solved", "evaluations" or "time". An
    evaluation that would be one too many is refused; it is not counted.
    """

    def __init__(self, threshold=None, max_evals=math.inf, timeout=math.inf):
        self.threshold = threshold
        self.max_evals = max_evals
        self.deadline = time.monotonic() + timeout
        self.evals = 0
        self.values_only = 0
        self.lowest = math.inf
        self.improvements = []  # pairs (evaluation, value), each lower than the one before
        self.solved_at = None
        self.end = None

    def see(self, value, with_grad):
        """Counts an evaluation, and stops the run if its result is known."""
        if self.end is not None:
            raise Stop
        if self.evals >= self.max_evals:
            self._stop("evaluations")
        self.evals += 1
        self.values_only += not with_grad
        if math.isfinite(value) and value < self.lowest:
            self.lowest = value
            self.improvements.append((self.evals, value))
            if self.threshold is not None and value <= self.threshold:
                self.solved_at = self.evals
                self._stop("solved")
        if time.monotonic() > self.deadline:
            self._stop("time")

    def _stop(self, end):
        self.end = end
        raise Stop


def counted(objective, tally):
    """``objective``, a function of an array, with every evaluation counted by ``tally``.

    It can be differentiated once, forward, backward or by linearisation; each way evaluates value
    and gradient together, and counts once.
    """

    def like(value):
        return jax.ShapeDtypeStruct(value.shape, value.dtype)

    def with_grad(value):
        tally.see(float(value), with_grad=True)
        return np.asarray(value)

    def alone(value):
        tally.see(float(value), with_grad=False)
        return np.asarray(value)

    @jax.custom_jvp
    def fun(x):
        value = objective(x)
        return jax.pure_callback(alone, like(value), value)

    @fun.defjvp
    def fun_jvp(primals, tangents):
        (x,), (tangent,) = primals, tangents
        value, grad = jax.value_and_grad(objective)(x)
        value = io_callback(with_grad, like(value), value)
        return value, jnp.vdot(grad, tangent)

    return fun
