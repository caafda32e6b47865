"""Every solver, on every kind of leaf, with 64 bits on and off, keeps the types it was given.

The state's signature is a fixed point, the objective and the caller only see the dtypes and weak
types of the user's params, and the solver works: values stay finite and fall.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trees import ONLY_WITH_X64, TREES, dtypes, objective, signature

import optax_ls
from optax_ls.testing import assert_stable_state

pytestmark = pytest.mark.runtime

STEPS = 8


def backtracking(store_grad):
    return optax_ls.scale_by_backtracking_linesearch(20, store_grad=store_grad)


# A short memory compiles faster, and is full before the last step.
SOLVERS = {
    "lbfgs": optax_ls.lbfgs(memory_size=3),
    "lbfgs_backtracking_store_grad": optax_ls.lbfgs(memory_size=3, linesearch=backtracking(True)),
    "lbfgs_no_search": optax_ls.lbfgs(0.2, memory_size=3, linesearch=None),
    "sgd_zoom": optax_ls.chain(optax_ls.sgd(1.0), optax_ls.scale_by_zoom_linesearch(20)),
    "sgd_more_thuente": optax_ls.chain(
        optax_ls.sgd(1.0), optax_ls.scale_by_more_thuente_linesearch(20)
    ),
    "sgd_backtracking": optax_ls.chain(optax_ls.sgd(1.0), backtracking(False)),
    "sgd_backtracking_store_grad": optax_ls.chain(optax_ls.sgd(1.0), backtracking(True)),
}
KEEPS_GRADIENT = SOLVERS.keys() - {"lbfgs_no_search", "sgd_backtracking"}


class Case(NamedTuple):
    name: str
    params: Any
    x64: bool

    @property
    def solver(self):
        return SOLVERS[self.name]


class Outcome(NamedTuple):
    """What a scan of a solver left behind."""

    params: Any
    values: np.ndarray
    seen: list[Any]
    updates: Any


CASES = [
    (solver, tree, x64)
    for x64 in (False, True)
    for tree in TREES
    for solver in SOLVERS
    if x64 or tree not in ONLY_WITH_X64
]


@pytest.fixture(
    scope="module",
    params=CASES,
    ids=[f"{solver}-{tree}-{'x64' if x64 else 'x32'}" for solver, tree, x64 in CASES],
)
def case(request, enable_x64):
    solver, tree, x64 = request.param
    with enable_x64(x64):
        return Case(solver, TREES[tree](), x64)


@pytest.fixture(scope="module")
def outcome(case, enable_x64):
    seen, updates_seen = [], []
    solver = case.solver

    def recorded(params):
        seen.append(signature(params))
        return objective(params)

    from_state = optax_ls.value_and_grad_from_state(recorded)

    def step(carry, _):
        params, state = carry
        if case.name in KEEPS_GRADIENT:
            value, grad = from_state(params, state=state)
        else:
            value, grad = jax.value_and_grad(recorded)(params)
        grad = optax_ls.tree.conj(grad)
        updates, state = solver.update(
            grad, state, params, value=value, grad=grad, value_fn=recorded
        )
        updates_seen.append(dtypes(updates))
        return (optax_ls.apply_updates(params, updates), state), value

    def run(params):
        carry = params, solver.init(params)
        (params, _), values = jax.lax.scan(step, carry, length=STEPS)
        return params, jnp.append(values, objective(params))

    with enable_x64(case.x64):
        params, values = jax.jit(run)(case.params)
        return Outcome(params, np.asarray(values, np.float64), seen, updates_seen[-1])


def test_state_signature_is_a_fixed_point(case, enable_x64):
    with enable_x64(case.x64):
        # If the first update keeps the types of init, every update does.
        assert_stable_state(case.solver, case.params, objective, steps=1)


def test_values_stay_finite_in_a_scan(outcome):
    assert np.isfinite(outcome.values).all(), outcome.values


def test_value_falls_in_a_scan(outcome):
    assert outcome.values[-1] < outcome.values[0]


def test_objective_is_called_with_dtypes_and_weak_types_of_the_user(case, outcome, enable_x64):
    with enable_x64(case.x64):
        assert set(outcome.seen) == {signature(case.params)}


def test_updates_have_dtypes_of_the_user(case, outcome, enable_x64):
    with enable_x64(case.x64):
        assert outcome.updates == dtypes(case.params)


def test_params_keep_their_signature_through_a_scan(case, outcome, enable_x64):
    with enable_x64(case.x64):
        assert signature(outcome.params) == signature(case.params)
