"""The status of ``minimize`` is honest: it depends on where a run ends, and on nothing before."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bestiary import rosenbrock
from hypothesis import given, settings, strategies as st

import optax_ls
from optax_ls import MinimizeStatus

pytestmark = pytest.mark.runtime

SETTLED = (MinimizeStatus.GRADIENT_SMALL, MinimizeStatus.VALUE_SETTLED)
each_dtype = pytest.mark.parametrize(
    "x64", [False, True], ids=["float32", "float64"], indirect=True
)


# The value at the start.


def cluster(x):
    """The Lennard-Jones energy of 13 atoms."""
    i, j = np.triu_indices(13, 1)
    r2 = jnp.sum((x[i] - x[j]) ** 2, 1)
    return 4 * jnp.sum(r2**-6 - r2**-3)


@pytest.fixture(scope="module")
def clusters():
    """Runs whose first values are 1e19 to 1e30: two atoms nearly coincide."""
    base = np.random.default_rng(13).uniform(0, 2.6, (13, 3))
    starts = np.stack([base] * 3)
    starts[:, 1] = base[0] + np.array([0.02, 0.01, 0.003])[:, None]
    return jax.jit(jax.vmap(lambda x: optax_ls.minimize(cluster, x)))(starts.astype("float32"))


def test_run_from_a_huge_value_ends_as_any_other(clusters):
    assert set(np.asarray(clusters.status)) <= set(SETTLED)
    assert np.all(clusters.num_evals < 200)


@pytest.mark.slow
def test_kink_far_away_is_no_more_of_a_success_than_near():
    def kink(x):  # convex, minimum 0.75
        return jnp.abs(x[0] - 1) + 3 * jnp.abs(x[1] + x[0]) + x[1] ** 2

    def minimize(s):
        return optax_ls.minimize(kink, jnp.stack([s, s + 1]))

    starts = np.logspace(0, 8, 800, endpoint=False, dtype="float32")
    result = jax.jit(jax.vmap(minimize))(starts)
    is_false = np.asarray(result.success & (result.value > 0.76)).reshape(8, 100).sum(axis=1)
    assert np.all(is_false <= is_false[0] + 5)


def peak(p, t, y):
    return jnp.sum((p[0] * jnp.exp(-(((t - p[1]) / p[2]) ** 2)) - y) ** 2)


@pytest.mark.slow
@each_dtype
def test_fit_whose_minimum_is_zero_is_a_success(x64):
    t = jnp.linspace(-2, 2, 30)
    y = 3 * jnp.exp(-(((t - 0.3) / 0.7) ** 2))
    starts = jnp.array([[1.0, 0.0, 0.5], [5.0, 0.5, 0.5], [1e4, 0.0, 0.5], [100.0, 0.5, 2.0]])
    result = jax.jit(jax.vmap(lambda p: optax_ls.minimize(peak, p, args=(t, y), gtol=1e-30)))(
        starts
    )
    is_exact = np.asarray(result.value < 1e-9)
    assert is_exact.any()
    assert np.all(np.asarray(result.success)[is_exact])


def test_smooth_function_with_a_large_offset_does_not_fail_in_float32():
    def hills(x):
        return 1e5 + jnp.sum(0.05 * (x - 4) ** 2 + jnp.sin(x))

    starts = 10 * jax.random.normal(jax.random.key(0), (1000, 4))
    known = jnp.array([10.341644287109375, 20.368173599243164, -13.37360954284668, 10.802543640136])
    starts = jnp.concatenate([starts, known[None]])
    result = jax.jit(jax.vmap(lambda x: optax_ls.minimize(hills, x)))(starts)
    assert MinimizeStatus.SEARCH_FAILED not in result.status


# Half precision.


@pytest.mark.parametrize(
    ("params", "value"),
    [("bfloat16", "bfloat16"), ("float16", "float16"), ("bfloat16", "float32")],
)
def test_fit_in_half_precision_settles_at_the_minimum(params, value):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(24, 40, 4))
    y = a @ [1.0, -1.0, 2.0, 0.5] + 0.3 * rng.normal(size=(24, 40))
    lowest = [np.linalg.lstsq(*fit, rcond=None)[1][0] / 40 for fit in zip(a, y, strict=True)]

    def minimize(a, y):
        def fun(x):
            return jnp.mean((a @ x.astype(value) - y) ** 2)

        return optax_ls.minimize(fun, jnp.zeros(4, params))

    result = jax.jit(jax.vmap(minimize))(jnp.asarray(a, value), jnp.asarray(y, value))
    assert np.mean(result.success) > 0.9
    assert np.all(result.value < 1.02 * np.array(lowest))


def test_gradient_of_the_wrong_sign_is_no_success_in_half_precision():
    def minimize(x):
        def fun(x):
            return 0.5 + jnp.sum((2 * jax.lax.stop_gradient(x) - x - 1) ** 2)

        return optax_ls.minimize(fun, x)

    starts = 3 * jax.random.normal(jax.random.key(0), (40, 3), jnp.bfloat16)
    assert not np.any(jax.jit(jax.vmap(minimize))(starts).success)


HALF = {
    "line": (jnp.sum, True),
    "tilted": (lambda x: x[0] - 2 * x[1] + jnp.sum(jnp.cos(x)), True),
    "square": (lambda x: -jnp.sum(x**2), True),
    "cube": (lambda x: -jnp.sum(x**3), True),
    "barrier": (lambda x: jnp.sum(50 * x - jnp.log(x)) - 200, False),
    "parabola": (lambda x: jnp.sum(10 * (x - 20) ** 2 - jnp.sqrt(x)) - 8000, False),
}
minimize_half = jax.jit(
    lambda x, index: optax_ls.minimize(
        lambda x, index: jax.lax.switch(index, [fun for fun, _ in HALF.values()], x),
        x,
        args=(index,),
    )
)


@pytest.mark.parametrize("name", HALF)
def test_fall_to_the_largest_float16_is_without_end(name):
    result = minimize_half(jnp.full(3, 3.0, jnp.float16), list(HALF).index(name))
    assert (result.status == MinimizeStatus.UNBOUNDED) == HALF[name][1]


# Evaluations after the answer is there.


@pytest.mark.slow
@each_dtype
def test_steps_that_lower_the_value_by_rounding_only_soon_end_a_run(x64):
    curvatures = jnp.logspace(0, 4, 50)

    def fun(x):
        return 1 + jnp.sum(curvatures * (x - 1) ** 2)

    result = optax_ls.minimize(fun, jnp.zeros(50), gtol=0.0, history=True, max_iters=2000)
    assert result.status == MinimizeStatus.VALUE_SETTLED
    rows = result.history.rows()
    eps = np.finfo(rows.value.dtype).eps
    arrived = np.argmax(rows.value <= (1 + 4 * eps) * result.value)
    assert result.num_evals - rows.num_evals[arrived] <= 20
    assert result.value <= 1 + 1e-5


def test_a_value_that_falls_slowly_to_zero_has_not_settled():
    def fun(x):
        return jnp.sum(jnp.logspace(0, 4, 50) * x**2)

    result = optax_ls.minimize(fun, jnp.ones(50), gtol=0.0, max_iters=2000)
    assert result.value < 1e-20


# Falling without end.


UNBOUNDED = {
    "linear": (jnp.sum, [0.0, 0.0, 0.0]),
    "steep": (lambda x: 1e10 * jnp.sum(x) + 1e12, [0.0, 0.0]),
    "flat": (lambda x: 1e-4 * jnp.sum(x), [0.0, 0.0]),
    "product": (lambda x: x[0] * x[1], [1.0, 0.5]),
    "saddle": (lambda x: jnp.sum(x[1:] ** 2) - 3 * x[0] ** 2, [1e-3, 1.0, 2.0]),
    "one_of_many": (
        lambda x: jnp.sum(jnp.arange(1, 10) * (x[1:] - 1) ** 2) - x[0] ** 2,
        [0.1] * 10,
    ),
    "convex_rest": (lambda x: jnp.sum((x[1:] - 2) ** 2) - x[0], [0.0] * 4),
    "cubic": (lambda x: jnp.sum(x**3), [-1.0, -1.0]),
    "quartic": (lambda x: -jnp.sum(x**4), [1.0, 1.0]),
    "exponential": (lambda x: -jnp.exp(x[0]) + x[1] ** 2, [0.0, 1.0]),
    "likelihood": (lambda x: 10 * jnp.log(x[1]) + 5 * (x[0] - 1) ** 2 / x[1] ** 2, [1.0, 1.0]),
}
BOUNDED = {
    "reciprocal": (lambda x: 1 / x[0], [1e-3]),
    "decay": (lambda x: jnp.exp(-x[0]), [-20.0]),
    "decay_below": (lambda x: jnp.exp(-x[0]) - 1e10, [0.0]),
    "very_negative": (lambda x: jnp.sum(x**2) - 1e30, [1.0, 1.0]),
    "large": (lambda x: 1e30 * (jnp.sum(x**2) - 1), [3.0, 3.0]),
    "well": (lambda x: -1e20 * jnp.exp(-jnp.sum(x**2)), [3.0, 3.0]),
    "far": (lambda x: -x[0] + 1e-16 * x[0] ** 2, [0.0]),
    "scales": (lambda x: jnp.sum(10.0 ** -jnp.arange(8.0) * x**2 / 2 - x), [0.0] * 8),
    "double_well": (lambda x: -(x[0] ** 2) + x[0] ** 4, [1e-5]),
    "wall": (lambda x: jnp.where(jnp.any(x < -2), jnp.nan, jnp.sum(x)), [1.0, 1.0]),
    "root": (lambda x: jnp.sum(jnp.sqrt(x)), [1.0, 1.0]),
    "valley": (lambda x: rosenbrock(x[1:]) - x[0] + 1e-6 * x[0] ** 2, [0.0] * 5),
    "cosh": (lambda x: jnp.sum(jnp.cosh(x[1:])) - x[0] + 1e-6 * x[0] ** 2, [0.5] * 4),
    "rates": (lambda x: jnp.sum(jnp.exp(x) - 1e6 * x), [0.0] * 4),
    "leaving_saddle": (lambda x: jnp.sum(x**4 - jnp.arange(1, 7) * x**2), [1e-8] * 6),
}


def rotated(fun, size):
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))[0]
    return lambda x: fun(jnp.asarray(axes, x.dtype) @ x)


# Other params curve the path, so few searches follow a line; the last number limits evaluations.
SLOW = {
    "one_of_many": (
        lambda x: jnp.sum(jnp.arange(1.0, 20) * (x[1:] - 1) ** 2) + 0.01 * x[0],
        [0.0] * 20,
        200,
    ),
    "cosh": (lambda x: jnp.sum(jnp.cosh(x[1:] - 1)) - x[0], [0.0] * 4, 500),
    "cosh_steep": (lambda x: jnp.sum(jnp.cosh(3 * x[1:] - 1)) + 0.1 * x[0], [0.0] * 3, 500),
    "quadratic": (
        lambda x: jnp.sum(jnp.arange(1, 5) * (x[1:] - 2) ** 2) - 0.01 * x[0],
        [0.0] * 5,
        700,  # rounding decides: 474 to 549 have been seen in float32
    ),
    "scales": (
        lambda x: jnp.sum(10.0 ** jnp.arange(6) * (x[1:] - 1) ** 2) - x[0],
        [0.0] * 7,
        500,
    ),
    "quartic": (
        lambda x: jnp.sum((x[3:] - 2) ** 4) - x[0] - x[1] / 2 - 2 * x[2],
        [0.0] * 9,
        500,
    ),
    "valley": (lambda x: rosenbrock(x[1:]) - x[0] / 1000, [0.0] * 3, 500),
    "long_valley": (lambda x: rosenbrock(x[1:]) - x[0] / 10, [0.0] * 9, 1000),
    "rotated": (
        rotated(lambda x: jnp.sum(jnp.arange(1, 6) * (x[1:] - 1) ** 2) - x[0], 6),
        [0.0] * 6,
        500,
    ),
}


# All functions of the tables stand in one program, since each program takes seconds to compile.
# Params that a function does not have are appended.
TABLES = {"unbounded": UNBOUNDED, "bounded": BOUNDED, "slow": SLOW}
NAMES = [(table, name) for table, functions in TABLES.items() for name in functions]
SIZE = max(len(TABLES[table][name][1]) for table, name in NAMES)


def any_of_them(x, index):
    def of_its_params(table, name):
        fun, start, *_ = TABLES[table][name]
        return lambda x: fun(x[: len(start)])

    return jax.lax.switch(index, [of_its_params(*name) for name in NAMES], x)


def minimize(table, name, **options):
    start = np.zeros(SIZE)
    start[: len(TABLES[table][name][1])] = TABLES[table][name][1]
    index = NAMES.index((table, name))
    return optax_ls.minimize(any_of_them, jnp.asarray(start), args=(index,), **options)


@pytest.mark.slow
@each_dtype
@pytest.mark.parametrize("name", UNBOUNDED)
def test_fall_without_end_is_named_after_some_hundred_evaluations(name, x64):
    result = minimize("unbounded", name)
    assert result.status == MinimizeStatus.UNBOUNDED
    assert not result.success
    assert result.num_evals <= 200
    assert np.all(np.isfinite(result.params))
    assert np.isfinite(result.value)


@each_dtype
@pytest.mark.parametrize("name", SLOW)
def test_a_fall_that_other_params_slow_down_is_noticed(name, x64):
    result = minimize("slow", name)
    assert result.status == MinimizeStatus.UNBOUNDED
    assert result.num_evals < SLOW[name][2]


@each_dtype
def test_likelihood_of_an_exact_fit_is_noticed_as_rounding_allows(x64):
    """Rounding decides how many evaluations it takes, and whether exp overflows before."""

    def likelihood(x, factor):
        return (x[0] - 1) ** 2 * jnp.exp(-2 * x[1]) + factor * x[1]

    factors = 3 * (1 + 4 * jnp.finfo(jnp.zeros(0).dtype).eps * jnp.arange(-20, 20))
    result = jax.jit(
        jax.vmap(lambda factor: optax_ls.minimize(likelihood, jnp.zeros(2), args=(factor,)))
    )(factors)
    assert np.median(result.num_evals) < 1000
    assert np.mean(result.status == MinimizeStatus.UNBOUNDED) > 0.8
    assert not np.any(result.success)


@pytest.mark.parametrize("x64", [True], indirect=True)
def test_search_along_a_line_with_a_direction_far_too_short_restarts(x64):
    """The curvature on the left makes the direction 1e-25 long, and on the right is none."""

    def fun(x):
        return jnp.sum(jnp.where(x < 0, 1e25 * x**2 / 2, 0) - x) - 1

    result = optax_ls.minimize(fun, jnp.array([-1.0, -2.0]))
    assert result.status == MinimizeStatus.UNBOUNDED
    assert result.num_evals < 200


@pytest.mark.slow
def test_run_that_crawls_along_the_edge_of_where_the_function_is_finite_ends():
    """The last param stops where exp(-2 x) overflows; in some runs no step moves the others far."""

    def fun(x, data):
        near = jnp.sum((data - x[0]) ** 2) * jnp.exp(-2 * x[2])
        exact = jnp.sum((x[1] - jnp.ones(3)) ** 2) * jnp.exp(-2 * x[3])
        return 3 * (x[2] + x[3]) + near + exact

    def minimize(data):
        return optax_ls.minimize(fun, jnp.zeros(4), args=(data,), max_evals=5000)

    samples = np.random.default_rng(0).normal(size=(100, 3)).astype("float32")
    result = jax.jit(jax.vmap(minimize))(samples)
    assert np.all(result.num_evals < 2000)
    assert MinimizeStatus.SEARCH_FAILED in result.status
    assert "NaN or infinite" in result.message


def wall(x):
    return jnp.sum(x) + jnp.where(x[0] < 0, jnp.nan, 0)


# The minimum is 0 and lies at an edge or a kink at x = 0, so the value falls without settling.
EDGES = {
    "infinite": (lambda x: x[0] + (x[1] - 1) ** 2 + jnp.where(x[0] < 0, jnp.inf, 0), [1.0, 3.0]),
    "logarithm": (lambda x: x[0] + (x[1] - 1) ** 2 + 0 * jnp.log(x[0]), [1.0, 3.0]),
    "nan": (wall, [1.0, 1.0]),
    "root": (lambda x: jnp.sum(jnp.sqrt(x)), [1.0, 1.0]),
    "entropy": (lambda x: jnp.sum(x) + 1e-9 * jnp.sum(x * jnp.log(x)), [1.0, 2.0, 3.0]),
}


@each_dtype
@pytest.mark.parametrize("name", EDGES)
def test_descent_to_an_edge_at_zero_ends_and_names_the_edge(name, x64):
    fun, start = EDGES[name]
    result = optax_ls.minimize(fun, jnp.array(start))
    assert result.value < 1e-6
    assert result.status == MinimizeStatus.SEARCH_FAILED
    assert "NaN or infinite" in result.message
    assert result.num_evals < 600


@each_dtype
def test_descent_to_a_kink_at_zero_ends(x64):
    result = optax_ls.minimize(lambda x: jnp.abs(x[0]) + 3 * jnp.abs(x[1]), jnp.array([1.0, 3.0]))
    assert result.value < 1e-15
    # The value may be halved until it is the smallest number; then it settles.
    assert result.status in (MinimizeStatus.SEARCH_FAILED, MinimizeStatus.VALUE_SETTLED)
    halvings = -np.log2(np.finfo(result.value.dtype).smallest_subnormal)
    assert result.num_evals < 4 * halvings


@each_dtype
@pytest.mark.parametrize("name", BOUNDED)
def test_bounded_function_is_not_called_unbounded(name, x64):
    result = minimize("bounded", name, max_iters=1000)
    assert result.status != MinimizeStatus.UNBOUNDED


@pytest.mark.slow
def test_elements_of_a_batch_fall_on_their_own():
    def fun(x, slope):
        return jnp.sum(x**2) * (1 - slope) + slope * x[0]

    slopes = jnp.array([0.0, 1.0, 0.5])
    result = jax.jit(jax.vmap(lambda s: optax_ls.minimize(fun, jnp.ones(3), args=(s,))))(slopes)
    assert (result.status == MinimizeStatus.UNBOUNDED).tolist() == [False, True, False]
    assert result.success.tolist() == [True, False, True]


@settings(max_examples=25, derandomize=True, deadline=None)
@given(
    exponent=st.floats(-4, 8),
    offset=st.floats(-1e6, 1e6),
    start=st.tuples(*(st.floats(-10, 10),) * 3),
)
def test_linear_function_of_any_slope_is_unbounded(exponent, offset, start):
    result = LINEAR(jnp.array(start), 10.0**exponent, offset)
    assert result.status == MinimizeStatus.UNBOUNDED
    assert result.num_evals <= 200


LINEAR = jax.jit(
    lambda x, slope, offset: optax_ls.minimize(
        lambda x, slope, offset: slope * jnp.sum(x) + offset, x, args=(slope, offset)
    )
)
