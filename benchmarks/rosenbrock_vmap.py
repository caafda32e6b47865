"""Times the solvers on many small problems at once: Rosenbrock's function under vmap and jit.

Every problem has a start of its own, and is to be brought to max|g| <= 1e-6 in float64. Run it with
``make rosenbrock``, or with ``python -m benchmarks.rosenbrock_vmap`` from the root of the
repository.
"""

import argparse
import functools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from .tables import table

GTOL = 1e-6
MAX_ITERS = 1000
BASE = "optax"
HEADER = ["solver", "median s", "min–max s", f"over {BASE}", "converged", "evaluations"]
HEADER += ["compilation s"]
BATCH_SIZE = 512  # of minimize-map, which takes the problems in parts with jax.lax.map


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def large(grad):
    return jnp.max(jnp.abs(grad)) > GTOL


# A solver is a function of one start; it returns the params and how many evaluations it says it
# made. It is compiled for all starts at once.


def with_minimize(x):
    import optax_ls

    result = optax_ls.minimize(rosenbrock, x, gtol=GTOL, ftol=0, max_iters=MAX_ITERS)
    return result.params, result.num_evals


def with_optax(x):
    import optax

    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(rosenbrock)

    def unfinished(carry):
        _, state, _ = carry
        iteration = optax.tree_utils.tree_get(state, "count")
        grad = optax.tree_utils.tree_get(state, "grad")
        return (iteration == 0) | ((iteration < MAX_ITERS) & large(grad))

    def step(carry):
        x, state, evals = carry
        value, grad = value_and_grad(x, state=state)
        updates, state = solver.update(grad, state, x, value=value, grad=grad, value_fn=rosenbrock)
        tried = optax.tree_utils.tree_get(state, "num_linesearch_steps")
        return optax.apply_updates(x, updates), state, evals + tried

    x, _, evals = jax.lax.while_loop(unfinished, step, (x, solver.init(x), jnp.asarray(1)))
    return x, evals


def with_jaxopt(x):
    """Its own rule is for the Euclidean norm, so the loop is ours."""
    import jaxopt

    solver = jaxopt.LBFGS(rosenbrock, tol=0.0, maxiter=MAX_ITERS, implicit_diff=False)

    def unfinished(carry):
        _, state = carry
        return (state.iter_num < MAX_ITERS) & large(state.grad)

    carry = x, solver.init_state(x)
    x, state = jax.lax.while_loop(unfinished, lambda carry: tuple(solver.update(*carry)), carry)
    return x, state.num_fun_eval


def with_optimistix(x):
    """By its own rule, which is for the changes of params and value. A step is an evaluation."""
    import optimistix

    solver = optimistix.LBFGS(rtol=1e-8, atol=1e-8)
    solution = optimistix.minimise(
        lambda y, _: rosenbrock(y), solver, x, max_steps=10 * MAX_ITERS, throw=False
    )
    return solution.value, solution.stats["num_steps"]


def scipy_loop():
    """SciPy solves one problem after the other; JAX gives value and gradient."""
    from scipy.optimize import minimize

    value_and_grad = jax.jit(jax.value_and_grad(rosenbrock))
    options = {"gtol": GTOL, "ftol": 0, "maxiter": MAX_ITERS, "maxfun": 10 * MAX_ITERS}

    def fun(x):
        value, grad = value_and_grad(x)
        return float(value), np.asarray(grad)

    def solve(starts):
        found = [minimize(fun, x, jac=True, method="L-BFGS-B", options=options) for x in starts]
        return np.stack([each.x for each in found]), np.array([each.nfev for each in found])

    return solve


SOLVERS = {
    "minimize": with_minimize,
    "minimize-map": with_minimize,
    "optax": with_optax,
    "jaxopt": with_jaxopt,
    "optimistix": with_optimistix,
    "scipy": None,
}


def prepare(name, starts):
    """A function of all starts, and the seconds it took to compile."""
    started = time.perf_counter()
    if name == "scipy":
        solve, starts = scipy_loop(), np.asarray(starts)
        solve(starts[:1])
        return lambda: solve(starts), time.perf_counter() - started
    solve = jax.vmap(SOLVERS[name])
    if name == "minimize-map":
        solve = functools.partial(jax.lax.map, SOLVERS[name], batch_size=BATCH_SIZE)
    compiled = jax.jit(solve).lower(starts).compile()
    seconds = time.perf_counter() - started
    jax.block_until_ready(compiled(starts))  # a first run, not timed
    return lambda: jax.block_until_ready(compiled(starts)), seconds


def timings(size, dimension, names, repeats, seed):
    """Interleaved runs of all solvers on one number of problems; a dictionary for each."""
    starts = np.random.default_rng(seed).uniform(-2, 2, (size, dimension))
    starts = jnp.asarray(starts)
    gradients = jax.jit(jax.vmap(jax.grad(rosenbrock)))
    solvers = {name: prepare(name, starts) for name in names}
    seconds = {name: [] for name in names}
    results = {}
    for _ in range(repeats):
        for name, (solve, _) in solvers.items():
            started = time.perf_counter()
            results[name] = solve()
            seconds[name].append(time.perf_counter() - started)

    found = {}
    for name, (params, evals) in results.items():
        largest = np.max(np.abs(np.asarray(gradients(jnp.asarray(params)))), axis=1)
        found[name] = {
            "seconds": seconds[name],
            "converged": int(np.sum(largest <= GTOL)),
            "evaluations": int(np.sum(evals)),
            "compilation": solvers[name][1],
        }
    return found


def rows(found):
    """The rows of the table for one number of problems."""
    medians = {name: statistics.median(each["seconds"]) for name, each in found.items()}
    for name, each in found.items():
        spread = f"{min(each['seconds']):.3f}–{max(each['seconds']):.3f}"
        ratio = medians[name] / medians[BASE] if BASE in medians else "–"
        row = [name, f"{medians[name]:.3f}", spread, ratio, each["converged"]]
        yield [*row, each["evaluations"], f"{each['compilation']:.1f}"]


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rosenbrock_vmap", description=__doc__
    )
    add = parser.add_argument
    add("--sizes", type=int, nargs="+", default=[1000], help="how many problems; default: 1000")
    add("--dimension", type=int, default=10, help="of each problem; default: %(default)s")
    add("--solvers", nargs="+", choices=list(SOLVERS), default=list(SOLVERS), help="default: all")
    add("--repeats", type=int, default=5, help="timed runs of each; default: %(default)s")
    add("--seed", type=int, default=0, help="of the starts; default: %(default)s")
    options = parser.parse_args(arguments)

    jax.config.update("jax_enable_x64", True)
    for size in options.sizes:
        found = timings(size, options.dimension, options.solvers, options.repeats, options.seed)
        print(f"{size} problems of dimension {options.dimension}, {options.repeats} runs:\n")
        print(table(HEADER, rows(found)), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
