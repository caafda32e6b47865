"""The counter against counts that are known. Run with ``python -m pytest benchmarks``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from .counting import Tally, counted


def objective(x):
    return jnp.sum((x - 3) ** 2)


def descend(fun, steps):
    """Plain gradient descent in one compiled loop."""

    def step(_, x):
        _, grad = jax.value_and_grad(fun)(x)
        return x - 0.1 * grad

    loop = jax.jit(lambda x: jax.lax.fori_loop(0, steps, step, x))
    return loop(jnp.ones(2)).block_until_ready()


def test_compiled_loop_counts_every_trip():
    tally = Tally()
    descend(counted(objective, tally), 17)
    assert (tally.evals, tally.values_only, tally.end) == (17, 0, None)
    assert [at for at, _ in tally.improvements] == list(range(1, 18))


def test_count_is_that_of_scipy():
    tally = Tally()
    value_and_grad = jax.jit(jax.value_and_grad(counted(lambda x: jnp.sum((x - 3) ** 4), tally)))

    def fun(x):
        value, grad = value_and_grad(x)
        return float(value), np.asarray(grad, float)

    result = minimize(fun, np.zeros(3), jac=True, method="L-BFGS-B")
    assert tally.evals == result.nfev > 5


@pytest.mark.parametrize(
    ("derive", "expected"),
    [
        (lambda f: f, 1),
        (jax.grad, 1),
        (jax.value_and_grad, 1),
        (lambda f: lambda x: (f(x), jax.grad(f)(x)), 2),
        (lambda f: lambda x: jax.jvp(f, (x,), (x,)), 1),
        (lambda f: lambda x: jax.linearize(f, x)[1](x), 1),
        (lambda f: lambda x: jax.lax.cond(x[0] > 0, f, lambda y: f(2 * y), x), 1),
        (lambda f: lambda x: jax.lax.cond(x[0] < 0, jax.grad(f), jnp.zeros_like, x), 0),
    ],
)
def test_each_way_to_evaluate_counts_once(derive, expected):
    tally = Tally()
    jax.block_until_ready(jax.jit(derive(counted(objective, tally)))(jnp.ones(2)))
    assert tally.evals == expected


def test_derivatives_are_those_of_the_objective():
    x = jnp.arange(3.0)
    fun = counted(objective, Tally())
    np.testing.assert_array_equal(jax.grad(fun)(x), jax.grad(objective)(x))
    for derive in (lambda f: f, lambda f: lambda x: jax.jvp(f, (x,), (2 * x,))[1]):
        np.testing.assert_allclose(derive(fun)(x), derive(objective)(x))


def test_value_that_nothing_uses_is_not_evaluated():
    tally = Tally()
    fun = counted(objective, tally)

    @jax.jit
    def program(x):
        fun(x + 1)
        return fun(x)

    program(jnp.ones(2)).block_until_ready()
    assert (tally.evals, tally.values_only) == (1, 1)


def test_run_stops_at_the_threshold():
    free = Tally()
    descend(counted(objective, free), 10)
    at, value = free.improvements[4]
    tally = Tally(threshold=value)
    with pytest.raises(Exception, match="Stop"):
        descend(counted(objective, tally), 10)
    assert (tally.end, tally.solved_at, tally.evals) == ("solved", at, at)


def test_run_stops_when_evaluations_or_time_are_spent():
    for settings, end, evals in (
        ({"max_evals": 7}, "evaluations", 7),
        ({"timeout": -1}, "time", 1),
    ):
        tally = Tally(**settings)
        with pytest.raises(Exception, match="Stop"):
            descend(counted(objective, tally), 10)
        assert (tally.end, tally.evals) == (end, evals)


def test_a_run_that_makes_just_as_many_evaluations_as_allowed_is_not_stopped():
    tally = Tally(max_evals=10)
    descend(counted(objective, tally), 10)
    assert (tally.end, tally.evals) == (None, 10)


def test_values_that_are_not_finite_solve_nothing():
    tally = Tally(threshold=0.0)
    fun = counted(lambda x: -jnp.inf * jnp.sum(x), tally)
    fun(jnp.ones(2)).block_until_ready()
    assert (tally.end, tally.evals, tally.improvements) == (None, 1, [])
