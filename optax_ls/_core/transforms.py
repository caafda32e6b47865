"""The transformations that the line searches are chained with.

The signature of ``update``, not the class of the pair, decides whether it is given extra arguments,
so the transformations of Optax and of other packages work in :func:`chain` as they are.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Optional

import chex
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from . import checks, numerics, placement
from .types import (
    EmptyState,
    GradientTransformation,
    GradientTransformationExtraArgs,
    Params,
    ScalarOrSchedule,
    ScaleByScheduleState,
    Schedule,
    TraceState,
    Tree,
    Updates,
    map_leaves,
)


def accepts_extra_args(update: Callable[..., object]) -> bool:
    kinds = (parameter.kind for parameter in inspect.signature(update).parameters.values())
    return inspect.Parameter.VAR_KEYWORD in kinds


def with_extra_args_support(tx: Any) -> GradientTransformationExtraArgs:
    """A transformation that accepts, and if need be ignores, extra arguments.

    It hands them on if the signature of ``tx.update`` takes arbitrary keywords.

    Args:
        tx: anything with ``init`` and ``update``, of this package or another.

    Raises:
        TypeError: ``tx`` has no ``init`` or ``update``.

    Example:
        >>> import optax_ls
        >>> tx = optax_ls.with_extra_args_support(optax_ls.scale(2.0))
        >>> tx.update(1.0, tx.init(0.0), value=3.0)[0]
        Array(2., dtype=float32, weak_type=True)
    """
    if not (callable(getattr(tx, "init", None)) and callable(getattr(tx, "update", None))):
        advice = ""
        if callable(getattr(tx, "start", None)) and callable(getattr(tx, "advance", None)):
            advice = "; make one of this line search with optax_ls.scale_by_linesearch"
        raise TypeError(
            f"a transformation has functions init and update, got {checks.shown(tx)}{advice}"
        )
    if accepts_extra_args(tx.update):
        return GradientTransformationExtraArgs(tx.init, tx.update)
    return GradientTransformationExtraArgs(
        tx.init, lambda updates, state, params=None, **extra_args: tx.update(updates, state, params)
    )


def chain(*args: Any) -> GradientTransformationExtraArgs[tuple[Any, ...]]:
    """Applies transformations one after the other.

    The state is the tuple of their states. Extra arguments reach those whose ``update`` takes
    arbitrary keywords.

    Args:
        *args: transformations of this package, of Optax, or any pairs of ``init`` and ``update``.

    Raises:
        TypeError: an argument has no ``init`` or ``update``.
        ValueError: at ``update``, the state is not that of this chain.

    Example:
        >>> import optax_ls
        >>> tx = optax_ls.chain(optax_ls.scale(2.0), optax_ls.scale(-1.0))
        >>> updates, state = tx.update(3.0, tx.init(0.0))
        >>> float(updates)
        -6.0
    """
    transformations = []
    for position, tx in enumerate(args):
        try:
            transformations.append(with_extra_args_support(tx))
        except TypeError as error:
            raise TypeError(f"argument {position} of chain: {error}") from None

    def init(params: Params) -> tuple[Any, ...]:
        return tuple(tx.init(params) for tx in transformations)

    def update(
        updates: Tree, state: tuple[Any, ...], params: Optional[Params] = None, **extra_args: Any
    ) -> tuple[Tree, tuple[Any, ...]]:
        if not isinstance(state, (tuple, list)) or len(state) != len(transformations):
            got = len(state) if isinstance(state, (tuple, list)) else f"type {type(state).__name__}"
            raise ValueError(
                f"a chain of {len(transformations)} transformations got a state of {got}; "
                "was it made by another solver?"
            )
        new_state = []
        for tx, old in zip(transformations, state, strict=True):
            updates, new = tx.update(updates, old, params, **extra_args)
            new_state.append(new)
        return updates, tuple(new_state)

    return GradientTransformationExtraArgs(init, update)


def _stateless(transform: Callable[[Updates], Updates]) -> GradientTransformation[EmptyState]:
    return GradientTransformation(
        lambda params: EmptyState(), lambda updates, state, params=None: (transform(updates), state)
    )


def identity() -> GradientTransformation[EmptyState]:
    """Leaves updates as they are.

    Example:
        >>> import optax_ls
        >>> optax_ls.identity().update(3.0, optax_ls.EmptyState())
        (3.0, EmptyState())
    """
    return _stateless(lambda updates: updates)


def scale(step_size: chex.Numeric) -> GradientTransformation[EmptyState]:
    """Multiplies updates by a fixed factor, keeping their dtypes.

    Args:
        step_size: the factor.

    Example:
        >>> import jax.numpy as jnp, optax_ls
        >>> optax_ls.scale(-0.5).update(jnp.array([2.0]), optax_ls.EmptyState())[0]
        Array([-1.], dtype=float32)
    """
    return _stateless(functools.partial(_scaled, step_size))


@numerics.promotes
def _scaled(factor: chex.Numeric, updates: Tree) -> Tree:
    return map_leaves(lambda u: numerics.like(factor * jnp.asarray(u), u), updates)


def scale_by_schedule(step_size_fn: Schedule) -> GradientTransformation[ScaleByScheduleState]:
    """Multiplies updates by a factor that depends on the number of updates so far.

    Args:
        step_size_fn: maps a counter, 0 at the first update, to the factor.

    Example:
        >>> import optax_ls
        >>> tx = optax_ls.scale_by_schedule(lambda count: 1.0 / (count + 1))
        >>> state = tx.init(0.0)
        >>> for _ in range(2):
        ...     updates, state = tx.update(1.0, state)
        >>> float(updates), int(state.count)
        (0.5, 2)
    """

    def init(params: Params) -> ScaleByScheduleState:
        return placement.beside(ScaleByScheduleState(numerics.counter()), params)

    def update(
        updates: Tree, state: ScaleByScheduleState, params: Optional[Params] = None
    ) -> tuple[Tree, ScaleByScheduleState]:
        factor = step_size_fn(state.count)
        return _scaled(factor, updates), ScaleByScheduleState(numerics.increment(state.count))

    return GradientTransformation(init, update)


def scale_by_learning_rate(
    learning_rate: Optional[ScalarOrSchedule] = None, *, flip_sign: bool = True
) -> GradientTransformation:
    """Multiplies updates by the negative learning rate, so that gradients lead downhill.

    Args:
        learning_rate: a number, a schedule, or None, which leaves updates as they are.
        flip_sign: False multiplies by the learning rate itself.

    Raises:
        TypeError: ``learning_rate`` is neither a number nor callable.

    Example:
        >>> import optax_ls
        >>> tx = optax_ls.scale_by_learning_rate(0.1)
        >>> round(float(tx.update(1.0, tx.init(0.0))[0]), 3)
        -0.1
    """
    if learning_rate is None:
        return identity()
    sign = -1 if flip_sign else 1
    if callable(learning_rate):
        schedule = learning_rate
        return scale_by_schedule(lambda count: sign * schedule(count))
    checks.number("learning_rate", learning_rate)
    return scale(sign * learning_rate)


def trace(
    decay: chex.Numeric, nesterov: bool = False, accumulator_dtype: Optional[DTypeLike] = None
) -> GradientTransformation[TraceState]:
    """Momentum: replaces updates by the decaying sum of all updates so far.

    Args:
        decay: factor of the past, usually in [0, 1).
        nesterov: look one step ahead, as Nesterov's accelerated gradient does.
        accumulator_dtype: dtype of the sum; that of the params if None.

    Example:
        >>> import optax_ls
        >>> tx = optax_ls.trace(decay=0.5)
        >>> state = tx.init(0.0)
        >>> for _ in range(2):
        ...     updates, state = tx.update(1.0, state)
        >>> float(updates)
        1.5
    """

    def init(params: Params) -> TraceState:
        zeros = numerics.zeros_alike(params)
        return TraceState(jax.tree.map(lambda z: numerics.strong(z, accumulator_dtype), zeros))

    @numerics.promotes
    def update(
        updates: Updates, state: TraceState, params: Optional[Params] = None
    ) -> tuple[Updates, TraceState]:
        def past_plus(u: jax.Array, past: jax.Array) -> jax.Array:
            return u + decay * past

        total: Updates = jax.tree.map(past_plus, updates, state.trace)
        out: Updates = jax.tree.map(past_plus, updates, total) if nesterov else total
        new = numerics.keep_types(total, state.trace)
        return map_leaves(numerics.like, out, updates), TraceState(new)

    return GradientTransformation(init, update)


def sgd(
    learning_rate: ScalarOrSchedule,
    momentum: Optional[chex.Numeric] = None,
    nesterov: bool = False,
    accumulator_dtype: Optional[DTypeLike] = None,
) -> GradientTransformationExtraArgs[tuple[Any, ...]]:
    """Gradient descent, the direction that a line search is most simply chained with.

    Args:
        learning_rate: a number or a schedule; see :func:`scale_by_learning_rate`.
        momentum: decay of :func:`trace`; none if None.
        nesterov: see :func:`trace`.
        accumulator_dtype: see there.

    Example:
        >>> import optax_ls
        >>> solver = optax_ls.sgd(learning_rate=0.5)
        >>> updates, state = solver.update(2.0, solver.init(0.0))
        >>> float(updates)
        -1.0
    """
    direction = identity() if momentum is None else trace(momentum, nesterov, accumulator_dtype)
    return chain(direction, scale_by_learning_rate(learning_rate))


@numerics.promotes
def apply_updates(params: Tree, updates: Updates) -> Tree:
    """The parameters moved by the updates, with the dtypes and weak types of the parameters.

    Args:
        params: a tree of parameters; ``None`` is an empty subtree.
        updates: a tree of the same structure and shapes.

    Example:
        >>> import jax.numpy as jnp, optax_ls
        >>> optax_ls.apply_updates({"a": jnp.array(1.0)}, {"a": 0.5})
        {'a': Array(1.5, dtype=float32, weak_type=True)}
    """
    return map_leaves(lambda p, u: numerics.like(jnp.asarray(p) + u, p), params, updates)
