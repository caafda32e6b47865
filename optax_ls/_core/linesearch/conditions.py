"""What cores share: points of phi, conditions on them, minima of curves through them, words.

A curve without a minimum gives NaN or an infinity. A comparison with NaN is False, so whoever asks
whether a minimum lies where it should never trusts one that does not exist.
"""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

FLAG_CURVATURE_COND_NOT_SATISFIED = (
    "The step returned decreases the objective sufficiently, but its curvature is not small."
)
FLAG_NO_STEPSIZE_FOUND = "The search failed: no step with sufficient decrease was found."
FLAG_NOT_A_DESCENT_DIRECTION = (
    "The updates do not point downhill: the slope along them should be negative."
)


class Point(NamedTuple):
    """A step with phi and phi' there."""

    step: jax.Array
    value: jax.Array
    slope: jax.Array


def choose(condition: jax.Array, if_true: Point, if_false: Point) -> Point:
    """``if_true`` where the condition holds, else ``if_false``."""
    return Point(*(jnp.where(condition, a, b) for a, b in zip(if_true, if_false, strict=True)))


def missing_decrease(start: Point, point: Point, slope_rtol: chex.Numeric) -> jax.Array:
    """How far ``point`` lies above the line of sufficient decrease (N&W eq. 3.7a)."""
    return point.value - start.value - slope_rtol * point.step * start.slope


def missing_curvature(start: Point, point: Point, curv_rtol: chex.Numeric) -> jax.Array:
    """By how much the slope at ``point`` is steeper than curvature allows (N&W eq. 3.7b)."""
    return jnp.abs(point.slope) - curv_rtol * jnp.abs(start.slope)


def error(missing: jax.Array) -> jax.Array:
    """What is missing as an error: 0 if nothing is, infinite if it is not a number."""
    return jnp.where(jnp.isnan(missing), jnp.inf, jnp.maximum(missing, 0))


def parabola_minimum(a: Point, b: Point) -> jax.Array:
    """The minimum of the parabola with value and slope of ``a`` and the value of ``b``."""
    width = b.step - a.step
    curvature = ((b.value - a.value) / width - a.slope) / width
    return a.step - a.slope / (2 * curvature)


def secant_minimum(a: Point, b: Point) -> jax.Array:
    """The minimum of the parabola with the slopes of ``a`` and ``b``."""
    return a.step + a.slope / (a.slope - b.slope) * (b.step - a.step)


def cubic_fraction(a: Point, b: Point) -> tuple[jax.Array, jax.Array]:
    """Where, from 0 at ``a`` to 1 at ``b``, the cubic with their values and slopes has its minimum.

    N&W eq. (3.59), measured from the other end, and scaled so that squares do not overflow.

    Returns:
        The fraction, for which a negative discriminant counts as zero; and whether the
        discriminant is positive, that is whether there is a minimum.
    """
    d1 = 3 * (a.value - b.value) / (b.step - a.step) + a.slope + b.slope
    size = jnp.maximum(jnp.abs(d1), jnp.maximum(jnp.abs(a.slope), jnp.abs(b.slope)))
    discriminant = (d1 / size) ** 2 - (a.slope / size) * (b.slope / size)
    d2 = jnp.sign(b.step - a.step) * size * jnp.sqrt(jnp.maximum(discriminant, 0))
    return (d2 - a.slope + d1) / (2 * d2 - a.slope + b.slope), discriminant > 0


def cubic_minimum_of_three(a: Point, b: Point, c: Point) -> jax.Array:
    """The minimum of the cubic with value and slope of ``a`` and the values of ``b`` and ``c``.

    With t = step - a.step the cubic is value + slope t + q t^2 + p t^3, and its minimum is at
    (r - q) / (3 p) = -slope / (r + q) with r = sqrt(q^2 - 3 p slope): whichever does not cancel.
    """
    width_b, width_c = b.step - a.step, c.step - a.step
    curvature_b = ((b.value - a.value) / width_b - a.slope) / width_b
    curvature_c = ((c.value - a.value) / width_c - a.slope) / width_c
    p = (curvature_b - curvature_c) / (width_b - width_c)
    q = curvature_b - p * width_b
    r = jnp.sqrt(q**2 - 3 * p * a.slope)
    return a.step + jnp.where(q > 0, -a.slope / (r + q), (r - q) / (3 * p))


def diagnose(
    state: Any, value: jax.Array, decreased: jax.Array, max_steps: chex.Numeric
) -> list[tuple[Any, str, dict[str, Any]]]:
    """What to print of a failed search for a Wolfe step: conditions, messages and their fields.

    Args:
        state: of a core that has ended.
        value: phi(0).
        decreased: whether a step of sufficient decrease was found.
        max_steps: how many steps were allowed.
    """
    yes = jnp.ones((), bool)
    numbers = {
        "value": value,
        "slope": state.start.slope,
        "step": state.step,
        "decrease": state.decrease_error,
        "curvature": state.curvature_error,
    }
    return [
        (
            yes,
            "Value at current params: {value}\nSlope along update direction: {slope}\n"
            "Stepsize: {step}\nDecrease error: {decrease}\nCurvature error: {curvature}",
            numbers,
        ),
        (decreased, FLAG_CURVATURE_COND_NOT_SATISFIED, {}),
        (~decreased, FLAG_NO_STEPSIZE_FOUND, {}),
        (state.num_steps >= max_steps, "All steps allowed were tried; consider more.", {}),
        (state.start.slope >= 0, FLAG_NOT_A_DESCENT_DIRECTION, {}),
        (
            ~decreased & (state.step > 0),
            "Taking the last step tried all the same: the objective may increase.",
            {},
        ),
        (state.step == 0, "The objective is not finite there: not moving.", {}),
    ]
