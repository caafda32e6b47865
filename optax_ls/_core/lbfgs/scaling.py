"""The factor gamma of the identity in the direction: what H is where the memory knows nothing."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from .memory import Lesson, ScaleByLBFGSState

# Of how many pairs the factor of the identity may be the largest; and by which part of itself the
# last step must have ended before the minimum for that, or beyond it for that of the newest pair.
_RECENT = 3
_CLEARLY = 0.1


def largest_fit(
    weights_memory: jax.Array, yy: jax.Array, newest: chex.Numeric, number: int
) -> jax.Array:
    """The largest <s, y> / <y, y> of the last pairs; zero if there is none.

    Args:
        weights_memory: rho of each pair, by slots.
        yy: <y, y> of each pair.
        newest: the slot of the last pair, or -1 if that is the last slot.
        number: of pairs.
    """
    size = len(weights_memory)
    age = newest - jnp.arange(size)
    age = jnp.where(age < 0, age + size, age)
    counts = (weights_memory != 0) & (age < number)
    return 1 / jnp.min(jnp.where(counts, weights_memory * yy, jnp.inf))


def _after(state: ScaleByLBFGSState, lesson: Lesson, number: int) -> jax.Array:
    here = lesson.good & (jnp.arange(len(lesson.y_y)) == lesson.slot)
    yy = jnp.where(here, lesson.yy, jnp.diagonal(state.gram_y))
    newest = lesson.slot - jnp.where(lesson.good, 0, 1)
    return largest_fit(lesson.weights_memory, yy, newest, number)


# What gives gamma: of the state before a lesson, the lesson, |s|^2 of the step that the lesson is
# about, and |g|.
Scale = Callable[[ScaleByLBFGSState, Lesson, jax.Array, jax.Array], jax.Array]


def of_newest(
    state: ScaleByLBFGSState, lesson: Lesson, ss: jax.Array, g_norm: jax.Array
) -> jax.Array:
    """The factor gamma of the identity: <s, y> / <y, y> of the newest pair (N&W eq. 7.20).

    Without pairs it is what makes the first step no longer than 1.
    """
    newest = _after(state, lesson, 1)
    return jnp.where(lesson.num_pairs > 0, newest, jnp.minimum(1, 1 / g_norm))


def generous(
    state: ScaleByLBFGSState, lesson: Lesson, ss: jax.Array, g_norm: jax.Array
) -> jax.Array:
    """A larger gamma where steps turn out too short.

    Where the last step ended before the minimum along it, it is the largest of <s, y> / <y, y> for
    the last three pairs and, for a pair that is new, the geometric mean of that and |s| / |y|;
    where beyond it, that of the newest pair; between, something between. Without pairs it is what
    makes the step no longer than 1, nor than twice the last one.
    """
    sy, yy = lesson.sy, lesson.yy
    of_new = jnp.where(lesson.good, jnp.sqrt(sy / yy * jnp.sqrt(ss / yy)), 0)
    newest = _after(state, lesson, 1)
    larger = jnp.maximum(_after(state, lesson, _RECENT), of_new)
    # Of a parabola, the part of the step that lies beyond its minimum.
    beyond = jnp.where(lesson.good, lesson.sg / sy, 0)
    trust = jnp.clip((_CLEARLY - beyond) / (2 * _CLEARLY), 0, 1)
    of_pairs = newest * (larger / newest) ** trust
    longest = jnp.where(ss > 0, jnp.minimum(1, 2 * jnp.sqrt(ss)), 1)
    return jnp.where(lesson.num_pairs > 0, of_pairs, jnp.minimum(1, longest / g_norm))


def one(state: ScaleByLBFGSState, lesson: Lesson, ss: jax.Array, g_norm: jax.Array) -> jax.Array:
    """The gamma that leaves the identity as it is: 1."""
    return jnp.ones_like(g_norm)
