"""Minimisers of the parabolas and cubics through points of phi.

Each is given as a fraction of the way from ``a`` to ``b``: 0 is ``a``, 1 is ``b``. A curve without
a minimum gives NaN, an infinity, or a fraction outside the interval. A comparison with NaN is
False, so a caller that tests where the minimiser lies never accepts one that does not exist.
"""

import jax.numpy as jnp

from ..types import Flag, Scalar
from .conditions import Point, Sample


def parabola(a: Point, b: Point | Sample) -> Scalar:
    """The minimiser of the parabola with value and slope of ``a`` and the value of ``b``."""
    slope = a.slope * (b.step - a.step)
    return slope / (2 * (slope - (b.value - a.value)))


def secant(a: Point, b: Point) -> Scalar:
    """The minimiser of the parabola with the slopes of ``a`` and ``b``."""
    return a.slope / (a.slope - b.slope)


def cubic(a: Point, b: Point) -> tuple[Scalar, Flag]:
    """The minimiser of the cubic with values and slopes of ``a`` and ``b`` (N&W eq. 3.59).

    Values and slopes are scaled, so that their squares do not overflow.

    Returns:
        The fraction, for which a negative discriminant counts as zero; and bool, whether the
        discriminant is positive, which means that the cubic has a minimum.
    """
    width = b.step - a.step
    slope_a, slope_b = a.slope * width, b.slope * width
    d1 = 3 * (a.value - b.value) + slope_a + slope_b
    size = jnp.maximum(jnp.abs(d1), jnp.maximum(jnp.abs(slope_a), jnp.abs(slope_b)))
    d1, slope_a, slope_b = d1 / size, slope_a / size, slope_b / size
    discriminant = d1 * d1 - slope_a * slope_b
    d2 = jnp.sqrt(jnp.maximum(discriminant, 0))
    return (d2 - slope_a + d1) / (2 * d2 - slope_a + slope_b), discriminant > 0


def cubic_of_three(a: Point, b: Sample, c: Sample) -> Scalar:
    """The minimiser of the cubic with value and slope of ``a`` and the values of ``b`` and ``c``.

    With t the fraction, the cubic is value + slope t + q t^2 + p t^3. Its minimum is at
    (r - q) / (3 p) = -slope / (r + q) with r = sqrt(q^2 - 3 p slope); the form without
    cancellation is used.
    """
    width = b.step - a.step
    slope, t = a.slope * width, (c.step - a.step) / width
    curvature_b = b.value - a.value - slope
    curvature_c = ((c.value - a.value) / t - slope) / t
    p = (curvature_b - curvature_c) / (1 - t)
    q = curvature_b - p
    r = jnp.sqrt(q * q - 3 * p * slope)
    return jnp.where(q > 0, -slope / (r + q), (r - q) / (3 * p))
