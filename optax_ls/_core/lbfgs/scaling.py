"""The initial scaling gamma: the matrix that L-BFGS starts from is H0 = gamma I (N&W eq. 7.20)."""

import jax
import jax.numpy as jnp

from .. import numerics
from ..types import Scalar
from .compact import Coefficients, PairProducts

# The scaling for long steps is the largest of this number of newest pairs.
_RECENT = 3
# It is taken if the minimum along a step lies beyond its end by this fraction of the step, and the
# scaling of the newest pair if the minimum lies before the end by this fraction.
_MARGIN = 0.1


def largest_ratio(coefficients: Coefficients, number: int) -> jax.Array:
    """The largest <s, y> / <y, y> of that number of newest pairs; zero without pairs."""
    rho, size = coefficients.rho, len(coefficients.rho)
    slots = jnp.arange(size, dtype=coefficients.num_pairs.dtype)
    age = jax.lax.rem(coefficients.num_pairs + (size - 1) - slots, numerics.counter(size))
    yy = jnp.diagonal(coefficients.gram_y)
    inverse = jnp.where(coefficients.in_use, rho * yy, jnp.inf)
    return 1 / jnp.min(jnp.where(age < number, inverse, jnp.inf))


def _without_pairs(longest: Scalar, grad_norm: Scalar) -> Scalar:
    """The scaling without pairs: at most 1, with a step no longer than ``longest``.

    It is not subnormal, because processors take such numbers for zero.
    """
    tiny = jnp.finfo(grad_norm.dtype).tiny
    return jnp.maximum(jnp.minimum(1, longest / grad_norm), tiny)


def of_newest_pair(coefficients: Coefficients, grad_norm: jax.Array) -> jax.Array:
    """<s, y> / <y, y> of the newest pair (N&W eq. 7.20).

    Without pairs it makes the step no longer than 1.
    """
    newest = largest_ratio(coefficients, 1)
    return jnp.where(newest > 0, newest, _without_pairs(jnp.ones_like(grad_norm), grad_norm))


def for_long_steps(
    coefficients: Coefficients, grad_norm: jax.Array, pair: PairProducts, is_new: jax.Array
) -> jax.Array:
    """A larger scaling where the last step ended before the minimum along its line.

    There it is the largest <s, y> / <y, y> of the last three pairs and, if the last step gave a
    pair (``is_new``), the geometric mean of that ratio and |s| / |y|. Where the step ended beyond
    the minimum it is the ratio of the newest pair; in between it is interpolated. Without pairs it
    makes the step no longer than 1, nor than twice the last step.
    """
    newest, recent = (largest_ratio(coefficients, number) for number in (1, _RECENT))
    mean = jnp.where(is_new, jnp.sqrt(pair.sy / pair.yy * jnp.sqrt(pair.ss / pair.yy)), 0)
    larger = jnp.maximum(recent, mean)
    # The fraction of the step that lies beyond the minimum of a parabola along it.
    beyond = jnp.where(is_new, pair.sg / pair.sy, 0)
    weight = jnp.clip((_MARGIN - beyond) / (2 * _MARGIN), 0, 1)
    of_pairs = newest * (larger / newest) ** weight
    longest = jnp.where(pair.ss > 0, jnp.minimum(1, 2 * jnp.sqrt(pair.ss)), 1)
    return jnp.where(newest > 0, of_pairs, _without_pairs(longest, grad_norm))
