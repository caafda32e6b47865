"""The types of this package, and those of gradient transformations as Optax has them.

A transformation is a pair of pure functions::

    init(params) -> state
    update(updates, state, params, **extra_args) -> updates, state
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Optional, Protocol, TypeVar, Union

import chex
import jax

Params = chex.ArrayTree
"""A tree of real or complex floating-point arrays."""
Updates = chex.ArrayTree
"""A tree like the params: a gradient, a direction or a step."""
OptState = chex.ArrayTree
"""The state of a transformation: a tree of arrays."""
Scalar = jax.Array
"""A real number of the search dtype: a step, a value, a slope or an error."""
Flag = jax.Array
"""A scalar of type bool."""
Arrays = Sequence[jax.Array]
Counter = jax.Array
"""A scalar of JAX's default integer type."""
KeyPath = tuple[Any, ...]
"""The path to a leaf of a tree: JAX's key entries."""
Schedule = Callable[[chex.Numeric], chex.Numeric]
ScalarOrSchedule = Union[float, jax.Array, Schedule]

Tree = TypeVar("Tree")
if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault  # part of every type checker

    State = TypeVarWithDefault("State", default=Any)
    ParamsType = TypeVarWithDefault("ParamsType", bound=Params, default=Any)
else:
    State, ParamsType = TypeVar("State"), TypeVar("ParamsType")


def map_leaves(fn: Callable[..., Any], tree: Tree, *others: Any) -> Tree:
    """:func:`jax.tree.map`, for type checkers: the result has the type of ``tree``."""
    return jax.tree.map(fn, tree, *others)


class TransformInitFn(Protocol):
    """Makes the state of a transformation for parameters of the given shapes and dtypes."""

    def __call__(self, params: Params) -> OptState: ...


class TransformUpdateFn(Protocol):
    """Transforms updates, usually gradients, and moves the state on."""

    def __call__(
        self, updates: Updates, state: OptState, params: Optional[Params] = None
    ) -> tuple[Updates, OptState]: ...


class TransformUpdateExtraArgsFn(Protocol[State]):
    """As :class:`TransformUpdateFn`, and takes further keyword arguments such as ``value``."""

    def __call__(
        self, updates: Tree, state: State, params: Optional[Params] = None, **extra_args: Any
    ) -> tuple[Tree, State]: ...


class _InitAndUpdate(NamedTuple):
    init: Callable[..., Any]
    update: Callable[..., Any]


# Python 3.10 has no generic named tuples, so the generic class is made of a named tuple.
class GradientTransformation(_InitAndUpdate, Generic[State]):
    """A pair of pure functions that transforms gradients; generic in the type of its state.

    Attributes:
        init: makes the state from the parameters.
        update: transforms updates; see :class:`TransformUpdateFn`.
    """

    __slots__ = ()
    if TYPE_CHECKING:

        @property
        def init(self) -> Callable[[Params], State]: ...

        @property
        def update(self) -> TransformUpdateExtraArgsFn[State]: ...


class GradientTransformationExtraArgs(GradientTransformation[State]):
    """A transformation whose ``update`` accepts any keyword arguments."""

    __slots__ = ()


class EmptyState(NamedTuple):
    """The state of a transformation that needs none."""


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

    count: Counter  # type: ignore[assignment]  # hides tuple.count, as Optax's does
