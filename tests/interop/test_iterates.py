"""On classic problems, in float64, our solvers visit the points that Optax's visit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_ls

optax = pytest.importorskip("optax", minversion="0.2.5")

ITERATIONS = 30
RELATIVE_DIFFERENCE = 1e-8


def rosenbrock(x):
    """The extended function: pairs of variables, each with a valley of its own."""
    even, odd = x[::2], x[1::2]
    return jnp.sum(100 * (odd - even**2) ** 2 + (1 - even) ** 2)


def beale(x):
    powers = jnp.arange(1, 4)
    return jnp.sum((jnp.array([1.5, 2.25, 2.625]) - x[0] * (1 - x[1] ** powers)) ** 2)


def powell_singular(x):
    """The Hessian at the minimum has rank two."""
    quadratic = (x[0] + 10 * x[1]) ** 2 + 5 * (x[2] - x[3]) ** 2
    return quadratic + (x[1] - 2 * x[2]) ** 4 + 10 * (x[0] - x[3]) ** 4


def wood(x):
    valleys = 100 * (x[1] - x[0] ** 2) ** 2 + 90 * (x[3] - x[2] ** 2) ** 2
    ends = (1 - x[0]) ** 2 + (1 - x[2]) ** 2
    tilt = 10.1 * ((x[1] - 1) ** 2 + (x[3] - 1) ** 2) + 19.8 * (x[1] - 1) * (x[3] - 1)
    return valleys + ends + tilt


def himmelblau(x):
    return (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2


PROBLEMS = {
    "rosenbrock": (rosenbrock, [-1.2, 1.0] * 5),
    "beale": (beale, [1.0, 1.0]),
    "powell_singular": (powell_singular, [3.0, -1.0, 0.0, 1.0]),
    "wood": (wood, [-3.0, -1.0, -3.0, -1.0]),
    "himmelblau": (himmelblau, [1.0, 1.0]),
}


def padded(fn, size):
    return lambda x: fn(x[:size])


DIMENSIONS = max(len(start) for _, start in PROBLEMS.values())
FUNCTIONS = [padded(fn, len(start)) for fn, start in PROBLEMS.values()]


def objective(x, number):
    """Any of the problems, of as many variables as the largest, so that one program does for all.

    A variable that a problem does not have stays at zero.
    """
    return jax.lax.switch(number, FUNCTIONS, x)


SOLVERS = {
    "lbfgs": lambda library: library.lbfgs(),
    "sgd_zoom": lambda library: library.chain(
        library.sgd(1.0), library.scale_by_zoom_linesearch(15)
    ),
    "sgd_backtracking": lambda library: library.chain(
        library.sgd(1.0), library.scale_by_backtracking_linesearch(30)
    ),
}


@functools.cache
def compiled(library, make):
    """The points that a solver of a library visits, as a function of start and problem."""
    solver = make(library)

    @jax.jit
    def iterates(start, number):
        def step(carry, _):
            x, state = carry
            value, grad = jax.value_and_grad(objective)(x, number)
            updates, state = solver.update(
                grad, state, x, value=value, grad=grad, value_fn=objective, number=number
            )
            x = library.apply_updates(x, updates)
            return (x, state), x

        return jax.lax.scan(step, (start, solver.init(start)), length=ITERATIONS)[1]

    return iterates


@pytest.mark.parametrize("x64", [True], indirect=True)
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("make", SOLVERS.values(), ids=SOLVERS)
def test_iterates_are_those_of_optax(make, problem, x64):
    start = jnp.zeros(DIMENSIONS).at[: len(PROBLEMS[problem][1])].set(PROBLEMS[problem][1])
    number = list(PROBLEMS).index(problem)
    ours, theirs = (compiled(library, make)(start, number) for library in (optax_ls, optax))
    distances = np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs, axis=1)
    assert distances.max() <= RELATIVE_DIFFERENCE
