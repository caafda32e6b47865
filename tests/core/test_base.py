"""The transformations to chain a search with: they do what Optax's do, and mix with them."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_ls

PARAMS = {"w": jnp.array([1.0, -2.0, 3.0]), "b": jnp.float32(0.5)}


def objective(params):
    return jnp.sum(params["w"] ** 4) + (params["b"] - 1) ** 2


def run(solver, steps=6, params=PARAMS):
    """The params after each of some plain steps along the gradient."""
    state, visited = solver.init(params), []
    for _ in range(steps):
        updates, state = solver.update(jax.grad(objective)(params), state, params)
        params = optax_ls.apply_updates(params, updates)
        visited.append(params)
    return visited


def run_with_search(solver, steps=6, params=PARAMS):
    """The params and the state after some steps of a solver with a line search."""

    @jax.jit
    def step(params, state):
        value, grad = jax.value_and_grad(objective)(params)
        updates, state = solver.update(
            grad, state, params, value=value, grad=grad, value_fn=objective
        )
        return optax_ls.apply_updates(params, updates), state

    state = solver.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


def assert_close(ours, theirs, rtol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol), ours, theirs)


# sgd, compared with Optax.


def halving(count):
    return 0.01 * 0.5**count


SGD_SETTINGS = {
    "fixed": {"learning_rate": 0.01},
    "schedule": {"learning_rate": halving},
    "array": {"learning_rate": jnp.array(0.01)},
    "momentum": {"learning_rate": 0.01, "momentum": 0.9},
    "momentum_schedule": {"learning_rate": halving, "momentum": 0.9},
    "nesterov": {"learning_rate": 0.01, "momentum": 0.9, "nesterov": True},
    "bfloat16_momentum": {
        "learning_rate": 0.01,
        "momentum": 0.9,
        "accumulator_dtype": jnp.bfloat16,
    },
}
each_sgd = pytest.mark.parametrize("settings", SGD_SETTINGS.values(), ids=SGD_SETTINGS)


@each_sgd
def test_sgd_visits_what_optax_visits(settings):
    optax = pytest.importorskip("optax")
    assert_close(run(optax_ls.sgd(**settings)), run(optax.sgd(**settings)), rtol=1e-5)


@each_sgd
def test_sgd_has_a_state_of_fixed_types(settings):
    optax_ls.testing.assert_stable_state(optax_ls.sgd(**settings), PARAMS, objective)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_is_kept_in_the_accumulator_dtype(nesterov):
    solver = optax_ls.sgd(0.1, momentum=0.9, nesterov=nesterov, accumulator_dtype=jnp.bfloat16)
    _, state = solver.update(PARAMS, solver.init(PARAMS), PARAMS)
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("nesterov", [False, True])
def test_updates_keep_their_dtype_whatever_the_accumulator(nesterov):
    solver = optax_ls.sgd(0.1, momentum=0.9, nesterov=nesterov, accumulator_dtype=jnp.bfloat16)
    updates, _ = solver.update(PARAMS, solver.init(PARAMS), PARAMS)
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(jnp.float32)}


# Learning rates.


@pytest.mark.parametrize(("flip_sign", "sign"), [(True, -1), (False, 1)])
@pytest.mark.parametrize("rate", [0.5, lambda count: 0.5], ids=["number", "schedule"])
def test_learning_rate_multiplies_with_the_sign_asked_for(rate, flip_sign, sign):
    tx = optax_ls.scale_by_learning_rate(rate, flip_sign=flip_sign)
    assert tx.update(2.0, tx.init(0.0))[0] == sign


def test_learning_rate_none_leaves_updates_as_they_are():
    tx = optax_ls.scale_by_learning_rate(None)
    assert tx.update(PARAMS, tx.init(PARAMS))[0] is PARAMS


def test_schedule_sees_the_number_of_updates_so_far():
    tx = optax_ls.scale_by_schedule(lambda count: count)
    state, factors = tx.init(0.0), []
    for _ in range(3):
        updates, state = tx.update(1.0, state)
        factors.append(float(updates))
    assert factors == [0, 1, 2]


def test_schedules_counter_has_the_default_integer_type(x64):
    tx = optax_ls.scale_by_schedule(halving)
    _, state = tx.update(1.0, tx.init(0.0))
    assert state.count.dtype == (jnp.int64 if x64 else jnp.int32)


def test_schedules_counter_stays_at_the_largest_integer():
    tx = optax_ls.scale_by_schedule(halving)
    full = optax_ls.ScaleByScheduleState(jnp.array(jnp.iinfo(jnp.int32).max))
    assert tx.update(1.0, full)[1].count == full.count


@pytest.mark.parametrize(
    "factor", [0.5, jnp.float32(0.5), np.float64(0.5)], ids=["py", "jnp", "np"]
)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_scale_keeps_dtypes(factor, dtype):
    updates = optax_ls.scale(factor).update(jnp.ones(2, dtype), optax_ls.EmptyState())[0]
    assert updates.dtype == dtype


# apply_updates.


@pytest.mark.parametrize("update_dtype", ["float16", "float32"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_apply_updates_keeps_the_dtype_of_the_params(dtype, update_dtype):
    moved = optax_ls.apply_updates(jnp.ones(2, dtype), jnp.ones(2, update_dtype))
    assert moved.dtype == dtype


@pytest.mark.parametrize("update", [1.0, jnp.float32(1)], ids=["weak", "strong"])
@pytest.mark.parametrize(("params", "weak"), [(1.0, True), (jnp.float32(1), False)])
def test_apply_updates_keeps_the_weak_type_of_the_params(params, weak, update):
    assert optax_ls.apply_updates(params, update).weak_type is weak


def test_apply_updates_adds():
    assert optax_ls.apply_updates({"a": 1.0, "b": None}, {"a": 2.0, "b": None}) == {
        "a": 3.0,
        "b": None,
    }


# chain.


def test_chain_applies_transformations_in_order():
    tx = optax_ls.chain(optax_ls.trace(0.5), optax_ls.scale(2.0))
    state = tx.init(0.0)
    first, state = tx.update(1.0, state)
    second, state = tx.update(1.0, state)
    assert (first, second) == (2.0, 3.0)


def test_state_of_a_chain_is_the_tuple_of_states():
    state = optax_ls.chain(optax_ls.trace(0.5), optax_ls.identity()).init(0.0)
    assert isinstance(state, tuple)
    assert [type(s) for s in state] == [optax_ls.TraceState, optax_ls.EmptyState]


def test_empty_chain_leaves_updates_as_they_are():
    tx = optax_ls.chain()
    assert tx.update(PARAMS, tx.init(PARAMS)) == (PARAMS, ())


def test_chain_hands_extra_arguments_only_to_those_that_take_any():
    seen = []

    def takes_any(updates, state, params=None, **extra_args):
        seen.append(extra_args)
        return updates, state

    def takes_none(updates, state, params=None):
        return updates, state

    nothing = lambda params: ()  # noqa: E731
    tx = optax_ls.chain(
        optax_ls.GradientTransformation(nothing, takes_any),
        optax_ls.GradientTransformationExtraArgs(nothing, takes_none),
    )
    tx.update(1.0, ((), ()), value=3.0)
    assert seen == [{"value": 3.0}]


def test_chain_takes_any_object_with_init_and_update():
    class Doubling:
        def init(self, params):
            return ()

        def update(self, updates, state, params=None):
            return 2 * updates, state

    tx = optax_ls.chain(Doubling(), optax_ls.scale(3.0))
    assert tx.update(1.0, tx.init(0.0), value=0.0)[0] == 6.0


def test_chain_takes_a_search_whose_update_is_jitted():
    search = optax_ls.scale_by_zoom_linesearch(15)
    jitted = optax_ls.GradientTransformationExtraArgs(
        search.init, jax.jit(search.update, static_argnames="value_fn")
    )
    plain = run_with_search(optax_ls.chain(optax_ls.sgd(1.0), search))
    assert_close(run_with_search(optax_ls.chain(optax_ls.sgd(1.0), jitted)), plain)


def test_chain_takes_a_transformation_whose_update_is_jitted():
    plain = optax_ls.trace(0.9)
    jitted = optax_ls.GradientTransformation(plain.init, jax.jit(plain.update))
    assert_close(
        run(optax_ls.chain(jitted, optax_ls.scale(-0.01))),
        run(optax_ls.chain(plain, optax_ls.scale(-0.01))),
    )


def test_with_extra_args_support_leaves_updates_alone():
    tx = optax_ls.with_extra_args_support(optax_ls.scale(2.0))
    assert tx.update(1.0, tx.init(0.0), None, value=1.0, anything=2)[0] == 2.0


# With Optax.


def test_chain_mixes_optax_directions_with_our_search():
    optax = pytest.importorskip("optax")
    search = optax_ls.scale_by_zoom_linesearch(15)
    params, _ = run_with_search(optax_ls.chain(optax.scale_by_adam(), optax.scale(-1.0), search))
    assert objective(params) < objective(PARAMS) / 10


def test_chain_hands_extra_arguments_to_optax_searches():
    optax = pytest.importorskip("optax")
    search = optax.scale_by_backtracking_linesearch(15)
    params, _ = run_with_search(optax_ls.chain(optax_ls.sgd(1.0), search))
    assert objective(params) < objective(PARAMS) / 10


def test_our_plain_transformations_work_in_optax_chains():
    optax = pytest.importorskip("optax")
    ours = optax.chain(optax_ls.trace(0.9), optax_ls.scale_by_learning_rate(0.01))
    assert_close(run(ours), run(optax_ls.sgd(0.01, momentum=0.9)))


def test_our_solver_works_in_optax_chains_once_optax_knows_its_kind():
    optax = pytest.importorskip("optax")
    wrapped = optax.GradientTransformationExtraArgs(*optax_ls.lbfgs(memory_size=2))
    in_chain, _ = run_with_search(optax.chain(wrapped, optax.identity()))
    assert_close(in_chain, run_with_search(optax_ls.lbfgs(memory_size=2))[0])


def test_optax_transformations_run_around_our_solver():
    optax = pytest.importorskip("optax")
    clipped = optax_ls.chain(optax.clip_by_global_norm(1.0), optax_ls.lbfgs(memory_size=2))
    params, _ = run_with_search(clipped, steps=20)
    assert objective(params) < 0.1


def test_optax_reads_our_state():
    optax = pytest.importorskip("optax")
    _, state = run_with_search(optax_ls.lbfgs(memory_size=2))
    assert optax.tree.get(state, "learning_rate") == optax_ls.tree.get(state, "learning_rate")


IMPORT = """
import sys
import jax
import jax.numpy as jnp
import optax_ls
"""
USE = """
solver = optax_ls.lbfgs(memory_size=1)

def step(params):
    state = solver.init(params)
    value, grad = optax_ls.value_and_grad_from_state(jnp.sum)(params, state=state)
    return solver.update(grad, state, params, value=value, grad=grad, value_fn=jnp.sum)

jax.eval_shape(step, jnp.ones(2))
"""
EXIT = "sys.exit(any(name.split('.')[0] == 'optax' for name in sys.modules))"


@pytest.mark.parametrize("code", [IMPORT, IMPORT + USE], ids=["import", "use"])
def test_package_does_not_import_optax(code):
    subprocess.run([sys.executable, "-c", code + EXIT], check=True)
