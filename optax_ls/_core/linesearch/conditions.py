"""Points on the line, the conditions on a step, and the messages of a search that failed.

The function on the line is phi(step) = f(params + step * updates).
"""

from typing import TYPE_CHECKING, NamedTuple, Union

import chex
import jax.numpy as jnp

from ..types import Flag, Scalar

if TYPE_CHECKING:
    from .more_thuente import MoreThuenteState
    from .zoom import ZoomState

FLAG_CURVATURE_COND_NOT_SATISFIED = (
    "The step returned decreases the objective sufficiently, but its curvature is not small."
)
FLAG_NO_STEPSIZE_FOUND = "The search failed: no step with sufficient decrease was found."
FLAG_NOT_A_DESCENT_DIRECTION = (
    "The updates do not point downhill: the slope along them should be negative."
)


class Sample(NamedTuple):
    """A step and phi there; scalars of the search dtype."""

    step: Scalar
    value: Scalar


class Point(NamedTuple):
    """A step, phi and phi' there; scalars of the search dtype."""

    step: Scalar
    value: Scalar
    slope: Scalar

    @property
    def sample(self) -> Sample:
        """The same without the slope."""
        return Sample(self.step, self.value)


class Message(NamedTuple):
    """A sentence about a search that failed.

    Attributes:
        condition: bool scalar, whether the sentence is true.
        text: the sentence, with ``{name}`` where a number goes.
        numbers: scalars by name.
    """

    condition: Union[bool, Flag]
    text: str
    numbers: dict[str, Scalar]


def missing_decrease(
    change: Scalar, step: Scalar, slope_init: Scalar, slope_rtol: chex.Numeric
) -> Scalar:
    """The amount by which ``change``, phi(step) - phi(0), is too high (N&W eq. 3.7a)."""
    return change - slope_rtol * step * slope_init


def missing_curvature(slope: Scalar, slope_init: Scalar, curv_rtol: chex.Numeric) -> Scalar:
    """The amount by which ``slope``, phi'(step), is too steep (N&W eq. 3.7b)."""
    return jnp.abs(slope) - curv_rtol * jnp.abs(slope_init)


def error(missing: Scalar) -> Scalar:
    """The missing amount as an error: at least 0, and infinite instead of NaN."""
    return jnp.where(jnp.isnan(missing), jnp.inf, jnp.maximum(missing, 0))


def diagnose(
    state: "Union[ZoomState, MoreThuenteState]", decreased: Flag, max_steps: chex.Numeric
) -> list[Message]:
    """The messages of a failed search for a strong Wolfe step.

    ``decreased`` is whether a step of sufficient decrease was found.
    """
    numbers = {
        "value": state.value_init,
        "slope": state.slope_init,
        "step": state.step,
        "decrease": state.decrease_error,
        "curvature": state.curvature_error,
    }
    return [
        Message(
            True,
            "Value at current params: {value}\nSlope along update direction: {slope}\n"
            "Stepsize: {step}\nDecrease error: {decrease}\nCurvature error: {curvature}",
            numbers,
        ),
        Message(decreased, FLAG_CURVATURE_COND_NOT_SATISFIED, {}),
        Message(~decreased, FLAG_NO_STEPSIZE_FOUND, {}),
        Message(state.num_steps >= max_steps, "All steps allowed were tried; consider more.", {}),
        Message(state.slope_init >= 0, FLAG_NOT_A_DESCENT_DIRECTION, {}),
        Message(
            ~decreased & (state.step > 0),
            "The last step tried is taken all the same: the objective may increase.",
            {},
        ),
        Message(state.step == 0, "The objective is not finite at any step tried: not moving.", {}),
    ]
