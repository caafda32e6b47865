"""The placement of an array as its type states it: sharded along explicit axes of a mesh.

Types state it since JAX 0.7. On automatic axes the compiler decides, and a type states nothing.
"""

from collections.abc import Iterable
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike

_HAS_TYPES = hasattr(jax, "typeof") and hasattr(jax, "shard_map")


def spec(x: jax.Array) -> tuple[Any, ...]:
    """For each axis of an array the mesh axes along which it is sharded explicitly, or None."""
    return tuple(jax.typeof(x).sharding.spec) if _HAS_TYPES else (None,) * x.ndim


def explicit_mesh(x: jax.Array) -> Any:
    """The mesh of an array that is sharded explicitly; None for any other array."""
    return jax.typeof(x).sharding.mesh if any(spec(x)) else None


def kinds_of_axes(arrays: Iterable[jax.Array]) -> set[str]:
    """The types of the mesh axes along which arrays may be spread, as ``AxisType`` names them.

    Those of the mesh that the user has set count as well, since the program may use it. Before JAX
    0.7 there are none, and outside a mesh.
    """
    if not _HAS_TYPES:
        return set()
    meshes = [jax.typeof(x).sharding.mesh for x in arrays]
    meshes.append(jax.sharding.get_abstract_mesh())
    return {kind.name for mesh in meshes for kind in mesh.axis_types}


def contract(
    x: jax.Array, y: jax.Array, axes: tuple[tuple[int, ...], tuple[int, ...]], dtype: DTypeLike
) -> jax.Array:
    """The products of two arrays summed over axes of both; a sum over devices is on each of them.

    Args:
        x: array.
        y: array.
        axes: the axes of ``x``, and the axes of ``y`` that are multiplied with them.
        dtype: in which the products are summed.
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
    result: jax.Array = jax.lax.dot_general(
        x,
        y,
        (axes, ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=dtype,
        **stated,
    )
    return result
