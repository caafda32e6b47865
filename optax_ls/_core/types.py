"""The types of gradient transformations, as Optax has them.

A transformation is a pair of pure functions::

    init(params) -> state
    update(updates, state, params, **extra_args) -> updates, state
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Optional, Protocol, Union

import chex
import jax

Params = chex.ArrayTree
Updates = chex.ArrayTree
OptState = chex.ArrayTree
Schedule = Callable[[chex.Numeric], chex.Numeric]
ScalarOrSchedule = Union[float, jax.Array, Schedule]


class TransformInitFn(Protocol):
    """Makes the state of a transformation for parameters of the given shapes and dtypes."""

    def __call__(self, params: Params) -> OptState: ...


class TransformUpdateFn(Protocol):
    """Transforms updates, usually gradients, and moves the state on."""

    def __call__(
        self, updates: Updates, state: OptState, params: Optional[Params] = None
    ) -> tuple[Updates, OptState]: ...


class TransformUpdateExtraArgsFn(Protocol):
    """As :class:`TransformUpdateFn`, and takes further keyword arguments such as ``value``."""

    def __call__(
        self,
        updates: Updates,
        state: OptState,
        params: Optional[Params] = None,
        **extra_args: Any,
    ) -> tuple[Updates, OptState]: ...


class GradientTransformation(NamedTuple):
    """A pair of pure functions that transforms gradients.

    Attributes:
        init: makes the state from the parameters.
        update: transforms updates; see :class:`TransformUpdateFn`.
    """

    init: Callable[..., Any]
    update: Callable[..., Any]


class GradientTransformationExtraArgs(GradientTransformation):
    """A transformation whose ``update`` accepts any keyword arguments."""


class EmptyState(NamedTuple):
    """The state of a transformation that remembers nothing."""


class TraceState(NamedTuple):
    """The state of momentum.

    Attributes:
        trace: decaying sum of past updates; shapes as the params.
    """

    trace: Params


class ScaleByScheduleState(NamedTuple):
    """The state of a scheduled learning rate.

    Attributes:
        count: counter, number of updates so far.
    """

    count: jax.Array  # type: ignore[assignment]  # hides tuple.count, as Optax's does
