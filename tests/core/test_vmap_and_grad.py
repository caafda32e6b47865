"""Solvers under JAX's transformations, and the promise of the same bits.

Batched by vmap, nested with jit, differentiated; run twice, run in another process, or stopped,
stored and resumed.
"""

import functools
import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_ls

STEPS = 6

SOLVERS = {
    "lbfgs": optax_ls.lbfgs(memory_size=3),
    "lbfgs_no_search": optax_ls.lbfgs(0.2, memory_size=3, linesearch=None),
    "sgd_zoom": optax_ls.chain(optax_ls.sgd(1.0), optax_ls.scale_by_zoom_linesearch(20)),
    "sgd_backtracking_store_grad": optax_ls.chain(
        optax_ls.sgd(1.0), optax_ls.scale_by_backtracking_linesearch(20, store_grad=True)
    ),
}
each_solver = pytest.mark.parametrize("name", SOLVERS)
each_search = pytest.mark.parametrize("name", [n for n in SOLVERS if n != "lbfgs_no_search"])


def objective(params, centre=1.0):
    """A bowl of degree four around ``centre``, narrower along some axes than along others."""
    return sum(bowl(leaf - centre) for leaf in jax.tree.leaves(params))


def bowl(x):
    weights = jnp.arange(x.size, dtype=x.dtype).reshape(x.shape) % 3 + 1
    return jnp.sum(weights * x**2) + jnp.sum(x**4)


def start():
    return {"a": jnp.linspace(-1.0, 0.5, 3), "b": jnp.asarray(2.0)}


def starts(*factors):
    """A batch: the start multiplied by each factor."""
    return jax.vmap(lambda factor: optax_ls.tree.scale(factor, start()))(jnp.array(factors))


def large_start():
    """Enough numbers for the compiler to spread its work over threads; two dtypes."""
    return {"a": jnp.sin(jnp.arange(30000.0)), "b": jnp.asarray(0.5, "bfloat16")}


def stepping(name, fn=objective):
    def step(params, state):
        value, grad = jax.value_and_grad(fn)(params)
        updates, state = SOLVERS[name].update(
            grad, state, params, value=value, grad=grad, value_fn=fn
        )
        return optax_ls.apply_updates(params, updates), state

    return step


def minimising(name, fn=objective, steps=STEPS):
    """A function of the start that returns params and state after a few steps from there."""
    step = stepping(name, fn)

    def run(params):
        carry = params, SOLVERS[name].init(params)
        return jax.lax.scan(lambda carry, _: (step(*carry), None), carry, length=steps)[0]

    return run


# Compiled once for all tests that do not ask what another compilation gives.
compiled_step = functools.cache(lambda name: jax.jit(stepping(name)))
compiled_run = functools.cache(lambda name: jax.jit(minimising(name)))


def element(batch, i):
    return jax.tree.map(lambda leaf: leaf[i], batch)


def bits(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}


def digest(name):
    """The bits of a solver's result, in a program compiled for this call."""
    arrived = jax.jit(minimising(name))(large_start())
    return hashlib.sha256(b"".join(bits(arrived).values())).hexdigest()


def assert_close(ours, theirs):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), ours, theirs)


@pytest.mark.slow
@each_solver
@pytest.mark.parametrize(
    "nest",
    [lambda run: jax.jit(jax.vmap(run)), lambda run: jax.vmap(jax.jit(run))],
    ids=["jit_of_vmap", "vmap_of_jit"],
)
def test_batch_goes_where_single_starts_go(name, nest):
    batch = starts(0.5, 1.0, 4.0)
    together, _ = nest(minimising(name))(batch)
    for i in range(3):
        assert_close(element(together, i), compiled_run(name)(element(batch, i))[0])


@pytest.mark.slow
@each_search
def test_lanes_count_their_own_trials(name):
    def trials(params):
        _, state = compiled_step(name)(params, SOLVERS[name].init(params))
        return optax_ls.tree.get(state, "num_linesearch_steps")

    batch = starts(0.5, 1.0, 30.0)
    together = jax.vmap(trials)(batch).tolist()
    assert together == [int(trials(element(batch, i))) for i in range(3)]
    assert len(set(together)) > 1


@pytest.mark.slow
@each_solver
def test_lane_of_infinities_leaves_the_others_alone(name):
    together, _ = jax.jit(jax.vmap(minimising(name)))(starts(1.0, jnp.inf))
    assert_close(element(together, 0), compiled_run(name)(start())[0])


@each_search
def test_forward_derivative_of_the_minimum_goes_through_the_search(name):
    @jax.jit
    def minimum(centre):
        return minimising(name, lambda p: objective(p, centre), steps=40)(start())[0]

    def move(centre, by):
        return jax.jvp(minimum, (centre,), (by,))[1]

    # The minimum is at the centre, so it moves as the centre does.
    moves = move(1.0, 1.0), jax.jacfwd(minimum)(1.0)
    of_batch = jax.vmap(move, in_axes=(0, None))(jnp.array([1.0, 1.1]), 1.0)
    jax.tree.map(lambda x: np.testing.assert_allclose(x, 1, atol=1e-2), (moves, of_batch))


@pytest.mark.slow
def test_reverse_derivative_without_a_search_is_the_forward_one():
    @jax.jit
    def arrived(centre):
        run = minimising("lbfgs_no_search", lambda p: objective(p, centre), steps=4)
        return optax_ls.tree.sum(run(start())[0])

    assert_close(jax.grad(arrived)(1.0), jax.jvp(arrived, (1.0,), (1.0,))[1])


@each_solver
def test_new_state_can_be_donated(name):
    jax.jit(lambda state: jax.tree.map(jnp.negative, state), donate_argnums=0)(
        SOLVERS[name].init(start())
    )


@each_solver
def test_running_again_gives_the_same_bits(name):
    run = compiled_run(name)
    assert bits(run(large_start())) == bits(run(large_start()))


@each_solver
def test_compiling_again_gives_the_same_bits(name):
    assert digest(name) == digest(name)


def test_another_process_gives_the_same_bits():
    code = "import test_vmap_and_grad as t; print(t.digest('lbfgs'))"
    folders = *Path(__file__).parents[:2], Path(optax_ls.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == digest("lbfgs"), done.stderr


@each_solver
@pytest.mark.parametrize("stop", [1, 4])
def test_stored_state_resumes_with_the_bits_of_the_uninterrupted_run(name, stop):
    def steps(carry, number):
        for _ in range(number):
            carry = compiled_step(name)(*carry)
        return carry

    begun = large_start(), SOLVERS[name].init(large_start())
    stored = pickle.dumps(jax.tree.map(np.asarray, steps(begun, stop)))
    resumed = steps(pickle.loads(stored), STEPS - stop)
    assert bits(resumed) == bits(steps(begun, STEPS))


@each_solver
def test_stored_state_resumes_without_another_trace(name):
    traces = []

    def counted(params, state):
        traces.append(None)
        return stepping(name)(params, state)

    step = jax.jit(counted)
    carry = step(large_start(), SOLVERS[name].init(large_start()))
    step(*pickle.loads(pickle.dumps(jax.tree.map(np.asarray, carry))))
    assert len(traces) == 1


@each_solver
def test_loop_in_two_parts_gives_the_bits_of_the_whole(name):
    @jax.jit
    def advance(number, carry):
        return jax.lax.fori_loop(0, number, lambda _, carry: stepping(name)(*carry), carry)

    begun = large_start(), SOLVERS[name].init(large_start())
    assert bits(advance(STEPS - 2, advance(2, begun))) == bits(advance(STEPS, begun))
