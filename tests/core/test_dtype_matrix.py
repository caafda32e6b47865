"""Every solver, on every kind of leaf, with 64 bits on and off, keeps the types it was given.

The state's signature is a fixed point, the objective and the caller only see the dtypes and weak
types of the user's params, and the solver works: values stay finite and fall.

Types are known once JAX has traced, which is quick, so the full product of solvers, trees and modes
is traced. Compiling and running all of them would take long: every solver runs with every tree
once, and the mode changes from one to the next, so each pair of the three factors occurs. Steps
outside of ``jit`` compile each operation separately; there each tree and each solver runs in each
mode.
"""

from itertools import combinations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trees import ONLY_WITH_X64, TREES, dtypes, objective, signature

import optax_ls

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
    solver: str
    tree: str
    x64: bool

    def __str__(self):
        return f"{self.solver}-{self.tree}-{'x64' if self.x64 else 'x32'}"


def modes(tree):
    return (True,) if tree in ONLY_WITH_X64 else (False, True)


def cyclic(choices, position):
    return list(choices)[position % len(choices)]


ALL = [Case(name, tree, x64) for tree in TREES for x64 in modes(tree) for name in SOLVERS]
COMPILED = [
    Case(name, tree, cyclic(modes(tree), i + j))
    for i, name in enumerate(SOLVERS)
    for j, tree in enumerate(TREES)
]
STEPPED = [
    Case(cyclic(SOLVERS, 2 * j + x64), tree, x64)
    for j, tree in enumerate(TREES)
    for x64 in modes(tree)
]


def each(cases):
    return pytest.mark.parametrize("case", cases, ids=str)


class Program:
    """A step of a solver and a scan of it, which note the types that they meet when traced."""

    def __init__(self, case):
        self.params, self.solver = TREES[case.tree](), SOLVERS[case.solver]
        self.seen: list[Any] = []
        self.updates: list[Any] = []
        self.stepped: list[Any] = []
        self.states: list[Any] = []
        self.from_state = None
        if case.solver in KEEPS_GRADIENT:
            self.from_state = optax_ls.value_and_grad_from_state(self.objective)

    def objective(self, params):
        self.seen.append(signature(params))
        return objective(params)

    def init(self, params):
        return self.noted(self.solver.init(params))

    def noted(self, state):
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
        self.states.append(signature(state))
        return state

    def step(self, carry, _=None):
        params, state = carry
        if self.from_state:
            value, grad = self.from_state(params, state=state)
        else:
            value, grad = jax.value_and_grad(self.objective)(params)
        grad = optax_ls.tree.conj(grad)
        updates, state = self.solver.update(
            grad, state, params, value=value, grad=grad, value_fn=self.objective
        )
        params = optax_ls.apply_updates(params, updates)
        self.updates.append(dtypes(updates))
        self.stepped.append(signature(params))
        return (params, self.noted(state)), value

    def scan(self, params):
        (params, _), values = jax.lax.scan(self.step, (params, self.init(params)), length=STEPS)
        return params, jnp.append(values, objective(params))

    def assert_types_stay(self):
        first, of_user = self.states[0], signature(self.params)
        assert len(self.states) > 1
        assert set(self.states) == {first}
        assert set(self.seen) == {of_user}
        assert set(self.stepped) == {of_user}
        assert all(updates == dtypes(self.params) for updates in self.updates)


def pairs(cases):
    return {pair for case in cases for pair in combinations(case._asdict().items(), 2)}


def test_every_pair_of_factors_is_compiled():
    assert pairs(COMPILED) == pairs(ALL)


def test_every_tree_and_every_solver_is_stepped_in_each_mode():
    assert {pair for pair in pairs(ALL) if pair[1][0] == "x64"} <= pairs(STEPPED)


@each(ALL)
def test_types_do_not_change_in_a_scan(case, enable_x64):
    with enable_x64(case.x64):
        program = Program(case)
        jax.eval_shape(program.scan, program.params)
        program.assert_types_stay()


@pytest.mark.slow
@each(COMPILED)
def test_values_stay_finite_and_fall_in_a_scan(case, enable_x64):
    with enable_x64(case.x64):
        program = Program(case)
        params, values = jax.jit(program.scan)(program.params)
        assert signature(params) == signature(program.params)
        values = np.asarray(values, np.float64)
    assert np.isfinite(values).all(), values
    assert values[-1] < values[0]


@pytest.mark.slow
@each(STEPPED)
def test_types_do_not_change_in_steps_outside_of_jit(case, enable_x64):
    with enable_x64(case.x64):
        program = Program(case)
        program.step((program.params, program.init(program.params)))
        program.assert_types_stay()
