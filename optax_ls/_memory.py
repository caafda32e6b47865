"""The memory of L-BFGS, and the direction made of it.

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

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from . import _base, _numerics, tree


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


class Products(NamedTuple):
    """All inner products that one update needs.

    Of the memory with g and y; and of the new vectors g (the gradient), s and y (the pair) among
    themselves.
    """

    s_g: jax.Array
    y_g: jax.Array
    s_y: jax.Array
    y_y: jax.Array
    new_g_norm: jax.Array
    new_sg: jax.Array
    new_yg: jax.Array
    new_ss: jax.Array
    new_sy: jax.Array
    new_yy: jax.Array


def inner(x: Any, y: Any, dtype: Any, batch: int = 0) -> Any:
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


def norm(g: Any, dtype: Any) -> Any:
    """The length of g, also where its square overflows."""
    square = inner(g, g, dtype)

    def of_small_multiple() -> Any:
        small = 2.0 ** (_numerics.finfo(dtype).minexp // 2)
        wide = jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, dtype)), g)
        multiple = tree.scale(small, wide)
        return jnp.sqrt(inner(multiple, multiple, dtype)) / small

    return jax.lax.cond(jnp.isinf(square), of_small_multiple, lambda: jnp.sqrt(square))


def inner_products(state: ScaleByLBFGSState, g: Any, s: Any, y: Any) -> Products:
    empty = state.weights_memory
    dtype = empty.dtype

    def with_memory(memory: Any, vector: Any) -> jax.Array:
        return jnp.broadcast_to(inner(memory, vector, dtype, batch=1), empty.shape)

    return Products(
        s_g=with_memory(state.diff_params_memory, g),
        y_g=with_memory(state.diff_updates_memory, g),
        s_y=with_memory(state.diff_params_memory, y),
        y_y=with_memory(state.diff_updates_memory, y),
        new_g_norm=norm(g, dtype),
        new_sg=inner(s, g, dtype),
        new_yg=inner(y, g, dtype),
        new_ss=inner(s, s, dtype),
        new_sy=inner(s, y, dtype),
        new_yy=inner(y, y, dtype),
    )


def _has_curvature(products: Products) -> Any:
    """Whether the new pair keeps H positive definite (a cautious update, free of scale)."""
    finfo = _numerics.finfo(products.new_sy.dtype)
    lengths = jnp.sqrt(products.new_ss) * jnp.sqrt(products.new_yy)
    return (products.new_sy > finfo.eps * lengths) & (products.new_sy > finfo.tiny)


class Lesson(NamedTuple):
    """What a new pair teaches, and where that goes.

    Attributes:
        good: bool, whether the pair enters.
        forget: bool, whether all older pairs are dropped first.
        slot: counter, where it enters.
        curvature: scalar of the search dtype, <s, y>.
        column: ``(memory_size,)`` in the search dtype, the new column of R^-1.
        y_y: the same, the new row and column of Y'Y.
    """

    good: jax.Array
    forget: jax.Array
    slot: jax.Array
    curvature: jax.Array
    column: jax.Array
    y_y: jax.Array

    @property
    def entering(self) -> jax.Array:
        """Where the pair enters: one at most is true."""
        return self.good & (jnp.arange(self.column.shape[0]) == self.slot)


def learn(
    state: ScaleByLBFGSState,
    products: Products,
    allowed: chex.Numeric = True,
    forget: chex.Numeric = False,
) -> Lesson:
    """What to do with the pair: it enters in place of the oldest, if it has curvature.

    Args:
        state: has the algebra of the memory without the pair.
        products: of memory, gradient and pair.
        allowed: bool, whether the pair may enter at all.
        forget: bool, whether to drop the older pairs first.
    """
    size = state.weights_memory.shape[0]
    slot = jnp.where(forget, 0, state.num_pairs) % size
    good = jnp.asarray(allowed) & _has_curvature(products)
    lesson = Lesson(good, jnp.asarray(forget), slot, products.new_sy, products.y_y, products.y_y)
    here = lesson.entering
    column = jnp.where(here, 1, -_kept_dot(state.inverse_r, products.s_y, lesson))
    y_y = jnp.where(here, products.new_yy, jnp.where(forget, 0, products.y_y))
    return lesson._replace(
        column=jnp.where(good, column / products.new_sy, 0), y_y=jnp.where(good, y_y, 0)
    )


def _kept_dot(matrix: jax.Array, vector: jax.Array, lesson: Lesson) -> jax.Array:
    """The product of a vector and what is left of the matrix without the pair that is dropped."""
    kept = ~(lesson.forget | lesson.entering)
    return jnp.where(kept, _dot(matrix, jnp.where(kept, vector, 0)), 0)


def write(state: ScaleByLBFGSState, s: Any, y: Any, lesson: Lesson) -> ScaleByLBFGSState:
    """The state after a lesson."""
    here, forget = lesson.entering, lesson.forget
    column, y_y = lesson.column[:, None], lesson.y_y
    inverse_r = jnp.where(here, column, 0)
    gram_y = jnp.where(here, y_y[:, None], jnp.where(here[:, None], y_y, 0))
    touched = forget | here | here[:, None]

    def put(rows: jax.Array, row: jax.Array) -> jax.Array:
        # Selecting the row, not all rows, lets the compiler write in place.
        return rows.at[lesson.slot].set(jnp.where(lesson.good, row, rows[lesson.slot]))

    weights = jnp.where(forget, 0, state.weights_memory)
    num_pairs = jnp.where(forget, 0, jnp.asarray(state.num_pairs))
    return state._replace(
        diff_params_memory=jax.tree.map(put, state.diff_params_memory, s),
        diff_updates_memory=jax.tree.map(put, state.diff_updates_memory, y),
        weights_memory=jnp.where(here, 1 / lesson.curvature, weights),
        num_pairs=jnp.where(lesson.good, _numerics.increment(num_pairs), num_pairs),
        inverse_r=jnp.where(touched, inverse_r, state.inverse_r),
        gram_y=jnp.where(touched, gram_y, state.gram_y),
    )


def _dot(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    return jnp.dot(matrix, vector, precision=jax.lax.Precision.HIGHEST)


class Weights(NamedTuple):
    """H g as a combination: ``g`` times the gradient, plus ``s`` and ``y`` times the memory.

    ``new_s`` and ``new_y`` are the weights of the pair itself, which is not among the rows yet; the
    rows in its slot have none.
    """

    g: jax.Array
    s: jax.Array
    y: jax.Array
    new_s: jax.Array
    new_y: jax.Array


def weigh(
    state: ScaleByLBFGSState, products: Products, lesson: Lesson, gamma: jax.Array
) -> Weights:
    """The weights of H g after a lesson, by the formula at the top of this module."""
    here, column, y_y = lesson.entering, lesson.column, lesson.y_y
    rho = jnp.where(lesson.forget, 0, state.weights_memory)
    old = rho != 0  # what stands in an empty slot may be anything

    def with_pair(of_old: jax.Array, of_pair: jax.Array) -> jax.Array:
        return jnp.where(here, of_pair, jnp.where(old, of_old, 0))

    s_g = with_pair(products.s_g, products.new_sg)
    y_g = with_pair(products.y_g, products.new_yg)
    curvature = with_pair(1 / rho, lesson.curvature)

    def of_slot(vector: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(here, vector, 0))

    y_weights = _kept_dot(state.inverse_r, s_g, lesson) + column * of_slot(s_g)
    gram = _kept_dot(state.gram_y, y_weights, lesson) + jnp.where(
        here, jnp.sum(y_y * y_weights), y_y * of_slot(y_weights)
    )
    inner = curvature * y_weights + gamma * (gram - y_g)
    s_weights = _kept_dot(state.inverse_r.T, inner, lesson)
    s_weights = jnp.where(here, jnp.sum(column * inner), s_weights)
    y_weights = -gamma * y_weights
    return Weights(
        gamma,
        jnp.where(here, 0, s_weights),
        jnp.where(here, 0, y_weights),
        of_slot(s_weights),
        of_slot(y_weights),
    )


def scale_of_newest_pair(state: ScaleByLBFGSState) -> jax.Array:
    """<s, y> / <y, y> of the pair that entered last; without meaning if there is none."""
    newest = (state.num_pairs - 1) % state.weights_memory.shape[0]
    return 1 / (state.weights_memory[newest] * state.gram_y[newest, newest])


def initial_scale(state: ScaleByLBFGSState, products: Products, lesson: Lesson) -> jax.Array:
    """The factor gamma of the identity: <s, y> / <y, y> of the newest pair (N&W eq. 7.20).

    Without pairs it is what makes the first step no longer than 1.
    """
    from_gradient = jnp.minimum(1, 1 / products.new_g_norm)
    has_pairs = (state.num_pairs > 0) & ~lesson.forget
    older = jnp.where(has_pairs, scale_of_newest_pair(state), from_gradient)
    return jnp.where(lesson.good, products.new_sy / products.new_yy, older)


def combine(rows_s: Any, rows_y: Any, g: Any, s: Any, y: Any, weights: Weights) -> Any:
    """The combination of trees that ``weights`` are for.

    Args:
        rows_s: tree with a leading axis of length m, the older s.
        rows_y: the same for y.
        g: tree.
        s: tree, of the pair.
        y: tree, of the pair.
        weights: of them all.
    """

    def leaf(g: jax.Array, s: jax.Array, y: jax.Array, rows_s: jax.Array, rows_y: jax.Array) -> Any:
        wide = _numerics.at_least_float32(g.dtype)
        of_g, of_rows_s, of_rows_y, of_s, of_y = (weight.astype(wide) for weight in weights)
        total = of_g * g + of_s * s + of_y * y
        for slot in range(rows_s.shape[0]):  # unrolled, so that all becomes one fused sweep
            total = total + of_rows_s[slot] * rows_s[slot] + of_rows_y[slot] * rows_y[slot]
        return total.astype(g.dtype)

    return jax.tree.map(leaf, g, s, y, rows_s, rows_y)


def propose(
    state: ScaleByLBFGSState,
    g: Any,
    s: Any,
    y: Any,
    allowed: chex.Numeric = True,
    forget: chex.Numeric = False,
    fitted: bool = True,
    *,
    differentiable: bool = False,
) -> tuple[Any, Lesson]:
    """H g with the pair in the memory, and what is to be written there.

    It reads the rows of the memory and writes none, so that it can stand in a branch of a
    conditional, which would copy what it writes.

    Args:
        state: before the pair.
        g: tree, the gradient.
        s: tree, the step.
        y: tree, the change of the gradient.
        allowed: bool, whether the pair may enter if it has curvature.
        forget: bool, whether the older pairs are dropped.
        fitted: whether the factor of the identity is to fit the newest pair; else it is 1.
        differentiable: whether reverse derivatives may be wanted, which what makes it fast under
            :func:`jax.vmap` does not have.
    """

    def algebra(_: jax.Array, state: Any, products: Products, *flags: Any) -> Any:
        lesson = learn(state, products, *flags)
        gamma = initial_scale(state, products, lesson)
        gamma = gamma if fitted else jnp.ones_like(gamma)
        return lesson, weigh(state, products, lesson, gamma)

    none: dict[str, Any] = dict.fromkeys(
        ("params", "updates", "diff_params_memory", "diff_updates_memory")
    )
    lesson, weights = (algebra if differentiable else _numerics.fenced(algebra))(
        state.num_pairs,
        state._replace(**none),
        inner_products(state, g, s, y),
        jnp.asarray(allowed),
        jnp.asarray(forget),
    )
    rows = state.diff_params_memory, state.diff_updates_memory
    return combine(*rows, g, s, y, weights), lesson


def nothing_learnt(state: ScaleByLBFGSState) -> Lesson:
    """The lesson that changes nothing."""
    no, zeros = jnp.zeros((), bool), jnp.zeros_like(state.weights_memory)
    return Lesson(no, no, jnp.zeros_like(state.num_pairs), jnp.sum(zeros), zeros, zeros)


def start(params: Any, memory_size: int) -> ScaleByLBFGSState:
    """The state before the first update; the memory is empty."""
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
