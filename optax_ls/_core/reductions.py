"""Sums and maxima over all entries of trees: one pass, and over many devices one all-reduce.

All inner products are real: a complex vector counts as the real one of twice its length.

By default the compiler makes an all-reduce for each product of each leaf, and joins some of them.
Here each device first computes its share of all products, and then the devices exchange one vector.
Where the compiler chooses the sharding, this is expressed with JAX's ``custom_partitioning``; where
the types of the arrays state it, with ``shard_map``. It is left to the compiler in a process with
one device, before JAX 0.5 (where ``custom_partitioning`` changes how the rest of the program is
sharded), on meshes that have axes of both kinds, and inside a ``shard_map`` of the user, where all
arrays are on one device.
"""

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Optional, TypeVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jax.typing import DTypeLike

from . import numerics, placement
from .types import Arrays, Scalar

Item = TypeVar("Item")

# True from JAX 0.5 on, where an operation can state a rule for the sharding of its dimensions.
_HAS_RULES = "sharding_rule" in inspect.signature(custom_partitioning.def_partition).parameters


def dot(x: jax.Array, y: jax.Array, dtype: DTypeLike) -> jax.Array:
    """The real inner product of two arrays; leading axes that only ``x`` has remain.

    Half-precision entries are accumulated in float32.
    """
    if jnp.iscomplexobj(x):
        return dot(x.real, y.real, dtype) + dot(x.imag, y.imag, dtype)
    axes = tuple(range(x.ndim - y.ndim, x.ndim)), tuple(range(y.ndim))
    return placement.contract(x, y, axes, numerics.at_least_float32(x.dtype)).astype(dtype)


def inner(pairs: Sequence[tuple[chex.ArrayTree, chex.ArrayTree]], dtype: DTypeLike) -> Arrays:
    """The real inner products of several pairs of trees, all of one structure."""

    def of_leaves(*leaves: jax.Array) -> Arrays:
        wide = jnp.result_type(*leaves)
        each = [x.astype(wide) for x in leaves]
        return [dot(x, y, dtype) for x, y in zip(each[::2], each[1::2], strict=True)]

    trees = [jax.tree.map(jnp.asarray, tree) for pair in pairs for tree in pair]
    return sums(of_leaves, trees, ((),) * len(pairs), dtype)


def maxima(trees: Sequence[chex.ArrayTree], dtype: DTypeLike) -> Sequence[Scalar]:
    """The largest absolute value in each of several trees of one structure; 0 if there is none."""

    def local(*leaves: jax.Array) -> Arrays:
        return [jnp.max(jnp.abs(x), initial=0).astype(dtype) for x in leaves]

    return sums(local, trees, ((),) * len(trees), dtype, jnp.maximum)


