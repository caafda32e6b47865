"""Isolation in a branch changes only rounding, and can be switched off."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bestiary import rosenbrock

import optax_ls
from optax_ls._core import isolation

pytestmark = pytest.mark.runtime
START = -1.2, 1.0, 0.5


def with_lbfgs(fun):
    solver, value_and_grad = optax_ls.lbfgs(), optax_ls.value_and_grad_from_state(fun)

    def step(carry, _):
        x, state = carry
        value, grad = value_and_grad(x, state=state)
        updates, state = solver.update(grad, state, x, value=value, grad=grad, value_fn=fun)
        return (optax_ls.apply_updates(x, updates), state), None

    start = jnp.array(START)
    (x, state), _ = jax.lax.scan(step, (start, solver.init(start)), length=60)
    return x, state[0].num_pairs


def with_minimize(linesearch):
    def run(fun):
        result = optax_ls.minimize(fun, jnp.array(START), linesearch=linesearch)
        return result.params, result.status

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    "run",
    [with_lbfgs, *map(with_minimize, ["more_thuente", "zoom", "backtracking"])],
    ids=["lbfgs", "more_thuente", "zoom", "backtracking"],
)
@pytest.mark.parametrize("x64", [True], indirect=True)
def test_result_without_isolation_is_the_same(run, x64, monkeypatch):
    params, outcome = run(lambda x: rosenbrock(x))  # a function of its own has its own program
    monkeypatch.setattr(isolation, "ENABLED", False)
    plain, plain_outcome = run(lambda x: rosenbrock(x))
    assert outcome == plain_outcome
    np.testing.assert_allclose(plain, params, atol=1e-8)
