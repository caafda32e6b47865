"""Inside shard_map and pmap: a problem on each device, or one problem with data on all of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from promises import needs

import optax_ls

pytestmark = [
    pytest.mark.runtime,
    pytest.mark.slow,
    pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices"),
]

EACH, ALL = PartitionSpec("d"), PartitionSpec()
SETTINGS = {"memory_size": 2, "max_iters": 30}
TARGETS = jnp.arange(8.0)
checked = needs("`shard_map`, `check_vma=True`")
not_checked = needs("`shard_map`, `check_vma=False`")
each_check = pytest.mark.parametrize(
    "check_vma", [pytest.param(True, marks=checked), pytest.param(False, marks=not_checked)]
)


def on_four(function, out_specs, check_vma):
    mesh = Mesh(np.array(jax.devices()[:4]), ("d",))
    if hasattr(jax, "shard_map"):
        shard_map, check = jax.shard_map, {"check_vma": check_vma}
    else:
        from jax.experimental.shard_map import shard_map

        check = {"check_rep": check_vma}
    return jax.jit(shard_map(function, mesh=mesh, in_specs=EACH, out_specs=out_specs, **check))


def bowl(x, c):
    return jnp.sum((x - c) ** 2 + c * (x - c) ** 4)


# A problem on each device.


@each_check
@pytest.mark.parametrize("linesearch", ["more_thuente", "zoom", "backtracking"])
def test_each_device_minimizes_its_own_function_and_exchanges_nothing(linesearch, check_vma):
    def solve(c):
        result = optax_ls.minimize(bowl, c * 0, args=(c,), linesearch=linesearch, **SETTINGS)
        return result.params, result.num_evals[None]

    program = on_four(solve, EACH, check_vma).lower(TARGETS).compile()
    found, num_evals = program(TARGETS)
    np.testing.assert_allclose(found, TARGETS, atol=1e-2)
    assert len(set(np.asarray(num_evals).tolist())) > 1, "all loops are of one length"
    assert "all-" not in program.as_text()


@checked
def test_start_that_is_the_same_on_all_devices():
    def solve(c):
        return optax_ls.minimize(lambda x: bowl(x, c), jnp.zeros(2), **SETTINGS).params

    np.testing.assert_allclose(on_four(solve, EACH, True)(TARGETS), TARGETS, atol=1e-2)


@checked
def test_bounds_history_auxiliary_output_and_resumption():
    def solve(c):
        settings = {"args": (c,), "bounds": (0.0, c + 1), "has_aux": True, "memory_size": 2}
        minimize = functools.partial(
            optax_ls.minimize, lambda x, c: (bowl(x, c), x), c * 0, history=True, **settings
        )
        return minimize(state=minimize(max_iters=2).state, max_iters=30).aux

    np.testing.assert_allclose(on_four(solve, EACH, True)(TARGETS), TARGETS, atol=1e-2)


@each_check
def test_derivative_of_the_minimum_on_each_device(check_vma):
    @jax.grad
    def derivative(c):
        result = optax_ls.minimize(bowl, c * 0, args=(c,), implicit_diff=True, **SETTINGS)
        return jnp.sum(result.params)

    np.testing.assert_allclose(on_four(derivative, EACH, check_vma)(TARGETS), 1, atol=1e-2)


def lbfgs_run(function, start, search, **settings):
    """The params after a scan of steps of L-BFGS."""
    solver = optax_ls.lbfgs(memory_size=2, linesearch=search)
    value_and_grad = optax_ls.value_and_grad_from_state(function, **settings)

    def step(carry, _):
        params, state = carry
        value, grad = value_and_grad(params, state=state)
        updates, state = solver.update(
            grad, state, params, value=value, grad=grad, value_fn=function
        )
        return (optax_ls.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (start, solver.init(start)), length=15)[0][0]


SEARCHES = {
    "zoom": functools.partial(optax_ls.scale_by_zoom_linesearch, 20),
    "more_thuente": functools.partial(optax_ls.scale_by_more_thuente_linesearch, 20),
    "backtracking": functools.partial(
        optax_ls.scale_by_backtracking_linesearch, 20, store_grad=True
    ),
    "own": functools.partial(optax_ls.scale_by_linesearch, optax_ls.MoreThuente(20)),
}
each_search = pytest.mark.parametrize("search", SEARCHES)


@checked
@each_search
def test_lbfgs_on_each_device(search):
    def solve(c):
        return lbfgs_run(lambda x: bowl(x, c), c * 0, SEARCHES[search]())

    np.testing.assert_allclose(on_four(solve, EACH, True)(TARGETS), TARGETS, atol=1e-2)


# One problem, whose data are on all devices.

INPUTS = jnp.sin(jnp.arange(48.0) ** 2).reshape(16, 3)
WEIGHTS = jnp.array([1.0, 2.0, 3.0])
OUTPUTS = INPUTS @ WEIGHTS


def error(w, inputs, outputs):
    return jnp.mean((inputs @ w - outputs) ** 2)


def averaged(w, inputs, outputs):
    """The value and the gradient, both averaged over the devices."""
    return jax.lax.pmean(jax.value_and_grad(error)(w, inputs, outputs), "d")


@checked
@pytest.mark.parametrize("total", [jax.lax.pmean, jax.lax.psum])
@pytest.mark.parametrize("solver", ["minimize", "lbfgs"])
def test_average_or_sum_in_the_objective_is_enough_where_axes_are_checked(solver, total):
    def solve(inputs, outputs):
        def fun(w):
            return total(error(w, inputs, outputs), "d")

        if solver == "minimize":
            return optax_ls.minimize(fun, jnp.zeros(3), **SETTINGS).params
        return lbfgs_run(fun, jnp.zeros(3), SEARCHES["zoom"]())

    np.testing.assert_allclose(on_four(solve, ALL, True)(INPUTS, OUTPUTS), WEIGHTS, rtol=1e-3)


def minimum_of_averages(inputs, outputs):
    settings = {"args": (inputs, outputs), "value_and_grad": True, **SETTINGS}
    return optax_ls.minimize(averaged, jnp.zeros(3), **settings).params


def steps_on_averages(inputs, outputs, search):
    def function(w):
        return averaged(w, inputs, outputs)

    search = SEARCHES[search](value_and_grad=True)
    return lbfgs_run(function, jnp.zeros(3), search, value_and_grad=True)


@not_checked
def test_minimize_with_value_and_gradient_averaged():
    found = on_four(minimum_of_averages, ALL, False)(INPUTS, OUTPUTS)
    np.testing.assert_allclose(found, WEIGHTS, rtol=1e-3)


@not_checked
@each_search
def test_lbfgs_with_value_and_gradient_averaged(search):
    solve = functools.partial(steps_on_averages, search=search)
    np.testing.assert_allclose(on_four(solve, ALL, False)(INPUTS, OUTPUTS), WEIGHTS, rtol=1e-3)


@needs("`pmap`")
@pytest.mark.skipif(not hasattr(jax, "pmap"), reason="this JAX has no pmap")
@pytest.mark.parametrize(
    "solve", [minimum_of_averages, functools.partial(steps_on_averages, search="zoom")]
)
def test_value_and_gradient_averaged_in_pmap(solve):
    data = INPUTS.reshape(4, 4, 3), OUTPUTS.reshape(4, 4)
    found = jax.pmap(solve, axis_name="d", devices=jax.devices()[:4])(*data)
    np.testing.assert_allclose(found, np.broadcast_to(WEIGHTS, (4, 3)), rtol=1e-3)
