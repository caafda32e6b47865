"""Directions stay accurate when the pairs in the memory are nearly dependent.

The compact form is compared with the dense BFGS matrix, in exact arithmetic as far as float64 goes
beyond float32, and with the textbook's two loops in the same precision. Conditions are those of the
Gram matrix of the steps: at 1e10 the last of ten steps is a combination of the others to 1e-5.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from dense import compiled, dense_inverse_hessian, relative_distance, scale_of

import optax_ls

MEMORY_SIZE, SIZE = 10, 40


def course(condition, seed):
    """Params and gradients of a quadratic, along steps whose Gram matrix has this condition."""
    rng = np.random.default_rng(seed)

    def orthonormal(rows, columns):
        return np.linalg.qr(rng.normal(size=(rows, columns)))[0]

    axes = orthonormal(SIZE, SIZE)
    hessian = (axes * np.geomspace(1, 100, SIZE)) @ axes.T
    lengths = np.geomspace(1, condition**-0.5, MEMORY_SIZE)
    steps = orthonormal(MEMORY_SIZE, MEMORY_SIZE) * lengths @ orthonormal(SIZE, MEMORY_SIZE).T
    params = np.cumsum([rng.normal(size=SIZE) / 10, *steps], axis=0)
    return params, params @ hessian


def two_loops(pairs, g, dtype):
    """N&W algorithm 7.4, with all numbers of one dtype."""
    pairs = [(s.astype(dtype), y.astype(dtype)) for s, y in pairs]
    q, alphas = g.astype(dtype), []
    for s, y in reversed(pairs):
        alphas.append((s @ q) / (s @ y))
        q = q - alphas[-1] * y
    q = dtype(scale_of(pairs[-1])) * q
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        q = q + s * (alpha - (y @ q) / (s @ y))
    return q


def digits(got, wanted):
    return -np.log10(relative_distance(got, wanted) + 1e-17)


def measure(condition, seed, as_dtype):
    """Digits kept by our direction and by the two loops, of the pairs as they are in the memory."""
    params, grads = course(condition, seed)
    init, update = compiled(MEMORY_SIZE)
    state = init(jnp.asarray(params[0], as_dtype))
    for w, g in zip(params, grads, strict=True):
        direction, state = update(jnp.asarray(g, as_dtype), state, jnp.asarray(w, as_dtype))
    size, number = MEMORY_SIZE, int(state.num_pairs)
    slots = [(number - min(number, size) + k) % size for k in range(min(number, size))]
    rows = (np.asarray(m) for m in (state.diff_params_memory, state.diff_updates_memory))
    s, y = (r.astype(np.float64) for r in rows)
    pairs = [(s[k], y[k]) for k in slots]
    g = np.asarray(state.updates).astype(np.float64)
    wanted = dense_inverse_hessian(pairs, scale_of(pairs[-1])) @ g
    return digits(direction, wanted), digits(two_loops(pairs, g, as_dtype), wanted), direction, g


SEEDS = range(5)
each_condition = pytest.mark.parametrize("condition", [1e2, 1e4, 1e6, 1e8, 1e10])


@each_condition
@pytest.mark.parametrize(
    ("dtype", "least", "x64"),
    [(np.float32, 6.0, False), (np.float64, 14.0, True)],
    ids=["float32", "float64"],
    indirect=["x64"],
)
def test_direction_keeps_the_digits_of_the_two_loops_but_one(
    condition, dtype, least, x64, record_property
):
    ours, loops = np.transpose([measure(condition, seed, dtype)[:2] for seed in SEEDS])
    record_property("digits kept", f"{np.median(ours):.1f}, two loops {np.median(loops):.1f}")
    assert np.median(ours) >= np.median(loops) - 1
    assert np.median(ours) >= least


@each_condition
def test_direction_of_an_ill_conditioned_memory_leads_downhill(condition):
    for seed in SEEDS:
        *_, direction, g = measure(condition, seed, np.float32)
        assert optax_ls.tree.vdot(direction, g) > 0
