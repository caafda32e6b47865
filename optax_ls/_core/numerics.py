"""Dtype policy: the types of the numbers of a solver are decided in this module.

* Counters are strong-typed arrays of JAX's default integer type (``counter``, ``increment``).
* Search scalars (step, value, slope, errors) have the dtype ``search_dtype``.
* A state lives where the parameters live (``zeros_alike``).
* The package promotes dtypes as JAX does by default, also where the user has set the strict mode;
  the user's function is called in the user's mode (``promotes``, ``objective.bind``).
* Results for the user have the dtype *and the weak type* of the user's arrays (``like``); arrays
  in a state are strong-typed (``strong``).
"""

import functools
from collections.abc import Callable
from typing import Any, Optional, TypeVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from . import placement
from .types import Counter, Tree, map_leaves

DType = np.dtype[Any]

Function = TypeVar("Function", bound=Callable[..., Any])


def promotes(fn: Function) -> Function:
    """``fn`` with JAX's default promotion of dtypes."""

    @functools.wraps(fn)
    def promoting(*args: Any, **kwargs: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            return fn(*args, **kwargs)

    return promoting  # type: ignore[return-value]


def counter(value: chex.Numeric = 0) -> Counter:
    """``value`` as a counter."""
    return jnp.asarray(value, dtype=jax.dtypes.canonicalize_dtype(int))


def countable(value: chex.Numeric) -> Any:
    """``value`` as an integer of Python; the largest that a counter can hold if that is less."""
    return min(int(value), int(np.iinfo(jax.dtypes.canonicalize_dtype(int)).max))


def increment(count: Counter, by: chex.Numeric = 1) -> Counter:
    """The sum of a counter and a count, or the largest integer if that is less."""
    return count + jnp.minimum(by, np.iinfo(count.dtype).max - count)


def at_least_float32(dtype: DTypeLike) -> DType:
    """The real float type in which numbers of ``dtype`` are accumulated."""
    real = jnp.finfo(dtype).dtype
    return jax.dtypes.canonicalize_dtype(real if real.itemsize > 4 else np.float32)


def dtype_of(leaf: chex.Numeric) -> DType:
    """The type that a leaf has as an array of JAX; raises TypeError if it is no array or number."""
    return leaf.dtype if isinstance(leaf, jax.Array) else jax.eval_shape(jnp.asarray, leaf).dtype


def search_dtype(tree: chex.ArrayTree) -> DType:
    """The widest real float in ``tree``, at least float32; Python floats have JAX's default."""
    dtypes = [at_least_float32(dtype_of(leaf)) for leaf in jax.tree.leaves(tree)]
    return max(dtypes, key=lambda dtype: dtype.itemsize, default=np.dtype(np.float32))


def strong(x: chex.Numeric, dtype: Optional[DTypeLike] = None) -> jax.Array:
    """``x`` as a strong-typed array, of ``dtype`` if given."""
    x = jnp.asarray(x)
    return jnp.asarray(x, dtype=x.dtype if dtype is None else dtype)


def like(x: chex.Numeric, reference: chex.Numeric) -> jax.Array:
    """``x`` with the dtype and the weak type of ``reference``, which has the same shape."""
    reference = jnp.asarray(reference)
    x = strong(x, reference.dtype)
    # Writing into a weak-typed array is the public way to make one from data.
    return reference.at[...].set(x) if reference.weak_type else x


def keep_types(new: Tree, old: Tree) -> Tree:
    """``new`` with the types of ``old``, strong-typed: the carry of a loop keeps its signature."""
    return map_leaves(lambda n, o: placement.varying_with(strong(n, o.dtype), o), new, old)


def zeros_alike(params: Tree, *leading: int) -> Tree:
    """Strong-typed zeros like ``params`` with further leading axes, sharded as ``params`` are.

    Under jit a constant has no place of its own. Where there are several, the zeros are computed
    from the params, by a comparison that is false for every number, and the compiler places them
    alike. Where there is one they are a constant, which a whole batch of :func:`jax.vmap` shares.
    """

    def zeros(p: chex.Numeric) -> jax.Array:
        p = strong(p)
        if isinstance(p, jax.core.Tracer) and jax.device_count() == 1:
            return jnp.zeros((*leading, *p.shape), p.dtype)
        p = jnp.broadcast_to(p, (*leading, *p.shape))
        return ((p == p) & (p != p)).astype(p.dtype)

    return map_leaves(zeros, params)
