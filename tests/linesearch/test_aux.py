"""Objectives with auxiliary output: it is kept at the step chosen, at no further evaluation.

With ``has_aux`` the searches take an objective that returns ``(value, aux)``; given ``aux_like``
as well they keep the ``aux`` of the params that they return, and ``value_and_grad_from_state``
hands it back.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_ls
from optax_ls.testing import assert_stable_state

pytestmark = pytest.mark.runtime

START = {"w": jnp.array([-1.2, 1.0, 0.5]), "b": jnp.array(2.0)}
AUX_LIKE = {"residuals": jnp.zeros(3), "steps": (jnp.zeros((), jnp.int32), jnp.zeros((2,), bool))}


def objective(params, offset=0.0):
    residuals = params["w"] ** 2 - params["b"] + offset
    aux = {
        "residuals": residuals,
        "steps": (jnp.sum(residuals > 0).astype(jnp.int32), params["w"][:2] > 0),
    }
    return jnp.sum(residuals**2) + params["b"] ** 2, aux


def value_only(params, offset=0.0):
    return objective(params, offset)[0]


SEARCHES = {
    "zoom": functools.partial(optax_ls.scale_by_zoom_linesearch, 15),
    "backtracking": functools.partial(
        optax_ls.scale_by_backtracking_linesearch, 15, store_grad=True
    ),
}
each_search = pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
STORED = {
    **SEARCHES,
    "backtracking_without_grad": functools.partial(optax_ls.scale_by_backtracking_linesearch, 15),
}


def solver_of(search, **kwargs):
    return optax_ls.chain(optax_ls.sgd(1.0), search(**kwargs))


def make_step(solver, fn, *, from_state=False, **extra_args):
    """A jitted step that returns params, state and what was evaluated at the params before."""
    value_and_grad = (
        optax_ls.value_and_grad_from_state(fn, has_aux=True)
        if from_state
        else lambda params, state, **kwargs: jax.value_and_grad(fn, has_aux=True)(params, **kwargs)
    )

    @jax.jit
    def step(params, state):
        (value, aux), grad = value_and_grad(params, state=state, **extra_args)
        updates, state = solver.update(
            grad, state, params, value=value, grad=grad, value_fn=fn, **extra_args
        )
        return optax_ls.apply_updates(params, updates), state, (value, aux)

    return step


def run(step, state, params=START, steps=4):
    for _ in range(steps):
        params, state, out = step(params, state)
    return params, state, out


def assert_equal(got, wanted, rtol=1e-5):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6), got, wanted)


# What the state keeps.


@pytest.mark.parametrize("search", STORED.values(), ids=STORED)
def test_state_keeps_aux_of_the_params_returned(search):
    solver = solver_of(search, has_aux=True, aux_like=AUX_LIKE)
    params, state, _ = run(make_step(solver, objective), solver.init(START))
    assert_equal(state[-1].aux, objective(params)[1])


def test_state_keeps_aux_of_the_best_point_when_the_search_fails():
    # The curvature asked for cannot be met with so few steps, so the search falls back.
    search = optax_ls.scale_by_zoom_linesearch(
        3, curv_rtol=0.0, has_aux=True, aux_like=AUX_LIKE, max_learning_rate=1.0
    )
    solver = optax_ls.chain(optax_ls.sgd(1.0), search)
    params, state, _ = run(make_step(solver, objective), solver.init(START), steps=1)
    assert state[-1].info.curvature_error > 0
    assert_equal(state[-1].aux, objective(params)[1])


@pytest.mark.parametrize("search", STORED.values(), ids=STORED)
def test_state_without_aux_like_keeps_none(search):
    solver = solver_of(search, has_aux=True)
    _, state, _ = run(make_step(solver, objective), solver.init(START), steps=1)
    assert state[-1].aux is None


@each_search
def test_aux_starts_as_zeros_of_the_example(search):
    example = jax.tree.map(lambda x: x + 1, {"r": jnp.ones(3), "n": jnp.ones((), jnp.int32)})
    aux = search(has_aux=True, aux_like=example).init(START).aux
    assert_equal(aux, optax_ls.tree.zeros_like(example))


@each_search
def test_aux_like_may_be_shapes_and_dtypes(search):
    shapes = jax.eval_shape(objective, START)[1]
    solver = solver_of(search, has_aux=True, aux_like=shapes)
    params, state, _ = run(make_step(solver, objective), solver.init(START))
    assert_equal(state[-1].aux, objective(params)[1])


@each_search
@pytest.mark.parametrize("like", [0.0, 0, False], ids=["float", "int", "bool"])
def test_aux_like_may_be_a_python_number(search, like):
    fn = lambda params: (value_only(params), jnp.asarray(like))  # noqa: E731
    solver = solver_of(search, has_aux=True, aux_like=like)
    _, state, _ = run(make_step(solver, fn), solver.init(START), steps=1)
    assert state[-1].aux.dtype == jnp.asarray(like).dtype


@each_search
@pytest.mark.parametrize("dtype", [jnp.bool_, jnp.int32, jnp.bfloat16, jnp.complex64])
def test_aux_keeps_its_dtype(search, dtype):
    fn = lambda params: (value_only(params), params["w"].astype(dtype))  # noqa: E731
    like = jax.ShapeDtypeStruct((3,), dtype)
    solver = solver_of(search, has_aux=True, aux_like=like)
    _, state, _ = run(make_step(solver, fn), solver.init(START), steps=1)
    assert state[-1].aux.dtype == dtype


# Aux changes nothing else.


@each_search
@pytest.mark.parametrize("aux_like", [None, AUX_LIKE], ids=["dropped", "kept"])
def test_iterates_are_those_of_the_objective_without_aux(search, aux_like):
    solver = solver_of(search, has_aux=True, aux_like=aux_like)
    with_aux, _, _ = run(make_step(solver, objective), solver.init(START))

    plain = solver_of(search)

    @jax.jit
    def step(params, state):
        value, grad = jax.value_and_grad(value_only)(params)
        updates, state = plain.update(
            grad, state, params, value=value, grad=grad, value_fn=value_only
        )
        return optax_ls.apply_updates(params, updates), state, None

    assert_equal(with_aux, run(step, plain.init(START))[0])


@each_search
def test_state_with_aux_is_stable(search):
    plain = search(has_aux=True, aux_like=AUX_LIKE)

    def update(updates, state, params=None, *, value_fn, **extra_args):
        return plain.update(updates, state, params, value_fn=objective, **extra_args)

    solver = optax_ls.GradientTransformationExtraArgs(plain.init, update)
    assert_stable_state(solver, START, value_only, steps=1)


@each_search
def test_state_with_aux_is_the_carry_of_a_scan_with_x64(search, x64):
    start = jax.tree.map(lambda x: jnp.asarray(x, float), START)
    fn = functools.partial(objective, offset=0.5)
    solver = solver_of(search, has_aux=True, aux_like=jax.eval_shape(fn, start)[1])
    step = make_step(solver, fn, from_state=True)

    def body(carry, _):
        params, state, (value, _) = step(*carry)
        return (params, state), value

    (params, state), values = jax.lax.scan(body, (start, solver.init(start)), length=5)
    assert values[-1] < values[0]
    assert_equal(state[-1].aux, fn(params)[1])


# value_and_grad_from_state.


@each_search
@pytest.mark.parametrize("aux_like", [None, AUX_LIKE], ids=["dropped", "kept"])
def test_value_and_grad_from_state_gives_value_aux_and_grad(search, aux_like):
    solver = solver_of(search, has_aux=True, aux_like=aux_like)
    params, state, _ = run(make_step(solver, objective, from_state=True), solver.init(START))
    value_and_grad = optax_ls.value_and_grad_from_state(objective, has_aux=True)
    found = jax.jit(value_and_grad)(params, state=state)
    assert_equal(found, jax.value_and_grad(objective, has_aux=True)(params))


@each_search
def test_value_and_grad_from_state_evaluates_at_the_start(search):
    solver = solver_of(search, has_aux=True, aux_like=AUX_LIKE)
    found = optax_ls.value_and_grad_from_state(objective, has_aux=True)(
        START, state=solver.init(START)
    )
    assert_equal(found, jax.value_and_grad(objective, has_aux=True)(START))


@each_search
def test_value_and_grad_from_state_hands_keyword_arguments_on(search):
    solver = solver_of(search, has_aux=True, aux_like=AUX_LIKE)
    step = make_step(solver, objective, from_state=True, offset=3.0)
    _, _, (value, aux) = step(START, solver.init(START))
    assert_equal((value, aux), objective(START, offset=3.0))


@each_search
def test_value_and_grad_from_state_without_has_aux_takes_a_state_with_aux(search):
    solver = solver_of(search, has_aux=True, aux_like=AUX_LIKE)
    params, state, _ = run(make_step(solver, objective), solver.init(START))
    found = optax_ls.value_and_grad_from_state(value_only)(params, state=state)
    assert_equal(found, jax.value_and_grad(value_only)(params))


def test_lbfgs_takes_a_search_with_aux():
    search = optax_ls.scale_by_zoom_linesearch(
        20, initial_guess_strategy="one", has_aux=True, aux_like=AUX_LIKE
    )
    solver = optax_ls.lbfgs(memory_size=2, linesearch=search)
    step = make_step(solver, objective, from_state=True)
    params, state, _ = run(step, solver.init(START), steps=10)
    assert_equal(state[-1].aux, objective(params)[1])


# How often the objective is called.


class Counted:
    """The objective, counting its calls when they are run rather than traced."""

    def __init__(self):
        self.calls = 0

    def __call__(self, params):
        jax.debug.callback(self._count)
        return objective(params)

    def _count(self):
        self.calls += 1

    def calls_of(self, step, *args):
        """The number of calls that one run of a step makes, and its result."""
        before = self.calls
        out = jax.block_until_ready(step(*args))
        jax.effects_barrier()
        return self.calls - before, out


@each_search
@pytest.mark.parametrize(("aux_like", "more"), [(AUX_LIKE, 0), (None, 1)], ids=["kept", "dropped"])
def test_aux_kept_saves_the_evaluation_at_the_params(search, aux_like, more):
    fn = Counted()
    solver = solver_of(search, has_aux=True, aux_like=aux_like)
    step = make_step(solver, fn, from_state=True)
    _, (params, state, _) = fn.calls_of(step, START, solver.init(START))
    calls, (_, state, _) = fn.calls_of(step, params, state)
    assert calls == state[-1].info.num_linesearch_steps + more


@each_search
def test_first_step_evaluates_the_start_once(search):
    fn = Counted()
    solver = solver_of(search, has_aux=True, aux_like=AUX_LIKE)
    step = make_step(solver, fn, from_state=True)
    calls, (_, state, _) = fn.calls_of(step, START, solver.init(START))
    assert calls == state[-1].info.num_linesearch_steps + 1
