"""A conditional around small computations, so that the compiler does them once.

XLA for CPUs copies cheap operations on scalars into every loop over a vector that uses their
result, and under :func:`jax.vmap` for every entry of it. It does not move them out of a branch.
"""

from collections.abc import Callable
from typing import Any

import jax

from . import batching

ENABLED = True


def isolate(
    is_needed: jax.Array, fn: Callable[..., Any], otherwise: Callable[..., Any], *operands: Any
) -> Any:
    """``fn(*operands)``, in a branch of its own.

    Args:
        is_needed: bool, whether the result is used; for a batch, whether any element uses it.
        fn: a function of trees of arrays.
        otherwise: a function of the same trees that returns arrays of the same types at no cost.
        operands: trees of arrays.
    """
    if not ENABLED:
        return fn(*operands)
    return jax.lax.cond(batching.any_element(is_needed), fn, otherwise, *operands)
