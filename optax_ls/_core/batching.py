"""Control flow that stays cheap under :func:`jax.vmap`.

Over a batch, a conditional with a batched predicate takes both branches, and a loop whose elements
end at different times selects between its whole carry before and after. Predicates from here are
the same for the whole batch. The branch or loop must itself leave the elements unchanged for which
the condition does not hold.
"""

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
    return any_element(jnp.any(condition)), False


@jax.custom_batching.custom_vmap
def _always(condition: Flag) -> Flag:
    """True; under :func:`jax.vmap`, the condition."""
    return jnp.ones_like(condition)


@_always.def_vmap
def _condition_of_batch(size: int, batched: list[bool], condition: Flag) -> tuple[Flag, bool]:
    return condition, batched[0]


def hold(condition: Flag, new: Tree, old: Tree) -> Tree:
    """``new``; under :func:`jax.vmap`, ``old`` for elements for which the condition does not hold.

    For a condition that always holds without a batch, such as that the loop goes on. The compiler
    then omits the selection.
    """
    return tree.where(_always(condition), new, old)
