"""Checks for optimisers, this package's and others'."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ._core import transforms
from ._core.types import OptState, Params


def assert_stable_state(
    solver: Any, params: Params, value_fn: Callable[..., Any], *, steps: int = 2, **extra_args: Any
) -> None:
    """Asserts that the signature of a solver's state is a fixed point.

    The state that ``update`` returns must have the tree structure of the one that ``init``
    returned and, leaf by leaf, its type (array or Python number), shape, dtype and weak type.
    Then it can be the carry of any loop, and a compiled step is compiled once. Both ``init`` and
    ``update`` are run as they are and under :func:`jax.jit`.

    Args:
        solver: any optimiser with ``init`` and ``update``; this package's, Optax's, your own.
        params: where to start, a tree of float arrays.
        value_fn: the objective, a function of the params and of ``extra_args``. It is given to
            ``update``, with ``value`` and ``grad``, if that takes arbitrary keywords.
        steps: how many updates to make.
        **extra_args: keyword arguments for ``value_fn``.

    Raises:
        AssertionError: lists every leaf that changed: its path, what it was, what it became.

    Example:
        >>> import jax.numpy as jnp, optax_ls
        >>> from optax_ls.testing import assert_stable_state
        >>> assert_stable_state(optax_ls.lbfgs(), jnp.ones(3), lambda x: jnp.sum(x**4))
    """
    takes_extra_args = transforms.accepts_extra_args(solver.update)

    def step(params: Params, state: OptState) -> tuple[Params, OptState]:
        value, grad = jax.value_and_grad(value_fn)(params, **extra_args)
        grad = jax.tree.map(jnp.conj, grad)
        search_args = dict(value=value, grad=grad, value_fn=value_fn, **extra_args)
        updates, state = solver.update(
            grad, state, params, **(search_args if takes_extra_args else {})
        )
        return transforms.apply_updates(params, updates), state

    first = _signature(solver.init(params))
    problems = {}
    for mode, transform in (("", lambda fn: fn), (" under jit", jax.jit)):
        x, state = params, transform(solver.init)(params)
        problems[f"init{mode}"] = _differences(first, _signature(state))
        for number in range(1, steps + 1):
            x, state = transform(step)(x, state)
            problems[f"update {number}{mode}"] = _differences(first, _signature(state))
    report = [f"{where}:\n{lines}" for where, lines in problems.items() if lines]
    if report:
        raise AssertionError("the state changed from what init(params) gave\n" + "\n".join(report))


def _signature(state: OptState) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    signature = {jax.tree_util.keystr(path): _describe(leaf) for path, leaf in leaves}
    return {"(tree structure)": str(jax.tree.structure(state)), **signature}


def _describe(leaf: object) -> str:
    if not (hasattr(leaf, "dtype") and hasattr(leaf, "shape")):
        return f"Python {type(leaf).__name__} {leaf!r}"
    weak = " weak" if getattr(leaf, "weak_type", False) else ""
    return f"{leaf.dtype}{list(leaf.shape)}{weak}"


def _differences(was: dict[str, str], became: dict[str, str]) -> str:
    paths = [*was, *(path for path in became if path not in was)]
    return "\n".join(
        f"  {path}: was {was.get(path, 'absent')}, became {became.get(path, 'absent')}"
        for path in paths
        if was.get(path) != became.get(path)
    )
