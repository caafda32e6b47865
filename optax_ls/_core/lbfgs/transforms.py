"""L-BFGS: the transformations made of the memory and a line search."""

from typing import Any, Optional

import jax
import jax.numpy as jnp

from .. import batching, checks, isolation, numerics, transforms, tree
from ..linesearch.transforms import scale_by_zoom_linesearch
from ..types import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    Params,
    ScalarOrSchedule,
    Updates,
)
from . import compact, direction, memory, scaling
from .memory import ScaleByLBFGSState


def scale_by_lbfgs(
    memory_size: int = 10, scale_init_precond: bool = True
) -> GradientTransformation[ScaleByLBFGSState]:
    r"""Multiplies gradients by the L-BFGS approximation of the inverse Hessian.

    The approximation is made of the last ``memory_size`` pairs of steps :math:`s` and changes of
    the gradient :math:`y`. A pair enters only with curvature, :math:`\langle s, y \rangle >
    \varepsilon \langle |s|, |y| \rangle`, so the approximation stays positive definite. Before the
    first pair the gradient is scaled to length 1 if it is longer.

    Args:
        memory_size: how many pairs to keep, at least 1.
        scale_init_precond: start from the multiple of the identity that fits the newest pair;
            if False, from the identity.

    Returns:
        A transformation whose ``update`` needs ``params``, and whose state is a
        :class:`ScaleByLBFGSState`. For complex params, updates must be the conjugate of what
        :func:`jax.grad` gives.

    Raises:
        TypeError, ValueError: ``memory_size`` is no integer or less than 1; at ``init`` or
            ``update``, leaves that are no floats, or updates that do not fit the params.

    References:
        Nocedal & Wright, Numerical Optimization, 2nd ed. (2006), section 7.2. Byrd, Nocedal &
        Schnabel, Representations of quasi-Newton matrices and their use in limited memory
        methods, Mathematical Programming 63 (1994), 129-156, Theorem 2.2.

    Example:
        >>> import jax, jax.numpy as jnp, optax_ls
        >>> def fn(w):
        ...     return jnp.sum(jnp.array([1.0, 10.0]) * w**2)
        >>> tx = optax_ls.scale_by_lbfgs()
        >>> w, state = jnp.ones(2), tx.init(jnp.ones(2))
        >>> for _ in range(8):
        ...     direction, state = tx.update(jax.grad(fn)(w), state, w)
        ...     w = w - direction
        >>> float(fn(w)) < 1e-4
        True
    """
    return _scale_by_lbfgs(memory_size, scale_init_precond, factor=1.0)


def _scale_by_lbfgs(
    memory_size: int, scale_init_precond: bool, *, factor: float
) -> GradientTransformation[ScaleByLBFGSState]:
    """:func:`scale_by_lbfgs`, times a factor."""
    checks.whole_number("memory_size", memory_size, at_least=1)

    def init(params: Params) -> ScaleByLBFGSState:
        checks.float_leaves("params", params)
        return memory.init(params, memory_size)

    @numerics.promotes
    def update(
        updates: Updates, state: ScaleByLBFGSState, params: Optional[Params] = None
    ) -> tuple[Updates, ScaleByLBFGSState]:
        if params is None:
            raise ValueError("scale_by_lbfgs needs params: call update(updates, state, params)")
        checks.state_of("scale_by_lbfgs", state, ScaleByLBFGSState)
        if len(state.weights_memory) != memory_size:
            raise ValueError(
                f"state has a memory of {len(state.weights_memory)} pairs, memory_size is "
                f"{memory_size}; was it made by another solver?"
            )
        checks.float_leaves("params", params)
        checks.same_structure("updates", updates, "params", params)
        checks.same_structure("params", params, "state.params", state.params)
        w = tree.cast_like(params, state.params)
        g = tree.cast_like(updates, state.updates)
        coefficients, is_pair = state.coefficients, jnp.asarray(state.count) > 0
        slot = coefficients.next_slot
        pair = tree.sub(w, state.params), tree.sub(g, state.updates)
        pair = tree.where(is_pair, pair, numerics.zeros_alike(pair))
        rows = memory.write_row(state.rows, slot, pair)
        products = direction.inner_products(coefficients, rows, slot, g, pair)
        coefficients, _ = compact.add_pair(coefficients, slot, products, is_pair)
        gamma = jnp.ones_like(products.grad_square)
        if scale_init_precond:
            square = products.grad_square
            grad_norm = jax.lax.cond(
                batching.any_element(jnp.isinf(square)),
                lambda: direction.norm(g, square.dtype),
                lambda: jnp.sqrt(square),
            )
            gamma = scaling.of_newest_pair(coefficients, grad_norm)
        factors = gamma, *compact.apply(coefficients, gamma, products.s_g, products.y_g)
        new_updates = isolation.isolate(
            coefficients.num_pairs > 0,
            direction.combine,
            lambda rows, g, gamma, *_: direction.scaled(gamma, g),
            *(rows, g, *(factor * x for x in factors)),
        )
        count = numerics.increment(jnp.asarray(state.count))
        return new_updates, ScaleByLBFGSState(count, w, g, rows[0], rows[1], *coefficients)

    return GradientTransformation(init, update)


_DEFAULT_LINESEARCH = scale_by_zoom_linesearch(
    max_linesearch_steps=20, initial_guess_strategy="one"
)


def lbfgs(
    learning_rate: Optional[ScalarOrSchedule] = None,
    memory_size: int = 10,
    scale_init_precond: bool = True,
    linesearch: Any = _DEFAULT_LINESEARCH,
) -> GradientTransformationExtraArgs[tuple[ScaleByLBFGSState, Any, Any]]:
    """The L-BFGS method: the quasi-Newton direction, and a line search along it.

    Args:
        learning_rate: factor or schedule for the direction; 1 if None.
        memory_size: see :func:`scale_by_lbfgs`.
        scale_init_precond: see :func:`scale_by_lbfgs`.
        linesearch: such as :func:`scale_by_zoom_linesearch`, or None for fixed steps.

    Returns:
        A transformation whose ``update`` takes the arguments of the line search. Its state is the
        tuple of a :class:`ScaleByLBFGSState`, an empty or schedule's state, and the line search's.

    Raises:
        TypeError, ValueError: see :func:`scale_by_lbfgs` and the line search.

    References:
        Liu & Nocedal, On the limited memory BFGS method for large scale optimization,
        Mathematical Programming 45 (1989), 503-528.

    Example:
        >>> import jax, jax.numpy as jnp, optax_ls
        >>> def fn(x):  # Rosenbrock's function
        ...     return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
        >>> solver = optax_ls.lbfgs()
        >>> value_and_grad = optax_ls.value_and_grad_from_state(fn)
        >>> def step(carry, _):
        ...     x, state = carry
        ...     value, grad = value_and_grad(x, state=state)
        ...     updates, state = solver.update(grad, state, x, value=value, grad=grad, value_fn=fn)
        ...     return (optax_ls.apply_updates(x, updates), state), value
        >>> start = jnp.array([-1.2, 1.0])
        >>> (x, _), values = jax.lax.scan(step, (start, solver.init(start)), length=40)
        >>> bool(jnp.allclose(x, 1.0, atol=1e-3))
        True
    """
    # Without a learning rate the coefficients change the sign, not a pass over the updates.
    factor = -1.0 if learning_rate is None else 1.0
    return transforms.chain(
        _scale_by_lbfgs(memory_size, scale_init_precond, factor=factor),
        transforms.scale_by_learning_rate(learning_rate),
        transforms.identity() if linesearch is None else linesearch,
    )
