"""``minimize`` finds the minima that SciPy's L-BFGS-B finds, and needs no more evaluations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bestiary import rosenbrock
from scipy import optimize
from sklearn import datasets, preprocessing

import optax_ls

pytestmark = pytest.mark.parametrize("x64", [True], indirect=True)
GTOL = 1e-8


def himmelblau(x):
    return (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2


def logistic_loss(params, inputs, labels):
    weights, bias = params[:-1], params[-1]
    scores = inputs @ weights + bias
    return jnp.mean(jnp.logaddexp(0, -labels * scores)) + 1e-3 * jnp.sum(weights**2)


@functools.cache
def cancer():
    inputs, labels = datasets.load_breast_cancer(return_X_y=True)
    return preprocessing.scale(inputs), 2.0 * labels - 1


def hilly(size):
    return np.tile([-1.2, 1.0], size // 2)


# The objective, the start, and further arguments.
PROBLEMS = {
    "rosenbrock_2": lambda: (rosenbrock, hilly(2), ()),
    "rosenbrock_10": lambda: (rosenbrock, hilly(10), ()),
    "rosenbrock_100": lambda: (rosenbrock, hilly(100), ()),
    "himmelblau_centre": lambda: (himmelblau, np.zeros(2), ()),
    "himmelblau_corner": lambda: (himmelblau, np.array([-5.0, -5.0]), ()),
    "logistic": lambda: (logistic_loss, np.zeros(31), cancer()),
}
each_problem = pytest.mark.parametrize("name", PROBLEMS)


@functools.cache
def solved(name):
    """Our result and SciPy's."""
    fun, x, data = PROBLEMS[name]()
    ours = optax_ls.minimize(fun, x, args=data, gtol=GTOL)
    evaluate = jax.jit(jax.value_and_grad(fun))
    theirs = optimize.minimize(
        lambda x: tuple(map(np.asarray, evaluate(x, *data))),
        x,
        jac=True,
        method="L-BFGS-B",
        options={"gtol": GTOL, "ftol": 0.0, "maxcor": 10},
    )
    return ours, theirs


@pytest.mark.slow
@each_problem
def test_minimum_is_scipys(name, x64):
    ours, theirs = solved(name)
    assert ours.success
    np.testing.assert_allclose(ours.params, theirs.x, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.value, theirs.fun, rtol=1e-6, atol=1e-10)


@each_problem
def test_evaluations_are_no_more_than_half_as_many_again_as_scipys(name, x64):
    ours, theirs = solved(name)
    assert ours.num_evals <= 1.5 * theirs.nfev


# Convex functions with kinks.


def total_variation(x, noisy, _):
    return jnp.sum((x - noisy) ** 2) / 2 + 2 * jnp.sum(jnp.abs(jnp.diff(x)))


def lasso(x, inputs, outputs):
    return jnp.sum((inputs @ x - outputs) ** 2) / 2 + 20 * jnp.sum(jnp.abs(x))


def hinge_loss(x, inputs, labels):
    return jnp.mean(jnp.maximum(0, 1 - labels * (inputs @ x))) + 1e-3 * jnp.sum(x**2)


def kinked(seed):
    """Functions with arguments: 10 flat pieces, 30 equations with 60 unknowns, 80 labels."""
    rng = np.random.default_rng(seed)
    steps = np.repeat(rng.normal(size=10) * 3, 10) + rng.normal(size=100) * 0.3
    wide = rng.normal(size=(30, 60)), rng.normal(size=30) * 5
    inputs = rng.normal(size=(80, 12))
    labels = np.sign(inputs @ rng.normal(size=12) + rng.standard_t(2, 80))
    return {
        total_variation: (np.full(100, 0.1), steps, 0.0),
        lasso: (np.full(60, 0.1), *wide),
        hinge_loss: (np.full(12, 0.1), inputs, labels),
    }


@pytest.mark.parametrize("fun", [total_variation, lasso, hinge_loss])
def test_kinks_are_followed_as_far_as_scipy_follows_them(fun, x64):
    evaluate = jax.jit(jax.value_and_grad(fun))
    for seed in range(3):
        x, *data = kinked(seed)[fun]
        ours = optax_ls.minimize(fun, x, args=tuple(data))
        theirs = optimize.minimize(
            lambda x, *data: tuple(map(np.asarray, evaluate(x, *data))),
            x,
            args=tuple(data),
            jac=True,
            method="L-BFGS-B",
        )
        assert ours.value < 1.003 * theirs.fun
        assert ours.num_evals < 30 * theirs.nfev
