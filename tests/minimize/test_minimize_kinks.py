"""``minimize`` on piecewise smooth functions, where no step may have a small slope.

The functions are of Haarala, Miettinen & Makela, Optimization Methods and Software 19 (2004),
673-692, with their minima.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_ls

pytestmark = pytest.mark.runtime

SIZE = 10


def chained_lq(a, b):
    return jnp.sum(jnp.maximum(-a - b, -a - b + a**2 + b**2 - 1))


def chained_cb3(a, b):
    pieces = a**4 + b**2, (2 - a) ** 2 + (2 - b) ** 2, 2 * jnp.exp(b - a)
    return jnp.sum(jnp.stack(pieces).max(axis=0))


def largest_of_cb3(a, b):
    pieces = a**4 + b**2, (2 - a) ** 2 + (2 - b) ** 2, 2 * jnp.exp(b - a)
    return jnp.stack(pieces).sum(axis=1).max()


def chained_crescent(a, b):
    hill = a**2 + (b - 1) ** 2 - 1
    return jnp.maximum(jnp.sum(hill + b), jnp.sum(b - hill))


# The function of neighbours, the start, the minimum.
FUNCTIONS = {
    chained_lq: (np.full(SIZE, -0.5), -(SIZE - 1) * 2**0.5),
    chained_cb3: (np.full(SIZE, 2.0), 2 * (SIZE - 1)),
    largest_of_cb3: (np.full(SIZE, 2.0), 2 * (SIZE - 1)),
    chained_crescent: (np.resize([-1.5, 2.0], SIZE), 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("fun", FUNCTIONS, ids=lambda fun: fun.__name__)
@pytest.mark.parametrize("x64", [True], ids=["float64"], indirect=True)
def test_default_search_follows_kinks_to_the_minimum(fun, x64):
    start, minimum = FUNCTIONS[fun]
    starts = start + 0.01 * np.random.default_rng(4).normal(size=(16, SIZE))
    result = jax.jit(
        jax.vmap(lambda x: optax_ls.minimize(lambda x: fun(x[:-1], x[1:]), x, max_iters=3000))
    )(starts)
    excess = (result.value - minimum) / max(1, abs(minimum))
    assert np.median(excess) < 1e-5
    assert np.median(result.num_evals) < 1500
    assert not np.any(result.status == optax_ls.MinimizeStatus.UNBOUNDED)
