"""Every solver, on every kind of leaf, with 64 bits on and off, keeps the types it was given.

The state's signature is a fixed point, the objective and the caller only see the dtypes and weak
types of the user's params, and the solver works: values stay finite and fall.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_ls
from optax_ls.testing import assert_stable_state

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


def vector(dtype, size=3):
    x = jnp.linspace(-1.0, 0.5, size)
    return (x * (1 + 0.5j) if jnp.issubdtype(dtype, jnp.complexfloating) else x).astype(dtype)


def vectors(*dtypes):
    return {dtype: vector(dtype, size) for size, dtype in enumerate(dtypes, start=2)}


TREES = {
    "float16": lambda: vector("float16"),
    "bfloat16": lambda: vector("bfloat16"),
    "float32": lambda: vector("float32"),
    "float64": lambda: vector("float64"),
    "complex64": lambda: vector("complex64"),
    "complex128": lambda: vector("complex128"),
    "bfloat16+float32": lambda: vectors("bfloat16", "float32"),
    "float16+complex64": lambda: vectors("float16", "complex64"),
    "float32+float64": lambda: vectors("float32", "float64"),
    "bfloat16+complex128": lambda: vectors("bfloat16", "complex128"),
    "scalars": lambda: (jnp.zeros((), "float32"), jnp.zeros((), "bfloat16")),
    "python_floats": lambda: {"a": 0.5, "b": [-1.0, vector("float32")]},
    "empty_leaf+none": lambda: {"empty": jnp.zeros((0,)), "none": None, "b": [vector("float32")]},
}
ONLY_WITH_X64 = {"float64", "complex128", "float32+float64", "bfloat16+complex128"}


def objective(params):
    """A bowl of degree four around 1, or 1 + i for complex leaves, and around nothing else."""
    return sum(bowl(jnp.asarray(leaf)) for leaf in jax.tree.leaves(params))


def bowl(x):
    offset = x - (1 + 1j if jnp.iscomplexobj(x) else 1)
    squares = jnp.real(offset * jnp.conj(offset))
    weights = jnp.arange(1, x.size + 1, dtype=squares.dtype).reshape(x.shape)
    return jnp.sum(weights * squares) + jnp.sum(squares) ** 2 / 4


def signature(tree):
    arrays = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return jax.tree.structure(tree), tuple((x.shape, x.dtype.name, x.weak_type) for x in arrays)


def dtypes(tree):
    return jax.tree.map(lambda x: jnp.asarray(x).dtype.name, tree)


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
