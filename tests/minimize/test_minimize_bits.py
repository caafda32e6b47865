"""The same bits, in one go or in parts, in this process or another."""

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
from bestiary import rosenbrock

import optax_ls

LINESEARCHES = ["more_thuente", "zoom", "backtracking"]
each_linesearch = pytest.mark.parametrize("linesearch", LINESEARCHES)


def minimize(linesearch, **settings):
    return optax_ls.minimize(
        rosenbrock, jnp.array([-1.2, 1, -1.2, 1]), memory_size=3, linesearch=linesearch, **settings
    )


def bits(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}


# In parts.


@each_linesearch
@pytest.mark.parametrize("first", [0, 1, 2, 5, 11])
def test_two_parts_of_so_many_iterations_give_the_bits_of_the_whole(linesearch, first):
    begun = minimize(linesearch, max_iters=first)
    resumed = minimize(linesearch, max_iters=14 - first, state=begun.state)
    assert begun.num_iters == first
    assert bits(resumed) == bits(minimize(linesearch, max_iters=14))


@each_linesearch
@pytest.mark.parametrize("first", [*range(1, 9), 13])
def test_two_parts_of_so_many_evaluations_give_the_bits_of_the_whole(linesearch, first):
    begun = minimize(linesearch, max_evals=first)
    resumed = minimize(linesearch, max_evals=20 - first, state=begun.state)
    assert begun.num_evals == first
    assert bits(resumed) == bits(minimize(linesearch, max_evals=20))


@each_linesearch
def test_part_after_part_of_one_evaluation_gives_the_bits_of_the_whole(linesearch):
    state = minimize(linesearch, max_evals=1).state
    for _ in range(29):
        result = minimize(linesearch, max_evals=1, state=state)
        state = result.state
    assert bits(result) == bits(minimize(linesearch, max_evals=30))


@each_linesearch
def test_evaluations_then_the_rest_give_the_bits_of_the_whole(linesearch):
    resumed = minimize(linesearch, state=minimize(linesearch, max_evals=7).state)
    assert bits(resumed) == bits(minimize(linesearch))


def test_some_of_the_parts_end_in_the_middle_of_a_search():
    states = [minimize("more_thuente", max_evals=k).state for k in range(1, 30)]
    assert {bool(state.fresh) for state in states} == {True, False}


@each_linesearch
def test_run_that_has_arrived_stays_where_it_is(linesearch):
    finished = minimize(linesearch, gtol=1e-2)
    assert finished.status == optax_ls.MinimizeStatus.GRADIENT_SMALL
    assert bits(minimize(linesearch, gtol=1e-2, state=finished.state)) == bits(finished)


def test_resumed_run_may_ask_for_more():
    rough = minimize("more_thuente", gtol=1e-1)
    fine = minimize("more_thuente", gtol=1e-3, state=rough.state)
    assert bits(fine) == bits(minimize("more_thuente", gtol=1e-3))


def test_values_of_the_params_do_not_matter_to_a_resumed_run():
    begun = minimize("more_thuente", max_iters=5)
    elsewhere = optax_ls.minimize(rosenbrock, jnp.zeros(4), memory_size=3, state=begun.state)
    assert bits(elsewhere) == bits(minimize("more_thuente", state=begun.state))


def test_state_may_be_stored():
    begun = minimize("more_thuente", max_evals=7)
    stored = pickle.dumps(jax.device_get(begun.state))
    resumed = minimize("more_thuente", state=pickle.loads(stored))
    assert bits(resumed) == bits(minimize("more_thuente", state=begun.state))


def test_result_may_be_stored():
    result = jax.device_get(minimize("more_thuente"))
    again = pickle.loads(pickle.dumps(result))
    assert (str(again), bits(again)) == (str(result), bits(result))


# Again, and elsewhere.


def large_start():
    """Enough numbers for the compiler to spread its work over threads; two dtypes."""
    return {"a": jnp.sin(jnp.arange(30000.0)), "b": jnp.asarray(0.5, "bfloat16")}


def wide(params):
    """Narrower along some axes than along others, and coupled."""
    x = jnp.append(params["a"], params["b"].astype("float32")) - 1
    weights = jnp.arange(x.size, dtype=x.dtype) % 5 + 1
    return jnp.sum(weights * x**2) + jnp.sum(x**4) + jnp.sum(jnp.sin(x[1:] * x[:-1]))


def digest():
    """The bits of every leaf after some iterations, from a program compiled for this call."""
    fun = lambda params: wide(params)  # noqa: E731
    result = optax_ls.minimize(fun, large_start(), memory_size=3, max_iters=8, gtol=0.0)
    assert result.num_iters == 8
    return hashlib.sha256(b"".join(bits(result).values())).hexdigest()


@functools.cache
def ours():
    return digest()


def test_running_again_gives_the_same_bits():
    assert bits(minimize("more_thuente")) == bits(minimize("more_thuente"))


def test_compiling_again_gives_the_same_bits():
    assert digest() == ours()


def test_another_process_gives_the_same_bits():
    code = "import test_minimize_bits as t; print(t.digest())"
    folders = *Path(__file__).parents[:2], Path(optax_ls.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == ours(), done.stderr
