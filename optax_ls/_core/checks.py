"""Error messages: each names the argument or leaf, its value, and the values that are accepted."""

import contextlib
import inspect
import math
import operator
from collections.abc import Callable, Iterator
from typing import Any, Optional

import chex
import jax
import jax.numpy as jnp
import numpy as np

from . import numerics
from .types import KeyPath


def number(
    name: str,
    value: Any,
    *,
    above: Optional[float] = None,
    at_least: Optional[float] = None,
    below: Optional[float] = None,
    optional: bool = False,
) -> None:
    """Raises unless ``value`` is a real number in the range, or traced.

    Infinity is a number here, and NaN is not.
    """
    if isinstance(value, jax.core.Tracer) or (optional and value is None):
        return
    try:
        if isinstance(value, (bool, str)) or np.ndim(value) != 0 or not np.isrealobj(value):
            raise TypeError
        x = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a real number, got {shown(value)}") from None
    limits = (
        ("greater than", operator.gt, above),
        ("at least", operator.ge, at_least),
        ("less than", operator.lt, below),
    )
    given = [(text, holds, limit) for text, holds, limit in limits if limit is not None]
    if math.isnan(x) or not all(holds(x, limit) for _, holds, limit in given):
        wanted = " and ".join(f"{text} {limit:g}" for text, _, limit in given) or "a number"
        raise ValueError(f"{name} must be {wanted}, got {value!r}")


def whole_number(name: str, value: Any, *, at_least: int) -> None:
    """Raises unless ``value`` is an integer no smaller than ``at_least`` (or traced)."""
    if isinstance(value, jax.core.Tracer):
        return
    is_integer = isinstance(value, int) or (
        np.ndim(value) == 0 and np.issubdtype(np.asarray(value).dtype, np.integer)
    )
    if isinstance(value, bool) or not is_integer:
        raise TypeError(f"{name} must be an integer, got {shown(value)}")
    if value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {value!r}")


def one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raises unless ``value`` is one of the words in ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def shown(value: object) -> str:
    """The ``repr`` of a value; its type if the ``repr`` has an address in it."""
    text = repr(value)
    return f"an object of type {type(value).__name__}" if " at 0x" in text else text


def described(value: object) -> str:
    """A value in words: the shape of an array, the length of a collection."""
    if isinstance(value, (jax.Array, np.ndarray)):
        return f"an array of shape {value.shape}"
    if isinstance(value, (tuple, list, dict)):
        return f"a {type(value).__name__} of {len(value)}"
    return shown(value)


def path_name(name: str, path: KeyPath) -> str:
    """The leaf at ``path`` of the tree ``name`` as users write it: ``params['w'][0]``."""
    return name + jax.tree_util.keystr(path)


def dtypes_of_jax(name: str, tree: object) -> None:
    """Raises TypeError if a NumPy array has another byte order than this machine, or long double.

    JAX has no such arrays.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not isinstance(leaf, (np.ndarray, np.generic)):
            continue
        shorter = {"g": "float", "G": "complex"}.get(leaf.dtype.char)
        if shorter or not leaf.dtype.isnative:
            own = shorter or 'x.dtype.newbyteorder("=")'
            raise TypeError(
                f"{path_name(name, path)} has dtype {leaf.dtype}, which JAX does not have: convert "
                f"this array x with x.astype({own})"
            )


def float_leaves(name: str, tree: chex.ArrayTree) -> None:
    """Raises TypeError unless every leaf of ``tree`` is an array of floats of at least 16 bits."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        try:
            dtype = numerics.dtype_of(leaf)
        except TypeError:
            dtypes_of_jax(name, tree)
            raise TypeError(
                f"{path_name(name, path)} has type {type(leaf).__name__}; every leaf must be an "
                "array of real or complex floats. Of a module, pass only these arrays: with "
                "Equinox, params, static = equinox.partition(module, equinox.is_inexact_array), "
                "and the function begins with module = equinox.combine(params, static)"
            ) from None
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise TypeError(
                f"{path_name(name, path)} has type {dtype}; every leaf must be a real or complex "
                "float: convert it to float, or keep it out of the optimised tree"
            )
        if jnp.finfo(dtype).bits < 16:
            raise TypeError(
                f"{path_name(name, path)} has type {dtype}, which JAX does not convert to other "
                "types: pass params of 16 bits or more, such as bfloat16"
            )


