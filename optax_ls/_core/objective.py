"""Calling the user's function: keyword routing, auxiliary output, values kept in a state."""

from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from . import batching, checks, numerics
from .types import Params, Scalar


class Evaluation(NamedTuple):
    """The result of one call of the objective."""

    value: Scalar  # of the search dtype unless bind says otherwise
    # A tree like the params as JAX differentiates (conjugated, for complex leaves); None if only
    # the value was wanted.
    grad: Any
    aux: Any  # auxiliary output; None if not kept


def bind(
    fun: Callable[[Params], object],
    *,
    dtype: Optional[DTypeLike],
    has_aux: bool = False,
    with_grad: bool = True,
    gives_grad: bool = False,
    name: str = "value_fn",
) -> Callable[[Params], Evaluation]:
    """The user's function of the params as a function that returns an :class:`Evaluation`.

    With ``has_aux`` it returns ``(value, aux)``. With ``gives_grad`` it also returns its gradient,
    as a function made by :func:`jax.value_and_grad` does; otherwise JAX differentiates it, if
    ``with_grad``. The value gets the real type ``dtype``, if given, and messages call the
    function ``name``.
    """

    def split(out: object) -> tuple[Scalar, Any]:
        if has_aux:
            subject = f"with has_aux=True {name} must return"
            out, aux = checks.tuple_of_two(subject, out, "(value, aux)")
            return checks.scalar(f"{name} must return", out), aux
        hint = "; if it returns auxiliary output too, set has_aux=True"
        return checks.scalar(f"{name} must return", out, hint), None

    call: Callable[[Params], object] = checks.advised(name)(fun)
    users_promotion = jax.config.jax_numpy_dtype_promotion  # type: ignore[attr-defined]

    def evaluate(params: Params) -> Evaluation:
        with jax.numpy_dtype_promotion(users_promotion):
            if gives_grad:
                out = call(params)
                subject = f"with value_and_grad=True {name} must return"
                wanted = "((value, aux), grad)" if has_aux else "(value, grad)"
                out, grad = checks.tuple_of_two(subject, out, wanted)
                checks.same_structure("grad", grad, "params", params)
                checks.no_more_complex("grad", grad, params)
                value, aux = split(out)
            elif with_grad:
                fn = jax.value_and_grad(lambda p: split(call(p)), has_aux=True)
                (value, aux), grad = fn(params)
            else:
                (value, aux), grad = split(call(params)), None
            return Evaluation(numerics.strong(value, dtype), grad, aux)

    return evaluate


def value_and_grad_from_state(
    value_fn: Callable[..., Any], has_aux: bool = False, *, value_and_grad: bool = False
) -> Callable[..., Any]:
    """As :func:`jax.value_and_grad`, but reuses the results of a line search.

    Args:
        value_fn: function of the params, and of keyword arguments, that returns a scalar (with
            ``has_aux``, a pair of a scalar and any tree of arrays).
        has_aux: whether ``value_fn`` returns auxiliary output too.
        value_and_grad: whether ``value_fn`` returns its gradient too, as
            :func:`jax.value_and_grad` does; give the line search the same.

    Returns:
        A function ``(params, *args, state, **kwargs) -> (value, grad)``, or ``((value, aux),
        grad)``. If the value in ``state`` is finite, it and the gradient are returned without a
        call of ``value_fn``; otherwise, as at the start, ``value_fn`` is evaluated. The value has
        the search dtype (at least float32), the gradient the dtypes of ``params``. Auxiliary
        output is in the state if the search was given ``aux_like``; if it was not, a call with
        ``has_aux`` always evaluates.

    Raises:
        ValueError: the state holds no value and gradient, or the gradient is not stored
            (``store_grad=False`` in the backtracking search).
        KeyError: the state holds those of several searches.

    Example:
        >>> import jax.numpy as jnp, optax_ls
        >>> def fn(x):
        ...     return jnp.sum(x**2)
        >>> solver, x = optax_ls.lbfgs(), jnp.array([1.0, 2.0, 3.0])
        >>> value_and_grad, state = optax_ls.value_and_grad_from_state(fn), solver.init(x)
        >>> for _ in range(2):
        ...     value, grad = value_and_grad(x, state=state)
        ...     updates, state = solver.update(grad, state, x, value=value, grad=grad, value_fn=fn)
        ...     x = optax_ls.apply_updates(x, updates)
        >>> float(fn(x)) < 1e-9
        True
    """
    checks.function("value_fn", value_fn)

    def from_state(params: Params, *args: object, state: object, **kwargs: object) -> Any:
        stored = _stored_evaluation(state)
        evaluate = bind(
            lambda p: value_fn(p, *args, **kwargs),
            dtype=stored.value.dtype,
            has_aux=has_aux,
            gives_grad=value_and_grad,
        )
        if not has_aux:
            stored = stored._replace(aux=None)
        elif stored.aux is None:
            value, grad, aux = evaluate(params)
            return (value, aux), grad
        checks.same_structure("params", params, "state.grad", stored.grad)

        def compute() -> Evaluation:
            new = evaluate(params)
            checks.same_structure("aux", new.aux, "aux_like", stored.aux, dtypes=True)
            return Evaluation(*batching.hold(is_needed, numerics.keep_types(new, stored), stored))

        is_needed = ~jnp.isfinite(stored.value)
        value, grad, aux = jax.lax.cond(batching.any_element(is_needed), compute, lambda: stored)
        return ((value, aux), grad) if has_aux else (value, grad)

    return from_state


def _stored_evaluation(state: object) -> Evaluation:
    def is_search(node: object) -> bool:
        return {"value", "grad"} <= set(getattr(node, "_fields", ()))

    found: list[Any] = list(filter(is_search, jax.tree.leaves(state, is_leaf=is_search)))
    if not found:
        raise ValueError("the state holds no value and gradient: no line search is in the chain")
    if len(found) > 1:
        raise KeyError(f"the state holds {len(found)} values and gradients: keep one line search")
    if found[0].grad is None:
        raise ValueError(
            "the state stores no gradient: give scale_by_backtracking_linesearch store_grad=True"
        )
    return Evaluation(found[0].value, found[0].grad, getattr(found[0], "aux", None))
