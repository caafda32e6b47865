"""The next direction of ``minimize``: L-BFGS with the new pair, or steepest descent on failure.

With bounds, a direction has only the entries that are free, and so have all inner products.
"""

import math
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp

from .._core import batching, numerics, reductions, tree
from .._core.lbfgs import compact, direction, scaling
from .._core.lbfgs.compact import Coefficients, Products
from .._core.lbfgs.memory import Rows
from .._core.types import Params, map_leaves
from . import subspace
from .bounds import Bounds, masked
from .subspace import FreeEntries


class Decision(NamedTuple):
    """The decisions of one iteration of the loop on its trial; bools unless said otherwise.

    Attributes:
        moves: the iterate moves, to the trial or to the best trial before.
        to_trial: if it moves, it moves to the trial.
        accepted: it moves to a step that the search accepted.
        failed: the search has failed.
        keeps_best: the trial is the best one so far of a search that goes on.
        new_direction: a new direction is due.
        restarts: the new direction is steepest descent.
        is_pair: the step of the iterate is a pair for the memory.
        drops_pairs: the older pairs are dropped.
        step: scalar, the step of the iterate along the direction.
        values: scalars, the objective at the iterate before and after.
    """

    moves: jax.Array
    to_trial: jax.Array
    accepted: jax.Array
    failed: jax.Array
    keeps_best: jax.Array
    new_direction: jax.Array
    restarts: jax.Array
    is_pair: jax.Array
    drops_pairs: jax.Array
    step: jax.Array
    values: tuple[jax.Array, jax.Array]


def new_direction(
    coefficients: Coefficients,
    old_direction: Params,
    rows: Rows,
    pair: tuple[Params, Params],
    params: Params,
    g: Params,
    decision: Decision,
    largest: jax.Array,
    bounds: Optional[Bounds],
    free: Optional[FreeEntries],
) -> tuple[Coefficients, Params]:
    """The memory with the new pair, if there is one, and minus H g where a new direction is due.

    ``coefficients`` are those before the pair, ``rows`` already contain it: ``pair`` is what the
    rows of the next slot hold. ``g`` is the gradient at the iterate ``params``, and ``largest`` the
    largest absolute value in it. Without bounds, ``bounds`` and ``free`` are None.
    """
    if free is not None:
        g = masked(g, free.now)
    new, products, entered, otherwise = _with_pair(coefficients, rows, pair, g, decision, free)
    square, size = products.grad_square, sum(leaf.size for leaf in jax.tree.leaves(g))
    grad_norm = jnp.where(jnp.isinf(square), largest * math.sqrt(size), jnp.sqrt(square))
    gamma = scaling.for_long_steps(new, grad_norm, products.pair, entered)
    if otherwise is not None:
        gamma = jnp.where((otherwise > 0) & ~jnp.any(new.in_use), otherwise, gamma)
    factors = gamma, *compact.apply(new, gamma, products.s_g, products.y_g)

    def combined() -> Any:
        return direction.combine(rows, g, *(-x for x in factors))

    downhill = jax.lax.cond(
        batching.any_element(decision.restarts),
        lambda: batching.hold(decision.restarts, steepest_descent(params, g), combined()),
        combined,
    )
    if bounds is not None and free is not None:
        downhill = bounds.shortened(params, masked(downhill, free.now))
    # Where no direction is due there is no pair either, and only the products with g are new.
    s_g, y_g, downhill = batching.hold(
        decision.new_direction,
        (new.s_g, new.y_g, downhill),
        (coefficients.s_g, coefficients.y_g, old_direction),
    )
    return new._replace(s_g=s_g, y_g=y_g), downhill


def _with_pair(
    coefficients: Coefficients,
    rows: Rows,
    pair: tuple[Params, Params],
    g: Params,
    decision: Decision,
    free: Optional[FreeEntries],
) -> tuple[Coefficients, Products, jax.Array, Optional[jax.Array]]:
    """The coefficients with the new pair, its inner products, and whether it entered.

    With bounds, all inner products leave out the entries that are not free, ``g`` included. Then
    the last value is the scaling for a memory without pairs: that of the whole pair where the free
    entries have changed, else 0.
    """
    slot, dtype = coefficients.next_slot, coefficients.rho.dtype
    if free is None:
        products = direction.inner_products(coefficients, rows, slot, g, pair, decision.values)
        new, entered = compact.add_pair(coefficients, slot, products, decision.is_pair)
        return new, products, entered, None
    has_changed, has_fixed, takes_part = free.changes(pair[0], dtype)
    before = coefficients, 0 * coefficients.rho[0]  # a scalar of the type of the others

    def among_free() -> tuple[Coefficients, jax.Array]:
        changed = subspace.of_free_entries(coefficients, rows, slot, free.now)
        return tree.where(has_changed, (changed, subspace.scaling_of(pair, dtype)), before)

    coefficients, otherwise = jax.lax.cond(
        batching.any_element(has_changed), among_free, lambda: before
    )
    # The values show the curvature along the whole step, not along its free part.
    value, new_value = decision.values
    values = value, jnp.where(has_fixed, jnp.inf, new_value)
    pair_of_free = masked(pair[0], free.now), masked(pair[1], free.now)
    products = direction.inner_products(
        coefficients, rows, slot, g, pair_of_free, values, has_changed
    )
    # A pair whose s lies mostly among the fixed entries is refused, as one without curvature.
    curvature = jnp.where(takes_part, products.pair.sy, 0)
    products = products._replace(pair=products.pair._replace(sy=curvature))
    new, entered = compact.add_pair(coefficients, slot, products, decision.is_pair)
    # It keeps its rows if entries are fixed, since it may have curvature among those free later.
    num_pairs = numerics.increment(coefficients.num_pairs)
    is_kept = decision.is_pair & has_fixed
    new = new._replace(num_pairs=jnp.where(is_kept, num_pairs, new.num_pairs))
    return new, products, entered, otherwise


def steepest_descent(params: Params, grad: Params) -> Params:
    """Steepest descent in relative coordinates, in which the direction is at most 1 long."""
    dtype = numerics.search_dtype(params)
    largest, largest_grad = reductions.maxima((params, grad), dtype)
    floor = jnp.where(largest > 0, float(jnp.finfo(dtype).eps) * largest, 1)
    units = map_leaves(lambda p: jnp.abs(p).astype(dtype) + floor, params)
    # Divided by the largest entry, because the product with the units may overflow; in two steps,
    # because the reciprocal of a huge number is subnormal, which processors take for zero.
    shrinkage = jnp.where(largest_grad > 1, 2.0**-64, 1).astype(dtype)
    divisor = jnp.where(largest_grad > 0, shrinkage * largest_grad, 1)
    relative = map_leaves(lambda unit, g: unit * (shrinkage * g / divisor), units, grad)
    scale = -jnp.minimum(largest_grad, 1 / direction.norm(relative, dtype))
    steepest = map_leaves(jnp.multiply, units, tree.scale(scale, relative))
    return tree.cast_like(steepest, grad)
