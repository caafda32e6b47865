"""For any objective, the result is no worse than the start, finite, and true to its status.

Objectives, starts, scales and limits are drawn; few programs run them all.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bestiary import ALL, BROKEN, CONVEX, NAMES, SMOOTH, UNBOUNDED, objective
from hypothesis import given, settings, strategies as st

import optax_ls
from optax_ls import MinimizeStatus

pytestmark = pytest.mark.slow

# Each takes three numbers.
FORMS = {
    "float32": lambda z: jnp.asarray(z, "float32"),
    "float64": lambda z: jnp.asarray(z, "float64"),
    "mixed": lambda z: {
        "half": jnp.asarray(z[:1], "bfloat16"),
        "complex": jnp.asarray(z[1] + 1j * z[2], "complex64"),
        "empty": jnp.zeros((0, 2)),
        "none": None,
    },
}
PROGRAMS = [
    ("float32", "more_thuente"),
    ("float32", "zoom"),
    ("float32", "backtracking"),
    ("float64", "more_thuente"),
    ("mixed", "more_thuente"),
]
# Backtracking cannot lengthen steps that are too short to be seen.
LENGTHENING = [p for p in PROGRAMS if p[1] != "backtracking"]
# The minimum may lie between neighbours of a half type.
FINE = [p for p in LENGTHENING if p[0] != "mixed"]

each_program = pytest.mark.parametrize(("form", "linesearch"), PROGRAMS)
each_lengthening = pytest.mark.parametrize(("form", "linesearch"), LENGTHENING)
each_fine = pytest.mark.parametrize(("form", "linesearch"), FINE)
each_float32 = pytest.mark.parametrize("linesearch", ["more_thuente", "zoom"])
many = settings(max_examples=25, derandomize=True)


def value_and_wrong_grad(params, kind, height, width, offset, matrix):
    """The gradient is multiplied by a matrix of signs and factors."""
    value, grad = jax.value_and_grad(objective)(params, kind, height, width, offset)
    return value, matrix * grad


class Problem:
    """An objective and a start, to be minimised within limits."""

    def __init__(self, form, linesearch, kind, z, height=1.0, width=1.0, offset=0.0):
        self.params = FORMS[form]([width * number for number in z])
        self.args = (NAMES.index(kind), float(height), float(width), float(offset * height))
        self.linesearch = linesearch

    def minimize(self, params=None, fun=objective, **limits):
        """The result on the host."""
        params = self.params if params is None else params
        args = self.args if fun is objective else (*self.args, limits.pop("factors"))
        result = optax_ls.minimize(
            fun,
            params,
            args=args,
            memory_size=3,
            linesearch=self.linesearch,
            value_and_grad=fun is not objective,
            **{"max_iters": 100, **limits},
        )
        return jax.device_get(result)

    def starts_finite(self):
        return finite((self.params, self.evaluate()))

    def evaluate(self, params=None):
        """Value and gradient by the same program, which makes one evaluation."""
        result = self.minimize(params, max_iters=0)
        return result.value, result.grad


def numbers(tree):
    leaves = [np.ravel(leaf) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([leaf.astype(np.result_type(leaf, np.float32)) for leaf in leaves])


def finite(tree):
    return np.isfinite(numbers(tree)).all()


def largest(tree):
    return np.max(np.abs(numbers(tree)), initial=0)


def kinds(*groups):
    return st.sampled_from([name for group in groups for name in group])


points = st.tuples(*(st.floats(-10, 10) | st.sampled_from([0.0, 1.0, 2.0]),) * 3)
wild_points = st.tuples(*(st.floats(-10, 10) | st.sampled_from([np.nan, np.inf, 1e30, 0.0]),) * 3)
scales = st.floats(-6, 6).map(lambda exponent: 10.0**exponent)
scaled = {"height": scales, "width": scales, "offset": st.sampled_from([0.0, 1.0, -1e3])}
limits = st.fixed_dictionaries(
    {
        "max_iters": st.sampled_from([0, 1, 2, 7, 100]),
        "max_evals": st.sampled_from([None, 1, 2, 3, 20, 200]),
        "gtol": st.sampled_from([None, 0.0, 1e-3, np.inf]),
    }
)


def drawn(*groups, start=points, **further):
    """Draws problems of these groups, and what else is named."""
    groups = groups or (ALL,)
    made = st.fixed_dictionaries({"kind": kinds(*groups), "z": start, **scaled})
    return given(problem=made, **further)


@each_program
@many
@drawn(limits=limits, start=points | wild_points)
def test_value_is_never_above_that_at_the_start(form, linesearch, problem, limits, enable_x64):
    with enable_x64(form == "float64"):
        problem = Problem(form, linesearch, **problem)
        result = problem.minimize(**limits)
        if problem.starts_finite():
            assert result.value <= problem.evaluate()[0]


@each_program
@many
@drawn(limits=limits, start=points | wild_points)
def test_nothing_is_infinite_or_nan_after_a_finite_start(
    form, linesearch, problem, limits, enable_x64
):
    with enable_x64(form == "float64"):
        problem = Problem(form, linesearch, **problem)
        result = problem.minimize(**limits)
        if problem.starts_finite():
            assert finite(result[:3])


@each_program
@many
@drawn(limits=limits)
def test_value_and_gradient_are_those_at_the_params(form, linesearch, problem, limits, enable_x64):
    with enable_x64(form == "float64"):
        problem = Problem(form, linesearch, **problem)
        result = problem.minimize(**limits)
        np.testing.assert_array_equal(
            numbers((result.value, result.grad)), numbers(problem.evaluate(result.params))
        )


@each_program
@many
@drawn(limits=limits, start=points | wild_points)
def test_status_is_start_not_finite_only_and_always_there(
    form, linesearch, problem, limits, enable_x64
):
    with enable_x64(form == "float64"):
        problem = Problem(form, linesearch, **problem)
        result = problem.minimize(**limits)
        not_finite = result.status == MinimizeStatus.START_NOT_FINITE
        assert not_finite == (not problem.starts_finite())


@each_program
@many
@drawn(limits=limits)
def test_small_gradient_is_small(form, linesearch, problem, limits, enable_x64):
    with enable_x64(form == "float64"):
        problem = Problem(form, linesearch, **problem)
        gtol = limits["gtol"]
        if gtol is None:
            gtol = np.finfo(form if form == "float64" else "float32").eps ** 0.75
        result = problem.minimize(**limits)
        small = largest(problem.evaluate(result.params)[1]) <= gtol * (1 + 1e-6)
        if result.status == MinimizeStatus.GRADIENT_SMALL:
            assert small
        elif result.status not in (
            MinimizeStatus.START_NOT_FINITE,
            MinimizeStatus.EVALUATION_LIMIT,
        ):
            assert not small


@each_program
@many
@drawn(limits=limits, start=points | wild_points)
def test_limits_are_kept_and_a_limit_is_named_where_it_was_reached(
    form, linesearch, problem, limits, enable_x64
):
    with enable_x64(form == "float64"):
        result = Problem(form, linesearch, **problem).minimize(**limits)
        max_evals = limits["max_evals"] or np.inf
        assert result.num_iters <= limits["max_iters"]
        assert 1 <= result.num_evals <= max_evals
        if result.status == MinimizeStatus.ITERATION_LIMIT:
            assert result.num_iters == limits["max_iters"]
        if result.status == MinimizeStatus.EVALUATION_LIMIT:
            assert result.num_evals == max_evals


@each_fine
@many
@drawn(CONVEX)
def test_success_on_a_smooth_convex_function_is_near_the_minimum(
    form, linesearch, problem, enable_x64
):
    with enable_x64(form == "float64"):
        minimum = problem["height"] * problem["offset"]
        problem = Problem(form, linesearch, **problem)
        value, grad = problem.evaluate()
        if not finite((value, grad)):
            return
        result = problem.minimize(gtol=0.0, max_iters=1000)
        if result.success:
            noise = 1e3 * np.finfo(result.value.dtype).eps * max(abs(value), abs(minimum))
            assert result.value - minimum <= 1e-6 * (value - minimum) + noise


@each_lengthening
@many
@drawn(UNBOUNDED)
def test_unbounded_function_is_no_success(form, linesearch, problem, enable_x64):
    with enable_x64(form == "float64"):
        problem = Problem(form, linesearch, **problem)
        start = problem.evaluate()
        if not finite(start):
            return
        decrease, rounding = np.sum(numbers(start[1]) ** 2), np.finfo("float32").eps * abs(start[0])
        if decrease <= 64 * rounding:  # a step as long as the gradient changes nothing
            return
        result = problem.minimize(gtol=0.0)
        # A run may end at a stationary point that is no minimum, or where no number is smaller.
        is_stationary = largest(result.grad) <= 1e-6 * largest(start[1])
        assert not result.success or is_stationary or largest(result.params) < 1e-37


@each_float32
@many
@drawn(CONVEX, SMOOTH, BROKEN, factors=st.tuples(*(st.floats(-2, 2),) * 3), limits=limits)
def test_wrong_gradient_leads_to_nothing_worse_than_the_start(linesearch, problem, factors, limits):
    problem = Problem("float32", linesearch, **problem)
    value, grad = problem.evaluate()
    factors = jnp.asarray(factors, "float32")
    result = problem.minimize(fun=value_and_wrong_grad, factors=factors, **limits)
    if finite((value, grad)):
        assert result.value <= value
        assert finite(result[:3])
