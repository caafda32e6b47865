"""Inner products of arrays, in as few sweeps through the memory as can be.

XLA for CPUs makes a sweep for each sum. In many versions it gives that to one thread, which adds
entry after entry and waits for each addition; and real and imaginary parts it copies first. A
reduction of many values at once to many places, which it shares among threads, can be written
instead: each chunk of the arrays is reduced by itself, all products side by side. What comes out
does not depend on the number of threads.
"""

import contextvars
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import batching, numerics

# Arrays with fewer entries are in the cache, and one thread has them before another is awake.
_LARGE = 2**17
# So many entries are reduced one after the other, to at most so many places: few products each in
# strands that do not wait for one another. But half types are widened best as they lie.
_CHUNK, _PLACES, _STRANDS = 4096, 12, (4, 2, 1)
# Rows that are reduced in one sweep.
_ROWS = 10
# Before this version products of arrays with several axes took longer so than as XLA makes them.
_FLATTENS = (0, 8)
# Since this version XLA has sums of float32 as fast as the memory, and only for so many of them is
# one sweep worth it.
_FAST_FLOAT32, _WORTH_A_SWEEP = (0, 10), 3


def dot(x: jax.Array, y: jax.Array, dtype: Any) -> jax.Array:
    """Real inner products of the entries of ``y`` with those of ``x``, whose leading axes remain.

    Half-precision entries are accumulated in float32.
    """
    if not (_on_one_cpu() and _gains(y, 1)):
        return _dot(x, y, dtype)
    products = _rows_with_each(x.reshape(-1, y.size), [y], dtype)
    return products.reshape(x.shape[: x.ndim - y.ndim])


def dot_with_each(rows: jax.Array, vectors: Sequence[jax.Array], dtype: Any) -> Sequence[jax.Array]:
    """What :func:`dot` gives for the rows with each of several arrays, all of one shape and dtype.

    One matrix product reads the rows once; but on CPUs it takes longer than one for each array.
    """
    if jax.default_backend() != "cpu":
        return list(jnp.moveaxis(_dot(rows, jnp.stack(vectors), dtype, columns=1), -1, 0))
    if not (_on_one_cpu() and _gains(vectors[0], len(vectors) * len(rows))):
        return [_dot(rows, vector, dtype) for vector in vectors]
    return list(_rows_with_each(rows.reshape(len(rows), -1), vectors, dtype))


def dots(pairs: Sequence[tuple[jax.Array, jax.Array]], dtype: Any) -> list[jax.Array]:
    """The real inner products of several pairs of arrays, all of one shape and dtype."""
    y = pairs[0][1]
    if not (_on_one_cpu() and _gains(y, len(pairs))):
        return [_dot(x, y, dtype) for x, y in pairs]
    return list(_in_one_sweep(list(pairs), dtype))


def _gains(x: jax.Array, products: int) -> bool:
    """Whether one sweep for so many products of arrays like x is faster than what XLA makes."""
    if x.size < _LARGE or (x.ndim > 1 and jax.__version_info__ < _FLATTENS):
        return False
    if x.dtype == np.float32 and jax.__version_info__ >= _FAST_FLOAT32:
        return products >= _WORTH_A_SWEEP
    return True


def on_one_device(fn: Callable[..., Any]) -> Callable[..., Any]:
    """``fn``, a function of arrays that lie whole on one device, whatever the process has."""

    @functools.wraps(fn)
    def wrapped(*arrays: jax.Array) -> Any:
        token = _whole.set(True)
        try:
            return fn(*arrays)
        finally:
            _whole.reset(token)

    return wrapped


# Whether what is being traced is such a function.
_whole = contextvars.ContextVar("_whole", default=False)


def _on_one_cpu() -> bool:
    # Over several devices a chunk might lie on two.
    return jax.default_backend() == "cpu" and (jax.device_count() == 1 or _whole.get())


def _dot(x: jax.Array, y: jax.Array, dtype: Any, columns: int = 0) -> jax.Array:
    """Sums over all axes of y but the first ``columns``, which are last in the result."""
    if jnp.iscomplexobj(x):
        return _dot(x.real, y.real, dtype, columns) + _dot(x.imag, y.imag, dtype, columns)
    ndim = y.ndim - columns
    product = jax.lax.dot_general(
        x,
        y,
        ((tuple(range(x.ndim - ndim, x.ndim)), tuple(range(columns, y.ndim))), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=numerics.at_least_float32(x.dtype),
    )
    return product.astype(dtype)


def _rows_with_each(rows: jax.Array, arrays: Sequence[jax.Array], dtype: Any) -> jax.Array:
    """Products of each of several arrays with all rows, by array and row."""
    flat = [x.reshape(-1) for x in arrays]
    products = []
    for begin in range(0, len(rows), _ROWS):
        here = range(begin, min(begin + _ROWS, len(rows)))
        pairs = [(jax.lax.index_in_dim(rows, k, keepdims=False), x) for k in here for x in flat]
        products.append(_in_one_sweep(pairs, dtype))
    return jnp.concatenate(products).reshape(len(rows), len(flat)).T


@functools.partial(jax.jit, static_argnums=1)  # traced once for all leaves of one shape
def _in_one_sweep(pairs: Sequence[tuple[jax.Array, jax.Array]], dtype: Any) -> jax.Array:
    def plain(pairs: Any) -> jax.Array:
        return jnp.stack([_dot(x, y, dtype) for x, y in pairs])

    def in_chunks(pairs: Any) -> jax.Array:
        return _in_chunks(pairs).astype(dtype)

    products: jax.Array = batching.with_derivatives_of(plain, in_chunks)(pairs)
    return products


def _in_chunks(pairs: Sequence[tuple[jax.Array, jax.Array]]) -> jax.Array:
    arrays = [(x.reshape(-1), y.reshape(-1)) for x, y in pairs]
    whole = arrays[0][1].size // _CHUNK * _CHUNK
    is_half = arrays[0][1].dtype.itemsize < 4
    strands = next(k for k in _STRANDS if (k * len(pairs) <= _PLACES and not is_half) or k == 1)

    def strand(x: jax.Array, number: int) -> jax.Array:
        return x[:whole].reshape(-1, _CHUNK // strands, strands)[:, :, number]

    terms = [_product(strand(x, k), strand(y, k)) for x, y in arrays for k in range(strands)]
    zero = np.zeros((), terms[0].dtype)
    sums = jnp.stack(jax.lax.reduce(terms, [zero] * len(terms), _added, (1,)))
    rest = jnp.stack([jnp.sum(_product(x[whole:], y[whole:])) for x, y in arrays])
    return jnp.sum(sums.reshape(len(pairs), -1), axis=1) + rest


def _added(x: Any, y: Any) -> Any:
    return jax.tree.map(jax.lax.add, x, y)


def _product(x: jax.Array, y: jax.Array) -> jax.Array:
    """The real parts of the products of entries of ``y`` with the conjugates of those of ``x``."""
    if jnp.iscomplexobj(x):
        return _product(x.real, y.real) + _product(x.imag, y.imag)
    wide = numerics.at_least_float32(x.dtype)
    return x.astype(wide) * y.astype(wide)
