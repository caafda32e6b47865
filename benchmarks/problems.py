"""The problems: unconstrained ones of CUTEst, in JAX, from sif2jax.

``cutest.json`` knows of each of its problems the dimension ``n``, the value ``f0`` at the start and
the lowest known value ``fL``, both in float64. For other problems of sif2jax ``f0`` is computed,
and ``fL`` is what the solvers find.
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
    start: Any  # that vector
    f0: float  # in float64
    threshold: float | None  # None if fL is not known


def listed():
    """The facts of ``cutest.json``: names mapped to ``n``, ``f0`` and ``fL``."""
    return json.loads(Path(__file__).with_name("cutest.json").read_text())


def threshold(f0, lowest):
    """The value at which a problem counts as solved."""
    return lowest + ACCURACY * (f0 - lowest)


def load(name, dtype):
    """The problem ``name`` in ``dtype``; leaves 64 bits on if that is float64, and off if not."""
    import sif2jax  # enables 64 bits when it is imported first

    jax.config.update("jax_enable_x64", True)
    problem = sif2jax.cutest.get_problem(name)
    if not isinstance(problem, sif2jax.AbstractUnconstrainedMinimisation):
        raise ValueError(f"{name} is no unconstrained problem of sif2jax")
    given = (problem.y0, problem.args)
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

    return Problem(objective, start, f0, level)


def _cast(leaf, dtype):
    """Arrays of floats in ``dtype``, others as JAX has them now; Python's numbers as given."""
    if not hasattr(leaf, "dtype"):
        return leaf
    array = np.asarray(leaf)
    return jnp.asarray(array, dtype if np.issubdtype(array.dtype, np.floating) else None)
