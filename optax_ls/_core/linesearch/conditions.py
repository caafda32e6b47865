"""Points on the line, the conditions on a step, and the messages of a search that failed.

The function on the line is phi(step) = f(params + step * updates).
"""

from typing import Any, NamedTuple, Union

import chex
import jax.numpy as jnp

from ..types import Flag, Scalar

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
    """A sentence about a search that failed."""

    condition: Union[bool, Flag]  # whether the sentence is true
    text: str  # with {name} where a number goes
    numbers: dict[str, Scalar]


def error(missing: Scalar) -> Scalar:
    """The missing amount as an error: at least 0, and infinite instead of NaN."""
    return jnp.where(jnp.isnan(missing), jnp.inf, jnp.maximum(missing, 0))


def summary(state: Any, text: str, **errors: Scalar) -> Message:
    """The numbers in the state of a search, and a text with its errors."""
    text = (
        "Value at current params: {value}\nSlope along update direction: {slope}\n"
        "Stepsize: {step}\n" + text
    )
    numbers = {"value": state.value_init, "slope": state.slope_init, "step": state.step}
    return Message(True, text, {**numbers, **errors})


def diagnose(state: Any, decreased: Flag, max_steps: chex.Numeric) -> list[Message]:
    """The messages of a failed search for a strong Wolfe step.

    ``decreased`` is whether a step of sufficient decrease was found.
    """
    errors = {"decrease": state.decrease_error, "curvature": state.curvature_error}
    return [
        summary(state, "Decrease error: {decrease}\nCurvature error: {curvature}", **errors),
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
