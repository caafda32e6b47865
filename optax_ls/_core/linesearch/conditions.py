"""Points on the line, the conditions on a step, and the messages of a search that failed.

The function on the line is phi(step) = f(params + step * updates).
"""

from typing import NamedTuple, Optional, Protocol

import chex
import jax
import jax.numpy as jnp

from .. import checks

FLAG_CURVATURE_COND_NOT_SATISFIED = (
    "The step returned decreases the objective sufficiently, but its curvature is not small."
)
FLAG_NO_STEPSIZE_FOUND = "The search failed: no step with sufficient decrease was found."
FLAG_NOT_A_DESCENT_DIRECTION = (
    "The updates do not point downhill: the slope along them should be negative."
)


class Sample(NamedTuple):
    """A step and phi there; scalars of the search dtype."""

    step: jax.Array
    value: jax.Array


class Point(NamedTuple):
    """A step, phi and phi' there; scalars of the search dtype."""

    step: jax.Array
    value: jax.Array
    slope: jax.Array

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

    condition: chex.Numeric
    text: str
    numbers: dict[str, jax.Array]


def check_limits(
    max_steps: chex.Numeric,
    max_step_size: Optional[chex.Numeric],
    names: tuple[str, str] = ("max_steps", "max_step_size"),
) -> None:
    """Raises TypeError or ValueError unless the limits of a Wolfe search are in range.

    Args:
        max_steps: the number of steps that may be tried, at least 1.
        max_step_size: the largest step, positive; None for no limit.
        names: the names that the caller has for the two.
    """
    checks.whole_number(names[0], max_steps, at_least=1)
    checks.number(names[1], max_step_size, above=0, optional=True)


def missing_decrease(
    change: jax.Array, step: jax.Array, slope_init: jax.Array, slope_rtol: chex.Numeric
) -> jax.Array:
    """The amount by which ``change``, phi(step) - phi(0), is too high (N&W eq. 3.7a)."""
    return change - slope_rtol * step * slope_init


def missing_curvature(
    slope: jax.Array, slope_init: jax.Array, curv_rtol: chex.Numeric
) -> jax.Array:
    """The amount by which ``slope``, phi'(step), is too steep (N&W eq. 3.7b)."""
    return jnp.abs(slope) - curv_rtol * jnp.abs(slope_init)


def error(missing: jax.Array) -> jax.Array:
    """The missing amount as an error: at least 0, and infinite instead of NaN."""
    return jnp.where(jnp.isnan(missing), jnp.inf, jnp.maximum(missing, 0))


class WolfeState(Protocol):
    """The fields that the states of both searches for a strong Wolfe step share."""

    @property
    def step(self) -> jax.Array: ...

    @property
    def num_steps(self) -> jax.Array: ...

    @property
    def value_init(self) -> jax.Array: ...

    @property
    def slope_init(self) -> jax.Array: ...

    @property
    def decrease_error(self) -> jax.Array: ...

    @property
    def curvature_error(self) -> jax.Array: ...


def diagnose(state: WolfeState, decreased: jax.Array, max_steps: chex.Numeric) -> list[Message]:
    """The messages of a failed search for a strong Wolfe step.

    Args:
        state: the state of a search that has ended.
        decreased: bool scalar, whether a step of sufficient decrease was found.
        max_steps: the number of steps that were allowed.
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
