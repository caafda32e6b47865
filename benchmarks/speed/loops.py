"""Whole optimisation loops, one for each solver, with tolerances of zero.

A loop is a function ``loop(fun, params, data, length, memory)`` for use under jit. It makes
``length`` iterations on ``fun(params, data)`` and returns the params, and how many iterations and
evaluations the solver says it made. For Optimistix ``length`` is the number of steps, each of which
is an evaluation; not every step ends in an iteration.
"""

import jax
import jax.numpy as jnp
import numpy as np

MEMORY = 10
LENGTHS = 15, 35  # a memory of ten is full in the part that the shorter loop does not have


def minimize(fun, params, data, length, memory):
    import optax_ls

    result = optax_ls.minimize(
        fun, params, args=(data,), gtol=0, ftol=0, max_iters=length, memory_size=memory
    )
    return result.params, result.num_iters, result.num_evals


def in_a_scan(library, fun, params, data, length, memory):
    """The loop that Optax's documentation shows. A traced length makes it a while loop."""
    solver = library.lbfgs(memory_size=memory)

    def objective(params):
        return fun(params, data)

    value_and_grad = library.value_and_grad_from_state(objective)

    def step(carry, _):
        params, state, evals = carry
        value, grad = value_and_grad(params, state=state)
        updates, state = solver.update(
            grad, state, params, value=value, grad=grad, value_fn=objective
        )
        tried = state[-1].info.num_linesearch_steps
        return (library.apply_updates(params, updates), state, evals + tried), None

    carry = params, solver.init(params), jnp.asarray(1)
    if isinstance(length, int):
        carry, _ = jax.lax.scan(step, carry, length=length)
    else:
        carry = jax.lax.fori_loop(0, length, lambda _, carry: step(carry, None)[0], carry)
    params, _, evals = carry
    return params, jnp.asarray(length), evals


def lbfgs(*args):
    import optax_ls

    return in_a_scan(optax_ls, *args)


def optax(*args):
    import optax

    return in_a_scan(optax, *args)


def jaxopt(fun, params, data, length, memory):
    import jaxopt

    solver = jaxopt.LBFGS(fun, tol=0.0, maxiter=length, history_size=memory)
    params, state = solver.run(params, data)
    return params, state.iter_num, state.num_fun_eval


def optimistix(fun, params, data, length, memory):
    import optimistix

    solver = optimistix.LBFGS(rtol=0.0, atol=0.0, history_length=memory)
    solution = optimistix.minimise(fun, solver, params, data, max_steps=length, throw=False)
    return solution.value, solution.state.num_accepted_steps, solution.stats["num_steps"]


def descent(fun, params, data, length, memory):
    """The objective with its gradient, and next to nothing else: steps of minus the gradient."""

    def step(_, carry):
        params, total = carry
        value, grad = jax.value_and_grad(fun)(params, data)
        return jax.tree.map(jnp.subtract, params, grad), total + value

    params, total = jax.lax.fori_loop(0, length, step, (params, jnp.zeros(())))
    return (params, total), jnp.asarray(length), jnp.asarray(length)


LOOPS = {
    "minimize": minimize,
    "lbfgs": lbfgs,
    "optax": optax,
    "jaxopt": jaxopt,
    "optimistix": optimistix,
    "objective": descent,
}
OURS = "minimize", "lbfgs"
PEERS = "optax", "jaxopt", "optimistix", "scipy"


def quadratic(x, curvatures):
    return 0.5 * jnp.sum(curvatures * x * x)


def start(n):
    """A start, and the curvatures that make the quadratic long enough work for all solvers."""
    return jnp.ones(n, "float32"), jnp.linspace(1e-3, 1, n, dtype="float32")


def rosenbrock(x, data):
    """A chain of Rosenbrock's function, which no solver has at its minimum after 35 iterations."""
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def rosenbrock_start(n):
    """The usual start, and no data."""
    return jnp.where(jnp.arange(n) % 2 == 0, -1.2, 1.0).astype("float32"), None


def prepare(name, fun, params, data, length, memory, times=1):
    """A function without arguments that runs the loop, compiled, and returns both its counts.

    It runs the loop ``times`` times, one after the other, and returns the counts of the last run.
    SciPy's loop runs once.
    """
    if name == "scipy":
        return _scipy(fun, params, data, length, memory)
    loop = LOOPS[name]

    def again(_, found):
        # From the same start, but the compiler must not know.
        same = jax.tree.map(lambda p, end: p + 0 * jnp.nan_to_num(end), params, found[0])
        return loop(fun, same, data, length, memory)

    def program(params, data):
        if times == 1:
            return loop(fun, params, data, length, memory)
        nothing = jnp.asarray(0)
        return jax.lax.fori_loop(0, times, again, (params, nothing, nothing))

    compiled = jax.jit(program).lower(params, data).compile()

    def run():
        _, iterations, evals = jax.block_until_ready(compiled(params, data))
        return int(iterations), int(evals)

    return run


def _scipy(fun, params, data, length, memory):
    """SciPy computes in float64; the objective is JAX's, in float32."""
    from scipy.optimize import minimize

    value_and_grad = jax.jit(jax.value_and_grad(fun))

    def widened(x):
        value, grad = value_and_grad(x.astype("float32"), data)
        return float(value), np.asarray(grad, "float64")

    options = {"maxcor": memory, "ftol": 0, "gtol": 0, "maxiter": length}
    x = np.asarray(params, "float64")

    def run():
        result = minimize(widened, x, jac=True, method="L-BFGS-B", options=options)
        return result.nit, result.nfev

    return run
