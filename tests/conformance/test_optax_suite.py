"""Optax's own tests of its searches and of L-BFGS, run on this package.

The tests come from the installed Optax wheel, unchanged. In the two modules that hold them, the
names of Optax's modules are replaced by stand-ins that look a name up here first: what this
package has is ours, the rest, such as an optimiser to chain a search with, remains Optax's.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("optax", minversion="0.2.8", reason="the suite is that of Optax 0.2.8")

from optax._src import alias_test, linesearch_test

import optax_ls
from optax_ls._core.lbfgs import compact, direction

pytestmark = pytest.mark.slow


class StandIn:
    """A module of Optax in which the names of ``ours`` are ours."""

    def __init__(self, theirs: Any, ours: dict[str, Any]) -> None:
        self._theirs = theirs
        self._ours = ours

    def __getattr__(self, name: str) -> Any:
        return self._ours[name] if name in self._ours else getattr(self._theirs, name)


def precondition_by_lbfgs(updates, s_memory, y_memory, weights, identity_scale, memory_idx):
    """Our direction, for the private function that Optax's tests call.

    ``memory_idx`` is the slot of the oldest pair; ``weights`` are 1 / <s, y>, of any sign.
    """
    size = len(weights)
    flat_s, flat_y = _rows(s_memory), _rows(y_memory)
    by_age = (memory_idx + np.arange(size)) % size
    slots = np.ix_(by_age, by_age)
    inverse_r = np.zeros((size, size))
    inverse_r[slots] = np.linalg.inv(np.triu((flat_s @ flat_y.T)[slots]))
    state = optax_ls.scale_by_lbfgs(size).init(updates)
    state = state._replace(
        diff_params_memory=s_memory,
        diff_updates_memory=y_memory,
        weights_memory=weights,
        inverse_r=jnp.asarray(inverse_r, weights.dtype),
        gram_y=jnp.asarray(flat_y @ flat_y.T),
    )
    rows, products = (s_memory, y_memory), jax.vmap(optax_ls.tree.vdot, in_axes=(0, None))
    s_g, y_g = (products(stack, updates) for stack in rows)
    gamma = jnp.asarray(identity_scale)
    of_s, of_y = compact.apply(state.coefficients, gamma, s_g, y_g)
    return direction.combine(rows, updates, gamma, of_s, of_y)


def _rows(memory: Any) -> np.ndarray:
    leaves = jax.tree.leaves(memory)
    return np.concatenate([np.reshape(leaf, (len(leaf), -1)) for leaf in leaves], axis=1)


PUBLIC = {name: getattr(optax_ls, name) for name in optax_ls.__all__ if name != "tree"}
PRIVATE = {"_precondition_by_lbfgs": precondition_by_lbfgs}


for module in (linesearch_test, alias_test):
    for name in ("alias", "base", "combine", "_linesearch", "transform", "update"):
        if hasattr(module, name):
            setattr(module, name, StandIn(getattr(module, name), {**PUBLIC, **PRIVATE}))
    tree = StandIn(module.optax.tree, vars(optax_ls.tree))
    module.optax = StandIn(module.optax, {**PUBLIC, "tree": tree})


class TestBacktracking(linesearch_test.BacktrackingLinesearchTest):
    pass


class TestZoom(linesearch_test.ZoomLinesearchTest):
    pass


NEGATIVE_CURVATURE = pytest.mark.xfail(
    strict=True,
    reason="fixed steps from a saddle of Himmelblau's function, where every pair has negative "
    "curvature: Optax takes such pairs into its memory and climbs, we leave them out and descend",
)


class TestLBFGS(alias_test.LBFGSTest):
    test_against_plain_implementation2 = NEGATIVE_CURVATURE(
        alias_test.LBFGSTest.test_against_plain_implementation2
    )
    test_against_plain_implementation3 = NEGATIVE_CURVATURE(
        alias_test.LBFGSTest.test_against_plain_implementation3
    )
