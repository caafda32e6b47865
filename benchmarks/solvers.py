"""The solvers, each with its own defaults but for the rules: memory, limits, no tolerances.

A solver is a function of a counted objective, a start, and bounds or None. It runs until it has
converged, or until the objective stops it, and returns an ``Ended``.
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


def run_minimize(fun, x, bounds, **tolerances):
    import optax_ls

    limits = {"max_iters": MAX_ITERS, "max_evals": MAX_EVALS}
    result = optax_ls.minimize(fun, x, bounds=bounds, **limits, **tolerances)
    jax.block_until_ready(result)
    return Ended(str(result.message), int(result.num_iters), int(result.num_evals))


def run_minimize_zero(fun, x, bounds):
    return run_minimize(fun, x, bounds, gtol=0, ftol=0)


def run_scipy(fun, x, bounds):
    """SciPy always computes in float64; only the objective sees ``x.dtype``."""
    from scipy.optimize import Bounds, minimize

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
    if bounds is not None:
        bounds = Bounds(*(np.asarray(bound, np.float64) for bound in bounds))
    result = minimize(widened, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return Ended(str(result.message), result.nit, result.nfev)


def run_optax(fun, x, bounds):
    assert bounds is None
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


def run_jaxopt(fun, x, bounds):
    import jaxopt

    kind = jaxopt.LBFGS if bounds is None else jaxopt.LBFGSB
    solver = kind(fun, tol=0.0, maxiter=MAX_ITERS, history_size=MEMORY, implicit_diff=False)
    update = jax.jit(solver.update)
    step = update if bounds is None else lambda x, state: update(x, state, bounds)
    begin = (x,) if bounds is None else (x, bounds)
    state = jax.block_until_ready(solver.init_state(*begin))
    for iteration in range(MAX_ITERS):
        if not state.error > 0:  # its own rule, which NaN ends as well
            return Ended(f"error {state.error}", iteration)
        x, state = jax.block_until_ready(step(x, state))
    return Ended("iterations", MAX_ITERS)


def run_optimistix(fun, x, bounds):
    """A step of Optimistix is one evaluation, so it has as many steps as evaluations."""
    assert bounds is None
    import optimistix

    solver = optimistix.LBFGS(rtol=0.0, atol=0.0, history_length=MEMORY)
    solution = optimistix.minimise(lambda y, _: fun(y), solver, x, max_steps=MAX_EVALS, throw=False)
    jax.block_until_ready(solution.value)
    done = solution.result == optimistix.RESULTS.successful
    return Ended("converged" if done else "not converged", int(solution.stats["num_steps"]))


# Those that know bounds.
BOUNDED = ("minimize", "minimize-zero", "scipy", "jaxopt")
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
