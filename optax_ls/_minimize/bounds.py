"""Bounds on the params: the box, its projection, and which entries are free.

The iterates move along projected paths, ``P(x + step d)`` with P the projection onto the box
(Bertsekas, Projected Newton methods for optimization problems with simple constraints, SIAM J.
Control and Optimization 20 (1982), 221-246). An entry at a bound is fixed for an iteration if
descent would leave the box there. The direction is that of L-BFGS in the space of the free entries:
all inner products of pairs leave the fixed ones out, and so does a pair whose s lies mostly among
them. The direction ends at the box: its entries that would leave reach their bound at a step of 1,
as in the projected step of Morales & Nocedal, ACM TOMS 38 (2011), 7:1-7:4. So the objective is
smooth along the path up to there, as the line search wants it.
"""

from collections.abc import Callable
from typing import NamedTuple, Optional, Union

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from .._core import checks
from .._core.types import KeyPath, Params, Tree, map_leaves

Bound = Union[jax.Array, np.ndarray]
"""A bound of a leaf."""


class Bounds(NamedTuple):
    """The bounds: two trees like the params, of arrays that broadcast to the leaves."""

    lower: Params
    upper: Params

    @classmethod
    def of(cls, bounds: object, params: Params) -> Optional["Bounds"]:
        """The bounds that the user gave, in the dtypes of the params; None if there are none.

        Raises:
            TypeError: no pair, complex params, or bounds that are no real numbers.
            ValueError: NaN, a lower bound of inf or above the upper one, an upper bound of -inf, or
                a shape that does not fit.
        """
        if bounds is None:
            return None
        if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
            bounds = bounds.lb, bounds.ub
        if not isinstance(bounds, tuple) or len(bounds) != 2:
            raise TypeError(
                "bounds must be a tuple (lower, upper), or have lb and ub as "
                "scipy.optimize.Bounds; give a list of pairs as tuple(zip(*pairs)), got "
                f"{checks.shown(bounds)}"
            )
        if bounds[0] is None and bounds[1] is None:
            return None
        if all(map(_is_pair_of_numbers, bounds)) and tuple(bounds[0]) == tuple(bounds[1]):
            raise ValueError(
                f"bounds is (lower, upper), and both are {bounds[0]}, which fixes the params; for "
                "pairs (lower, upper) of each param give bounds=tuple(zip(*pairs))"
            )
        lower = _like("bounds[0]", bounds[0], params, -jnp.inf)
        upper = _like("bounds[1]", bounds[1], params, jnp.inf)
        pairs = jax.tree_util.tree_map_with_path(_normalised, lower, upper)
        outer, inner = jax.tree.structure(params), jax.tree.structure((0, 0))
        return cls(*jax.tree.transpose(outer, inner, pairs))

    def contain(self, params: Params) -> bool:
        """True if params are inside, or if the host cannot tell."""
        leaves = zip(*map(jax.tree.leaves, (params, *self)), strict=True)
        return all(
            np.all((np.asarray(low) <= p) & (p <= np.asarray(high)))
            for p, low, high in leaves
            if all(map(_is_known, (p, low, high)))
        )

    def project(self, params: Tree) -> Tree:
        """The nearest point in the box."""
        # A minimum would make zero of a subnormal number, and a selection does not.
        return map_leaves(
            lambda p, low, high: jnp.where(low == high, low, jnp.clip(p, low, high)), params, *self
        )

    def free(self, params: Params, grad: Params) -> Params:
        """Bools: the entries that are inside the bounds, or that descent moves inside."""
        return map_leaves(
            lambda p, g, low, high: ~(((p <= low) & (g >= 0)) | ((p >= high) & (g <= 0))),
            *(params, grad, *self),
        )

    def moving(self, params: Params, direction: Params) -> Params:
        """Bools: the entries that move on along a projected path that has come to ``params``."""
        return self.free(params, jax.tree.map(jnp.negative, direction))

    def shortened(self, params: Params, direction: Params) -> Params:
        """The direction, cut so that no entry leaves the box before a step of 1."""

        def of_leaf(p: jax.Array, d: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
            beyond = 1 + 2 * float(jnp.finfo(d.dtype).eps)  # rounding must not end inside
            return jnp.clip(d, (low - p) * beyond, (high - p) * beyond)

        return map_leaves(of_leaf, params, direction, *self)

    def projected_gradient(self, params: Params, grad: Params) -> Params:
        """``x - P(x - grad)``, zero at a minimum; not finite where the gradient is not finite."""
        return map_leaves(
            lambda p, g, low, high: jnp.minimum(jnp.maximum(g, p - high), p - low) + 0 * g,
            *(params, grad, *self),
        )

    def active(self, params: Params) -> Params:
        """Int8: -1 at the lower bound, 1 at the upper one, else 0."""
        return map_leaves(
            lambda p, low, high: jnp.int8(jnp.where(p <= low, -1, jnp.where(p >= high, 1, 0))),
            *(params, *self),
        )


def _is_pair_of_numbers(x: object) -> bool:
    if not isinstance(x, (list, tuple)) or len(x) != 2:
        return False
    return all(isinstance(number, (int, float)) for number in x)


def _is_known(x: object) -> bool:
    """True if the host can read an array."""
    return not isinstance(x, jax.core.Tracer) and getattr(x, "is_fully_addressable", True)


def masked(tree: Tree, mask: Params) -> Tree:
    """The tree with zeros where the mask, a tree of bools, is False."""
    return map_leaves(lambda x, keep: jnp.where(keep, x, jnp.zeros_like(x)), tree, mask)


def _like(name: str, bound: object, params: Params, otherwise: float) -> Params:
    """A bound, which may be a prefix of the tree of params, for each leaf in its dtype."""
    if jax.tree_util.all_leaves([params]) and isinstance(bound, (list, tuple)):
        bound = np.asarray([otherwise if b is None else b for b in bound], float)
    try:
        full = jax.tree.map(
            lambda b, part: jax.tree.map(lambda _: otherwise if b is None else b, part),
            *(bound, params),
            is_leaf=lambda x: x is None,
        )
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{name} must be None, a number, an array, or a tree of these that is a prefix of the "
            f"tree of params: {error}"
        ) from None

    def of_leaf(path: KeyPath, p: ArrayLike, b: ArrayLike) -> Bound:
        where = f"{name} for {checks.path_name('params', path)}"
        p = jnp.asarray(p)
        if jnp.iscomplexobj(p):
            raise TypeError(f"{where}: complex params have no order, so they cannot have bounds")
        b = b if isinstance(b, jax.Array) else np.asarray(b)
        if not any(jnp.issubdtype(b.dtype, kind) for kind in (jnp.floating, jnp.integer, bool)):
            raise TypeError(f"{where} must be a real number or an array of these, got {b.dtype}")
        try:
            fits = np.broadcast_shapes(b.shape, p.shape) == p.shape
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(f"{where} has shape {b.shape}, which does not broadcast to {p.shape}")
        # As many axes as the leaf has, since JAX may be told to refuse fewer.
        with np.errstate(over="ignore"):  # too large for the dtype of params: no bound
            b = b.astype(p.dtype).reshape((1,) * (p.ndim - b.ndim) + b.shape if b.ndim else ())
        if _is_known(b):
            for kind, entries in (("NaN", b != b), (-otherwise, b == -otherwise)):
                if bool(entries.any()):
                    raise ValueError(
                        f"{where} is {kind} in {int(entries.sum())} entries of {b.dtype}; None "
                        "means no bound"
                    )
        return b

    like: Params = jax.tree_util.tree_map_with_path(of_leaf, params, full)
    return like


