"""The solvers, each with its own defaults but for the rules: memory, limits, no tolerances.

A solver is a function of a counted objective and a start. It runs until it has converged, or until
the objective stops it, and returns an ``Ended``.
"""

from importlib.metadata import version
from typing import NamedTuple

import jax
import numpy as np

MEMORY = 10
MAX_ITERS = 1000
MAX_EVALS = 6000


class Ended(NamedTuple):
    """The reason why a solver stopped, and its own count of evaluations where it has one."""

    message: str
    iterations: int
    evals: int | None = None


def run_minimize(fun, x, **tolerances):
    import optax_ls

    result = optax_ls.minimize(fun, x, max_iters=MAX_ITERS, max_evals=MAX_EVALS, **tolerances)
    jax.block_until_ready(result)
    return Ended(str(result.message), int(result.num_iters), int(result.num_evals))


def run_minimize_zero(fun, x):
    return run_minimize(fun, x, gtol=0, ftol=0)


def run_scipy(fun, x):
    """SciPy always computes in float64; only the objective sees ``x.dtype``."""
    from scipy.optimize import minimize

    value_and_grad = jax.jit(jax.value_and_grad(fun))

    def widened(y):
        value, grad = value_and_grad(y.astype(x.dtype))
        return float(value), np.asarray(grad, np.float64)

    options = {
        "maxcor": MEMORY,
        "ftol": 0,
        "gtol": 0,
        "maxiter": MAX_ITERS,
        "maxfun": MAX_EVALS,
    }
    start = np.asarray(x, np.float64)
    result = minimize(widened, start, jac=True, method="L-BFGS-B", options=options)
    return Ended(str(result.message), result.nit, result.nfev)


def run_optax(fun, x):
    import optax

    solver = optax.lbfgs(memory_size=MEMORY)
    value_and_grad = optax.value_and_grad_from_state(fun)

    @jax.jit
    def step(x, state):
        value, grad = value_and_grad(x, state=state)
        updates, state = solver.update(grad, state, x, value=value, grad=grad, value_fn=fun)
        return optax.apply_updates(x, updates), state

    state = solver.init(x)
    for _ in range(MAX_ITERS):
        x, state = jax.block_until_ready(step(x, state))
    return Ended("iterations", MAX_ITERS)


def run_jaxopt(fun, x):
    import jaxopt

    solver = jaxopt.LBFGS(fun, tol=0.0, maxiter=MAX_ITERS, history_size=MEMORY, implicit_diff=False)
    step = jax.jit(solver.update)
    state = jax.block_until_ready(solver.init_state(x))
    for iteration in range(MAX_ITERS):
        if not state.error > 0:  # its own rule, which NaN ends as well
            return Ended(f"error {state.error}", iteration)
        x, state = jax.block_until_ready(step(x, state))
    return Ended("iterations", MAX_ITERS)


def run_optimistix(fun, x):
    """A step of Optimistix is one evaluation, so it has as many steps as evaluations."""
    import optimistix

    solver = optimistix.LBFGS(rtol=0.0, atol=0.0, history_length=MEMORY)
    solution = optimistix.minimise(lambda y, _: fun(y), solver, x, max_steps=MAX_EVALS, throw=False)
    jax.block_until_ready(solution.value)
    done = solution.result == optimistix.RESULTS.successful
    return Ended("converged" if done else "not converged", int(solution.stats["num_steps"]))


SOLVERS = {
    "minimize": run_minimize,
    "minimize-zero": run_minimize_zero,
    "scipy": run_scipy,
    "optax": run_optax,
    "jaxopt": run_jaxopt,
    "optimistix": run_optimistix,
}


def versions():
    """The version of each library that has a part in the numbers."""
    import optax_ls

    others = ("jax", "scipy", "optax", "jaxopt", "optimistix", "sif2jax", "numpy")
    return {"optax_ls": optax_ls.__version__, **{name: version(name) for name in others}}