def arrays(name: str, tree: object) -> None:
    """Raises TypeError unless every leaf of ``tree`` is a number, an array, or the shape of one."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        is_array = hasattr(leaf, "shape") and hasattr(leaf, "dtype")
        if not is_array and not isinstance(leaf, (bool, int, float, complex)):
            raise TypeError(
                f"{path_name(name, path)} must be a number or an array, "
                f"got {shown(leaf)} of type {type(leaf).__name__}"
            )


def scalar(subject: str, value: Any, hint: str = "") -> Any:
    """``value`` as an array; raises unless that is a real float of shape ().

    ``subject`` begins the message and ends in a verb (``value must be``); ``hint`` ends it.
    """
    try:
        if value is None or isinstance(value, (str, tuple, list, dict)):
            raise TypeError
        value = jnp.asarray(value)
    except (TypeError, ValueError):
        raise TypeError(f"{subject} a scalar, got {described(value)}{hint}") from None
    if value.shape != ():
        raise ValueError(f"{subject} a scalar, got {described(value)}{hint}")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"{subject} a real float, got dtype {value.dtype}")
    return value


def tuple_of_two(subject: str, value: object, wanted: str) -> tuple[Any, Any]:
    """``value``; raises TypeError unless it is a tuple of two, which users write as ``wanted``."""
    if not (isinstance(value, tuple) and len(value) == 2):
        raise TypeError(f"{subject} {wanted}, got {described(value)}")
    return value


def function(name: str, value: object, argument: str = "the params") -> None:
    """Raises TypeError unless ``value`` can be called; ``argument`` is for the message."""
    if not callable(value):
        raise TypeError(f"{name} must be a function of {argument}, got {shown(value)}")


def keywords(name: str, fn: Callable[..., object], given: dict[str, object]) -> None:
    """Raises TypeError if the function ``name`` has no parameters for the keyword arguments."""
    try:
        signature = inspect.signature(fn)
    except ValueError:  # some builtins have no signature
        return
    taken = {p.name for p in signature.parameters.values() if p.kind is not p.POSITIONAL_ONLY}
    unused = sorted(given.keys() - taken)
    if unused and not any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        raise TypeError(
            f"Unexpected keyword arguments {unused}: {name}{signature} has no such parameters"
        )


def state_of(name: str, state: object, kind: Any) -> None:
    """Raises TypeError unless ``state`` is of the class ``kind``, of this copy of the package."""
    if isinstance(state, kind):
        return
    if type(state).__name__ == kind.__name__:
        raise TypeError(
            f"the state of {name} is a {kind.__name__} of {kind.__module__}, got one of "
            f"{type(state).__module__}; states of two copies of a package do not mix"
        )
    holds_state = isinstance(getattr(state, "state", None), kind)
    hint = "pass its field state" if holds_state else "was it made by another solver?"
    raise TypeError(f"the state of {name} is a {kind.__name__}, got {type(state).__name__}; {hint}")


def same_structure(
    name: str, tree: object, reference_name: str, reference: object, *, dtypes: bool = False
) -> None:
    """Raises ValueError unless two trees have the same structure and shapes.

    With ``dtypes``, raises TypeError if their dtypes differ.
    """
    leaves, wanted = (
        {path_name("", path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(x)}
        for x in (tree, reference)
    )
    for path, other in wanted.items():
        here, there = f"{name}{path}", f"{reference_name}{path}"
        if path not in leaves:
            raise ValueError(f"{here} is missing, but {there} is there")
        leaf = leaves[path]
        if np.shape(leaf) != np.shape(other):
            raise ValueError(
                f"{here} has shape {np.shape(leaf)}, but {there} has shape {np.shape(other)}"
            )
        if dtypes and jnp.result_type(leaf) != jnp.result_type(other):
            raise TypeError(
                f"{here} has dtype {jnp.result_type(leaf)}, but {there} has "
                f"{jnp.result_type(other)}"
            )
    for path in leaves:
        if path not in wanted:
            raise ValueError(f"{name}{path} is there, but {reference_name}{path} is missing")
    structures: Any = jax.tree.structure(tree), jax.tree.structure(reference)
    if structures[0] != structures[1]:
        raise ValueError(
            f"{name} and {reference_name} are different trees: {structures[0]} and {structures[1]}"
        )


def no_more_complex(name: str, tree: object, reference: object) -> None:
    """Raises TypeError if a leaf is complex where ``reference``, of the same structure, is real."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    for (path, leaf), other in zip(paths, jax.tree.leaves(reference), strict=True):
        if jnp.iscomplexobj(leaf) and not jnp.iscomplexobj(other):
            dtypes = jnp.result_type(leaf), jnp.result_type(other)
            raise TypeError(
                f"{path_name(name, path)} has dtype {dtypes[0]}, but the params there {dtypes[1]}"
            )


# Advice for errors of JAX that a function raises while it is traced; the first that fits is given.
_ADVICE = {
    jax.errors.TracerBoolConversionError: (
        "has a Python condition (if, while, and, or) on a value that JAX traces: use jnp.where or "
        "jax.lax.cond instead"
    ),
    jax.errors.TracerArrayConversionError: (
        "passes a value that JAX traces to NumPy: use jax.numpy instead, or jax.pure_callback in "
        "a function that returns its own gradient (value_and_grad=True)"
    ),
    jax.errors.ConcretizationTypeError: (
        "needs the number behind a value that JAX traces, as float(), int() and item() do: use "
        "jax.numpy instead"
    ),
}


@contextlib.contextmanager
def advised(name: str) -> Iterator[None]:
    """Puts advice on the function ``name`` before the text of JAX's errors about tracing."""
    try:
        yield
    except tuple(_ADVICE) as error:
        advice = next(text for kind, text in _ADVICE.items() if isinstance(error, kind))
        if advice not in str(error):  # nested functions: only the innermost
            error.args = (f"{name} {advice}.\n\n{error}",)
        raise


def given(caller: str, **arguments: object) -> None:
    """Raises ValueError naming every argument that is None."""
    missing = [name for name, argument in arguments.items() if argument is None]
    if missing:
        raise ValueError(
            f"{caller} needs {', '.join(missing)}: call update(updates, state, params, value=..., "
            "grad=..., value_fn=...). Inside optax.chain, wrap the solver first: "
            "optax.GradientTransformationExtraArgs(*solver)"
        )
