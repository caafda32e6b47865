"""Linear algebra on pytrees.

The functions map over leaves as :func:`jax.tree.map` does, so ``None`` is an empty subtree, and
promote dtypes as JAX does. Reductions of float16 and bfloat16 leaves are accumulated, and
returned, in float32.
"""

import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any, Optional, Union

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from . import numerics, placement
from .types import Flag, KeyPath, Tree, map_leaves

_MISSING = object()


def get(
    tree: chex.ArrayTree,
    key: object,
    default: Any = None,
    filtering: Optional[Callable[[KeyPath, Any], bool]] = None,
) -> Any:
    """Fetches the one value under ``key``, anywhere in a tree.

    Args:
        tree: any pytree, typically the state of a chain.
        key: a dictionary key, a field of a NamedTuple or dataclass, or the name of a NamedTuple
            class (which fetches the tuple itself).
        default: returned if there is no value under ``key``.
        filtering: ``filtering(path, value)`` returns False for a value to leave out; ``path`` is a
            tuple of JAX's key entries.

    Raises:
        KeyError: ``key`` is found more than once; the message lists where.

    Example:
        >>> import jax.numpy as jnp, optax_ls
        >>> state = optax_ls.lbfgs().init(jnp.zeros(3))
        >>> int(optax_ls.tree.get(state, "num_linesearch_steps"))
        0
    """
    found = [
        (path, value)
        for path, value in _find(tree, key, ())
        if not filtering or filtering(path, value)
    ]
    if len(found) > 1:
        places = ", ".join(jax.tree_util.keystr(path) for path, _ in found)
        raise KeyError(f"{key!r} is found {len(found)} times in the tree: {places}")
    return found[0][1] if found else default


def _find(node: object, key: object, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    if hasattr(node, "_fields") and type(node).__name__ == key:
        yield path, node
    children = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)[0]
    for entries, child in children:
        if not entries:  # a leaf is its own only child
            continue
        name = getattr(entries[0], "name", getattr(entries[0], "key", _MISSING))
        if name is not _MISSING and name == key:
            yield path + entries, child
        yield from _find(child, key, path + entries)


def add(tree_x: Tree, tree_y: chex.ArrayTree, *other_trees: chex.ArrayTree) -> Tree:
    """The sum of two or more trees, leaf by leaf.

    Example:
        >>> import optax_ls
        >>> optax_ls.tree.add({"a": 1.0}, {"a": 2.0}, {"a": 3.0})
        {'a': 6.0}
    """
    return map_leaves(
        lambda *leaves: functools.reduce(operator.add, leaves), tree_x, tree_y, *other_trees
    )


def sub(tree_x: Tree, tree_y: chex.ArrayTree) -> Tree:
    """The difference ``tree_x - tree_y``, leaf by leaf.

    Example:
        >>> import optax_ls
        >>> optax_ls.tree.sub([3.0], [1.0])
        [2.0]
    """
    return map_leaves(operator.sub, tree_x, tree_y)


def scale(scalar: chex.Numeric, tree: Tree) -> Tree:
    """The multiple ``scalar * tree``.

    Example:
        >>> import optax_ls
        >>> optax_ls.tree.scale(2.0, [3.0])
        [6.0]
    """
    return map_leaves(lambda x: scalar * x, tree)


def add_scale(tree_x: Tree, scalar: chex.Numeric, tree_y: chex.ArrayTree) -> Tree:
    """The combination ``tree_x + scalar * tree_y``.

    Example:
        >>> import optax_ls
        >>> optax_ls.tree.add_scale([1.0], 2.0, [3.0])
        [7.0]
    """
    return map_leaves(lambda x, y: x + scalar * y, tree_x, tree_y)


def vdot(tree_x: chex.ArrayTree, tree_y: chex.ArrayTree) -> jax.Array:
    """The inner product of two trees, conjugating the first: a scalar, complex if a leaf is.

    It is zero for trees without leaves.

    Example:
        >>> import jax.numpy as jnp, optax_ls
        >>> float(optax_ls.tree.vdot({"a": jnp.array([1.0, 2.0])}, {"a": jnp.array([3.0, 4.0])}))
        11.0
    """
    return sum(jax.tree.map(_leaf_vdot, tree_x, tree_y))


