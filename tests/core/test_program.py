"""A step is traced once, and the user's objective stands in its program once.

Copies are counted in the lowered program, by an operation that every evaluation of the objective
contains exactly once, with the gradient or without it.
"""

import jax
import jax.numpy as jnp
import pytest

import optax_ls

pytestmark = pytest.mark.runtime

SOLVERS = {
    "lbfgs": optax_ls.lbfgs(memory_size=3),
    "lbfgs_backtracking_store_grad": optax_ls.lbfgs(
        memory_size=3, linesearch=optax_ls.scale_by_backtracking_linesearch(20, store_grad=True)
    ),
    "lbfgs_more_thuente": optax_ls.lbfgs(
        memory_size=3, linesearch=optax_ls.scale_by_more_thuente_linesearch(20)
    ),
    "sgd_zoom": optax_ls.chain(optax_ls.sgd(1.0), optax_ls.scale_by_zoom_linesearch(20)),
    "sgd_backtracking": optax_ls.chain(
        optax_ls.sgd(1.0), optax_ls.scale_by_backtracking_linesearch(20)
    ),
    "sgd_backtracking_store_grad": optax_ls.chain(
        optax_ls.sgd(1.0), optax_ls.scale_by_backtracking_linesearch(20, store_grad=True)
    ),
}
KEEPING_GRADIENT = {name: SOLVERS[name] for name in SOLVERS if name != "sgd_backtracking"}

each_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
each_keeping_gradient = pytest.mark.parametrize(
    "solver", KEEPING_GRADIENT.values(), ids=KEEPING_GRADIENT
)


class Objective:
    """Counts how often it is called; no derivative of it adds another sinh."""

    operation = "chlo.sinh"

    def __init__(self):
        self.calls = 0

    def __call__(self, params):
        self.calls += 1
        return jnp.sum(jnp.sinh(params) ** 2)


def start():
    return jnp.array([0.5, -1.0, 1.5], "float32")


STARTS = {"float32": start, "bfloat16_and_python_float": lambda: (jnp.ones((), "bfloat16"), -1.0)}


def updating(solver, fn):
    def update(params, state, value, grad):
        return solver.update(grad, state, params, value=value, grad=grad, value_fn=fn)

    return update


def stepping(solver, fn, *, from_state):
    value_and_grad = optax_ls.value_and_grad_from_state(fn)

    def step(params, state):
        if from_state:
            value, grad = value_and_grad(params, state=state)
        else:
            value, grad = jax.value_and_grad(fn)(params)
        updates, state = updating(solver, fn)(params, state, value, grad)
        return optax_ls.apply_updates(params, updates), state

    return step


def copies(lowered):
    return lowered.as_text().count(Objective.operation)


def lower_update(solver, fn):
    params, value = start(), jnp.ones((), "float32")
    return jax.jit(updating(solver, fn)).lower(params, solver.init(params), value, params)


def lower_step_from_state(solver, fn):
    params = start()
    step = stepping(solver, fn, from_state=True)
    return jax.jit(step).lower(params, solver.init(params))


def lower_scan_of_steps_from_state(solver, fn):
    params = start()
    step = stepping(solver, fn, from_state=True)
    return jax.jit(
        lambda carry: jax.lax.scan(lambda carry, _: (step(*carry), None), carry, length=5)
    ).lower((params, solver.init(params)))


@pytest.mark.parametrize("transform", [lambda fn: fn, jax.grad, jax.value_and_grad])
def test_one_evaluation_holds_the_counted_operation_once(transform):
    assert copies(jax.jit(transform(Objective())).lower(start())) == 1


def test_two_evaluations_hold_the_counted_operation_twice():
    fn = Objective()
    assert copies(jax.jit(lambda x: jax.grad(fn)(x - jax.grad(fn)(x))).lower(start())) == 2


@each_solver
def test_update_holds_one_copy_of_the_objective(solver):
    assert copies(lower_update(solver, Objective())) == 1


@each_keeping_gradient
def test_step_from_state_holds_two_copies_of_the_objective(solver):
    assert copies(lower_step_from_state(solver, Objective())) == 2


@each_keeping_gradient
def test_scan_of_steps_from_state_holds_two_copies_of_the_objective(solver):
    assert copies(lower_scan_of_steps_from_state(solver, Objective())) == 2


@each_solver
def test_update_traces_the_objective_once(solver, x64):
    fn = Objective()
    lower_update(solver, fn)
    assert fn.calls == 1


@each_keeping_gradient
def test_step_from_state_traces_the_objective_twice(solver, x64):
    fn = Objective()
    lower_step_from_state(solver, fn)
    assert fn.calls == 2


@each_keeping_gradient
def test_scan_of_steps_from_state_traces_the_objective_twice(solver, x64):
    fn = Objective()
    lower_scan_of_steps_from_state(solver, fn)
    assert fn.calls == 2


@each_solver
@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_jitted_step_is_traced_once_over_ten_calls(solver, start, x64):
    traces = []

    def objective(params):
        return sum(jnp.sum(jnp.sinh(leaf) ** 2) for leaf in jax.tree.leaves(params))

    def step(params, state):
        traces.append(None)
        return stepping(solver, objective, from_state=False)(params, state)

    step = jax.jit(step)
    params = start()
    state = solver.init(params)
    for _ in range(10):
        params, state = step(params, state)
    assert len(traces) == 1
