"""Trees of all the kinds of params that are promised to work, and an objective for any of them."""

import jax
import jax.numpy as jnp


def vector(dtype, size=3):
    x = jnp.linspace(-1.0, 0.5, size)
    return (x * (1 + 0.5j) if jnp.issubdtype(dtype, jnp.complexfloating) else x).astype(dtype)


def vectors(*dtypes):
    return {dtype: vector(dtype, size) for size, dtype in enumerate(dtypes, start=2)}


TREES = {
    "float16": lambda: vector("float16"),
    "bfloat16": lambda: vector("bfloat16"),
    "float32": lambda: vector("float32"),
    "float64": lambda: vector("float64"),
    "complex64": lambda: vector("complex64"),
    "complex128": lambda: vector("complex128"),
    "bfloat16+float32": lambda: vectors("bfloat16", "float32"),
    "float16+complex64": lambda: vectors("float16", "complex64"),
    "float32+float64": lambda: vectors("float32", "float64"),
    "bfloat16+complex128": lambda: vectors("bfloat16", "complex128"),
    "scalars": lambda: (jnp.zeros((), "float32"), jnp.zeros((), "bfloat16")),
    "python_floats": lambda: {"a": 0.5, "b": [-1.0, vector("float32")]},
    "empty_leaf+none": lambda: {"empty": jnp.zeros((0,)), "none": None, "b": [vector("float32")]},
}
ONLY_WITH_X64 = {"float64", "complex128", "float32+float64", "bfloat16+complex128"}


def objective(params):
    """A bowl of degree four around 1, or 1 + i for complex leaves, and around nothing else."""
    return sum(bowl(jnp.asarray(leaf)) for leaf in jax.tree.leaves(params))


def bowl(x):
    offset = x - (1 + 1j if jnp.iscomplexobj(x) else 1)
    squares = jnp.real(offset * jnp.conj(offset))
    weights = jnp.arange(1, x.size + 1, dtype=squares.dtype).reshape(x.shape)
    return jnp.sum(weights * squares) + jnp.sum(squares) ** 2 / 4


def signature(tree):
    arrays = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return jax.tree.structure(tree), tuple((x.shape, x.dtype.name, x.weak_type) for x in arrays)


def dtypes(tree):
    return jax.tree.map(lambda x: jnp.asarray(x).dtype.name, tree)
