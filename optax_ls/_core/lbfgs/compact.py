"""The compact form of the L-BFGS matrix: its m x m matrices and vectors of length m.

With S = [s_1 ... s_m], Y = [y_1 ... y_m], R the upper triangle of S'Y in the order of age and D its
diagonal, the inverse Hessian approximation is (Byrd, Nocedal & Schnabel, Mathematical Programming
63 (1994), 129-156, Theorem 2.2)::

    H = gamma I + [S  gamma Y] [ R^-T (D + gamma Y'Y) R^-1   -R^-T ] [ S'       ]
                               [ -R^-1                         0   ] [ gamma Y' ]

so that with the products S'g and Y'g

    p = R^-1 S'g,    q = D p + gamma (Y'Y p - Y'g),    H g = gamma g + S (R^-T q) - gamma Y p.

R^-1 and Y'Y are kept by slot of the ring instead of by age. R^-1 is then a triangular matrix with
rows and columns permuted alike, and a new pair changes only its own row and column: it drops the
first row and column of R with the oldest pair, and adds a last column r, with <s, y> at its end.
In the inverse that is the column -R^-1 r / <s, y>, with 1 / <s, y> at its end.

A slot is in use if its rho is not zero. Entries of other slots are finite and always masked.
"""

from typing import NamedTuple, Optional

import jax
import jax.numpy as jnp

from .. import numerics


class Coefficients(NamedTuple):
    """All of the memory that is not as long as the params, by slot, in the order of the state."""

    rho: jax.Array  # (m,), 1 / <s, y> of each pair; zero in empty slots
    num_pairs: jax.Array  # counter, pairs that have entered
    inverse_r: jax.Array  # (m, m), R^-1
    gram_y: jax.Array  # (m, m), Y'Y
    s_g: jax.Array  # (m,), the products of each s with the last gradient
    y_g: jax.Array  # (m,), the same for y
    # (m,), the multiple of each s that has been added to its y; None if there is none.
    bends: Optional[jax.Array]

    @property
    def in_use(self) -> jax.Array:
        """Bools ``(m,)``, true for slots that hold a pair."""
        return self.rho != 0

    @property
    def next_slot(self) -> jax.Array:
        """The slot that the next pair goes to."""
        return jax.lax.rem(self.num_pairs, numerics.counter(len(self.rho)))

    def without_pairs(self, condition: jax.Array) -> "Coefficients":
        """Coefficients of an empty memory where the condition holds."""
        num_pairs, rho = (jnp.where(condition, 0, x) for x in (self.num_pairs, self.rho))
        return self._replace(num_pairs=num_pairs, rho=rho)


class PairProducts(NamedTuple):
    """The products of a pair, of s with the gradient g at its newer end, and of |s| with |y|."""

    ss: jax.Array
    sy: jax.Array
    yy: jax.Array
    sg: jax.Array
    sy_size: jax.Array


class Products(NamedTuple):
    """The inner products of the memory with the gradient g and the new y."""

    s_g: jax.Array  # (m,), S'g
    y_g: jax.Array  # (m,), Y'g
    s_y: jax.Array  # (m,), S'y, the new s included
    y_y: jax.Array  # (m,), Y'y, the new y included
    pair: PairProducts  # of the new pair
    bend: Optional[jax.Array]  # scalar, the multiple of s added to the new y; None if there is none
    grad_square: jax.Array  # scalar, <g, g>

    @property
    def has_curvature(self) -> jax.Array:
        """The new pair keeps H positive definite: <s, y> > eps <|s|, |y|>."""
        finfo = jnp.finfo(self.pair.sy.dtype)
        is_curved = self.pair.sy > jnp.maximum(finfo.eps * self.pair.sy_size, finfo.tiny)
        return is_curved & (self.pair.yy > 0)


def add_pair(
    coefficients: Coefficients, slot: jax.Array, products: Products, is_written: jax.Array
) -> tuple[Coefficients, jax.Array]:
    """The coefficients with a new pair in a slot, and whether it entered.

    It enters if it has curvature and its column of R^-1 is finite; otherwise the slot is empty.
    Without ``is_written`` there is no new pair, and only the products with the gradient are new.
    """
    rho, num_pairs, inverse_r, gram_y, _, _, bends = coefficients
    s_g, y_g, s_y, y_y, pair, bend, _ = products
    may_enter = is_written & products.has_curvature
    here = jnp.arange(len(rho)) == slot
    older = coefficients.in_use & ~here
    sy = jnp.where(may_enter, pair.sy, 1)
    s_y, y_y = jnp.where(older, s_y, 0), jnp.where(older | here, y_y, 0)
    column = jnp.where(here, 1, jnp.where(older, -dot(inverse_r, s_y), 0)) / sy
    enters = may_enter & jnp.all(jnp.isfinite(column) & jnp.isfinite(y_y))
    in_row, in_column = (here & enters)[:, None], (here & enters)[None, :]
    new = Coefficients(
        num_pairs=jnp.where(enters, numerics.increment(num_pairs), num_pairs),
        rho=jnp.where(here & is_written, jnp.where(enters, 1 / sy, 0), rho),
        inverse_r=jnp.where(in_column, column[:, None], jnp.where(in_row, 0, inverse_r)),
        gram_y=jnp.where(in_column, y_y[:, None], jnp.where(in_row, y_y[None, :], gram_y)),
        s_g=s_g,
        y_g=y_g,
        bends=None if bends is None or bend is None else jnp.where(here & is_written, bend, bends),
    )
    return new, enters


def apply(
    coefficients: Coefficients, gamma: jax.Array, s_g: jax.Array, y_g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The factors of S and of Y in H g = gamma g + S a + Y b, for Y as it stands in the rows.

    ``s_g`` is S'g and ``y_g`` is Y'g. The factors of empty slots are zero.
    """
    rho, _, inverse_r, gram_y, _, _, bends = coefficients
    in_use = coefficients.in_use
    p = jnp.where(in_use, dot(inverse_r, jnp.where(in_use, s_g, 0)), 0)
    q = p / jnp.where(in_use, rho, 1) + gamma * (dot(gram_y, p) - y_g)
    q = jnp.where(in_use, q, 0)
    of_s, of_y = jnp.where(in_use, dot(q, inverse_r), 0), -gamma * p
    return of_s if bends is None else of_s + bends * of_y, of_y


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """The product of two small matrices or vectors, in the highest precision."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