def _normalised(path: KeyPath, low: Bound, high: Bound) -> tuple[Bound, Bound]:
    """Bounds moved inwards to normal numbers, since devices treat subnormal ones as zero.

    Bounds without a normal number between them become equal. Arrays of JAX stay as they are. A
    lower bound above the upper one raises ValueError, or becomes NaN if it is traced, as the start
    then does.
    """
    new_low, new_high = _normal(low, np.maximum), _normal(high, np.minimum)
    if not (_is_known(low) and _is_known(high)):
        return jnp.where(jnp.greater(low, high), jnp.nan, new_low), new_high
    lows, highs = np.broadcast_arrays(np.asarray(low), np.asarray(high))
    for index in np.argwhere(lows > highs)[:1].tolist():
        where = checks.path_name("params", path) + "".join(f"[{i}]" for i in index)
        values = f"{lows[tuple(index)]} > {highs[tuple(index)]}"
        raise ValueError(f"the lower bound of {where} is above the upper bound: {values}")
    if not (isinstance(low, jax.Array) or isinstance(high, jax.Array)):
        is_empty = new_low > new_high
        if np.any(is_empty):
            return np.where(is_empty, low, new_low), np.where(is_empty, low, new_high)
    return new_low, new_high


def _normal(bound: Bound, inner: Callable[..., np.ndarray]) -> Bound:
    """A bound whose subnormal numbers become 0 or the nearest normal one, the ``inner`` of both."""
    if isinstance(bound, jax.Array):
        return bound
    tiny = jnp.finfo(bound.dtype).tiny
    is_subnormal = (bound != 0) & (np.abs(bound) < tiny)
    return np.where(is_subnormal, inner(np.sign(bound) * tiny, 0), bound).astype(bound.dtype)
