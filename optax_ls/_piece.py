"""A loop that XLA for CPUs compiles in one piece.

XLA makes a function of its own of each operation in a loop, or of a few that it fuses, and calls
them one by one; with few params the calls take most of the time. A loop that touches less than 1 kB
it compiles whole. It does so with any call that bears the mark it gives to such loops, whoever gave
it, and then relies on that: an operation that it can only call, as it calls a library for a product
of matrices, is an error. So a loop is looked through before it is marked, and is compiled as others
are if it holds an operation that is not listed here, or much data.
"""

import functools
import math
import platform
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _lanes

# A call that is not to become part of its caller, and is to be compiled in one piece.
_MARKS = {"inlineable": "false", "xla_cpu_small_call": "true"}
# Where that has been tried: versions of JAX, and machines.
_VERSIONS = ((0, 10),)
_MACHINES = ("x86_64", "AMD64")
# Longer sums would go to a library.
_LONGEST_SUM = 2**11
# Work on more entries is worth the threads that share it.
_MOST_ENTRIES = 2**15


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Operations on entries, and such as move them.
_OF_ENTRIES = _names(
    """
    abs acos acosh add add_any and asin asinh atan atan2 atanh bitcast_convert_type broadcast_in_dim
    cbrt ceil clamp complex concatenate conj convert_element_type copy cos cosh digamma div
    dynamic_slice dynamic_update_slice empty2 eq erf erf_inv erfc exp exp2 expm1 floor gather ge gt
    imag integer_pow iota is_finite le lgamma log log1p logistic lt max min mul ne neg not or pad
    pow real reduce_precision rem reshape rev round rsqrt select_n sign sin sinh slice split sqrt
    square squeeze stack sub tan tanh tile transpose xor
    """
)
# Operations that read many entries for one.
_SUMS = _names(
    """
    argmax argmin cumlogsumexp cummax cummin cumprod cumsum reduce_and reduce_max reduce_min
    reduce_or reduce_prod reduce_sum
    """
)
# Operations that hold programs, and what chooses between them.
_CALLS = _names(
    """
    cond custom_jvp_call custom_vjp_call custom_vmap_call jit platform_index scan while
    """
)


def while_loop(
    running: Callable[[Any], jax.Array],
    trip: Callable[[Any, Any], Any],
    carry: Any,
    inputs: Any,
) -> tuple[Callable[[Any, Any], Any], bool]:
    """A function that makes trips while ``running(carry)``, and whether in one piece.

    Args:
        running: of a carry, a scalar. It closes over no array, and neither does ``trip``.
        trip: ``trip(carry, inputs)`` is the next carry.
        carry: tree of arrays.
        inputs: tree of arrays.

    Returns:
        A function of trees like carry and inputs, for a process with one CPU for its only device,
        and not for use under :func:`jax.vmap`; and a bool.
    """

    def plain(carry: Any, inputs: Any) -> Any:
        return jax.lax.while_loop(running, lambda carry: trip(carry, inputs), carry)

    if not _is_tried() or not all(map(_is_small_array, jax.tree.leaves((carry, inputs)))):
        return plain, False
    program = jax.make_jaxpr(plain)(carry, inputs)

    def traced(consts: list[Any], carry: Any, inputs: Any) -> Any:
        leaves = jax.tree.leaves((carry, inputs))
        out = jax.core.eval_jaxpr(program.jaxpr, consts, *leaves)
        return jax.tree.unflatten(jax.tree.structure(carry), out)

    fn, is_small = traced, _is_small(program.jaxpr)
    if is_small:
        fn = _lanes.with_derivatives_of(traced, functools.partial(_in_one_piece, traced))
    return functools.partial(fn, program.consts), is_small


def _in_one_piece(fn: Callable[..., Any], *inputs: Any) -> Any:
    """``fn(*inputs)``, which XLA has to be able to compile in one piece."""
    from jax.experimental import xla_metadata  # which older versions do not have

    leaves, structure = jax.tree.flatten(inputs)
    shapes = [(x.shape, x.dtype) for x in leaves]

    @jax.jit
    def piece(operands: list[jax.Array]) -> Any:
        # An operand that turns out to be of no use brings the compiler down. All are of use here:
        # how many begin with something else than zero is not negative, which it cannot know.
        begins = [x.reshape(-1)[:1] != 0 for x in operands]
        always = jnp.count_nonzero(jnp.concatenate(begins)) >= 0
        rest = iter(operands)
        leaves = [jnp.zeros(*shape) if 0 in shape[0] else next(rest) for shape in shapes]
        return _lanes.apart(always, fn, *jax.tree.unflatten(structure, leaves))

    # Nor may it find out that one is a constant, of which only the value is of use.
    operands: Any = [x for x in leaves if x.size]
    operands = jax.lax.optimization_barrier(operands)  # type: ignore[no-untyped-call]
    out = piece(operands)
    return xla_metadata.set_xla_metadata(out, **_MARKS)  # type: ignore[no-untyped-call]


def _is_tried() -> bool:
    return jax.__version_info__[:2] in _VERSIONS and platform.machine() in _MACHINES


def _is_small(jaxpr: Any) -> bool:
    """Whether XLA can compile a program in one piece, and had better."""
    values = [x.aval for x in (*jaxpr.invars, *jaxpr.constvars)]
    return all(map(_is_small_array, values)) and all(map(_is_small_step, jaxpr.eqns))


def _is_small_array(aval: Any) -> bool:
    """Whether an array has few entries, of a type that a processor knows, or nearly."""
    dtype = aval.dtype
    plain = isinstance(dtype, np.dtype) and (dtype.kind in "biufc" or dtype == jnp.bfloat16)
    return plain and math.prod(aval.shape) <= _MOST_ENTRIES


def _is_small_step(eqn: Any) -> bool:
    name, arrays = eqn.primitive.name, [x.aval for x in (*eqn.invars, *eqn.outvars)]
    if not all(map(_is_small_array, arrays)):
        return False
    is_short = all(math.prod(aval.shape) <= _LONGEST_SUM for aval in arrays)
    if name == "dot_general":
        is_sum = math.prod(arrays[-1].shape) == 1
        return _is_with_vector(eqn) and (is_short or not is_sum)
    if name == "scatter":  # of everything, which is none
        return bool(arrays[0].shape == arrays[-2].shape)
    if name in _CALLS:
        return all(map(_is_small, _programs_in(eqn.params.values())))
    return name in _OF_ENTRIES or (name in _SUMS and is_short)


def _is_with_vector(eqn: Any) -> bool:
    """Whether a product is one of a matrix with a vector; others would go to a library."""
    contracted, batch = eqn.params["dimension_numbers"]
    free = [x.aval.ndim - len(axes) for x, axes in zip(eqn.invars, contracted, strict=True)]
    return not any(batch) and 0 in free


def _programs_in(params: Any) -> Iterator[Any]:
    """The programs among the parameters of an operation."""
    for value in params:
        if isinstance(value, (tuple, list)):
            yield from _programs_in(value)
        elif hasattr(value, "eqns"):
            yield value
        elif hasattr(value, "jaxpr"):
            yield value.jaxpr
