"""Small leaves of a tree in one vector, so that the program has one loop for all of them.

A leaf of ten entries takes as long to compile, and to call, as one of a million. The loop of
``minimize`` therefore runs on flattened trees; the objective gets trees like the params. This is
only done on one device: over several devices each leaf may be sharded in its own way.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import PyTreeDef

from .._core.numerics import DType
from .._core.types import Params
from .bounds import Bounds
from .state import MinimizeState

# Larger leaves stay alone: two more copies of them would cost memory.
_MAX_SIZE = 2**14


def on_one_device(inputs: object) -> bool:
    """True if neither arrays nor those that tracers stand for can lie on several devices."""
    if jax.device_count() == 1:
        return True

    def is_alone(x: object) -> bool:
        if isinstance(x, jax.core.Tracer):
            return False
        return not isinstance(x, jax.Array) or len(x.sharding.device_set) == 1

    return all(map(is_alone, jax.tree.leaves(inputs)))


class Flattening(NamedTuple):
    """Flattens trees of one structure to a list of vectors and of single leaves.

    Attributes:
        structure: of the trees.
        shapes: of the leaves.
        dtypes: of the leaves.
        groups: positions of the leaves of each vector; a leaf alone stays as it is.
    """

    structure: PyTreeDef
    shapes: list[tuple[int, ...]]
    dtypes: list[DType]
    groups: list[list[int]]

    @classmethod
    def of(cls, params: Params, *, joins: bool) -> "Flattening":
        """The flattening of trees like the params; ``joins`` is whether leaves share vectors."""
        leaves, structure = jax.tree.flatten(params)
        groups: dict[object, list[int]] = {}
        for k, leaf in enumerate(leaves):
            is_small = joins and 0 < leaf.size <= _MAX_SIZE
            groups.setdefault(leaf.dtype if is_small else k, []).append(k)
        shared_first = sorted(groups.values(), key=lambda group: len(group) == 1)
        shapes, dtypes = [leaf.shape for leaf in leaves], [leaf.dtype for leaf in leaves]
        return cls(structure, shapes, dtypes, shared_first)

    def flatten(self, tree: Params, *leading: int) -> list[jax.Array]:
        """A tree, whose leaves may have ``leading`` axes, in the dtypes of the params."""
        leaves = [
            jnp.asarray(leaf).astype(dtype)
            for leaf, dtype in zip(self.structure.flatten_up_to(tree), self.dtypes, strict=True)
        ]
        return [
            jnp.concatenate([leaves[k].reshape(*leading, -1) for k in group], axis=-1)
            if len(group) > 1
            else leaves[group[0]]
            for group in self.groups
        ]

    def unflatten(self, flat: Any, *leading: int) -> Params:
        """The inverse of ``flatten``."""
        leaves: dict[int, jax.Array] = {}
        for vector, group in zip(flat, self.groups, strict=True):
            if len(group) == 1:
                leaves[group[0]] = vector
                continue
            ends = np.cumsum([math.prod(self.shapes[k]) for k in group])
            parts = jnp.split(vector, ends[:-1].tolist(), axis=-1)
            for k, part in zip(group, parts, strict=True):
                leaves[k] = part.reshape(*leading, *self.shapes[k])
        return jax.tree.unflatten(self.structure, [leaves[k] for k in sorted(leaves)])

    def flatten_bounds(self, bounds: Bounds) -> Bounds:
        """The bounds of flattened trees. Those of leaves that share a vector get their shapes."""

        def full(bound: Params) -> Params:
            leaves = self.structure.flatten_up_to(bound)
            for k in itertools.chain(*(group for group in self.groups if len(group) > 1)):
                leaves[k] = jnp.broadcast_to(leaves[k], self.shapes[k])
            return self.flatten(jax.tree.unflatten(self.structure, leaves))

        return Bounds(full(bounds.lower), full(bounds.upper))

    def flatten_state(self, state: MinimizeState) -> MinimizeState:
        """The state with every tree in it that is like the params flattened."""
        return _over_trees(self.flatten, state)

    def unflatten_state(self, state: MinimizeState) -> MinimizeState:
        """The inverse of ``flatten_state``."""
        return _over_trees(self.unflatten, state)


def _over_trees(change: Callable[..., Params], state: MinimizeState) -> MinimizeState:
    memory, size = state.memory, len(state.memory.weights_memory)
    return state._replace(
        memory=memory._replace(
            params=change(memory.params),
            updates=change(memory.updates),
            diff_params_memory=change(memory.diff_params_memory, size),
            diff_updates_memory=change(memory.diff_updates_memory, size),
        ),
        direction=change(state.direction),
        best_grad=change(state.best_grad),
    )
