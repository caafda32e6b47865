"""Derivatives of a minimum by the implicit function theorem."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.typing import DTypeLike

from .._core import numerics, placement, tree
from .._core.lbfgs.inverse_hessian import inverse_hessian
from .._core.objective import Evaluation
from .._core.types import Params, map_leaves
from . import guards
from .bounds import Bounds, masked
from .host import solve
from .programs import ArrayLeaves, Inputs, Settings, evaluator, inputs_of, rejoined
from .reporting import Reporter
from .result import MinimizeResult
from .state import MinimizeState
from .termination import Limits


def solve_with_derivatives(
    fun: Callable[..., Any],
    params: Params,
    inputs: Inputs,
    settings: Settings,
    bounds: Optional[Bounds],
    limits: Limits,
    state: Optional[MinimizeState],
    report: Optional[Reporter],
) -> MinimizeResult:
    """As ``solve``; params, value and aux of the result are differentiable, any number of times."""
    given = map_leaves(_without_derivative, (fun, inputs, bounds, params, state))
    fixed_fun, fixed_inputs, fixed_bounds, params, state = given
    result = solve(fixed_fun, params, fixed_inputs, settings, fixed_bounds, limits, state, report)
    arrays, others, structure = inputs_of((fun, inputs))

    def evaluate(params: Params, arrays: ArrayLeaves) -> Evaluation:
        fun, inputs = rejoined(arrays, others, structure)
        return evaluator(fun, inputs, settings, result.value.dtype)(params)

    traced, closed_over, _ = guards.trace(evaluate, result.params, arrays)
    params = _minimum(traced, result, _Given(bounds, arrays, closed_over))
    found = traced(closed_over, params, arrays)
    return result._replace(params=params, value=found.value, aux=found.aux)


class _Given(NamedTuple):
    """The inputs that a minimum depends on.

    Attributes:
        bounds: of the params, or None.
        arrays: of the objective and its arguments, with None for what is no array.
        closed_over: arrays that the objective closes over.
    """

    bounds: Optional[Bounds]
    arrays: ArrayLeaves
    closed_over: list[jax.Array]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _minimum(
    evaluate: Callable[..., Evaluation], result: MinimizeResult[Params], given: _Given
) -> Params:
    """The params of a result, as a function of what is given.

    Where grad f(x, theta) = 0 defines x(theta), a change of theta moves x by -H d(grad f), with H
    the inverse Hessian at x. H is applied by conjugate gradients with the L-BFGS matrix as the
    preconditioner. With bounds this holds for the free entries; the others move with their bounds.
    """
    return result.params


@functools.partial(_minimum.defjvp, symbolic_zeros=True)
def _derivative(
    evaluate: Callable[..., Evaluation], primals: Any, tangents: Any
) -> tuple[Params, Params]:
    result, given = primals
    x, dtype, free = _minimum(evaluate, result, given), result.value.dtype, _free(*primals)
    parts = _parts(x, dtype)
    leaves, structure = jax.tree.flatten(given)
    tangent_leaves = jax.tree.leaves(tangents[1])
    moving = [not isinstance(tangent, SymbolicZero) for tangent in tangent_leaves]

    def at(moved: Sequence[Any]) -> tuple[Params, Params]:
        """The params and the gradient for other values of the leaves that move."""
        new = iter(moved)
        now = [next(new) if moves else old for old, moves in zip(leaves, moving, strict=True)]
        return _params_and_gradient(evaluate, result, parts, jax.tree.unflatten(structure, now))

    def on_free(operator: Callable[[Params], Params], v: Params) -> Params:
        """An operator of the free entries; the others stay as they are."""
        inside = _of_free(v, free)
        return tree.add(_of_free(operator(inside), free), tree.sub(v, inside))

    def gradient(parts: Params) -> Params:
        return _params_and_gradient(evaluate, result, parts, given)[1]

    def hessian(v: Params) -> Params:
        return on_free(lambda v: jax.jvp(gradient, (parts,), (v,))[1], v)

    @numerics.promotes
    def solve_linear(hessian: Callable[[Params], Params], b: Params) -> Any:
        inverse = inverse_hessian(result)
        preconditioner = lambda v: _parts(inverse(_joined(v, x)), dtype)  # noqa: E731
        rtol = float(jnp.finfo(dtype).eps) ** 0.75
        return _conjugate_gradients(hessian, b, lambda v: on_free(preconditioner, v), rtol)

    before, changes = (list(itertools.compress(xs, moving)) for xs in (leaves, tangent_leaves))
    _, (with_bounds, change) = jax.jvp(at, (before,), (changes,))
    # JAX's linear solve requires that each leaf depends on what moves, as this sum of all does.
    nothing = 0 * sum(jnp.sum(leaf) for leaf in jax.tree.leaves(change))
    change = jax.tree.map(lambda leaf: leaf + nothing, change)
    step = jax.lax.custom_linear_solve(hessian, change, solve_linear, symmetric=True)
    return x, tree.sub(with_bounds, _joined(step, x))


def _params_and_gradient(
    evaluate: Callable[..., Evaluation], result: MinimizeResult, parts: Params, given: _Given
) -> tuple[Params, Params]:
    """The params, those at a bound moved with it, and the gradient of the free ones there.

    ``parts`` are those of the params; only the free ones are used.
    """
    params, free = _joined(parts, result.params), _free(result, given)
    if given.bounds is not None:

        def moved(p: jax.Array, free: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
            return jnp.where(free, p, jnp.where(p <= low, low, high))

        params = map_leaves(moved, params, free, *given.bounds)
    found = evaluate(given.closed_over, params, given.arrays)
    return params, _of_free(_parts(tree.conj(found.grad), result.value.dtype), free)


def _free(result: MinimizeResult, given: _Given) -> Optional[Params]:
    """Bools: the entries that are free at the minimum; None without bounds."""
    bounds = given.bounds
    return None if bounds is None else bounds.free(result.params, result.grad)


def _of_free(parts: Params, free: Optional[Params]) -> Params:
    """Zero for the entries that are not free."""
    return parts if free is None else masked(parts, free)


def _conjugate_gradients(
    matrix: Callable[[Params], Params],
    b: Params,
    preconditioner: Callable[[Params], Params],
    rtol: float,
) -> Params:
    """The solution of ``matrix(x) = b``, to a residual of ``rtol |b|`` (N&W, Algorithm 5.3).

    Not JAX's: it flattens the leaves, which cannot be done where they are sharded explicitly.
    """
    threshold = rtol**2 * tree.vdot(b, b)
    limit = 10 * sum(leaf.size for leaf in jax.tree.leaves(b))

    def goes_on(carry: Any) -> Any:
        _, residual, _, _, count = carry
        return (tree.vdot(residual, residual) > threshold) & (count < limit)

    def body(carry: Any) -> Any:
        x, residual, direction, square, count = carry
        image = matrix(direction)
        step = square / tree.vdot(direction, image)
        x = tree.add_scale(x, step, direction)
        residual = tree.add_scale(residual, -step, image)
        scaled = preconditioner(residual)
        new_square = tree.vdot(residual, scaled)
        direction = tree.add_scale(scaled, new_square / square, direction)
        return x, residual, direction, new_square, numerics.increment(count)

    scaled = preconditioner(b)
    first = map_leaves(placement.zeros, b), b, scaled, tree.vdot(b, scaled), numerics.counter()
    return jax.lax.while_loop(goes_on, body, placement.beside(first, scaled))[0]


def _without_derivative(x: Any) -> Any:
    return jax.lax.stop_gradient(x) if isinstance(x, jax.core.Tracer) else x


def _parts(params: Params, dtype: DTypeLike) -> Params:
    """Real and imaginary parts of complex leaves, and real leaves, all in one dtype."""

    def parts(p: jax.Array) -> Params:
        if jnp.iscomplexobj(p):
            return p.real.astype(dtype), p.imag.astype(dtype)
        return p.astype(dtype)

    return map_leaves(parts, params)


def _joined(parts: Params, params: Params) -> Params:
    """The inverse of ``_parts``, in the types of ``params``."""
    return map_leaves(
        lambda p, part: numerics.like(jax.lax.complex(*part) if jnp.iscomplexobj(p) else part, p),
        params,
        parts,
    )
