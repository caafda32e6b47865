"""The convergence history of ``minimize``."""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._core import numerics, placement

if TYPE_CHECKING:
    from .state import MinimizeState


class History(NamedTuple):
    """The convergence history of :func:`minimize`: row k is the state after k iterations.

    Row 0 is the start. All are arrays of shape ``(max_iters + 1,)``; rows that were not reached
    are zero, and only these have no evaluations.

    Attributes:
        value: of the search dtype, the objective.
        grad_norm: of the search dtype, the largest absolute value in the gradient.
        step: of the search dtype, the step along the direction.
        num_evals: counters, evaluations so far.
    """

    value: jax.Array
    grad_norm: jax.Array
    step: jax.Array
    num_evals: jax.Array

    @classmethod
    def empty(cls, rows: int, state: "MinimizeState") -> "History":
        """A history to be filled, for a run that begins with this state."""
        zeros = jnp.zeros((rows,), state.value.dtype)
        empty = cls(zeros, zeros, zeros, jnp.broadcast_to(numerics.counter(), (rows,)))
        return placement.beside(empty, state.value)

    def record(self, row: jax.Array, condition: jax.Array, state: "MinimizeState") -> "History":
        """The history with ``state`` in a row, where the condition holds."""
        now = History(state.value, state.grad_norm, state.step, state.num_evals)

        def put(column: jax.Array, x: jax.Array) -> Any:
            new = jnp.where(condition, x, column[row])
            return jax.lax.dynamic_update_index_in_dim(column, new, row, 0)

        return History(*map(put, self, now))

    def rows(self) -> "History":
        """The rows that were reached, as NumPy arrays."""
        if np.ndim(self.value) != 1:
            raise ValueError(
                f"rows() is for one run, and here are runs of shape {np.shape(self.value)[:-1]}; "
                "take one with jax.tree.map(lambda column: column[i], history)"
            )
        columns = jax.tree.map(np.asarray, jax.device_get(self))
        return History(*(column[columns.num_evals > 0] for column in columns))