def sums(
    local: Callable[..., Arrays],
    trees: Sequence[chex.ArrayTree],
    shapes: Sequence[tuple[int, ...]],
    dtype: DTypeLike,
    join: Callable[..., jax.Array] = jnp.add,
) -> Arrays:
    """The sums over all leaves of ``local(*leaves)``; zeros if there are none.

    Args:
        local: a function of arrays that returns several sums over their entries.
        trees: of one structure; leaves have the shapes of the last tree's after any leading axes.
        shapes: the shapes of the arrays that ``local`` returns.
        dtype: their dtype.
        join: ``jnp.add``, or ``jnp.maximum`` for maxima instead of sums.
    """
    groups = list(zip(*map(jax.tree.leaves, trees), strict=True))
    if not groups:
        return [jnp.zeros(shape, dtype) for shape in shapes]
    size, flat = len(trees), list(itertools.chain(*groups))

    def plain(*flat: jax.Array, copies: Sequence[int] = ()) -> Arrays:
        parts = [local(*group) for group in _groups(flat, size)]
        if copies and join is jnp.add:
            # The sum over the devices counts each array as often as there are copies of it.
            parts = [[x / n for x in part] for part, n in zip(parts, copies, strict=True)]
        return [functools.reduce(join, arrays) for arrays in zip(*parts, strict=True)]

    def in_one(*flat: jax.Array) -> jax.Array:
        return _concatenated(plain(*flat))

    def on_device(copies: Sequence[int], axes: tuple[Any, ...]) -> Callable[..., Any]:
        """The function of the arrays on one device; ``copies`` devices hold each group."""
        reduce: Any = jax.lax.psum if join is jnp.add else jax.lax.pmax
        return lambda *flat: reduce(_concatenated(plain(*flat, copies=copies)), axes)

    exchange = None
    if jax.device_count() > 1 and all(array.size > 0 for array in flat):
        kinds = placement.kinds_of_axes(flat)
        if kinds == {"Explicit"}:
            exchange = _by_types(on_device, groups)
        elif kinds <= {"Auto"} and _HAS_RULES:
            exchange = _by_compiler(on_device, in_one, size)
    if exchange is None:
        return plain(*flat)
    vector = _transformable(exchange, in_one)(*flat)
    parts = jnp.split(vector, np.cumsum([math.prod(shape) for shape in shapes])[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _groups(flat: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [flat[begin : begin + size] for begin in range(0, len(flat), size)]


def _concatenated(arrays: Arrays) -> jax.Array:
    return jnp.concatenate([array.reshape(-1) for array in arrays])


def _transformable(
    exchange: Callable[..., jax.Array], in_one: Callable[..., jax.Array]
) -> Callable[..., jax.Array]:
    """``exchange``; under :func:`jax.vmap`, and for a derivative, ``in_one``, which equals it."""
    batchable = jax.custom_batching.custom_vmap(lambda *flat: exchange(*flat))

    @batchable.def_vmap
    def over_batch(size: int, batched: Sequence[bool], *flat: jax.Array) -> tuple[jax.Array, bool]:
        axes = [0 if is_batched else None for is_batched in batched]
        return jax.vmap(in_one, in_axes=axes, axis_size=size)(*flat), True

    smooth = jax.custom_jvp(lambda *flat: batchable(*flat))
    smooth.defjvp(lambda primals, tangents: jax.jvp(in_one, primals, tangents))
    return smooth


OnDevice = Callable[[Sequence[int], tuple[Any, ...]], Callable[..., Any]]


def _by_types(
    on_device: OnDevice, groups: Sequence[tuple[jax.Array, ...]]
) -> Optional[Callable[..., jax.Array]]:
    """The exchange between the devices that the types of the arrays name.

    None if no array is sharded, or those of a group are sharded in different ways.
    """
    specs, used = [], []
    for group in groups:
        last = placement.spec(group[-1])
        used.append({axis for names in last if names for axis in np.atleast_1d(names).tolist()})
        for array in group:
            specs.append((None,) * (array.ndim - len(last)) + last)
            if placement.spec(array) != specs[-1]:
                return None
    if not any(used):
        return None
    mesh = next(filter(None, map(placement.explicit_mesh, itertools.chain(*groups))))
    axes = tuple(axis for axis in mesh.axis_names if any(axis in some for some in used))
    copies = [math.prod(mesh.shape[axis] for axis in axes if axis not in some) for some in used]
    exchange = jax.shard_map(
        on_device(copies, axes),
        mesh=mesh,
        in_specs=tuple(PartitionSpec(*spec) for spec in specs),
        out_specs=PartitionSpec(),
        axis_names=set(axes),
        check_vma=False,
    )
    return jax.jit(exchange)  # without jit, shard_map takes no mesh with further axes


def _by_compiler(
    on_device: OnDevice, in_one: Callable[..., jax.Array], size: int
) -> Callable[..., jax.Array]:
    """The exchange between the devices over which the compiler spreads the arrays."""

    def partition(
        mesh: Mesh, shapes: Sequence[jax.ShapeDtypeStruct], result: jax.ShapeDtypeStruct
    ) -> tuple[Any, ...]:
        everywhere = _on_all_devices(shapes[-1])
        shardings: list[Sharding] = []
        copies = []
        for group in _groups(shapes, size):
            number = _copies(group)
            if number is None:  # the user has sharded them differently: every device reads all
                shardings += [everywhere] * len(group)
                copies.append(everywhere.mesh.size)
            else:
                shardings += [array.sharding for array in group]
                copies.append(number)
        return everywhere.mesh, on_device(copies, ("all",)), everywhere, tuple(shardings)

    exchange = custom_partitioning(in_one)
    exchange.def_partition(
        partition=partition,
        infer_sharding_from_operands=lambda mesh, shapes, result: _on_all_devices(shapes[-1]),
        sharding_rule=lambda *args: _rule([value.shape for value in args[-2]], size),
    )
    return lambda *flat: exchange(*flat)


def _rule(shapes: Sequence[tuple[int, ...]], size: int) -> str:
    """The sharding rule: the last dimensions of all arrays of a group are the same."""
    names = (f"d{k}" for k in itertools.count())
    texts = []
    for group in _groups(shapes, size):
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
    return NamedSharding(Mesh(np.array(devices), ("all",)), PartitionSpec())


def _copies(group: Sequence[jax.ShapeDtypeStruct]) -> Optional[int]:
    """The number of devices that have the same entries of the arrays.

    None if a device has different entries of some arrays, or if not all shards have one size.
    """
    shards = []
    for array in group:
        leading = len(array.shape) - len(group[-1].shape)
        try:
            is_whole = array.sharding.shard_shape(array.shape)[:leading] == array.shape[:leading]
        except ValueError:  # shards of different sizes
            return None
        if not is_whole:
            return None
        ranges = {}  # of the last axes, for each device
        for device, slices in array.sharding.devices_indices_map(array.shape).items():
            last = zip(slices[leading:], array.shape[leading:], strict=True)
            ranges[device] = tuple(axis.indices(n) for axis, n in last)
        shards.append(ranges)
    if any(ranges != shards[0] for ranges in shards):
        return None
    return len(shards[0]) // len(set(shards[0].values()))
