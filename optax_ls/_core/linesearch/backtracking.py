"""Backtracking along a line until the value has decreased sufficiently (Armijo's rule).

Of Nocedal & Wright, Numerical Optimization (2006), this is Algorithm 3.1, with tolerances::

    phi(step) <= (1 + rtol) phi(0) + slope_rtol step phi'(0) + atol              (3.4)
"""

import dataclasses
from typing import NamedTuple

import chex
import jax.numpy as jnp

from .. import checks, numerics
from ..types import Counter, Flag, Scalar
from . import conditions
from .conditions import Message


class BacktrackingState(NamedTuple):
    """The state of a backtracking search; its scalars have the search dtype."""

    step: Scalar  # the step to try next; once done, the step chosen
    done: Flag  # whether the search has ended
    failed: Flag  # whether it ended without sufficient decrease
    num_steps: Counter  # steps tried
    value_init: Scalar  # phi(0)
    slope_init: Scalar  # phi'(0)
    # The amount by which the last step missed sufficient decrease; 0 if it did not, infinite if
    # the value there is not a number.
    decrease_error: Scalar


@dataclasses.dataclass(frozen=True)
class Backtracking:
    """Backtracking; :func:`scale_by_backtracking_linesearch` explains its settings.

    Invariant: every step tried so far failed (3.4), and the next one is ``decrease_factor`` times
    the last.
    """

    max_steps: chex.Numeric
    slope_rtol: chex.Numeric = 1e-4
    decrease_factor: chex.Numeric = 0.8
    atol: chex.Numeric = 0.0
    rtol: chex.Numeric = 0.0

    needs_slope = False

    def __post_init__(self) -> None:
        checks.whole_number("max_steps", self.max_steps, at_least=0)
        checks.number("slope_rtol", self.slope_rtol, at_least=0, below=1)
        checks.number("decrease_factor", self.decrease_factor, above=0, below=1)
        checks.number("atol", self.atol, at_least=0)
        checks.number("rtol", self.rtol, at_least=0)

    def start(self, value: Scalar, slope: Scalar, step: Scalar) -> BacktrackingState:
        """Begins a search from phi(0) and phi'(0), trying ``step`` first."""
        no, infinite = jnp.zeros((), bool), jnp.full_like(value, jnp.inf)
        return BacktrackingState(step, no, no, numerics.counter(), value, slope, infinite)

    def advance(self, state: BacktrackingState, value: Scalar, slope: Scalar) -> BacktrackingState:
        """Takes phi(step); accepts the step, shortens it, or gives up."""
        bound = (1 + self.rtol) * state.value_init + self.slope_rtol * state.step * state.slope_init
        error = conditions.error(value - bound - self.atol)
        num_steps = numerics.increment(state.num_steps)
        accepted = error <= 0
        done = accepted | (num_steps > self.max_steps)
        # A failed search still takes its last step, unless the value there is not finite.
        last = jnp.where(jnp.isfinite(value), state.step, 0)
        return state._replace(
            step=jnp.where(done, last, state.step * self.decrease_factor),
            done=done,
            failed=done & ~accepted,
            num_steps=num_steps,
            decrease_error=error,
        )

    def diagnose(self, state: BacktrackingState) -> list[Message]:
        """The message of a search that failed."""
        text = (
            "Decrease error: {error}\nNo step satisfying sufficient decrease was found; "
            "allow more backtracking steps or a smaller decrease_factor."
        )
        return [conditions.summary(state, text, error=state.decrease_error)]
