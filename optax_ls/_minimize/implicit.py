"""Derivatives of a minimum by the implicit function theorem."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Optional

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.tree_util import PyTreeDef
from jax.typing import DTypeLike

from .._core import numerics, placement, tree
from .._core.lbfgs.inverse_hessian import inverse_hessian
from .._core.types import Params, Tree, map_leaves
from .bounds import Bounds, masked
from .host import solve
from .programs import Inputs, Settings, evaluator, inputs_of
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
    given = fun, inputs, bounds
    fixed_fun, fixed_inputs, fixed_bounds, params, state = _frozen((*given, params, state))
    result = solve(fixed_fun, params, fixed_inputs, settings, fixed_bounds, limits, state, report)
    inputs_or_none, others, structure = inputs_of(given)
    arrays = [x for x in inputs_or_none if x is not None]
    params = _minimum(_Problem(settings, structure, others), result, arrays)
    found = evaluator(fun, inputs, settings, result.value.dtype)(params)
    return result._replace(params=params, value=found.value, aux=found.aux)


@dataclasses.dataclass(frozen=True, eq=False)
class _Problem:
    """An objective, its inputs and bounds, without their arrays.

    Attributes:
        settings: of the run.
        structure: of the tree of all three.
        others: the leaves that are no arrays; None in the places of arrays.
    """

    settings: Settings
    structure: PyTreeDef
    others: tuple[object, ...]

    def given(self, arrays: Sequence[Any]) -> tuple[Callable[..., Any], Inputs, Optional[Bounds]]:
        """The objective, its inputs and its bounds."""
        rest = iter(arrays)
        leaves = [next(rest) if other is None else other for other in self.others]
        fun, inputs, bounds = jax.tree.unflatten(self.structure, leaves)
        return fun, inputs, bounds

    def free(self, result: MinimizeResult, arrays: Sequence[Any]) -> Optional[Params]:
        """Bools: the entries that are free at the minimum; None without bounds."""
        _, _, bounds = self.given(arrays)
        return None if bounds is None else bounds.free(result.params, result.grad)

    def at(
        self, result: MinimizeResult, parts: Params, arrays: Sequence[Any]
    ) -> tuple[Params, Params]:
        """The params, those at a bound moved with it, and the gradient of the free ones there.

        ``parts`` are those of the params, of which the free ones count.
        """
        fun, inputs, bounds = self.given(arrays)
        params, free = _joined(parts, result.params), self.free(result, arrays)
        if bounds is not None:

            def moved(p: jax.Array, free: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
                return jnp.where(free, p, jnp.where(p <= low, low, high))

            params = map_leaves(moved, params, free, *bounds)
        dtype = result.value.dtype
        found = evaluator(fun, inputs, self.settings, dtype)(params)
        return params, _of_free(_parts(tree.conj(found.grad), dtype), free)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _minimum(problem: _Problem, result: MinimizeResult, arrays: list[Any]) -> Params:
    """The params of a result, as a function of the arrays of its problem.

    Where grad f(x, theta) = 0 defines x(theta), a change of theta moves x by -H d(grad f), with H
    the inverse Hessian at x. H is applied by conjugate gradients with the L-BFGS matrix as the
    preconditioner. With bounds this holds for the free entries; the others move with their bounds.
    """
    params: Params = result.params
    return params


@functools.partial(_minimum.defjvp, symbolic_zeros=True)
def _derivative(problem: _Problem, primals: Any, tangents: Any) -> tuple[Params, Params]:
    result, arrays = primals
    x, dtype, free = _minimum(problem, result, arrays), result.value.dtype, problem.free(*primals)
    parts, moving = _parts(x, dtype), [not isinstance(t, SymbolicZero) for t in tangents[1]]

    def at(moved: Sequence[Any]) -> tuple[Params, Params]:
        """The params and the gradient for other values of the arrays that move."""
        new = iter(moved)
        now = [next(new) if moves else old for old, moves in zip(arrays, moving, strict=True)]
        return problem.at(result, parts, now)

    def on_free(operator: Callable[[Params], Params], v: Params) -> Params:
        """An operator of the free entries; the others stay as they are."""
        inside = _of_free(v, free)
        return tree.add(_of_free(operator(inside), free), tree.sub(v, inside))

    def hessian(v: Params) -> Params:
        gradient = lambda parts: problem.at(result, parts, arrays)[1]  # noqa: E731
        return on_free(lambda v: jax.jvp(gradient, (parts,), (v,))[1], v)

    @numerics.promotes
    def solve_linear(hessian: Callable[[Params], Params], b: Params) -> Any:
        inverse = inverse_hessian(result)
        preconditioner = lambda v: _parts(inverse(_joined(v, x)), dtype)  # noqa: E731
        rtol = float(numerics.finfo(dtype).eps) ** 0.75
        return _conjugate_gradients(hessian, b, lambda v: on_free(preconditioner, v), rtol)

    before, changes = (list(itertools.compress(all_, moving)) for all_ in (arrays, tangents[1]))
    _, (with_bounds, change) = jax.jvp(at, (before,), (changes,))
    # JAX's linear solve wants that each leaf depends on what moves, as this sum of all does.
    nothing = 0 * sum(jnp.sum(leaf) for leaf in jax.tree.leaves(change))
    change = jax.tree.map(lambda leaf: leaf + nothing, change)
    step = jax.lax.custom_linear_solve(hessian, change, solve_linear, symmetric=True)
    return x, tree.sub(with_bounds, _joined(step, x))


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


def _frozen(inputs: Tree) -> Tree:
    """The same without derivatives."""

    def frozen(x: Any) -> Any:
        return jax.lax.stop_gradient(x) if isinstance(x, jax.core.Tracer) else x

    return map_leaves(frozen, inputs)


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
