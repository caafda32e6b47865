"""Runs every solver on every problem for thirty iterations, and keeps values and steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import optax_ls

from . import problems

ITERATIONS = 30
SOLVERS = {
    "lbfgs, zoom": lambda: optax_ls.lbfgs(),
    "lbfgs, backtracking": lambda: optax_ls.lbfgs(
        linesearch=optax_ls.scale_by_backtracking_linesearch(30, store_grad=True)
    ),
    "minimize": None,
}


def all_runs(dtype):
    """Every run in a dtype: values of the start and of each iterate, and the steps to them.

    Args:
        dtype: "float32", or "float64", for which 64 bits must be on.

    Returns:
        A dictionary from "problem; solver" to a pair of lists.
    """
    runs = {}
    for name, solver in SOLVERS.items():
        program = jax.jit(_scan(solver()) if solver else _minimize)
        for kind, (problem, start) in enumerate(problems.STARTS.items()):
            course = program(jax.tree.map(lambda x: _cast(x, dtype), start), kind)
            runs[f"{problem}; {name}"] = tuple(np.asarray(numbers).tolist() for numbers in course)
    return runs


def _cast(x, dtype):
    return jnp.asarray(x, np.result_type(dtype, np.complex64) if np.iscomplexobj(x) else dtype)


def _scan(solver):
    """A function that takes so many steps of a solver inside a scan."""

    def solve(start, kind):
        fun = functools.partial(problems.objective, kind=kind)
        value_and_grad = optax_ls.value_and_grad_from_state(fun)

        def step(carry, _):
            params, state = carry
            value, grad = value_and_grad(params, state=state)
            grad = jax.tree.map(jnp.conj, grad)
            updates, state = solver.update(
                grad, state, params, value=value, grad=grad, value_fn=fun
            )
            others = [optax_ls.tree.get(state, name) for name in ("value", "learning_rate")]
            return (optax_ls.apply_updates(params, updates), state), (value, *others)

        carry = start, solver.init(start)
        _, (before, after, steps) = jax.lax.scan(step, carry, length=ITERATIONS)
        return jnp.append(before[:1], after), steps

    return solve


def _minimize(start, kind):
    result = optax_ls.minimize(
        problems.objective,
        start,
        args=(kind,),
        gtol=0.0,
        ftol=0.0,
        max_iters=ITERATIONS,
        history=True,
    )
    history = result.history
    value, step = (
        jnp.where(history.num_evals > 0, x, jnp.nan) for x in (history.value, history.step)
    )
    return value, step[1:]
