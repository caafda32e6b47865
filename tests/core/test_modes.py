"""The modes of JAX that check more than usual: everything works in them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_ls

pytestmark = [pytest.mark.runtime, pytest.mark.slow]

MODES = {
    "strict promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "debug_nans": lambda: jax.debug_nans(True),
    "rank promotion": lambda: jax.numpy_rank_promotion("raise"),
    "leaks": jax.checking_leaks,
    "no jit": jax.disable_jit,
    "debug_infs": lambda: jax.debug_infs(True),
    "transfer guard": lambda: jax.transfer_guard("disallow"),
}
each_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
each_trace = pytest.mark.parametrize(
    "mode", [MODES["strict promotion"], MODES["debug_nans"]], ids=["strict", "nans"]
)


def objective(params):
    """A sum over leaves of any dtypes, without promotion of dtypes or ranks."""
    return sum(
        jnp.sum((jnp.abs(leaf - 1) ** 2).astype(jnp.float32)) for leaf in jax.tree.leaves(params)
    )


START = {
    "a": jnp.zeros((2, 3)),
    "b": jnp.full(2, 2, "bfloat16"),
    "c": jnp.full(2, 2j, "complex64"),
}
SETTINGS = {"memory_size": 2, "max_iters": 2}


@each_mode
@pytest.mark.parametrize("linesearch", ["more_thuente", "zoom", "backtracking"])
def test_minimize_gives_the_same_in_every_mode(mode, linesearch):
    start = jnp.array([3.0, 0.5])
    settings = {**SETTINGS, "linesearch": linesearch}
    wanted = optax_ls.minimize(objective, start, **settings).params
    with mode():
        result = optax_ls.minimize(lambda x: objective(x), start, **settings)
        assert "MinimizeResult" in str(result)
    np.testing.assert_allclose(result.params, wanted, rtol=1e-6)


@each_mode
def test_runs_of_every_kind_go_on_in_every_mode(mode):
    def fun(x, c=1.0):
        return (x - c) ** 2

    start, centre = jnp.asarray(3.0), jnp.asarray(2.0)
    bounds = jnp.full(3, -5.0), jnp.full(3, 0.5)
    matrix = jnp.full((2, 3), 3.0)
    of_matrix = lambda x: jnp.sum(fun(x)) + jnp.sum(x) ** 2  # noqa: E731
    state = optax_ls.minimize(of_matrix, matrix, bounds=bounds, max_iters=0).state
    with mode():
        results = [
            optax_ls.minimize(of_matrix, matrix, bounds=bounds, state=state),
            optax_ls.minimize(fun, start, args=(centre,), implicit_diff=True),
            optax_ls.minimize(lambda x: fun(x), 3.0),
        ]
    found = [float(jnp.max(result.params)) for result in results]
    assert found == pytest.approx([1 / 7, 2, 1], abs=1e-3)


@each_trace
def test_minimize_of_mixed_dtypes_with_a_history(mode):
    with mode():
        result = optax_ls.minimize(objective, START, history=True, **SETTINGS)
        optax_ls.inverse_hessian(result)(START)
    assert result.value < objective(START)


@each_trace
def test_minimize_under_vmap(mode):
    starts = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), START)
    with mode():
        result = jax.vmap(lambda x: optax_ls.minimize(objective, x, **SETTINGS))(starts)
    assert np.all(result.num_iters == 2)


@pytest.mark.skipif(
    jax.__version_info__ < (0, 5), reason="JAX 0.4 cannot transpose the solve of mixed leaves"
)
def test_derivative_of_a_minimum_of_mixed_dtypes_with_strict_promotion():
    def minimum(c):
        fun = lambda p, c: objective(p) + c * c * objective(p)  # noqa: E731
        settings = {"args": (c,), "implicit_diff": True, "max_iters": 20}
        return jnp.sum(optax_ls.minimize(fun, START, **settings).params["a"])

    with jax.numpy_dtype_promotion("strict"):
        np.testing.assert_allclose(jax.grad(minimum)(jnp.ones(())), 0, atol=1e-3)


SEARCHES = {
    "zoom": optax_ls.scale_by_zoom_linesearch(5),
    "more_thuente": optax_ls.scale_by_more_thuente_linesearch(5),
    "backtracking": optax_ls.scale_by_backtracking_linesearch(5),
}


TRANSFORMATIONS = {
    "momentum": optax_ls.sgd(0.1, momentum=0.9, nesterov=True, accumulator_dtype="float32"),
    "schedule": optax_ls.sgd(lambda count: jnp.float32(0.1)),
    "factor": optax_ls.scale(jnp.float32(0.1)),
}


@pytest.mark.parametrize("tx", TRANSFORMATIONS.values(), ids=TRANSFORMATIONS)
def test_transformations_of_mixed_dtypes_with_strict_promotion(tx):
    params = {"a": jnp.ones(2), "b": jnp.ones(2, "bfloat16")}
    with jax.numpy_dtype_promotion("strict"):
        updates, _ = tx.update(params, tx.init(params))
        moved = optax_ls.apply_updates(params, jax.tree.map(jnp.float32, updates))
    assert jax.tree.map(jnp.result_type, moved) == jax.tree.map(jnp.result_type, params)


@each_trace
@pytest.mark.parametrize("linesearch", SEARCHES.values(), ids=SEARCHES)
def test_lbfgs_of_mixed_dtypes(mode, linesearch):
    solver = optax_ls.lbfgs(memory_size=2, linesearch=linesearch)

    def step(params, state):
        value, grad = jax.value_and_grad(objective)(params)
        grad = jax.tree.map(jnp.conj, grad)
        updates, state = solver.update(
            grad, state, params, value=value, grad=grad, value_fn=objective
        )
        return optax_ls.apply_updates(params, updates), state

    with mode():
        params, state = START, solver.init(START)
        for _ in range(2):
            params, state = step(params, state)
    assert objective(params) < objective(START)


def test_function_is_called_in_the_mode_of_the_user():
    def mixing(x):
        return jnp.sum(x * jnp.ones(2, "bfloat16"))

    with jax.numpy_dtype_promotion("strict"), pytest.raises(Exception, match="strict"):
        optax_ls.minimize(mixing, jnp.ones(2), **SETTINGS)
    assert optax_ls.minimize(mixing, jnp.ones(2), **SETTINGS).num_iters > 0
