"""Bounds: every point inside to the last bit, KKT conditions at minima, and clear errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bestiary import rosenbrock
from hypothesis import example, given, settings, strategies as st
from scipy.optimize import Bounds, lsq_linear

import optax_ls
from optax_ls import MinimizeStatus
from optax_ls._minimize.subspace import masked_products_by_parts

LINESEARCHES = ["more_thuente", "zoom", "backtracking"]
each_linesearch = pytest.mark.parametrize("linesearch", LINESEARCHES)
START = np.array([-1.2, 1, -1.2, 1, 0.3, 0.4])


def bits(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}


def assert_minimum(fun, result, lower, upper, atol):
    """The KKT conditions: the gradient is zero inside, and points outwards at a bound."""
    x = np.asarray(result.params)
    grad = np.asarray(jax.grad(fun)(result.params))
    assert np.all((lower <= x) & (x <= upper))
    np.testing.assert_allclose(np.where((x > lower) & (x < upper), grad, 0), 0, atol=atol)
    assert np.all(np.where(x == lower, grad, 0) >= -atol) or np.all(lower == upper)
    assert np.all(np.where((x == upper) & (lower < upper), grad, 0) <= atol)
    np.testing.assert_array_equal(
        result.active, np.where(x <= lower, -1, np.where(x >= upper, 1, 0))
    )


# Minima.


@each_linesearch
def test_value_that_settles_has_a_small_projected_gradient(linesearch):
    starts = np.random.default_rng(0).uniform(-1.5, 1.5, (300, 6)).astype("float32")
    bounds = np.full(6, -0.5), np.array([0.5, 0.5, 2, 0.5, 0.5, 0.5])

    def minimize(x):
        return optax_ls.minimize(rosenbrock, x, bounds=bounds, linesearch=linesearch, gtol=1e-4)

    result = jax.jit(jax.vmap(minimize))(starts)
    assert np.all(result.state.grad_norm[np.asarray(result.success)] < 0.05)


@each_linesearch
def test_bounded_rosenbrock(linesearch):
    lower, upper = np.full(6, -0.5), np.array([0.5, 0.5, 2, 0.5, 0.5, 0.5])
    result = optax_ls.minimize(
        rosenbrock, jnp.asarray(START), bounds=(lower, upper), linesearch=linesearch, gtol=1e-4
    )
    assert result.success
    assert_minimum(rosenbrock, result, lower, upper, atol=1e-3)


@pytest.mark.parametrize("x64", [True], indirect=True)
@pytest.mark.parametrize("seed", range(3))
def test_non_negative_least_squares_agree_with_scipy(seed, x64):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(60, 40)), rng.normal(size=60)
    result = optax_ls.minimize(residuals, np.zeros(40), args=(a, b), bounds=(0, None))
    wanted = lsq_linear(a, b, (0, np.inf), tol=1e-14)
    np.testing.assert_allclose(result.value, wanted.cost, rtol=1e-9)
    np.testing.assert_allclose(result.params, wanted.x, atol=1e-6)


def residuals(x, a, b):
    return jnp.sum((a @ x - b) ** 2) / 2


def dense_active_set(q, c, lower, upper):
    """The minimum of x'qx/2 + c'x in a box, by trying all sets of active bounds."""
    best, size = None, len(c)
    for code in range(3**size):
        at = np.array([code // 3**k % 3 for k in range(size)])
        x = np.where(at == 1, lower, np.where(at == 2, upper, 0.0))
        free = at == 0
        x[free] = np.linalg.solve(q[np.ix_(free, free)], -(c + q @ x)[free])
        if np.all((x >= lower - 1e-12) & (x <= upper + 1e-12)):
            value = x @ q @ x / 2 + c @ x
            best = value if best is None else min(best, value)
    return best


@pytest.mark.parametrize("x64", [True], indirect=True)
@pytest.mark.parametrize("seed", range(4))
def test_box_constrained_quadratics_agree_with_a_dense_active_set(seed, x64):
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(5, 5))
    q, c = half @ half.T + 0.1 * np.eye(5), 3 * rng.normal(size=5)
    lower, upper = -rng.uniform(0, 1, 5), rng.uniform(0, 1, 5)
    result = optax_ls.minimize(quadratic, np.zeros(5), args=(q, c), bounds=(lower, upper))
    np.testing.assert_allclose(result.value, dense_active_set(q, c, lower, upper), rtol=1e-8)


def quadratic(x, q, c):
    return x @ q @ x / 2 + c @ x


@pytest.mark.slow
@pytest.mark.parametrize("x64", [True], indirect=True)
@pytest.mark.filterwarnings("ignore:The optimal value found")
def test_a_gaussian_process_agrees_with_scikit_learn(x64):
    models = pytest.importorskip("sklearn.gaussian_process")
    kernels = models.kernels
    x = np.linspace(0, 5, 20)[:, None]
    y = np.sin(2 * x[:, 0]) + 0.1 * np.random.default_rng(0).normal(size=20)
    kernel = kernels.RBF(1.0, (1e-1, 0.5)) + kernels.WhiteKernel(0.1, (1e-3, 1e1))
    model = models.GaussianProcessRegressor(kernel, alpha=0, random_state=0).fit(x, y)

    def fun(theta):  # minus the logarithm of the marginal likelihood
        length, noise = jnp.exp(theta)
        covariance = jnp.exp(-((x - x.T) ** 2) / (2 * length**2)) + noise * jnp.eye(20)
        chol = jnp.linalg.cholesky(covariance)
        white = jax.scipy.linalg.solve_triangular(chol, y, lower=True)
        return white @ white / 2 + jnp.log(jnp.diagonal(chol)).sum() + 10 * jnp.log(2 * jnp.pi)

    lower, upper = kernel.bounds.T
    result = optax_ls.minimize(fun, kernel.theta.clip(lower, upper), bounds=(lower, upper))
    assert_minimum(fun, result, lower, upper, atol=1e-6)
    assert result.active[0] == 1
    np.testing.assert_allclose(result.params, model.kernel_.theta, atol=1e-4)
    np.testing.assert_allclose(-result.value, model.log_marginal_likelihood_value_, rtol=1e-8)


@pytest.mark.parametrize("x64", [True], indirect=True)
@pytest.mark.parametrize("shape", [(20_000,), (3, 7001), (2, 8192)])
def test_products_of_free_entries_by_parts(shape, x64):
    rng = np.random.default_rng(0)
    s, y = rng.normal(size=(2, 4, *shape))
    free = rng.random(shape) < 0.5
    found = masked_products_by_parts(*map(jnp.asarray, (s, y, free)), "float64")
    whole = np.sum(s.reshape(4, -1) ** 2, axis=1)
    s, y = s.reshape(4, -1)[:, free.ravel()], y.reshape(4, -1)[:, free.ravel()]
    for product, wanted in zip(found, (s @ s.T, y @ s.T, y @ y.T, whole), strict=True):
        np.testing.assert_allclose(product, wanted, rtol=1e-9, atol=1e-9)


def test_a_function_that_only_a_bound_keeps_from_falling_without_end():
    result = optax_ls.minimize(jnp.sum, jnp.ones(3), bounds=(-2.0, None))
    assert result.status == MinimizeStatus.GRADIENT_SMALL
    np.testing.assert_array_equal(result.params, -2.0)
    np.testing.assert_array_equal(result.grad, 1.0)


def test_a_wall_of_nan_inside_the_box():
    fun = lambda x: jnp.where(x[0] > 0.5, jnp.nan, -x[0]) + x[1] ** 2  # noqa: E731
    result = optax_ls.minimize(fun, jnp.array([0.0, 1.0]), bounds=(-1, 1))
    assert np.isfinite(result.value)
    assert result.value < -0.45


# Inside, to the last bit.

ends = st.floats(-1e6, 1e6, width=32) | st.sampled_from(
    [-np.inf, np.inf, 0.0, -0.0, 1e-45, -1e-45, 1e38, -1e38, 0.1, -0.1]
)

some_ends = st.tuples(ends, ends).filter(lambda x: min(x) < np.inf and max(x) > -np.inf)


@functools.cache
def watched():
    """A compiled run whose objective notes where it is evaluated."""
    seen = []

    def fun(x):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), x)
        return jnp.sum((x - jnp.array([1.0, -2.0, 3.0, 0.5], x.dtype)) ** 2 * jnp.arange(1.0, 5))

    return fun, seen


@settings(max_examples=30, deadline=None)
@example([(1e-45, 2e-40), (1e-45, 1e-45), (-1e-45, -1e-45), (-1e-45, 0.0)], 0)
@given(st.lists(some_ends, min_size=4, max_size=4), st.integers(0, 2**31))
def test_every_evaluation_and_result_is_inside(pairs, seed):
    lower, upper = (np.array(x, "float32") for x in zip(*map(sorted, pairs), strict=True))
    fun, seen = watched()
    seen.clear()
    start = 3 * np.random.default_rng(seed).normal(size=4).astype("float32")
    result = optax_ls.minimize(fun, start, bounds=(lower, upper), max_iters=30, memory_size=3)
    jax.effects_barrier()
    for x in [*seen, np.asarray(result.params)]:
        assert np.all((lower <= x) & (x <= upper))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_entries_with_equal_bounds_are_fixed(dtype):
    at = jnp.asarray(0.1, dtype)
    result = optax_ls.minimize(
        lambda x: jnp.sum((x - 1) ** 2),
        jnp.zeros(3, dtype),
        bounds=([at, -1, -1], [at, 5, 0.5]),
    )
    assert result.params[0] == at
    assert result.params[2] == jnp.asarray(0.5, dtype)
    np.testing.assert_allclose(np.asarray(result.params[1], float), 1, rtol=1e-2)


def test_a_start_outside_is_moved_inside():
    result = optax_ls.minimize(rosenbrock, jnp.full(6, 7.0), bounds=(-1, 0.5), max_iters=0)
    np.testing.assert_array_equal(result.params, 0.5)


# Ways to give bounds.

WAYS = {
    "numbers": (0.0, 0.5),
    "one-sided": (None, 0.5),
    "infinite": (-np.inf, 0.5),
    "arrays": (np.zeros(6), np.full(6, 0.5)),
    "scipy": Bounds(np.zeros(6), np.full(6, 0.5)),
    "lists": ([0, None, 0, 0, 0, 0], [0.5] * 6),
}


@pytest.mark.parametrize("bounds", WAYS.values(), ids=WAYS)
def test_ways_to_give_bounds(bounds):
    result = optax_ls.minimize(lambda x: jnp.sum((x - 1) ** 2), jnp.zeros(6), bounds=bounds)
    np.testing.assert_array_equal(result.params, 0.5)
    np.testing.assert_array_equal(result.active, 1)


def test_bounds_are_a_prefix_of_the_tree_of_params():
    params = {"a": {"b": jnp.zeros(2), "c": jnp.zeros((2, 3))}, "d": jnp.zeros(())}
    upper = {"a": {"b": np.array([0.1, 9.0], "float32"), "c": np.float32(0.2)}, "d": None}
    fun = lambda p: sum(jnp.sum((leaf - 1) ** 2) for leaf in jax.tree.leaves(p))  # noqa: E731
    result = optax_ls.minimize(fun, params, bounds=({"a": -1, "d": None}, upper))
    assert result.params["a"]["b"][0] == jnp.asarray(0.1, "float32")
    assert np.all(result.params["a"]["c"] == jnp.asarray(0.2, "float32"))
    np.testing.assert_allclose(result.params["d"], 1, rtol=1e-5)
    assert jax.tree.structure(result.active) == jax.tree.structure(params)


@pytest.mark.parametrize("upper", [0.5, {"a": 0.5, "b": None}, {"a": [None, 0.5], "b": None}])
def test_params_with_a_subtree_that_is_none(upper):
    params = {"a": [jnp.zeros(3), jnp.zeros(2)], "b": None}
    fun = lambda p: sum(jnp.sum((leaf - 1) ** 2) for leaf in p["a"])  # noqa: E731
    for bounds in ((None, upper), (-1, upper), ({"a": -1, "b": None}, upper)):
        result = optax_ls.minimize(fun, params, bounds=bounds)
        np.testing.assert_array_equal(result.params["a"][1], 0.5)
        assert jax.tree.structure(result.active) == jax.tree.structure(params)


REFUSED = {
    "above": ((0, [1, 1, -1, 1, 1, 1]), ValueError, r"lower bound of params\[2\] is above.*0.*-1"),
    "nan": (([0, np.nan, 0, 0, 0, 0], None), ValueError, r"bounds\[0\].*NaN"),
    "inf": (([0, np.inf, 0, 0, 0, 0], None), ValueError, r"bounds\[0\] for params is inf.*float32"),
    "-inf": ((None, -np.inf), ValueError, r"bounds\[1\] for params is -inf"),
    "shape": ((np.zeros(5), None), ValueError, r"shape \(5,\).*\(6,\)"),
    "text": (("a", None), TypeError, r"bounds\[0\]"),
    "one": (3.0, TypeError, "tuple"),
    "pairs": ([(0, 1)] * 6, TypeError, "list of pairs"),
    "two pairs": ([(0, 1)] * 2, TypeError, "list of pairs"),
    "tuples": (((0.5, 2), (0.5, 2)), ValueError, r"both are \(0.5, 2\).*zip"),
    "tree": (({"a": 0}, None), ValueError, "prefix"),
}


@pytest.mark.parametrize(("bounds", "kind", "text"), REFUSED.values(), ids=REFUSED)
def test_bad_bounds_are_refused(bounds, kind, text):
    with pytest.raises(kind, match=text):
        optax_ls.minimize(rosenbrock, jnp.asarray(START), bounds=bounds)


@pytest.mark.parametrize("largest", [1e300, np.finfo(float).max])
@pytest.mark.filterwarnings("error")
def test_bounds_too_large_for_the_dtype_of_params_are_none(largest):
    fun = lambda x: jnp.sum((x - 1) ** 2)  # noqa: E731
    result = optax_ls.minimize(fun, jnp.zeros(3), bounds=(-largest, np.full(3, largest)))
    np.testing.assert_allclose(result.params, 1, rtol=1e-5)


def test_traced_bounds_of_which_the_lower_is_above_the_upper_are_no_success():
    def run(low, high):
        return optax_ls.minimize(lambda x: jnp.sum(x**2), jnp.zeros(2), bounds=(low, high)).status

    lows, highs = jnp.array([1.0, -1.0, jnp.inf]), jnp.array([0.0, 1.0, jnp.inf])
    wanted = [MinimizeStatus.START_NOT_FINITE, 1, MinimizeStatus.START_NOT_FINITE]
    np.testing.assert_array_equal(jax.jit(jax.vmap(run))(lows, highs), wanted)
    assert jax.jit(run)(jnp.array([-1.0, 1.0]), 0.0) == MinimizeStatus.START_NOT_FINITE


def test_pairs_of_traced_bounds_for_a_tuple_of_params():
    def minimum(low):
        fun = lambda x: (x[0] - 1) ** 2 + (x[1] - 2) ** 2  # noqa: E731
        return optax_ls.minimize(fun, (0.0, 0.0), bounds=((low, low), (low + 1, low + 1))).params

    np.testing.assert_allclose(jax.jit(minimum)(0.5), (1, 1.5), rtol=1e-5)


def test_complex_params_have_no_bounds():
    with pytest.raises(TypeError, match="complex"):
        optax_ls.minimize(lambda z: jnp.sum(jnp.abs(z) ** 2), jnp.ones(2, complex), bounds=(0, 1))


# Settings and transformations.


@pytest.mark.parametrize("x64", [True], indirect=True)
@pytest.mark.parametrize("bounds", [(-2, None), (-2, 2), (-1e3, 1e3)])
def test_bounds_that_are_not_active_change_no_iterate(bounds, x64):
    free = optax_ls.minimize(rosenbrock, START, history=True, max_iters=20)
    boxed = optax_ls.minimize(rosenbrock, START, history=True, max_iters=20, bounds=bounds)
    np.testing.assert_array_equal(boxed.history.num_evals, free.history.num_evals)
    np.testing.assert_allclose(boxed.history.value, free.history.value, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("x64", [False, True], indirect=True)
def test_scale_survives_when_a_step_into_a_bound_leaves_no_pair(x64):
    def fun(x):  # like HS3 of Hock & Schittkowski: hardly any curvature along the bound
        return x[1] + 1e-5 * (x[1] - x[0]) ** 2

    result = optax_ls.minimize(fun, jnp.array([10.0, 1.0]), bounds=([None, 0], None))
    assert result.value < 1e-9
    assert result.num_evals <= 6


def test_search_ends_when_a_step_into_a_bound_is_higher_than_its_best():
    wall = lambda x: x[0] ** 2 + 1e-3 / x[1] + 0.1 * x[1]  # noqa: E731
    lower = jnp.array([-jnp.inf, 1e-6])
    result = optax_ls.minimize(wall, jnp.array([0.5, 4.0]), bounds=(lower, None), gtol=1e-3)
    assert result.success
    assert result.num_evals <= 17  # 18 without that rule
    np.testing.assert_allclose(result.params, [0, 0.1], atol=1e-2)


@each_linesearch
@pytest.mark.parametrize("first", [1, 2, 5, 9])
def test_two_parts_give_the_bits_of_the_whole(linesearch, first):
    run = functools.partial(
        optax_ls.minimize, rosenbrock, jnp.asarray(START), bounds=(-0.5, 0.5), memory_size=3
    )
    begun = run(linesearch=linesearch, max_evals=first)
    resumed = run(linesearch=linesearch, max_evals=14 - first, state=begun.state)
    assert bits(resumed) == bits(run(linesearch=linesearch, max_evals=14))


def test_a_state_outside_the_bounds_is_refused():
    state = optax_ls.minimize(rosenbrock, jnp.asarray(START), max_iters=3).state
    with pytest.raises(ValueError, match="outside the bounds"):
        optax_ls.minimize(rosenbrock, jnp.asarray(START), bounds=(2, 3), state=state)


def test_other_bounds_compile_nothing():
    calls = []

    def fun(x):
        calls.append(1)
        return jnp.sum((x - 1) ** 2)

    for high in (0.5, 0.25):
        result = optax_ls.minimize(fun, jnp.zeros(3), bounds=(np.zeros(3), np.full(3, high)))
        np.testing.assert_array_equal(result.params, high)
    assert len(calls) == 1


@pytest.mark.slow
def test_each_element_of_a_batch_has_its_own_bounds():
    def run(low, high):
        return optax_ls.minimize(rosenbrock, jnp.asarray(START), bounds=(low, high))

    lows, highs = jnp.array([-1.0, 0.0, 0.5, -3.0]), jnp.array([0.5, 0.25, 0.5, 3.0])
    results = jax.jit(jax.vmap(run))(lows, highs)
    for k in range(4):
        alone = run(lows[k], highs[k])
        np.testing.assert_allclose(results.params[k], alone.params, atol=2e-3)
        assert np.all((results.params[k] >= lows[k]) & (results.params[k] <= highs[k]))


def test_callback_sees_points_inside():
    seen = []
    optax_ls.minimize(
        rosenbrock, jnp.full(6, 9.0), bounds=(-0.5, 0.5), callback=lambda i: seen.append(i.params)
    )
    assert len(seen) > 2
    assert all(np.all(np.abs(x) <= 0.5) for x in seen)


@pytest.mark.slow
@pytest.mark.parametrize("x64", [True], indirect=True)
def test_derivatives_of_a_bounded_minimum(x64):
    q = np.array([[2.0, 0.5, 0.2], [0.5, 1.0, 0.1], [0.2, 0.1, 3.0]])

    def minimum(c):
        return optax_ls.minimize(
            quadratic, jnp.zeros(3), args=(q, c), bounds=(0, None), implicit_diff=True
        ).params

    c = jnp.array([-1.0, 2.0, -3.0])  # the second entry stays at its bound
    free = np.array([True, False, True])
    wanted = np.zeros((3, 3))
    wanted[np.ix_(free, free)] = -np.linalg.inv(q[np.ix_(free, free)])
    np.testing.assert_allclose(jax.jacobian(minimum)(c), wanted, atol=1e-7)
    np.testing.assert_allclose(jax.jacfwd(minimum)(c), wanted, atol=1e-7)
