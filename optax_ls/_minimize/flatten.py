"""Small leaves of a tree side by side in one array, so that a program has one loop for them all.

A compiler takes as long for a leaf of ten entries as for one of a million, and so does a call of
what it made. The loop of ``minimize`` therefore runs on packed trees, and the objective is handed
its own. That is only done on one device: over many, each leaf may lie in its own way, and side by
side they would have to be moved.

Where a leaf begins is hidden from the compiler. Otherwise the first operation on each leaf would be
another for it, such as a sum with another part of the vector, and would be compiled by itself:
twenty layers of a network are twenty times one layer only if they look the same.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._core import batching
from .._core.objective import Evaluation
from .trial import MinimizeState

# Leaves with more entries stay by themselves: two more copies of them would cost memory.
_LARGEST = 2**14


def on_one_device(inputs: Any) -> bool:
    """Whether arrays, or whatever may become of traced ones, cannot lie on several devices."""
    if jax.device_count() == 1:
        return True

    def alone(x: Any) -> bool:
        if isinstance(x, jax.core.Tracer):
            return False
        return not isinstance(x, jax.Array) or len(x.sharding.device_set) == 1

    return all(map(alone, jax.tree.leaves(inputs)))


@dataclasses.dataclass(frozen=True)
class Packing:
    """How trees of one structure are packed.

    A packed tree is a list: a vector for each group of leaves, then the leaves that stay.

    Attributes:
        structure: of the trees.
        shapes: of the leaves.
        dtypes: of the leaves.
        groups: positions of the leaves that share a vector, for each vector.
        begins: where in its vector each leaf of the groups begins, in their order.
    """

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[Any, ...]
    groups: tuple[tuple[int, ...], ...]
    begins: list[jax.Array]

    @classmethod
    def of(cls, params: Any, *, side_by_side: bool) -> "Packing":
        """The packing of trees like the params; ``side_by_side`` is whether any leaves share."""
        leaves, structure = jax.tree.flatten(params)
        small: dict[Any, list[int]] = {}
        for position, leaf in enumerate(leaves):
            if side_by_side and 0 < leaf.size <= _LARGEST:
                small.setdefault(leaf.dtype, []).append(position)
        groups = tuple(tuple(group) for group in small.values() if len(group) > 1)
        begins: list[int] = []
        for group in groups:
            begins += np.cumsum([0] + [leaves[k].size for k in group[:-1]]).tolist()
        return cls(
            structure=structure,
            shapes=tuple(leaf.shape for leaf in leaves),
            dtypes=tuple(leaf.dtype for leaf in leaves),
            groups=groups,
            begins=batching.unknown(begins, leaves[groups[0][0]]) if groups else [],
        )

    @property
    def _alone(self) -> list[int]:
        shared = {position for group in self.groups for position in group}
        return [position for position in range(len(self.shapes)) if position not in shared]

    def pack(self, unpacked: Any, *leading: int) -> list[jax.Array]:
        """A tree, whose leaves may have ``leading`` axes, packed; in the dtypes of the params."""
        leaves = [
            jnp.asarray(leaf).astype(dtype)
            for leaf, dtype in zip(self.structure.flatten_up_to(unpacked), self.dtypes, strict=True)
        ]
        vectors = [
            jnp.concatenate([leaves[k].reshape(*leading, -1) for k in group], axis=-1)
            for group in self.groups
        ]
        return vectors + [leaves[k] for k in self._alone]

    def unpack(self, packed: list[jax.Array], *leading: int) -> Any:
        """The inverse of ``pack``."""
        leaves: dict[int, jax.Array] = {}
        begins = iter(self.begins)
        for vector, group in zip(packed, self.groups, strict=False):
            for k in group:
                size = math.prod(self.shapes[k])
                piece = jax.lax.dynamic_slice_in_dim(vector, next(begins), size, axis=-1)
                leaves[k] = piece.reshape(*leading, *self.shapes[k])
        leaves.update(zip(self._alone, packed[len(self.groups) :], strict=True))
        return jax.tree.unflatten(self.structure, [leaves[k] for k in range(len(self.shapes))])

    def packed_state(self, state: MinimizeState) -> MinimizeState:
        return _over_trees(self.pack, state)

    def unpacked_state(self, state: MinimizeState) -> MinimizeState:
        return _over_trees(self.unpack, state)

    def packed_evaluation(
        self, evaluate: Callable[[Any], Evaluation]
    ) -> Callable[[list[jax.Array]], Evaluation]:
        """The objective, a function of trees, as one of packed params with a packed gradient."""

        def of_packed(packed: list[jax.Array]) -> Evaluation:
            found = evaluate(self.unpack(packed))
            return found._replace(grad=self.pack(found.grad))

        return of_packed


def _over_trees(change: Callable[..., Any], state: MinimizeState) -> MinimizeState:
    """The state with the trees in it that are like the params changed."""
    memory, size = state.memory, len(state.memory.weights_memory)
    return state._replace(
        memory=memory._replace(
            params=change(memory.params),
            updates=change(memory.updates),
            diff_params_memory=change(memory.diff_params_memory, size),
            diff_updates_memory=change(memory.diff_updates_memory, size),
        ),
        direction=change(state.direction),
        best=state.best._replace(grad=change(state.best.grad)),
    )
