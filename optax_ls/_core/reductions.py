"""Sums and maxima over all entries of trees: one pass, and over many devices one all-reduce.

By default the compiler makes an all-reduce for each product of each leaf, and joins some of them.
Here each device first computes its share of all products, and then the devices exchange one vector.
This is expressed with JAX's ``custom_partitioning``. It is not used in a process with one device,
nor before JAX 0.5, where it changes how the rest of the program is sharded.

All inner products are real: a complex vector counts as the real one of twice its length.
"""

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jax.typing import DTypeLike

from . import batching, numerics
from .types import Scalar

Arrays = Sequence[jax.Array]
Item = TypeVar("Item")

# True from JAX 0.5 on, where an operation can state a rule for the sharding of its dimensions.
_HAS_RULES = "sharding_rule" in inspect.signature(custom_partitioning.def_partition).parameters


def dot(x: jax.Array, y: jax.Array, dtype: DTypeLike) -> jax.Array:
    """The real inner product of two arrays; leading axes that only ``x`` has remain.

    Half-precision entries are accumulated in float32.
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


def inner(x: chex.ArrayTree, y: chex.ArrayTree, dtype: DTypeLike) -> Scalar:
    """The real inner product of two trees."""
    (product,) = sums(lambda x, y: (dot(x, y, dtype),), (x, y), ((),), dtype)
    return product


def inner_with_rows(
    rows: chex.ArrayTree, y: chex.ArrayTree, size: int, dtype: DTypeLike
) -> jax.Array:
    """The real inner products of a tree with ``size`` others, stacked on a leading axis."""
    (products,) = sums(lambda rows, y: (dot(rows, y, dtype),), (rows, y), ((size,),), dtype)
    return products


def slopes(
    direction: chex.ArrayTree, grads: Sequence[chex.ArrayTree], dtype: DTypeLike
) -> Sequence[Scalar]:
    """The real inner products of a direction with each of several gradients."""

    def of_leaf(d: jax.Array, *grads: jax.Array) -> Arrays:
        wide = numerics.promoted(d, *grads)
        return [dot(d.astype(wide), g.astype(wide), dtype) for g in grads]

    trees = [jax.tree.map(jnp.asarray, tree) for tree in (direction, *grads)]
    return sums(of_leaf, trees, ((),) * len(grads), dtype)


def sums(
    local: Callable[..., Arrays],
    trees: Sequence[chex.ArrayTree],
    shapes: Sequence[tuple[int, ...]],
    dtype: DTypeLike,
) -> Arrays:
    """The sums over all leaves of ``local(*leaves)``.

    Args:
        local: a function of arrays that returns several sums over their entries.
        trees: of one structure; their leaves have the same shape except for leading axes.
        shapes: the shapes of the arrays that ``local`` returns.
        dtype: their dtype.
    """
    groups = list(zip(*map(jax.tree.leaves, trees), strict=True))
    if not groups:
        return [jnp.zeros(shape, dtype) for shape in shapes]
    return _over_entries(local, groups, shapes, jnp.add)


def maxima(trees: Sequence[chex.ArrayTree], dtype: DTypeLike) -> Sequence[Scalar]:
    """The largest absolute value in each of several trees of one structure; 0 if there is none."""

    def of_leaves(*leaves: jax.Array) -> Arrays:
        return [jnp.max(jnp.abs(x), initial=0).astype(dtype) for x in leaves]

    groups = list(zip(*map(jax.tree.leaves, trees), strict=True))
    if not groups:
        return [jnp.zeros((), dtype) for _ in trees]
    return _over_entries(of_leaves, groups, ((),) * len(trees), jnp.maximum)


def _over_entries(
    local: Callable[..., Arrays],
    groups: list[tuple[jax.Array, ...]],
    shapes: Sequence[tuple[int, ...]],
    join: Callable[..., jax.Array],
) -> Arrays:
    """Joins ``local(*group)`` of all groups of arrays: by ``jnp.add``, or by ``jnp.maximum``."""
    sizes = [len(group) for group in groups]
    flat = [array for group in groups for array in group]

    def plain(*flat: jax.Array) -> Arrays:
        return _joined(join, [local(*group) for group in _regrouped(flat, sizes)])

    if not (jax.device_count() > 1 and _HAS_RULES) or any(array.size == 0 for array in flat):
        return plain(*flat)
    vector = _in_one_exchange(local, plain, sizes, join)(*flat)
    parts = jnp.split(vector, np.cumsum([math.prod(shape) for shape in shapes])[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _regrouped(flat: Sequence[Item], sizes: Sequence[int]) -> Iterator[tuple[Item, ...]]:
    begin = 0
    for size in sizes:
        yield tuple(flat[begin : begin + size])
        begin += size


def _joined(join: Callable[..., jax.Array], parts: Sequence[Arrays]) -> Arrays:
    return [functools.reduce(join, arrays) for arrays in zip(*parts, strict=True)]


def _concatenated(arrays: Arrays) -> jax.Array:
    return jnp.concatenate([array.reshape(-1) for array in arrays])


def _in_one_exchange(
    local: Callable[..., Arrays],
    plain: Callable[..., Arrays],
    sizes: Sequence[int],
    join: Callable[..., jax.Array],
) -> Callable[..., jax.Array]:
    """The results of ``plain`` as one vector, by one all-reduce.

    Args:
        local: a function of a group of arrays that returns several arrays.
        plain: joins the results of ``local`` for all groups.
        sizes: how many arrays are in each group.
        join: ``jnp.add`` or ``jnp.maximum``.
    """

    def in_one(*flat: jax.Array) -> jax.Array:
        return _concatenated(plain(*flat))

    def partition(
        mesh: Mesh, shapes: Sequence[jax.ShapeDtypeStruct], result: jax.ShapeDtypeStruct
    ) -> tuple[Any, ...]:
        everywhere = _on_all_devices(shapes[-1])
        shardings: list[Sharding] = []
        copies = []
        for group in _regrouped(shapes, sizes):
            if _have_same_shards(group):
                shardings += [array.sharding for array in group]
                copies.append(_copies(group[-1]))
            else:  # the user has sharded them differently, so every device reads all of them
                shardings += [everywhere] * len(group)
                copies.append(everywhere.mesh.size)

        def on_device(*flat: jax.Array) -> Any:
            parts = [local(*group) for group in _regrouped(flat, sizes)]
            if join is jnp.maximum:
                return jax.lax.pmax(_concatenated(_joined(join, parts)), "all")  # type: ignore[no-untyped-call]
            # The sum over the devices counts each array as often as there are copies of it.
            parts = [[x / number for x in part] for part, number in zip(parts, copies, strict=True)]
            return jax.lax.psum(_concatenated(_joined(join, parts)), "all")  # type: ignore[no-untyped-call]

        return everywhere.mesh, on_device, everywhere, tuple(shardings)

    shared = custom_partitioning(in_one)  # type: ignore[no-untyped-call]
    shared.def_partition(  # type: ignore[no-untyped-call]
        partition=partition,
        infer_sharding_from_operands=lambda mesh, shapes, result: _on_all_devices(shapes[-1]),
        sharding_rule=lambda *args: _rule([value.shape for value in args[-2]], sizes),
    )
    batchable = jax.custom_batching.custom_vmap(lambda *flat: shared(*flat))

    @batchable.def_vmap
    def over_batch(size: int, batched: Sequence[bool], *flat: jax.Array) -> tuple[jax.Array, bool]:
        return jax.vmap(in_one, in_axes=batching.axes(tuple(batched)), axis_size=size)(*flat), True

    smooth = jax.custom_jvp(lambda *flat: batchable(*flat))
    smooth.defjvp(lambda primals, tangents: jax.jvp(in_one, primals, tangents))
    exchange: Callable[..., jax.Array] = smooth
    return exchange


def _rule(shapes: Sequence[tuple[int, ...]], sizes: Sequence[int]) -> str:
    """The sharding rule: the last dimensions of all arrays of a group are the same."""
    names = (f"d{k}" for k in itertools.count())
    texts = []
    for group in _regrouped(shapes, sizes):
        last = [next(names) for _ in group[-1]]
        for shape in group:
            leading = [next(names) for _ in shape[len(last) :]]
            texts.append(" ".join([*leading, *last]))
    return f"{', '.join(texts)} -> {next(names)}"


def _on_all_devices(array: jax.ShapeDtypeStruct) -> NamedSharding:
    """The sharding with a copy on each device of ``array``, on a mesh of one axis."""
    # A shape that every sharding over these devices divides evenly.
    shape = tuple(n * len(array.sharding.device_set) for n in array.shape)
    devices = list(array.sharding.devices_indices_map(shape))  # in the order of the program
    return NamedSharding(Mesh(np.array(devices), ("all",)), PartitionSpec())  # type: ignore[no-untyped-call]


def _shards(
    array: jax.ShapeDtypeStruct, ndim: int
) -> dict[jax.Device, tuple[tuple[int, int, int], ...]]:
    """The ranges of the last axes that each device has; empty if other axes are sharded."""
    leading = len(array.shape) - ndim
    shards = {}
    for device, slices in array.sharding.devices_indices_map(array.shape).items():
        ranges = [axis.indices(n) for axis, n in zip(slices, array.shape, strict=True)]
        if any(span != (0, n, 1) for span, n in zip(ranges[:leading], array.shape, strict=False)):
            return {}
        shards[device] = tuple(ranges[leading:])
    return shards


def _have_same_shards(group: Sequence[jax.ShapeDtypeStruct]) -> bool:
    """True if each device has the same entries of all arrays, and all shards have one size."""
    last = group[-1]
    try:
        last.sharding.shard_shape(last.shape)
        wanted = _shards(last, len(last.shape))
        return all(_shards(array, len(last.shape)) == wanted for array in group)
    except ValueError:  # shards of different sizes
        return False


def _copies(array: jax.ShapeDtypeStruct) -> int:
    """The number of devices that have the same entries."""
    shards = _shards(array, len(array.shape))
    return len(shards) // len(set(shards.values()))
