"""L-BFGS: the memory, the direction, and the transformations made of them.

The memory holds the last m pairs s = w' - w and y = g' - g, stacked on a leading axis of each
leaf, in a ring. With S = [s_1 ... s_m], Y = [y_1 ... y_m] and R the upper triangle of S'Y in the
order of age, the inverse Hessian approximation is (Byrd, Nocedal & Schnabel, Mathematical
Programming 63 (1994), 129-156, Theorem 2.2)::

    H = gamma I + [S  gamma Y] [ R^-T (D + gamma Y'Y) R^-1   -R^-T ] [ S'       ]
                               [ -R^-1                         0   ] [ gamma Y' ]

so that H g takes one sweep over the memory for all inner products and one for the combination.
R^-1 and Y'Y are kept in the state. Written by slot of the ring instead of by age, R^-1 is a
triangular matrix with rows and columns permuted alike, and a new pair changes only its own row
and column:

* dropping the oldest pair drops a first row and column of R, and so of R^-1: zero them;
* adding a newest pair adds a last column r, with <s, y> at its end, to R. In the inverse that is
  the column -R^-1 r / <s, y>, with 1 / <s, y> at its end.

All inner products are real: a complex vector counts as the real one of twice its length.
"""

from typing import Any, NamedTuple, Optional

import chex
import jax
import jax.numpy as jnp

from . import _base, _checks, _linesearch, _numerics, tree


class ScaleByLBFGSState(NamedTuple):
    """State of :func:`scale_by_lbfgs`.

    Attributes:
        count: counter, updates so far.
        params: tree, the params of the last update; zeros before the first.
        updates: tree like the params, the gradient of the last update; zeros before the first.
        diff_params_memory: tree like the params with a leading axis of length ``memory_size``,
            the s of each pair; zeros in empty slots.
        diff_updates_memory: the same for y.
        weights_memory: ``(memory_size,)`` in the search dtype, rho = 1 / <s, y> of each pair;
            zero in empty slots.
        num_pairs: counter, pairs that have entered; the next goes to slot
            ``num_pairs % memory_size``.
        inverse_r: ``(memory_size, memory_size)`` in the search dtype, R^-1 by slots.
        gram_y: ``(memory_size, memory_size)`` in the search dtype, Y'Y by slots.
    """

    count: chex.Numeric  # type: ignore[assignment]  # hides tuple.count, as Optax's does
    params: _base.Params
    updates: _base.Params
    diff_params_memory: _base.Params
    diff_updates_memory: _base.Params
    weights_memory: jax.Array
    num_pairs: jax.Array
    inverse_r: jax.Array
    gram_y: jax.Array


class _Products(NamedTuple):
    """All inner products that one update needs.

    Of the memory with g and y; and of the new vectors g (the gradient), s and y (the pair) among
    themselves.
    """

    s_g: jax.Array
    y_g: jax.Array
    s_y: jax.Array
    y_y: jax.Array
    new_gg: jax.Array
    new_sg: jax.Array
    new_yg: jax.Array
    new_ss: jax.Array
    new_sy: jax.Array
    new_yy: jax.Array


def _inner(x: Any, y: Any, dtype: Any, batch: int = 0) -> Any:
    """Real inner products over trees; the first ``batch`` axes of the leaves of ``x`` remain."""

    def leaf(x: jax.Array, y: jax.Array) -> jax.Array:
        if jnp.iscomplexobj(x):
            return leaf(x.real, y.real) + leaf(x.imag, y.imag)
        product = jax.lax.dot_general(
            x,
            y,
            ((tuple(range(batch, x.ndim)), tuple(range(y.ndim))), ((), ())),
            precision=jax.lax.Precision.HIGHEST,
            preferred_element_type=_numerics.at_least_float32(x.dtype),
        )
        return product.astype(dtype)

    return sum(jax.tree.leaves(jax.tree.map(leaf, x, y)), jnp.zeros((), dtype))


def _products(state: ScaleByLBFGSState, g: Any, s: Any, y: Any) -> _Products:
    empty = state.weights_memory
    dtype = empty.dtype

    def with_memory(memory: Any, vector: Any) -> jax.Array:
        return jnp.broadcast_to(_inner(memory, vector, dtype, batch=1), empty.shape)

    return _Products(
        s_g=with_memory(state.diff_params_memory, g),
        y_g=with_memory(state.diff_updates_memory, g),
        s_y=with_memory(state.diff_params_memory, y),
        y_y=with_memory(state.diff_updates_memory, y),
        new_gg=_inner(g, g, dtype),
        new_sg=_inner(s, g, dtype),
        new_yg=_inner(y, g, dtype),
        new_ss=_inner(s, s, dtype),
        new_sy=_inner(s, y, dtype),
        new_yy=_inner(y, y, dtype),
    )


