"""Objectives of all characters behind one function, so that one program minimises any of them."""

import jax
import jax.numpy as jnp


def _weights(x, largest):
    """From 1 to ``largest``, evenly by ratio."""
    return jnp.logspace(0, jnp.log10(largest), x.size).astype(x.dtype)


def rosenbrock(x):
    """The minimum is 0, at 1; for one coordinate or none it is flat."""
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


# Smooth and convex: all have the minimum 0.
CONVEX = {
    "bowl": lambda x: jnp.sum((x - 1) ** 2) / 2,
    "narrow": lambda x: jnp.sum(_weights(x, 1e4) * (x - 1) ** 2) / 2,
    "very_narrow": lambda x: jnp.sum(_weights(x, 1e12) * (x - 1) ** 2) / 2,
    "log_cosh": lambda x: jnp.sum(jnp.abs(x) + jnp.log1p(jnp.exp(-2 * jnp.abs(x))) - jnp.log(2.0)),
    "falling": lambda x: jnp.sum(jnp.exp(-x)),
    "barrier": lambda x: jnp.sum(x - jnp.log(1 + x)),
}
SMOOTH = {
    "rosenbrock": rosenbrock,
    "waves": lambda x: jnp.sum(x**2 / 2 - jnp.cos(5 * x)),
    "constant": lambda x: 0 * jnp.sum(x) + 3,
}
UNBOUNDED = {
    "linear": lambda x: jnp.sum(x),
    "cap": lambda x: -jnp.sum((x - 1) ** 2),
    "saddle": lambda x: jnp.sum((x - 0.5) ** 2) - 3 * jnp.sum((x[:1] - 0.5) ** 2),
    "cubic": lambda x: jnp.sum((x - 1) ** 3),
    "well": lambda x: jnp.sum(jnp.log(jnp.abs(x))),
}
BROKEN = {
    "kinks": lambda x: jnp.sum(jnp.abs(x - 0.3)),
    "largest": lambda x: jnp.max(jnp.abs(x - 0.3), initial=0),
    "root": lambda x: jnp.sum(jnp.sqrt(x)),
    "entropy": lambda x: jnp.sum(x * jnp.log(x)),
    "pole": lambda x: jnp.sum(1 / x + x**2),
    "wall": lambda x: jnp.where(jnp.any(x < -2), jnp.inf, jnp.sum(x)),
    "abyss": lambda x: jnp.where(jnp.any(x < -2), -jnp.inf, jnp.sum(x)),
    "fog": lambda x: jnp.where(jnp.any(x < -2), jnp.nan, jnp.sum(x)),
    "stairs": lambda x: jnp.sum(jnp.floor(x) + (x - 3) ** 2),
    "jump_down": lambda x: jnp.sum(jnp.where(x < 0, -10.0, 0) + (x - 1) ** 2),
    "nan": lambda x: jnp.nan * jnp.sum(x),
    "nan_slope": lambda x: jnp.sum(jnp.sqrt(0 * x)),
}
ALL = {**CONVEX, **SMOOTH, **UNBOUNDED, **BROKEN}
NAMES = tuple(ALL)


def vector(params):
    """All real numbers in a tree, real and imaginary parts of complex ones, at least float32."""
    parts = [
        jnp.ravel(part)
        for leaf in map(jnp.asarray, jax.tree.leaves(params))
        for part in ((leaf.real, leaf.imag) if jnp.iscomplexobj(leaf) else (leaf,))
    ]
    dtype = jnp.result_type(jnp.float32, *parts)
    return jnp.concatenate([part.astype(dtype) for part in parts])


def objective(params, kind, height=1.0, width=1.0, offset=0.0):
    """``height * ALL[NAMES[kind]](params / width) + offset``."""
    x = vector(params)
    branches = [lambda x, fn=fn: jnp.asarray(fn(x), x.dtype) for fn in ALL.values()]
    value = jax.lax.switch(kind, branches, x / jnp.asarray(width, x.dtype))
    return jnp.asarray(height, x.dtype) * value + jnp.asarray(offset, x.dtype)
