"""The inverse Hessian that L-BFGS has in its memory, as an operator and by its factors."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from .. import checks, numerics, placement, reductions, tree
from ..types import Arrays, Params, Scalar, Tree, map_leaves
from . import compact, scaling
from .direction import combine


class InverseHessian(NamedTuple):
    """The inverse Hessian approximation H of L-BFGS: a multiple of the identity, and a low rank.

    With the pairs as the columns of S and Y, C the coefficients and gamma the scale, it is::

        H = gamma I + [S Y] C [S Y]'

    H is symmetric and positive definite, as long as all is finite. Calling it gives H v.

    Attributes:
        scale: scalar of the search dtype, gamma.
        s: tree like the params with a leading axis of length ``memory_size``, the steps.
        y: the same for the changes of the gradient.
        coefficients: ``(2 memory_size, 2 memory_size)`` of the search dtype, C.
    """

    scale: Scalar
    s: Params
    y: Params
    coefficients: jax.Array

    @numerics.promotes
    def __call__(self, v: Tree) -> Tree:
        """H v for a tree ``v`` like the params, in the dtypes of ``v``; complex where they are.

        Raises:
            ValueError: ``v`` is unlike the params.
        """
        checks.same_structure("v", v, "params", jax.tree.map(lambda rows: rows[0], self.s))
        vector: Params = jax.tree.map(_with_imaginary_part, v, self.s)
        rows, dtype, shape = (self.s, self.y), self.scale.dtype, (len(self.coefficients) // 2,)

        def local(*leaves: jax.Array) -> Arrays:
            return [reductions.dot(stack, leaves[-1], dtype) for stack in leaves[:-1]]

        products = reductions.sums(local, (*rows, vector), (shape, shape), dtype)
        of_s, of_y = jnp.split(compact.dot(self.coefficients, jnp.concatenate(products)), 2)
        return combine(rows, vector, self.scale, of_s, of_y)

    def dense(self) -> jax.Array:
        """H as a matrix, ``(n, n)`` for n params in the order of their leaves; for small n.

        Raises:
            TypeError: a leaf is complex.
        """
        whole = placement.gathered(self)
        example = jax.tree.map(lambda rows: rows[0], whole.s)
        if any(map(jnp.iscomplexobj, jax.tree.leaves(example))):
            raise TypeError("a dense inverse Hessian needs real params, got complex ones")
        flat, unravel = ravel_pytree(example)
        columns = jax.vmap(lambda v: ravel_pytree(whole(unravel(v)))[0])(
            jnp.eye(flat.size, dtype=flat.dtype)
        )
        return columns.T


@numerics.promotes
def inverse_hessian(state: Any) -> InverseHessian:
    """The inverse Hessian approximation in a state, for Laplace approximations and the like.

    Args:
        state: anything that holds one :class:`ScaleByLBFGSState`: the state or the result of
            :func:`minimize`, the state of :func:`lbfgs` or of :func:`scale_by_lbfgs`.

    Returns:
        An operator ``v -> H v`` with the factors of H. With an empty memory H is the identity. Of a
        result with bounds, it is the inverse Hessian of the free entries, and a multiple of the
        identity for those that are held at a bound.

    Raises:
        ValueError, KeyError: the state holds none, or several.

    References:
        Byrd, Nocedal & Schnabel, Representations of quasi-Newton matrices and their use in
        limited memory methods, Mathematical Programming 63 (1994), 129-156, Theorem 2.2.

    Example:
        >>> import jax.numpy as jnp, optax_ls
        >>> curvature = jnp.array([1.0, 4.0])
        >>> result = optax_ls.minimize(lambda x: jnp.sum(curvature * x**2) / 2, jnp.ones(2))
        >>> optax_ls.inverse_hessian(result)(jnp.array([1.0, 1.0])).round(2).tolist()
        [1.0, 0.25]
    """
    memory = tree.get(state, "ScaleByLBFGSState")
    if memory is None:
        raise ValueError(
            "the state holds no memory of L-BFGS: give inverse_hessian the result of minimize, or "
            f"the state of lbfgs, not {type(state).__name__}"
        )
    coefficients = memory.coefficients
    newest = scaling.largest_ratio(coefficients, 1)
    gamma = jnp.where(newest > 0, newest, 1)

    def factors(products: jax.Array) -> jax.Array:
        s_v, y_v = jnp.split(products, 2)
        if coefficients.bends is not None:
            y_v += coefficients.bends * s_v
        return jnp.concatenate(compact.apply(coefficients, gamma, s_v, y_v))

    basis = jnp.eye(2 * len(coefficients.rho), dtype=gamma.dtype)
    middle = jax.vmap(factors, out_axes=1)(basis)
    s, y = memory.rows
    if getattr(state, "active", None) is not None:  # a result with bounds

        def of_free_entries(rows: jax.Array, active: jax.Array, g: jax.Array) -> jax.Array:
            is_held = ((active < 0) & (g >= 0)) | ((active > 0) & (g <= 0))
            return jnp.where(is_held, 0, rows)

        s, y = (map_leaves(of_free_entries, rows, state.active, state.grad) for rows in (s, y))
    return InverseHessian(gamma, s, y, middle)


def _with_imaginary_part(x: ArrayLike, like: jax.Array) -> jax.Array:
    """A leaf as an array, which is complex if ``like`` is."""
    x = jnp.asarray(x)
    needs_one = jnp.iscomplexobj(like) and not jnp.iscomplexobj(x)
    return x.astype(jnp.result_type(x, like)) if needs_one else x
