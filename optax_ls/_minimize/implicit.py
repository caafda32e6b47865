"""Derivatives of a minimum by the implicit function theorem."""

import functools
from collections.abc import Callable
from typing import Any, Optional

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from .._core import numerics, placement, tree
from .._core.lbfgs.inverse_hessian import inverse_hessian
from .._core.types import Params, Tree, map_leaves
from .bounds import Bounds, masked
from .host import solve
from .programs import Inputs, Settings, evaluator, is_array
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
    """As ``solve``; the params of the result are differentiable by the implicit function theorem.

    Where grad f(x, theta) = 0 defines x(theta), a change of theta moves x by - H d(grad f), with H
    the inverse Hessian at x. H is applied by conjugate gradients with the L-BFGS matrix as the
    preconditioner. With bounds this holds for the free entries; the others do not move.
    """
    frozen_fun, frozen = _frozen(fun), _frozen(inputs)
    result = solve(
        frozen_fun, _frozen(params), frozen, settings, bounds, limits, _frozen(state), report
    )
    x, dtype = result.params, result.value.dtype

    def of_free(parts: Params) -> Params:
        """Zero for the entries that are not free."""
        return parts if bounds is None else masked(parts, bounds.free(x, result.grad))

    def on_free(operator: Callable[[Params], Params], v: Params) -> Params:
        """An operator of the free entries; the others stay as they are."""
        inside = of_free(v)
        return tree.add(of_free(operator(inside)), tree.sub(v, inside))

    def gradient(parts: Params, fun: Callable[..., Any], inputs: Inputs) -> Params:
        found = evaluator(fun, inputs, settings, dtype)(_joined(parts, x))
        return _parts(tree.conj(found.grad), dtype)

    def hessian(v: Params) -> Params:
        of_fun = functools.partial(gradient, fun=frozen_fun, inputs=frozen)
        return on_free(lambda v: jax.jvp(of_fun, (_parts(x, dtype),), (v,))[1], v)

    @numerics.promotes
    def solve_linear(hessian: Callable[[Params], Params], b: Params) -> Any:
        preconditioner = inverse_hessian(result)
        return _conjugate_gradients(
            hessian,
            b,
            lambda v: on_free(lambda v: _parts(preconditioner(_joined(v, x)), dtype), v),
            float(numerics.finfo(dtype).eps) ** 0.75,
        )

    # Zero, with the derivatives of the gradient.
    residual = of_free(gradient(_parts(x, dtype), fun, inputs))
    residual = tree.sub(residual, _frozen(residual))
    step = jax.lax.custom_linear_solve(hessian, residual, solve_linear, symmetric=True)
    params = _joined(tree.sub(_parts(x, dtype), step), x)
    found = evaluator(fun, inputs, settings, dtype)(params)
    return result._replace(params=params, value=found.value, aux=found.aux)


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


def _frozen(inputs: Tree) -> Tree:
    """The same without derivatives."""
    return map_leaves(lambda x: jax.lax.stop_gradient(x) if is_array(x) else x, inputs)


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