def _leaf_vdot(x: ArrayLike, y: ArrayLike) -> jax.Array:
    dtype = jnp.result_type(x, y)
    x, y = jnp.conj(jnp.asarray(x, dtype)), jnp.asarray(y, dtype)
    axes = tuple(range(x.ndim))
    return placement.contract(x, y, (axes, axes), _accumulator(dtype))


def _accumulator(dtype: DTypeLike) -> DTypeLike:
    half = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32
    return jnp.dtype(jnp.float32) if half else dtype


def sum(tree: chex.ArrayTree) -> jax.Array:
    """The sum of all elements of a tree; zero for a tree without leaves.

    Example:
        >>> import jax.numpy as jnp, optax_ls
        >>> float(optax_ls.tree.sum({"a": jnp.ones(3), "b": 2.0}))
        5.0
    """
    leaves = [jnp.sum(x, dtype=_accumulator(jnp.asarray(x).dtype)) for x in jax.tree.leaves(tree)]
    return functools.reduce(operator.add, leaves) if leaves else jnp.zeros(())


def norm(
    tree: chex.ArrayTree, ord: Union[int, float, str, None] = None, squared: bool = False
) -> jax.Array:
    """The norm of a tree taken as one vector.

    Args:
        tree: any pytree of arrays.
        ord: 2 or None for the Euclidean norm, 1 for the sum, ``jnp.inf`` or ``'inf'`` for the
            maximum of the absolute values.
        squared: whether to return the square of the norm.

    Raises:
        ValueError: another ``ord``.

    Example:
        >>> import jax.numpy as jnp, optax_ls
        >>> float(optax_ls.tree.norm({"a": jnp.array([3.0]), "b": jnp.array([4.0])}))
        5.0
    """
    if ord in (None, 2):
        total = sum(jax.tree.map(lambda x: _leaf_vdot(x, x).real, tree))
        return total if squared else jnp.sqrt(total)
    if ord == 1:
        result = sum(jax.tree.map(jnp.abs, tree))
    elif ord in ("inf", jnp.inf):
        largest = [jnp.max(jnp.abs(x), initial=0.0) for x in jax.tree.leaves(tree)]
        result = functools.reduce(
            jnp.maximum, largest, jnp.zeros((), jnp.result_type(*largest, jnp.float32))
        )
    else:
        raise ValueError(f"ord must be None, 1, 2 or infinity, got {ord!r}")
    return result**2 if squared else result


def zeros_like(tree: Tree, dtype: Optional[DTypeLike] = None) -> Tree:
    """Zeros of the shapes of a tree, in its dtypes unless ``dtype`` is given.

    Example:
        >>> import optax_ls
        >>> optax_ls.tree.zeros_like({"a": 1.0})
        {'a': Array(0., dtype=float32, weak_type=True)}
    """
    return map_leaves(lambda x: jnp.zeros_like(x, dtype=dtype), tree)


def where(condition: Union[bool, Flag], tree_x: Tree, tree_y: Tree) -> Tree:
    """``tree_x`` where the condition holds, else ``tree_y``.

    Example:
        >>> import optax_ls
        >>> [float(x) for x in optax_ls.tree.where(True, [1.0], [2.0])]
        [1.0]
    """
    return map_leaves(lambda x, y: jnp.where(condition, x, y), tree_x, tree_y)


def real(tree: Tree) -> Tree:
    """The real part of every leaf.

    Example:
        >>> import jax.numpy as jnp, optax_ls
        >>> optax_ls.tree.real([jnp.array([1 + 2j])])
        [Array([1.], dtype=float32)]
    """
    return map_leaves(jnp.real, tree)


def conj(tree: Tree) -> Tree:
    """The complex conjugate of every leaf.

    Example:
        >>> import jax.numpy as jnp, optax_ls
        >>> optax_ls.tree.conj([jnp.array([1 + 2j])])
        [Array([1.-2.j], dtype=complex64)]
    """
    return map_leaves(jnp.conj, tree)


def cast_like(tree: Tree, other_tree: chex.ArrayTree) -> Tree:
    """A tree with the dtypes of another one of the same structure.

    Example:
        >>> import jax.numpy as jnp, optax_ls
        >>> optax_ls.tree.cast_like([1.0], [jnp.array(2.0, jnp.bfloat16)])
        [Array(1, dtype=bfloat16)]
    """
    return map_leaves(lambda x, y: numerics.strong(x, jnp.asarray(y).dtype), tree, other_tree)
