"""Control flow that stays cheap under :func:`jax.vmap`.

Over a batch a conditional with a batched predicate takes both branches, and a loop whose elements
end at different times selects between its whole carry before and after. Predicates from here are
the same for the whole batch. The functions they guard must hold single elements still themselves.
"""

from typing import Any

import jax
import jax.numpy as jnp

from . import tree
from .types import Flag, Tree


@jax.custom_batching.custom_vmap
def any_element(condition: Flag) -> Flag:
    """The condition; under :func:`jax.vmap`, whether it holds for any element of the batch."""
    return condition


@any_element.def_vmap
def _any_of_batch(size: int, batched: list[bool], condition: Flag) -> tuple[Flag, bool]:
    return any_element(jnp.any(condition) if batched[0] else condition), False


@jax.custom_batching.custom_vmap
def hold(condition: Flag, new: Any, old: Any) -> Any:
    """``new``; under :func:`jax.vmap`, ``old`` for elements for which the condition does not hold.

    For a condition that always holds without a batch, such as that the loop goes on.
    """
    return new


@hold.def_vmap
def _hold_in_batch(
    size: int, batched: list[Any], condition: Flag, new: Tree, old: Tree
) -> tuple[Tree, Any]:
    select = jax.vmap(tree.where, in_axes=axes(tuple(batched)), axis_size=size)
    held = select(condition, new, old)
    return held, jax.tree.map(lambda _: True, held)


def axes(batched: Any) -> Any:
    """The ``in_axes`` of :func:`jax.vmap` for the ``batched`` of a ``custom_vmap`` rule."""
    return jax.tree.map(lambda is_batched: 0 if is_batched else None, batched)