def _has_curvature(products: _Products) -> Any:
    """Whether the new pair keeps H positive definite (a cautious update, free of scale)."""
    finfo = _numerics.finfo(products.new_sy.dtype)
    lengths = jnp.sqrt(products.new_ss) * jnp.sqrt(products.new_yy)
    return (products.new_sy > finfo.eps * lengths) & (products.new_sy > finfo.tiny)


def _remember(
    state: ScaleByLBFGSState, s: Any, y: Any, products: _Products
) -> tuple[ScaleByLBFGSState, _Products]:
    """Puts the pair into the oldest slot, if it has curvature; in the products as well."""
    size = state.weights_memory.shape[0]
    slot = state.num_pairs % size
    good = (state.count > 0) & _has_curvature(products)
    here = jnp.arange(size) == slot

    def put(memory: jax.Array, row: jax.Array) -> jax.Array:
        # Selecting the row, not the memory, lets the compiler write in place.
        return memory.at[slot].set(jnp.where(good, row, memory[slot]))

    def enter(old: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.where(good & here, new, old)

    kept = jnp.where(here[:, None] | here[None, :], 0, state.inverse_r)
    column = jnp.where(here, 1, -_dot(kept, products.s_y)) / products.new_sy
    inverse_r = jnp.where(here[None, :], column[:, None], kept)
    y_y = jnp.where(here, products.new_yy, products.y_y)
    gram_y = jnp.where(here[None, :], y_y[:, None], jnp.where(here[:, None], y_y, state.gram_y))
    remembered = state._replace(
        diff_params_memory=jax.tree.map(put, state.diff_params_memory, s),
        diff_updates_memory=jax.tree.map(put, state.diff_updates_memory, y),
        weights_memory=enter(state.weights_memory, 1 / products.new_sy),
        num_pairs=jnp.where(good, _numerics.increment(state.num_pairs), state.num_pairs),
        inverse_r=jnp.where(good, inverse_r, state.inverse_r),
        gram_y=jnp.where(good, gram_y, state.gram_y),
    )
    return remembered, products._replace(
        s_g=enter(products.s_g, products.new_sg), y_g=enter(products.y_g, products.new_yg)
    )


def _dot(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    return jnp.dot(matrix, vector, precision=jax.lax.Precision.HIGHEST)


def _initial_scale(
    state: ScaleByLBFGSState, products: _Products, scale_init_precond: bool
) -> jax.Array:
    """The factor of the identity: <s, y> / <y, y> of the newest pair (N&W eq. 7.20).

    Without pairs it is what makes the first step no longer than 1.
    """
    if not scale_init_precond:
        return jnp.ones_like(products.new_gg)
    newest = (state.num_pairs - 1) % state.weights_memory.shape[0]
    from_pair = 1 / (state.weights_memory[newest] * state.gram_y[newest, newest])
    from_gradient = jnp.minimum(1, 1 / jnp.sqrt(products.new_gg))
    return jnp.where(state.num_pairs > 0, from_pair, from_gradient)


def _direction(state: ScaleByLBFGSState, products: _Products, gamma: jax.Array, g: Any) -> Any:
    """H g by the formula at the top of this module: g scaled, plus a combination of the memory."""
    rho = state.weights_memory
    curvature = jnp.where(rho != 0, 1 / rho, 0)  # <s, y> of each pair, the diagonal D
    y_weights = _dot(state.inverse_r, products.s_g)
    inner = curvature * y_weights + gamma * (_dot(state.gram_y, y_weights) - products.y_g)
    s_weights = _dot(state.inverse_r.T, inner)
    y_weights = -gamma * y_weights

    def combine(g: jax.Array, memory_s: jax.Array, memory_y: jax.Array) -> jax.Array:
        wide = _numerics.at_least_float32(g.dtype)
        a, b = s_weights.astype(wide), y_weights.astype(wide)
        total = gamma.astype(wide) * g
        for slot in range(rho.shape[0]):  # unrolled, so that all becomes one fused sweep
            total = total + a[slot] * memory_s[slot] + b[slot] * memory_y[slot]
        return total.astype(g.dtype)

    return jax.tree.map(combine, g, state.diff_params_memory, state.diff_updates_memory)


def scale_by_lbfgs(
    memory_size: int = 10, scale_init_precond: bool = True
) -> _base.GradientTransformation:
    r"""Multiplies gradients by the L-BFGS approximation of the inverse Hessian.

    The approximation is made of the last ``memory_size`` pairs of steps :math:`s` and changes of
    the gradient :math:`y`. A pair enters only with real curvature, :math:`\langle s, y \rangle >
    \varepsilon |s| |y|`, so the approximation stays positive definite and a descent direction
    stays one. Before the first pair the gradient is scaled to length 1 if it is longer.

    Args:
        memory_size: how many pairs to keep, at least 1.
        scale_init_precond: start from the multiple of the identity that fits the newest pair
            best; if False, from the identity.

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
        >>> w = jnp.array([1.0, 1.0])
        >>> state = tx.init(w)
        >>> for _ in range(8):
        ...     direction, state = tx.update(jax.grad(fn)(w), state, w)
        ...     w = w - direction
        >>> float(fn(w)) < 1e-4
        True
    """
    _checks.whole_number("memory_size", memory_size, at_least=1)

    def init(params: _base.Params) -> ScaleByLBFGSState:
        _checks.float_leaves("params", params)
        dtype = _numerics.search_dtype(params)
        zeros = _numerics.zeros_alike(params)
        memory = _numerics.zeros_alike(params, memory_size)
        square = jnp.zeros((memory_size, memory_size), dtype)
        return ScaleByLBFGSState(
            count=_numerics.counter(),
            params=zeros,
            updates=zeros,
            diff_params_memory=memory,
            diff_updates_memory=memory,
            weights_memory=jnp.zeros((memory_size,), dtype),
            num_pairs=_numerics.counter(),
            inverse_r=square,
            gram_y=square,
        )

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        if params is None:
            raise ValueError("scale_by_lbfgs needs params: call update(updates, state, params)")
        _checks.state_of("scale_by_lbfgs", state, ScaleByLBFGSState)
        if len(state.weights_memory) != memory_size:
            raise ValueError(
                f"state has a memory of {len(state.weights_memory)} pairs, memory_size is "
                f"{memory_size}; was it made by another solver?"
            )
        _checks.float_leaves("params", params)
        _checks.same_structure("updates", updates, "params", params)
        _checks.same_structure("params", params, "state.params", state.params)
        w = tree.cast_like(params, state.params)
        g = tree.cast_like(updates, state.updates)
        s, y = tree.sub(w, state.params), tree.sub(g, state.updates)
        state, products = _remember(state, s, y, _products(state, g, s, y))
        gamma = _initial_scale(state, products, scale_init_precond)
        direction = _direction(state, products, gamma, g)
        state = state._replace(count=_numerics.increment(state.count), params=w, updates=g)
        return direction, state

    return _base.GradientTransformation(init, update)


_DEFAULT_LINESEARCH = _linesearch.scale_by_zoom_linesearch(
    max_linesearch_steps=20, initial_guess_strategy="one"
)


def lbfgs(
    learning_rate: Optional[_base.ScalarOrSchedule] = None,
    memory_size: int = 10,
    scale_init_precond: bool = True,
    linesearch: Any = _DEFAULT_LINESEARCH,
) -> _base.GradientTransformationExtraArgs:
    """The L-BFGS method: the quasi-Newton direction, and a line search along it.

    Args:
        learning_rate: factor or schedule for the direction; 1 if None, as suits a line search.
        memory_size: see :func:`scale_by_lbfgs`.
        scale_init_precond: see :func:`scale_by_lbfgs`.
        linesearch: a transformation such as :func:`scale_by_zoom_linesearch`, or None for fixed
            steps.

    Returns:
        A transformation whose ``update`` takes the arguments of the line search, and whose state
        is the tuple of a :class:`ScaleByLBFGSState`, an empty or schedule's state, and the
        state of the line search.

    Raises:
        TypeError, ValueError: see :func:`scale_by_lbfgs` and the line search.

    References:
        Liu & Nocedal, On the limited memory BFGS method for large scale optimization,
        Mathematical Programming 45 (1989), 503-528.

    Example:
        >>> import jax, jax.numpy as jnp, optax_ls
        >>> def rosenbrock(x):
        ...     return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
        >>> solver = optax_ls.lbfgs()
        >>> value_and_grad = optax_ls.value_and_grad_from_state(rosenbrock)
        >>> def step(carry, _):
        ...     x, state = carry
        ...     value, grad = value_and_grad(x, state=state)
        ...     updates, state = solver.update(
        ...         grad, state, x, value=value, grad=grad, value_fn=rosenbrock
        ...     )
        ...     return (optax_ls.apply_updates(x, updates), state), value
        >>> start = jnp.array([-1.2, 1.0])
        >>> (x, _), values = jax.lax.scan(step, (start, solver.init(start)), length=40)
        >>> bool(jnp.allclose(x, 1.0, atol=1e-3))
        True
    """
    downhill = (
        _base.scale(-1) if learning_rate is None else _base.scale_by_learning_rate(learning_rate)
    )
    return _base.chain(
        scale_by_lbfgs(memory_size, scale_init_precond),
        downhill,
        _base.identity() if linesearch is None else linesearch,
    )
