"""The problems: unconstrained and bounded ones of CUTEst, in JAX, from sif2jax.

``cutest.json`` and ``cutest_bounds.json`` have for each of their problems the dimension ``n``, the
value ``f0`` at the start, moved inside the bounds, and the lowest known value ``fL``, both in
float64. For other problems of sif2jax ``f0`` is computed, and ``fL`` is the lowest value that the
solvers find.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

ACCURACY = 1e-5


class Problem(NamedTuple):
    objective: Callable[[Any], Any]  # of a vector of the dtype asked for
    start: Any  # that vector, inside the bounds
    bounds: tuple[Any, Any] | None  # two such vectors
    f0: float  # in float64
    threshold: float | None  # None if fL is not known


FILES = {"unconstrained": "cutest.json", "bounded": "cutest_bounds.json"}


def listed(*kinds):
    """The facts in the files of these kinds, or all: names mapped to ``n``, ``f0`` and ``fL``."""
    facts = {}
    for kind in kinds or FILES:
        facts |= json.loads(Path(__file__).with_name(FILES[kind]).read_text())
    return facts


def threshold(f0, lowest):
    """The value at which a problem counts as solved."""
    return lowest + ACCURACY * (f0 - lowest)


def load(name, dtype):
    """The problem ``name`` in ``dtype``; leaves 64 bits on if that is float64, and off if not."""
    import sif2jax  # enables 64 bits when it is imported first

    jax.config.update("jax_enable_x64", True)
    problem = sif2jax.cutest.get_problem(name)
    bounded = isinstance(problem, sif2jax.AbstractBoundedMinimisation)
    if not bounded and not isinstance(problem, sif2jax.AbstractUnconstrainedMinimisation):
        raise ValueError(f"{name} is no unconstrained or bounded problem of sif2jax")
    bounds = problem.bounds if bounded else None
    y0 = jax.tree.map(jnp.clip, problem.y0, *bounds) if bounded else problem.y0
    given = (y0, problem.args)
    facts = listed().get(name)
    if facts is None:
        f0, level = float(problem.objective(*given)), None
    else:
        f0, level = facts["f0"], threshold(facts["f0"], facts["fL"])

    jax.config.update("jax_enable_x64", dtype == "float64")
    y0, args = jax.tree.map(lambda leaf: _cast(leaf, dtype), given)
    start, unravel = ravel_pytree(y0)

    def objective(x):
        return jnp.asarray(problem.objective(unravel(x), args)).astype(dtype).reshape(())

    if bounded:
        bounds = tuple(ravel_pytree(_cast(bound, dtype))[0] for bound in bounds)
    return Problem(objective, start, bounds, f0, level)


def _cast(leaf, dtype):
    """Arrays of floats in ``dtype``, others as JAX has them now; Python's numbers as given."""
    if not hasattr(leaf, "dtype"):
        return leaf
    array = np.asarray(leaf)
    return jnp.asarray(array, dtype if np.issubdtype(array.dtype, np.floating) else None)
