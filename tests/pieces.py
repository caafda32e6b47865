"""A loop for each operation that ``_piece`` lets into a piece, and whether XLA compiles it so.

``python -m pieces`` prints the names of those that end elsewhere than as a plain loop.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from optax_ls import _piece

lax = jax.lax


def marked_calls(program):
    """How many calls of a compiled program are to be compiled in one piece because we say so."""
    marks = 'inlineable="false",xla_cpu_small_call="true"'
    return sum(" call(" in line and marks in line for line in program.as_text().splitlines())


def positive(fn):
    """Of numbers from 0.5 to 2.5."""
    return lambda x: fn(1.5 + jnp.sin(x))


def within_one(fn):
    """Of numbers from -0.9 to 0.9."""
    return lambda x: fn(0.9 * jnp.sin(x))


def of_signs(fn):
    """Of booleans, to numbers."""
    return lambda x: fn(x > 0, x > 1).astype(x.dtype)


def rolled(x):
    return jnp.concatenate([x[1:], x[:1]])


def matrix(x):
    return jnp.stack([x, 2 * x, x - 1])


# Functions of a vector, each with the operation that it is named after.
STEPS = {
    "abs": jnp.abs,
    "acos": within_one(jnp.arccos),
    "acosh": positive(lambda x: jnp.arccosh(x + 1)),
    "add": lambda x: x + rolled(x),
    "add_any": jax.grad(lambda x: jnp.sum(jnp.sin(x) * jnp.cos(x) * x)),
    "and": of_signs(lambda a, b: a & b),
    "argmax": lambda x: x + jnp.argmax(x),
    "argmin": lambda x: x + jnp.argmin(x),
    "asin": within_one(jnp.arcsin),
    "asinh": jnp.arcsinh,
    "atan": jnp.arctan,
    "atan2": lambda x: jnp.arctan2(x, 1 + rolled(x)),
    "atanh": within_one(jnp.arctanh),
    "bitcast_convert_type": lambda x: lax.bitcast_convert_type(
        lax.bitcast_convert_type(x, jnp.uint32), x.dtype
    ),
    "broadcast_in_dim": lambda x: jnp.broadcast_to(x, (3, *x.shape))[2] + x,
    "cbrt": jnp.cbrt,
    "ceil": jnp.ceil,
    "clamp": lambda x: lax.clamp(jnp.zeros((), x.dtype), x, jnp.ones((), x.dtype)),
    "complex": lambda x: jnp.abs(lax.complex(x, rolled(x))),
    "concatenate": rolled,
    "cond": lambda x: lax.cond(x[0] > 1, jnp.sin, jnp.cos, x),
    "conj": lambda x: jnp.real(jnp.conj(lax.complex(x, rolled(x)))),
    "convert_element_type": lambda x: (7 * x).astype(int).astype(x.dtype),
    "copy": jnp.copy,
    "cos": jnp.cos,
    "cosh": within_one(jnp.cosh),
    "cumlogsumexp": within_one(lax.cumlogsumexp),
    "cummax": lax.cummax,
    "cummin": lax.cummin,
    "cumprod": within_one(lax.cumprod),
    "cumsum": within_one(lax.cumsum),
    "custom_jvp_call": jax.nn.relu,
    "custom_vjp_call": lambda x: halved(x),
    "custom_vmap_call": lambda x: doubled(x),
    "digamma": positive(lax.digamma),
    "div": positive(lambda x: 1 / x),
    "dot_general": lambda x: x * (matrix(x) @ x)[0] + jnp.arange(3.0, dtype=x.dtype) @ matrix(x),
    "dynamic_slice": lambda x: x + lax.dynamic_slice(x, (jnp.argmax(x),), (1,)),
    "dynamic_update_slice": lambda x: lax.dynamic_update_slice(x, 2 * x[:1], (jnp.argmax(x),)),
    "empty2": jax.grad(lambda x: jnp.sum(lax.cond(x[0] > 0, jnp.sin, jnp.cos, x))),
    "eq": of_signs(lambda a, b: a == b),
    "erf": lax.erf,
    "erf_inv": within_one(lax.erf_inv),
    "erfc": lax.erfc,
    "exp": within_one(jnp.exp),
    "exp2": within_one(lax.exp2),
    "expm1": within_one(jnp.expm1),
    "floor": jnp.floor,
    "gather": lambda x: x + jnp.sum(jnp.diagonal(jnp.outer(x[:8], x[:8]))),
    "ge": lambda x: jnp.where(x >= rolled(x), x, 1),
    "gt": lambda x: jnp.where(x > rolled(x), x, 1),
    "imag": lambda x: jnp.imag(lax.complex(x, rolled(x))),
    "integer_pow": within_one(lambda x: x**3),
    "iota": lambda x: x + jnp.arange(x.size),
    "is_finite": lambda x: jnp.where(jnp.isfinite(x), 1, x),
    "jit": jax.jit(jnp.sin),
    "le": lambda x: jnp.where(x <= rolled(x), x, 1),
    "lgamma": positive(lax.lgamma),
    "log": positive(jnp.log),
    "log1p": positive(jnp.log1p),
    "logistic": jax.nn.sigmoid,
    "lt": lambda x: jnp.where(x < rolled(x), x, 1),
    "max": lambda x: jnp.maximum(x, rolled(x)),
    "min": lambda x: jnp.minimum(x, rolled(x)),
    "mul": within_one(lambda x: x * rolled(x)),
    "ne": of_signs(lambda a, b: a != b),
    "neg": lambda x: -x,
    "not": of_signs(lambda a, b: ~a),
    "or": of_signs(lambda a, b: a | b),
    "pad": lambda x: jnp.pad(x, 1)[:-2] + x,
    "platform_index": lambda x: lax.platform_dependent(x, cpu=jnp.sin, default=jnp.cos),
    "pow": positive(lambda x: x**1.5),
    "real": lambda x: jnp.real(lax.complex(x, rolled(x))),
    "reduce_and": lambda x: jnp.where(jnp.all(x > 0), x, 1 + x),
    "reduce_max": lambda x: x - jnp.max(x),
    "reduce_min": lambda x: x - jnp.min(x),
    "reduce_or": lambda x: jnp.where(jnp.any(x > 0), x, 1 + x),
    "reduce_precision": lambda x: lax.reduce_precision(x, 8, 7),
    "reduce_prod": within_one(lambda x: x + jnp.prod(x)),
    "reduce_sum": within_one(lambda x: x + jnp.sum(x) + jnp.sum(matrix(x[:300]), axis=0)[0]),
    "rem": lambda x: lax.rem(x, jnp.full_like(x, 0.7)),
    "reshape": lambda x: x.reshape(1, -1)[0] + x,
    "rev": lambda x: x[::-1] + x,
    "round": jnp.round,
    "rsqrt": positive(lax.rsqrt),
    "scan": lambda x: x + lax.scan(lambda total, y: (0.5 * total + y, None), x[0], x)[0],
    "scatter": lambda x: x + jnp.asarray(0.0).at[...].set(x[0]),
    "select_n": lambda x: lax.select(x > 0, x, rolled(x)),
    "sign": lambda x: jnp.sign(x),
    "sin": jnp.sin,
    "sinh": within_one(jnp.sinh),
    "slice": lambda x: x + x[1:2],
    "split": lambda x: x + lax.split(x, (1, x.size - 1))[0],
    "sqrt": positive(jnp.sqrt),
    "square": within_one(jnp.square),
    "squeeze": lambda x: x + jnp.squeeze(x[:1]),
    "stack": lambda x: jnp.stack([x, 2 * x])[1],
    "sub": lambda x: x - rolled(x),
    "tan": within_one(jnp.tan),
    "tanh": jnp.tanh,
    "tile": lambda x: jnp.tile(x, 3)[2 : x.size + 2],
    "transpose": lambda x: matrix(x).T[:, 1] - x,
    "while": lambda x: lax.while_loop(lambda x: jnp.max(x) > 1, lambda x: 0.5 * x, x),
    "xor": of_signs(lambda a, b: a ^ b),
}


@jax.custom_vjp
def halved(x):
    return x / 2


halved.defvjp(lambda x: (x / 2, None), lambda _, g: (g / 2,))


@jax.custom_batching.custom_vmap
def doubled(x):
    return x * 2


@doubled.def_vmap
def _doubled(size, batched, x):
    return doubled(x), batched[0]


def running(carry):
    return carry[0] < 3


def loop_of(step):
    """Three trips; their number is told apart from the vector, and so is a factor."""

    def trip(carry, factor):
        count, x = carry
        return count + 1, (factor * step(x)).astype(x.dtype)

    return trip


def compared(step, x):
    """The vector that the loop in one piece ends with, that of the plain loop, and the program."""
    trip, carry, factor = loop_of(step), (jnp.asarray(0), x), jnp.asarray(0.9, x.dtype)
    loop, _ = _piece.while_loop(running, trip, carry, factor)
    program = jax.jit(loop).lower(carry, factor).compile()
    plain = lax.while_loop(running, lambda carry: trip(carry, factor), carry)
    return program(carry, factor)[1], plain[1], program


def main():
    """Prints a line for each that went wrong, and one at the end."""
    jax.config.update("jax_enable_x64", True)
    for name, step in STEPS.items():
        for size, dtype in ((40, "float32"), (_piece._LONGEST_SUM, "float32"), (40, "float64")):
            x = jnp.asarray(np.random.default_rng(0).normal(size=size), dtype)
            found, wanted, program = compared(step, x)
            whole = marked_calls(program) == 1
            if not (whole and np.allclose(found, wanted, rtol=1e-4, atol=1e-4)):
                print(name, size, dtype, whole, float(jnp.max(jnp.abs(found - wanted))))
    print(f"{len(STEPS)} steps", flush=True)


if __name__ == "__main__":
    sys.exit(main())
