"""The placement of arrays as their types state it.

Since JAX 0.7 a type states along which *explicit* axes of a mesh an array is sharded, and inside
``shard_map`` along which axes it *varies*, which means that it may differ between devices. On
automatic axes the compiler decides, and a type does not show its choice.
"""

import contextlib
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from .types import Tree, map_leaves

_HAS_TYPES = jax.__version_info__ >= (0, 7)


def spec(x: jax.Array) -> tuple[Any, ...]:
    """For each axis of an array the mesh axes along which it is sharded explicitly, or None."""
    return tuple(jax.typeof(x).sharding.spec) if _HAS_TYPES else (None,) * x.ndim


def explicit_mesh(x: jax.Array) -> Any:
    """The mesh of an array if it has explicit axes; None for any other array."""
    mesh = jax.typeof(x).sharding.mesh if _HAS_TYPES else None
    return mesh if mesh and "Explicit" in _kinds(mesh) else None


def _kinds(mesh: Any) -> set[str]:
    return {kind.name for kind in mesh.axis_types}


def on_mesh_of(*trees: object) -> contextlib.AbstractContextManager[Any]:
    """Sets the explicit mesh of traced arrays, as :func:`jax.set_mesh` does, where none is set.

    Under :func:`jax.vmap` over a sharded axis JAX needs it for every constant of the function.
    """
    traced = (x for x in jax.tree.leaves(trees) if isinstance(x, jax.core.Tracer))
    mesh = next(filter(None, map(explicit_mesh, traced)), None)
    if mesh is None or not jax.sharding.get_abstract_mesh().empty:
        return contextlib.nullcontext()
    return jax.sharding.use_abstract_mesh(mesh)


def beside(tree: Tree, *others: object) -> Tree:
    """The arrays of a new state, placed where those of other trees are.

    An array on no mesh is copied to all devices of the explicit mesh of the others. Inside
    ``shard_map``, see :func:`varying_with`.
    """
    found = [x for x in jax.tree.leaves(others) if explicit_mesh(x)]
    if found:
        # An operation with an array of the mesh has a result there, also outside jax.set_mesh.
        zero = jnp.any(found[0] != found[0]) & False
        tree = map_leaves(lambda x: x if explicit_mesh(x) else x + zero.astype(x.dtype), tree)
    return varying_with(_apart(tree), *others)


def _apart(tree: Tree) -> Tree:
    """The tree, of which no two leaves are the same array: JAX donates an array only once."""
    seen: set[int] = set()

    def of_leaf(x: jax.Array) -> jax.Array:
        is_seen = id(x) in seen and not isinstance(x, jax.core.Tracer)
        seen.add(id(x))
        return jnp.copy(x) if is_seen else x

    return map_leaves(of_leaf, tree)


def zeros(like: Any) -> jax.Array:
    """Zeros like an array, a number or a :class:`jax.ShapeDtypeStruct`, sharded as it is."""
    empty = jnp.zeros(np.shape(like), jnp.result_type(like))
    if isinstance(like, jax.core.Tracer) and any(spec(like)):
        like = jax.typeof(like)
    sharding = getattr(like, "sharding", None)
    if not _HAS_TYPES or not isinstance(sharding, NamedSharding) or not any(sharding.spec):
        return empty
    return _put(empty, sharding)


def _put(x: jax.Array, sharding: NamedSharding) -> jax.Array:
    put: Any = jax.device_put if isinstance(sharding.mesh, Mesh) else jax.sharding.reshard
    return put(x, sharding)


def gathered(tree: Tree) -> Tree:
    """The tree, with arrays that are sharded explicitly made whole on each device."""

    def gather(x: jax.Array) -> jax.Array:
        if not any(spec(x)):
            return x
        is_known = not isinstance(x, jax.core.Tracer)
        mesh = x.sharding.mesh if is_known else explicit_mesh(x)  # type: ignore[attr-defined]
        return _put(x, NamedSharding(mesh, PartitionSpec()))

    return map_leaves(gather, tree)


def varying_with(tree: Tree, *others: object) -> Tree:
    """The tree, whose arrays now vary along every axis along which an array of the others does.

    The carry of a loop, and the results of two branches, must have one type. Elsewhere than in a
    ``shard_map`` with ``check_vma=True`` this changes nothing.
    """
    axes = frozenset[str]().union(*map(_varying_axes, jax.tree.leaves(others)))

    def vary(x: jax.Array) -> jax.Array:
        missing = tuple(sorted(axes - _varying_axes(x)))
        if not missing:
            return x
        lax: Any = jax.lax
        if hasattr(lax, "pcast"):  # from JAX 0.8 on
            return lax.pcast(x, missing, to="varying")
        return lax.pvary(x, missing)

    return map_leaves(vary, tree) if axes else tree


def _varying_axes(x: Any) -> frozenset[str]:
    """The axes along which an array or a :class:`jax.ShapeDtypeStruct` varies."""
    kind = jax.typeof(x) if isinstance(x, jax.core.Tracer) and _HAS_TYPES else x
    axes = getattr(kind, "vma", None)  # until JAX 0.9
    if axes is None:
        axes = getattr(getattr(kind, "manual_axis_type", None), "varying", None)
    return axes or frozenset()


def kinds_of_axes(arrays: Iterable[jax.Array]) -> set[str]:
    """The types of the mesh axes along which arrays may be spread, as ``AxisType`` names them.

    Those of the mesh that the user has set count as well, since the program may use it. Before JAX
    0.7 there are none, and outside a mesh.
    """
    if not _HAS_TYPES:
        return set()
    meshes = [jax.typeof(x).sharding.mesh for x in arrays]
    meshes.append(jax.sharding.get_abstract_mesh())
    return set[str]().union(*map(_kinds, meshes))


def contract(
    x: jax.Array, y: jax.Array, axes: tuple[tuple[int, ...], tuple[int, ...]], dtype: DTypeLike
) -> jax.Array:
    """The products of two arrays summed over axes of both; a sum over devices is on each of them.

    ``axes`` are those of ``x``, and those of ``y`` that are multiplied with them.
    """
    mesh = explicit_mesh(x) or explicit_mesh(y)
    rest = [
        name
        for array, summed in zip((x, y), axes, strict=True)
        for axis, name in enumerate(spec(array))
        if axis not in summed
    ]
    stated = {"out_sharding": NamedSharding(mesh, PartitionSpec(*rest))} if mesh else {}
    # Not jnp.vdot: it flattens its arguments, which gathers an array sharded along two axes.
    return jax.lax.dot_general(
        x,
        y,
        (axes, ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=dtype,
        **stated,
    )
