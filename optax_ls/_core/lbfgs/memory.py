"""The memory of L-BFGS: the last m pairs (s, y), stacked on a leading axis of each leaf, in a ring.

A pair is a step s = w' - w and the change y = g' - g of the gradient along it. The rows of a slot
are used only if ``weights_memory`` is not zero there; other rows are finite.
"""

from typing import NamedTuple, Optional

import chex
import jax
import jax.numpy as jnp

from .. import numerics, placement
from ..types import Params, map_leaves
from .compact import Coefficients

Rows = tuple[Params, Params]
"""The stacks of all s and of all y: two trees like the params, with a leading axis of length m."""
Pair = tuple[Params, Params]
"""A step s and the change y of the gradient along it: two trees like the params."""


class ScaleByLBFGSState(NamedTuple):
    """State of :func:`scale_by_lbfgs`.

    Attributes:
        count: counter, updates so far.
        params: tree, the params of the last update; zeros before the first.
        updates: tree like the params, the gradient of the last update; zeros before the first.
        diff_params_memory: tree like the params with a leading axis of length ``memory_size``,
            the s of each pair; in empty slots, zeros or a pair that was refused.
        diff_updates_memory: the same for y.
        weights_memory: ``(memory_size,)`` in the search dtype, rho = 1 / <s, y> of each pair;
            zero in empty slots, whose rows are not used.
        num_pairs: counter, pairs that have entered; the next goes to slot
            ``num_pairs % memory_size``.
        inverse_r: ``(memory_size, memory_size)`` in the search dtype, R^-1 by slots; rows and
            columns of empty slots are finite and not used.
        gram_y: the same for Y'Y.
        s_dot_g: ``(memory_size,)`` in the search dtype, the products of each s with ``updates``.
        y_dot_g: the same for y.
        bends: ``(memory_size,)`` in the search dtype, the multiple of each s that corrects its y;
            it is added in all fields but ``diff_updates_memory``. None without corrections.
    """

    count: chex.Numeric  # type: ignore[assignment]  # hides tuple.count, as Optax's does
    params: Params
    updates: Params
    diff_params_memory: Params
    diff_updates_memory: Params
    weights_memory: jax.Array
    num_pairs: jax.Array
    inverse_r: jax.Array
    gram_y: jax.Array
    s_dot_g: jax.Array
    y_dot_g: jax.Array
    bends: Optional[jax.Array]

    @property
    def rows(self) -> Rows:
        """The stacks of all s and of all y."""
        return self.diff_params_memory, self.diff_updates_memory

    @property
    def coefficients(self) -> Coefficients:
        """All fields that are not as long as the params."""
        return Coefficients(*self[5:])


def init(params: Params, memory_size: int, *, corrects: bool = False) -> ScaleByLBFGSState:
    """The state before the first update; with ``corrects``, of a memory that corrects each y."""
    dtype = numerics.search_dtype(params)
    zeros = numerics.zeros_alike(params)
    rows = numerics.zeros_alike(params, memory_size)
    vector, square = jnp.zeros((memory_size,), dtype), jnp.zeros((memory_size, memory_size), dtype)
    state = ScaleByLBFGSState(
        count=numerics.counter(),
        params=zeros,
        updates=zeros,
        diff_params_memory=rows,
        diff_updates_memory=rows,
        weights_memory=vector,
        num_pairs=numerics.counter(),
        inverse_r=square,
        gram_y=square,
        s_dot_g=vector,
        y_dot_g=vector,
        bends=vector if corrects else None,
    )
    return placement.beside(state, params)


def write_row(rows: Rows, slot: jax.Array, pair: Pair) -> Rows:
    """Writes a pair into the rows of a slot; entries that are not finite become zero.

    The rows are always written, with their own entries if there is no new pair: that moves less
    memory than a conditional, which copies what it returns.
    """

    def write(rows: jax.Array, new: jax.Array) -> jax.Array:
        new = jnp.where(jnp.isfinite(new), new, 0)
        return jax.lax.dynamic_update_index_in_dim(rows, new, slot, 0)

    return map_leaves(write, rows, pair)


def read_row(rows: Rows, slot: jax.Array) -> Pair:
    """The pair in the rows of a slot."""
    return map_leaves(lambda x: jax.lax.dynamic_index_in_dim(x, slot, keepdims=False), rows)
