"""``add_pair`` and ``apply`` are the compact form, as functions of arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense import curved_pairs, dense_inverse_hessian

from optax_ls._core.lbfgs import compact

pytestmark = pytest.mark.runtime

N, MEMORY = 6, 4
add_pair, apply = jax.jit(compact.add_pair), jax.jit(compact.apply)


def empty():
    vector, square = jnp.zeros(MEMORY), jnp.zeros((MEMORY, MEMORY))
    return compact.Coefficients(vector, jnp.zeros((), int), square, square, vector, vector, None)


def products(rows_s, rows_y, s, y, g):
    pair = compact.PairProducts(s @ s, s @ y, y @ y, s @ g, np.abs(s) @ np.abs(y))
    return compact.Products(rows_s @ g, rows_y @ g, rows_s @ y, rows_y @ y, pair, None, g @ g)


def direction(pairs, g, gamma):
    """H g, with the pairs added one after the other; and whether each pair entered."""
    coefficients, entered = empty(), []
    rows_s, rows_y = np.zeros((MEMORY, N)), np.zeros((MEMORY, N))
    for s, y in pairs:
        slot = coefficients.next_slot
        rows_s[slot], rows_y[slot] = s, y
        found = products(rows_s, rows_y, s, y, g)
        coefficients, enters = add_pair(coefficients, slot, found, jnp.ones((), bool))
        entered.append(bool(enters))
    of_s, of_y = apply(coefficients, jnp.asarray(gamma), rows_s @ g, rows_y @ g)
    return gamma * g + of_s @ rows_s + of_y @ rows_y, entered


@pytest.mark.parametrize("x64", [True], indirect=True)
@pytest.mark.parametrize("number", [0, 1, MEMORY, MEMORY + 1, 3 * MEMORY])
def test_coefficients_give_the_dense_matrix_of_the_last_pairs(number, x64):
    rng = np.random.default_rng(number)
    pairs, g = curved_pairs(number, rng, N), rng.normal(size=N)
    found, entered = direction(pairs, g, 0.3)
    wanted = dense_inverse_hessian(pairs[-MEMORY:], 0.3) @ g if pairs else 0.3 * g
    assert all(entered)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


@pytest.mark.parametrize("x64", [True], indirect=True)
@pytest.mark.parametrize("position", [0, 2, 6])
def test_pair_without_curvature_does_not_enter_and_leaves_its_slot_empty(position, x64):
    rng = np.random.default_rng(position)
    pairs, g = curved_pairs(6, rng, N), rng.normal(size=N)
    s, y = pairs[0]
    found, entered = direction([*pairs[:position], (s, -y), *pairs[position:]], g, 0.7)
    assert entered == [k != position for k in range(7)]
    # The last of all takes the slot of the oldest; before others, the next pair takes its slot.
    kept = pairs[-(MEMORY - 1) :] if position == 6 else pairs[-MEMORY:]
    np.testing.assert_allclose(found, dense_inverse_hessian(kept, 0.7) @ g, rtol=1e-8)


@pytest.mark.parametrize("x64", [False, True], indirect=True)
def test_pairs_enter_at_any_scale_of_the_params(x64):
    rng, units = np.random.default_rng(0), np.logspace(-6, 6, N)
    pairs = [(s * units, y / units) for s, y in curved_pairs(3, rng, N)]
    _, entered = direction(pairs, rng.normal(size=N) / units, 1.0)
    assert entered == [True] * 3


@pytest.mark.parametrize("x64", [False, True], indirect=True)
def test_pair_whose_curvature_is_rounding_of_its_terms_does_not_enter(x64):
    eps = np.finfo(np.float64 if jax.config.jax_enable_x64 else np.float32).eps
    s, y = np.zeros(N), np.zeros(N)
    s[:2], y[:2] = 1, (1, eps - 1)
    _, entered = direction([(s, y), (s, y + 4 * eps * s)], np.ones(N), 1.0)
    assert entered == [False, True]
