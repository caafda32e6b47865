"""Sums and maxima over all entries of trees: one pass, and over many devices one all-reduce.

Left to itself the compiler reduces over the devices after every product of every leaf, and joins
what it can of these all-reduces. So each device first computes all that it can from what it holds,
and the devices exchange one vector. ``custom_partitioning`` is how JAX lets a program say so. JAX
before 0.5 lets it disturb how the rest of a program is sharded, so there the compiler is left to
itself; and in a process with one device there is nothing to say.

All inner products are real: a complex vector counts as the real one of twice its length.
"""

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from . import batching, numerics

# Whether dimensions can be told by a rule, which came with the partitioner that minds them.
_KNOWS_RULES = "sharding_rule" in inspect.signature(custom_partitioning.def_partition).parameters


def dot(x: jax.Array, y: jax.Array, dtype: Any) -> jax.Array:
    """The real inner product of two arrays; leading axes that only ``x`` has remain.

    Half-precision entries are accumulated in float32. A complex array counts as the real one of
    twice its length.
    """
    if jnp.iscomplexobj(x):
        return dot(x.real, y.real, dtype) + dot(x.imag, y.imag, dtype)
    # Not jnp.vdot: it flattens its arguments, which gathers an array sharded along two axes.
    product = jax.lax.dot_general(
        x,
        y,
        ((tuple(range(x.ndim - y.ndim, x.ndim)), tuple(range(y.ndim))), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=numerics.at_least_float32(x.dtype),
    )
    return product.astype(dtype)


def inner(x: Any, y: Any, dtype: Any) -> jax.Array:
    """The real inner product of two trees."""
    (product,) = sums(lambda x, y: (dot(x, y, dtype),), (x, y), ((),), dtype)
    return product


def inner_with_rows(rows: Any, y: Any, size: int, dtype: Any) -> jax.Array:
    """The real inner products of a tree with ``size`` others, stacked on a leading axis."""
    (products,) = sums(lambda rows, y: (dot(rows, y, dtype),), (rows, y), ((size,),), dtype)
    return products


def slopes(direction: Any, grads: Sequence[Any], dtype: Any) -> Sequence[jax.Array]:
    """The real inner products of a direction with each of several gradients."""

    def of_leaf(d: jax.Array, *grads: jax.Array) -> Sequence[jax.Array]:
        wide = numerics.promoted(d, *grads)
        return [dot(d.astype(wide), g.astype(wide), dtype) for g in grads]

    trees = [jax.tree.map(jnp.asarray, tree) for tree in (direction, *grads)]
    return sums(of_leaf, trees, ((),) * len(grads), dtype)


def sums(
    local: Callable[..., Sequence[jax.Array]],
    trees: Sequence[Any],
    shapes: Sequence[tuple[int, ...]],
    dtype: Any,
) -> Sequence[jax.Array]:
    """The sums over all leaves of ``local(*leaves)``, for sums over the entries of its arguments.

    Args:
        local: a function of arrays that returns several arrays.
        trees: of one structure; their leaves have one shape, but for leading axes.
        shapes: of what ``local`` returns.
        dtype: of what ``local`` returns.
    """
    groups = list(zip(*map(jax.tree.leaves, trees), strict=True))
    if not groups:
        return [jnp.zeros(shape, dtype) for shape in shapes]
    return _over_entries(local, groups, shapes, jnp.add)


def maxima(trees: Sequence[Any], dtype: Any) -> Sequence[jax.Array]:
    """The largest absolute value in each of several trees of one structure; 0 if there is none."""

    def of_leaves(*leaves: jax.Array) -> Sequence[jax.Array]:
        return [jnp.max(jnp.abs(x), initial=0).astype(dtype) for x in leaves]

    groups = list(zip(*map(jax.tree.leaves, trees), strict=True))
    if not groups:
        return [jnp.zeros((), dtype) for _ in trees]
    return _over_entries(of_leaves, groups, ((),) * len(trees), jnp.maximum)


def _over_entries(
    local: Callable[..., Sequence[jax.Array]],
    groups: list[tuple[Any, ...]],
    shapes: Sequence[tuple[int, ...]],
    join: Callable[..., jax.Array],
) -> Sequence[jax.Array]:
    """Joins ``local(*group)`` of all groups of arrays: by ``jnp.add``, or by ``jnp.maximum``."""
    sizes = [len(group) for group in groups]
    flat = [array for group in groups for array in group]

    def plain(*flat: jax.Array) -> Sequence[jax.Array]:
        return _joined(join, [local(*group) for group in _regrouped(flat, sizes)])

    if not (jax.device_count() > 1 and _KNOWS_RULES) or any(array.size == 0 for array in flat):
        return plain(*flat)
    vector = _in_one_exchange(local, plain, sizes, join)(*flat)
    parts = jnp.split(vector, np.cumsum([math.prod(shape) for shape in shapes])[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _regrouped(flat: Sequence[Any], sizes: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    begin = 0
    for size in sizes:
        yield tuple(flat[begin : begin + size])
        begin += size


def _joined(join: Callable[..., jax.Array], parts: Sequence[Any]) -> Sequence[jax.Array]:
    return [functools.reduce(join, alike) for alike in zip(*parts, strict=True)]


def _concatenated(arrays: Sequence[jax.Array]) -> jax.Array:
    return jnp.concatenate([array.reshape(-1) for array in arrays])


def _in_one_exchange(
    local: Callable[..., Sequence[jax.Array]],
    plain: Callable[..., Sequence[jax.Array]],
    sizes: Sequence[int],
    join: Callable[..., jax.Array],
) -> Callable[..., jax.Array]:
    """``plain``, as one vector, which devices exchange after they joined all that they hold."""

    def in_one(*flat: jax.Array) -> jax.Array:
        return _concatenated(plain(*flat))

    def partition(mesh: Any, shapes: Any, result: Any) -> Any:
        everywhere = _everywhere(shapes[-1])
        shardings: list[Any] = []
        copies = []
        for group in _regrouped(shapes, sizes):
            if _held_alike(group):
                shardings += [array.sharding for array in group]
                copies.append(_copies(group[-1]))
            else:  # not of our making, but the sum must be right then too
                shardings += [everywhere] * len(group)
                copies.append(everywhere.mesh.size)

        def on_device(*flat: jax.Array) -> Any:
            parts = [local(*group) for group in _regrouped(flat, sizes)]
            if join is jnp.maximum:
                return jax.lax.pmax(_concatenated(_joined(join, parts)), "all")  # type: ignore[no-untyped-call]
            # What is held by several devices is added up as often.
            parts = [[x / number for x in part] for part, number in zip(parts, copies, strict=True)]
            return jax.lax.psum(_concatenated(_joined(join, parts)), "all")  # type: ignore[no-untyped-call]

        return everywhere.mesh, on_device, everywhere, tuple(shardings)

    shared = custom_partitioning(in_one)  # type: ignore[no-untyped-call]
    shared.def_partition(  # type: ignore[no-untyped-call]
        partition=partition,
        infer_sharding_from_operands=lambda mesh, shapes, result: _everywhere(shapes[-1]),
        sharding_rule=lambda *args: _rule([value.shape for value in args[-2]], sizes),
    )
    batchable = jax.custom_batching.custom_vmap(lambda *flat: shared(*flat))

    @batchable.def_vmap
    def over_batch(size: int, batched: Any, *flat: Any) -> Any:
        return jax.vmap(in_one, in_axes=batching.axes(tuple(batched)), axis_size=size)(*flat), True

    smooth = jax.custom_jvp(lambda *flat: batchable(*flat))
    smooth.defjvp(lambda primals, tangents: jax.jvp(in_one, primals, tangents))
    exchange: Callable[..., jax.Array] = smooth
    return exchange


def _rule(shapes: Sequence[tuple[int, ...]], sizes: Sequence[int]) -> str:
    """Which dimensions are one: the last of the arrays of a group."""
    names = (f"d{k}" for k in itertools.count())
    texts = []
    for group in _regrouped(shapes, sizes):
        last = [next(names) for _ in group[-1]]
        for shape in group:
            leading = [next(names) for _ in shape[len(last) :]]
            texts.append(" ".join([*leading, *last]))
    return f"{', '.join(texts)} -> {next(names)}"


def _everywhere(array: Any) -> NamedSharding:
    """A copy on each device of an array, on a mesh of one axis."""
    # Dimensions that can be cut evenly, whatever the sharding.
    shape = tuple(n * len(array.sharding.device_set) for n in array.shape)
    devices = list(array.sharding.devices_indices_map(shape))  # in the order of the program
    return NamedSharding(Mesh(np.array(devices), ("all",)), PartitionSpec())  # type: ignore[no-untyped-call]


def _held(array: Any, ndim: int) -> dict[Any, Any]:
    """What each device holds of an array in its last axes; nothing if its other axes are cut."""
    leading = len(array.shape) - ndim
    held = {}
    for device, cut in array.sharding.devices_indices_map(array.shape).items():
        ranges = [axis.indices(n) for axis, n in zip(cut, array.shape, strict=True)]
        if any(span != (0, n, 1) for span, n in zip(ranges[:leading], array.shape, strict=False)):
            return {}
        held[device] = tuple(ranges[leading:])
    return held


def _held_alike(group: Sequence[Any]) -> bool:
    """Whether every device holds the same entries of all arrays of a group, and equally many."""
    last = group[-1]
    try:
        last.sharding.shard_shape(last.shape)
        wanted = _held(last, len(last.shape))
        return all(_held(array, len(last.shape)) == wanted for array in group)
    except ValueError:  # shards of different sizes
        return False


def _copies(array: Any) -> int:
    """How many devices hold the same entries."""
    held = _held(array, len(array.shape))
    return len(held) // len(set(held.values()))
