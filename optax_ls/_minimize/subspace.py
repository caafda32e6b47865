"""The coefficients of L-BFGS in the space of the free entries, for runs with bounds."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from .._core import numerics, reductions
from .._core.lbfgs.compact import Coefficients, Pair, Products, add_pair
from .._core.lbfgs.direction import Rows
from .._core.types import Params


def of_free_entries(
    coefficients: Coefficients, rows: Rows, slot: jax.Array, free: Params
) -> Coefficients:
    """The coefficients of the pairs among the entries that are free, a tree of bools.

    ``slot`` is that of the next pair, whose rows count as empty.
    """
    dtype, size = coefficients.s_g.dtype, len(coefficients.s_g)

    def local(rows_s: jax.Array, rows_y: jax.Array, free: jax.Array) -> Sequence[jax.Array]:
        free_y = jnp.where(free, rows_y, jnp.zeros_like(rows_y))
        return [
            reductions.gram(rows_s, free_y, dtype),
            reductions.gram(free_y, free_y, dtype),
            reductions.gram(jnp.where(free, rows_s, jnp.zeros_like(rows_s)), rows_s, dtype),
        ]

    square = size, size
    s_y, y_y, s_s = reductions.sums(local, (*rows, free), (square,) * 3, dtype)
    if coefficients.bends is not None:
        bends = coefficients.bends
        bent = bends[:, None] * s_y
        y_y = y_y + bent + bent.T + bends[:, None] * s_s * bends
        s_y = s_y + s_s * bends
    return _rebuilt(coefficients, slot, s_s, s_y, y_y)


def _rebuilt(
    coefficients: Coefficients,
    next_slot: jax.Array,
    s_s: jax.Array,
    s_y: jax.Array,
    y_y: jax.Array,
) -> Coefficients:
    """The coefficients for other inner products of the same pairs, which are added in turn.

    Args:
        coefficients: before.
        next_slot: the slot of the next pair, which counts as empty.
        s_s: ``(m, m)``, S'S.
        s_y: ``(m, m)``, S'Y.
        y_y: ``(m, m)``, Y'Y.
    """
    size = len(s_y)
    zero = jnp.zeros_like(s_y[0])
    empty = coefficients._replace(
        rho=zero, s_g=zero, y_g=zero, inverse_r=jnp.zeros_like(s_y), gram_y=jnp.zeros_like(s_y)
    )

    def add(age: jax.Array, old: Coefficients) -> Coefficients:
        slot = jax.lax.rem(next_slot + age, numerics.counter(size))
        pair = Pair(s_s[slot, slot], s_y[slot, slot], y_y[slot, slot], zero[0])
        products = Products(zero, zero, s_y[:, slot], y_y[:, slot], pair, None, zero[0])
        exists = slot < coefficients.num_pairs
        new, _ = add_pair(old, slot, products, exists)
        return new._replace(num_pairs=old.num_pairs, s_g=zero, y_g=zero, bends=old.bends)

    new: Coefficients = jax.lax.fori_loop(1, size, add, empty)
    return new
