"""Every loop that people put a solver in carries its state as it is.

The loops of JAX and of Equinox, and Optimistix's ``OptaxMinimiser``; params of either precision,
with 64 bits on and off, in plain trees and in Equinox modules.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_ls

STEPS = 12

SOLVERS = {
    "lbfgs": optax_ls.lbfgs(memory_size=3),
    "sgd_zoom": optax_ls.chain(optax_ls.sgd(1.0), optax_ls.scale_by_zoom_linesearch(20)),
    "sgd_backtracking": optax_ls.chain(
        optax_ls.sgd(1.0), optax_ls.scale_by_backtracking_linesearch(20)
    ),
    "sgd_backtracking_store_grad": optax_ls.chain(
        optax_ls.sgd(1.0), optax_ls.scale_by_backtracking_linesearch(20, store_grad=True)
    ),
}
PRECISIONS = [(False, "float32"), (True, "float32"), (True, "float64")]
PRECISION_NAMES = [f"{'x64' if x64 else 'x32'}-{dtype}" for x64, dtype in PRECISIONS]

each_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
each_precision = pytest.mark.parametrize(
    ("x64", "dtype"), PRECISIONS, ids=PRECISION_NAMES, indirect=["x64"]
)


def objective(params):
    """A bowl of degree four with its bottom, 0, at a = (1, 2, 3) and b = 1."""
    order = jnp.arange(1, 4, dtype=params["a"].dtype)
    a, b = params["a"] - order, params["b"] - 1
    return jnp.sum(order * a**2 + a**4 / 4) + b**2 - jnp.sum(a) * b / 2


def start(dtype):
    return {"a": jnp.full(3, 0.5, dtype), "b": jnp.asarray(0.5, dtype)}


def stepper(solver, fn):
    def step(carry):
        params, state = carry
        value, grad = jax.value_and_grad(fn)(params)
        updates, state = solver.update(grad, state, params, value=value, grad=grad, value_fn=fn)
        return optax_ls.apply_updates(params, updates), state

    return step


def python_loop(step, carry):
    step = jax.jit(step)
    for _ in range(STEPS):
        carry = step(carry)
    return carry


def scan_with(loop):
    return lambda step, carry: loop(lambda carry, _: (step(carry), None), carry)[0]


def while_with(loop):
    def run(step, carry):
        def unfinished(numbered):
            return numbered[0] < STEPS

        def body(numbered):
            return numbered[0] + 1, step(numbered[1])

        return loop(unfinished, body, (jnp.asarray(0), carry))[1]

    return run


def fori_loop(step, carry):
    return jax.lax.fori_loop(0, STEPS, lambda _, carry: step(carry), carry)


def equinox_loop(name, kind):
    """A loop of Equinox, looked up when it is called so that only its tests need Equinox."""

    def run(step, carry):
        internal = pytest.importorskip("equinox.internal")
        if name == "scan":
            loop = functools.partial(internal.scan, xs=None, length=STEPS, kind=kind)
            return scan_with(loop)(step, carry)
        loop = functools.partial(internal.while_loop, max_steps=2 * STEPS, kind=kind)
        return while_with(loop)(step, carry)

    return run


LOOPS = {
    "scan": scan_with(functools.partial(jax.lax.scan, length=STEPS)),
    "while_loop": while_with(jax.lax.while_loop),
    "fori_loop": fori_loop,
    "equinox_scan_lax": equinox_loop("scan", "lax"),
    "equinox_scan_checkpointed": equinox_loop("scan", "checkpointed"),
    "equinox_while_loop_lax": equinox_loop("while_loop", "lax"),
    "equinox_while_loop_checkpointed": equinox_loop("while_loop", "checkpointed"),
}


class Run(NamedTuple):
    """The carry, params and state, before and after a loop."""

    before: Any
    after: Any
    by_hand: Any
    x64: bool


@functools.cache
def run_by_hand(solver, x64, dtype):
    del x64  # distinguishes runs, is in force already
    step = stepper(SOLVERS[solver], objective)
    return python_loop(step, (start(dtype), SOLVERS[solver].init(start(dtype))))


# Each pair of a solver, a precision and a loop occurs.
CASES = [
    (solver, PRECISIONS[(i + j) % len(PRECISIONS)], loop)
    for i, solver in enumerate(SOLVERS)
    for j, loop in enumerate(LOOPS)
]


@pytest.fixture(
    scope="module",
    params=CASES,
    ids=[
        f"{solver}-{PRECISION_NAMES[PRECISIONS.index(precision)]}-{loop}"
        for solver, precision, loop in CASES
    ],
)
def run(request, enable_x64):
    solver, (x64, dtype), loop = request.param
    with enable_x64(x64):
        before = start(dtype), SOLVERS[solver].init(start(dtype))
        step = stepper(SOLVERS[solver], objective)
        after = jax.jit(functools.partial(LOOPS[loop], step))(before)
        return Run(before, after, run_by_hand(solver, x64, dtype), x64)


def signature(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path): (type(leaf), leaf.shape, leaf.dtype, leaf.weak_type)
        for path, leaf in leaves
    }


def counters(carry):
    names = "count", "num_pairs", "num_linesearch_steps"
    found = {name: optax_ls.tree.get(carry, name) for name in names}
    return {name: counter for name, counter in found.items() if counter is not None}


def test_loop_keeps_the_signature_of_its_carry(run):
    assert signature(run.after) == signature(run.before)


def test_counter_dtype_survives_a_loop(run):
    default = jnp.int64 if run.x64 else jnp.int32
    for name, before in counters(run.before).items():
        assert (before.dtype, counters(run.after)[name].dtype) == (default, default), name


def test_loop_goes_where_single_steps_go(run):
    looped, by_hand = run.after[0], run.by_hand[0]
    tolerance = 1e-3 if looped["a"].dtype == jnp.float32 else 1e-8
    for name in looped:
        np.testing.assert_allclose(looped[name], by_hand[name], rtol=tolerance)


def optimistix_that_searches():
    reason = "older ones give update no value_fn"
    return pytest.importorskip("optimistix", minversion="0.0.11", reason=reason)


@each_solver
@each_precision
def test_optimistix_finds_the_minimum(solver, x64, dtype):
    optimistix = optimistix_that_searches()
    minimiser = optimistix.OptaxMinimiser(solver, rtol=1e-3, atol=1e-3)
    solution = optimistix.minimise(lambda y, args: objective(y), minimiser, start(dtype))
    assert solution.value["a"].dtype == dtype
    np.testing.assert_allclose(solution.value["a"], [1, 2, 3], rtol=2e-2)


def small_network(equinox, dtype):
    """The arrays of a network, and its loss on four points as a function of them."""
    model = equinox.nn.MLP(2, "scalar", width_size=4, depth=1, key=jax.random.PRNGKey(0))
    params, static = equinox.partition(model, equinox.is_inexact_array)
    # Weights of our own, as random ones differ between versions of JAX.
    params = jax.tree.map(
        lambda p: jnp.sin(1 + jnp.arange(p.size)).reshape(p.shape).astype(dtype), params
    )
    x = jnp.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype)
    y = jnp.array([0, 1, 1, 0], dtype)

    def loss(params):
        return jnp.mean((jax.vmap(equinox.combine(params, static))(x) - y) ** 2)

    return params, loss


@pytest.mark.slow
@each_solver
@each_precision
def test_equinox_module_learns_in_a_scan(solver, x64, dtype):
    params, loss = small_network(pytest.importorskip("equinox"), dtype)
    trained, _ = LOOPS["scan"](stepper(solver, loss), (params, solver.init(params)))
    assert loss(trained) < 0.9 * loss(params)


@pytest.mark.slow
@each_solver
@each_precision
def test_equinox_module_learns_in_optimistix(solver, x64, dtype):
    optimistix = optimistix_that_searches()
    params, loss = small_network(pytest.importorskip("equinox"), dtype)
    minimiser = optimistix.OptaxMinimiser(solver, rtol=1e-4, atol=1e-4)
    solution = optimistix.minimise(
        lambda params, args: loss(params), minimiser, params, max_steps=STEPS, throw=False
    )
    assert loss(solution.value) < 0.9 * loss(params)
