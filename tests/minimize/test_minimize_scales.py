"""The status of ``minimize`` is honest where numbers are very large or small, or rounded away."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_ls
from optax_ls import MinimizeStatus
from optax_ls._minimize.descent import steepest_descent

pytestmark = pytest.mark.runtime

each_dtype = pytest.mark.parametrize(
    "x64", [False, True], ids=["float32", "float64"], indirect=True
)


# The size of a step and of the gradient.


def exp_of_cosh(x):
    return jnp.sum(jnp.exp(jnp.cosh(x)))


@each_dtype
@pytest.mark.parametrize("linesearch", ["more_thuente", "zoom", "backtracking"])
def test_step_too_short_to_change_the_params_is_no_success(linesearch, x64):
    """From a steep place the scale of the first pairs is far too small for the places after it."""
    reach = 6.5 if x64 else 4
    starts = np.random.default_rng(0).uniform(-reach, reach, (100, 3))

    def run(x):
        return optax_ls.minimize(exp_of_cosh, x, linesearch=linesearch, max_iters=3000)

    result = jax.jit(jax.vmap(run))(jnp.asarray(starts))
    assert np.max(np.abs(result.params)) < 0.1


@pytest.mark.parametrize("start", [8.4, 8.6, 8.7])
def test_gradient_near_the_largest_number_is_followed(start):
    """Beyond 8.5, the reciprocal of the gradient is subnormal."""
    result = optax_ls.minimize(lambda x: jnp.sum(x**40), jnp.array([start]))
    assert result.success
    assert result.value < 1e-5


def test_steepest_descent_of_a_huge_gradient_is_finite():
    params, grad = jnp.array([100.0, -1.0]), jnp.array([1e38, -3e38])
    direction = steepest_descent(params, grad)
    assert np.all(direction * jnp.sign(grad) < 0)
    assert np.linalg.norm(direction / params) <= 1.001


# Rounding of terms that cancel.


def welsch(x, center):
    return jnp.sum(1 - jnp.exp(-((x - center) ** 2) / 2))


@each_dtype
@pytest.mark.parametrize("linesearch", ["more_thuente", "zoom"])
def test_minimum_where_terms_cancel_to_zero_is_a_success(linesearch, x64):
    starts, centers = np.random.default_rng(0).normal(size=(2, 100, 3))

    def run(x, center):
        return optax_ls.minimize(welsch, x, args=(center,), linesearch=linesearch)

    result = jax.jit(jax.vmap(run))(jnp.asarray(starts), jnp.asarray(centers))
    is_near = np.abs(result.params - centers).max(axis=1) < 3e-3
    assert np.all(np.asarray(result.success)[is_near])
    assert np.mean(result.num_evals) < 25


# Saddles.


def wells(x):
    return jnp.sum(x**4 - jnp.arange(1.0, 5.0) * x**2)


@each_dtype
@pytest.mark.parametrize("linesearch", ["more_thuente", "zoom", "backtracking"])
def test_saddle_of_value_zero_is_left_without_calling_the_fall_endless(linesearch, x64):
    tiny = 1e-11 if x64 else 1e-5
    starts = tiny * np.random.default_rng(0).normal(size=(100, 4))
    result = jax.jit(jax.vmap(lambda x: optax_ls.minimize(wells, x, linesearch=linesearch)))(starts)
    assert not np.any(result.status == MinimizeStatus.UNBOUNDED)
