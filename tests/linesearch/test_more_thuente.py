"""More & Thuente's search tries the steps of SciPy's, and goes on where rounding stops that."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_ls

scalar_search = pytest.importorskip("scipy.optimize._linesearch").scalar_search_wolfe1

LINES = {
    "flat ahead": lambda x: -x / (x**2 + 2),
    "narrow": lambda x: (x + 0.004) ** 5 - 2 * (x + 0.004) ** 4,
    "steep wall": lambda x: jnp.exp(3 * x) - 5 * x,
    "wavy": lambda x: 0.1 * (x - 4) ** 2 + jnp.cos(5 * x) - jnp.sin(3 * x),
    "far": lambda x: (x - 50.0) ** 2,
    "far and wavy": lambda x: (x - 7.3) ** 2 + jnp.sin(3 * x),
}


def steps_of_scipy(phi, curv_rtol):
    tried = []

    def value(x):
        tried.append(float(x))
        return float(phi(x))

    slope = jax.grad(phi)
    value_0, slope_0 = float(phi(0.0)), float(slope(0.0))
    scalar_search(value, lambda x: float(slope(x)), value_0, None, slope_0, c2=curv_rtol, amax=1e10)
    return tried


def search_along(phi, **settings):
    """The state after one search along +1 from 0, and the steps tried."""
    tried = []

    def fn(x):
        jax.debug.callback(lambda x: tried.append(float(x)), x)
        return phi(x)

    solver = optax_ls.scale_by_more_thuente_linesearch(30, **settings)
    zero = jnp.zeros(())
    value, grad = jax.value_and_grad(phi)(zero)

    @jax.jit
    def update(state):
        return solver.update(jnp.ones(()), state, zero, value=value, grad=grad, value_fn=fn)[1]

    state = jax.block_until_ready(update(solver.init(zero)))
    jax.effects_barrier()
    return state, tried


@pytest.mark.slow
@pytest.mark.parametrize("curv_rtol", [0.9, 0.1, 1e-3])
@pytest.mark.parametrize("phi", LINES.values(), ids=LINES)
def test_search_tries_the_steps_of_scipy(phi, curv_rtol, enable_x64):
    with enable_x64(True):
        _, tried = search_along(phi, curv_rtol=curv_rtol)
        np.testing.assert_allclose(tried, steps_of_scipy(phi, curv_rtol), rtol=1e-9)


def drowned(x):
    """A parabola under a constant so large that float32 keeps none of it near zero."""
    return 1e4 + (x - 1e-4) ** 2


def test_search_goes_by_slopes_where_rounding_hides_the_decrease():
    state, _ = search_along(drowned)
    assert state.info.decrease_error == 0
    assert state.info.curvature_error == 0
    np.testing.assert_allclose(state.learning_rate, 1e-4, rtol=0.9)


def test_noise_rtol_of_zero_takes_values_at_their_word():
    state, _ = search_along(drowned, noise_rtol=0.0)
    assert state.info.decrease_error > 0


def test_smaller_curv_rtol_takes_a_more_exact_step():
    coarse, fine = (search_along(LINES["wavy"], curv_rtol=rtol)[0] for rtol in (0.9, 0.01))
    slope = jax.grad(LINES["wavy"])
    assert abs(slope(fine.learning_rate)) < abs(slope(coarse.learning_rate))


def test_state_has_its_own_class():
    state = optax_ls.scale_by_more_thuente_linesearch(5).init(jnp.ones(2))
    assert isinstance(state, optax_ls.ScaleByMoreThuenteLinesearchState)
    assert isinstance(state.info, optax_ls.MoreThuenteLinesearchInfo)


def test_search_ends_where_rounding_makes_one_point_of_two_steps():
    def narrow_valley(p):
        x, y = p
        return x + 1e6 * (x**2 + y**2 - 1) ** 2

    start = jnp.array([1.1, 0.1], jnp.float32)
    result = optax_ls.minimize(narrow_valley, start, max_linesearch_steps=1000)
    assert result.status == optax_ls.MinimizeStatus.VALUE_SETTLED
    assert result.num_evals < 30


@pytest.mark.parametrize("height", [1e6, 1e10, 1e14])
def test_wall_does_not_keep_the_search_from_going_on(height):
    def phi(x):
        return -x - x**2 + height * jnp.maximum(x - 0.3, 0) ** 2

    state, _ = search_along(phi, curv_rtol=0.45)
    assert 0.1 < state.learning_rate < 0.31
