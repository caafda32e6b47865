"""The message and the table of a result name the cause, and hide nothing that is not finite."""

import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_ls
from optax_ls import MinimizeStatus

pytestmark = pytest.mark.runtime


def valley(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def minimize(fun, params, **settings):
    return optax_ls.minimize(fun, params, **{"memory_size": 2, **settings})


# The cause.


def root(params):
    taken = jnp.where(params["tau"] > 0, jnp.sqrt(params["tau"]), 0.0)
    return jnp.sum(params["mu"] ** 2) + jnp.sum(taken)


STARTS = {
    "gradient": (root, {"mu": jnp.ones(3), "tau": jnp.zeros(2)}, "grad['tau']."),
    "params": (
        lambda p: jnp.sum(p["a"][0] ** 2),
        {"a": [jnp.ones(2)], "b": jnp.array([jnp.nan])},
        "params['b'].",
    ),
    "value": (lambda x: jnp.sum(jnp.where(x > 0, jnp.inf, x)), jnp.ones(2), "value."),
}


@pytest.mark.parametrize(("fun", "start", "named"), STARTS.values(), ids=STARTS)
def test_message_names_what_is_not_finite_at_the_start(fun, start, named):
    result = minimize(fun, start)
    assert result.status == MinimizeStatus.START_NOT_FINITE
    assert result.message.endswith(f"Not finite: {named}")


def test_message_speaks_of_points_that_are_not_finite():
    result = minimize(
        lambda x: jnp.where(x[0] > 1, jnp.nan, -x[0] + x[1] ** 2), jnp.array([0.5, 1.0])
    )
    assert result.status == MinimizeStatus.SEARCH_FAILED
    assert "met points where the value or the gradient is NaN or infinite" in result.message
    assert "Is the gradient that of the value" not in result.message


def test_message_asks_for_the_gradient_if_all_points_are_finite():
    wrong = lambda x: (jnp.sum(x**2), -2 * x)  # noqa: E731
    result = minimize(wrong, jnp.ones(2), value_and_grad=True)
    assert result.status == MinimizeStatus.SEARCH_FAILED
    assert "Is the gradient that of the value" in result.message


def test_message_asks_about_a_gradient_of_zero_at_the_start():
    result = minimize(lambda x: jnp.sum((jnp.round(x) - 3) ** 2), jnp.array([50.0, 50.0]))
    assert "does the function depend on the params there?" in result.message


def test_gradient_of_zero_after_the_start_is_no_question():
    result = minimize(lambda x: jnp.sum(x**2) / 2, jnp.array([0.5]))
    assert np.all(result.grad == 0)
    assert result.message == MinimizeStatus.GRADIENT_SMALL.message


@pytest.mark.parametrize(("setting", "limit"), [("max_iters", 2), ("max_evals", 3)])
def test_message_at_a_limit_says_what_helps(setting, limit):
    message = minimize(valley, jnp.zeros(4), **{setting: limit}).message
    for part in (f"raise {setting}", "scale the params", "gtol"):
        assert part in message


def test_message_of_many_runs_counts_causes():
    starts = jnp.array([[1.0, 2.0], [jnp.nan, 0.0], [0.0, 0.0]])
    message = jax.vmap(lambda x: minimize(lambda x: jnp.sum(x**2), x))(starts).message
    small = MinimizeStatus.GRADIENT_SMALL.message
    assert message.startswith(f"1 of 3: {small}\n1 of 3: {small} It is zero at the start")
    assert message.endswith("Not finite: params, value, grad.")


# The table.


@pytest.fixture(scope="module")
def finished():
    return jax.device_get(minimize(lambda p: sum(map(jnp.vdot, p, p)), [jnp.ones(2)], max_iters=0))


def row(result, name):
    (line,) = [line for line in str(result).splitlines() if line.startswith(f"  {name} ")]
    return line.split(maxsplit=1 + name.count(" "))[-1]


ENTRIES = st.lists(
    st.sampled_from([0.0, -1.0, 2.0, np.nan, np.inf, -np.inf]), min_size=1, max_size=3
)


@hypothesis.given(st.lists(ENTRIES, min_size=1, max_size=3))
def test_table_never_hides_what_is_not_finite(finished, leaves):
    leaves = [np.array(leaf, np.float32) for leaf in leaves]
    grad = np.max(np.abs(np.concatenate(leaves)))
    result = finished._replace(params=leaves, grad=leaves, value=leaves[0][0])
    assert row(result, "max |grad|") == format(grad, ".3g")
    assert row(result, "value") == format(leaves[0][0], ".10g")
    printed = str(result).partition("params[0]")[2]
    assert printed.count("nan") == np.isnan(np.concatenate(leaves)).sum()


@hypothesis.given(st.lists(ENTRIES, min_size=3, max_size=3), st.integers(0, 20))
def test_table_of_many_counts_what_is_not_finite(finished, rows, more):
    values = np.array([row[0] for row in rows])
    params = np.append(np.ones(3 * (8 + more)), values).reshape(3, -1)
    one = finished
    result = jax.tree.map(lambda x: np.stack([x] * 3), one)
    result = result._replace(value=values, grad=[values[:, None]], params=[params])
    lost = np.count_nonzero(~np.isfinite(values))
    for name in ("value", "max |grad|", "params"):
        assert (f"{lost} not finite" in row(result, name)) == (lost > 0)


SHAPES = [(), (1,), (2, 5), (0,)]
DTYPES = ["bfloat16", "float16", "float32", "complex64"]


@pytest.mark.parametrize(("shape", "dtype"), list(itertools.product(SHAPES, DTYPES)))
def test_few_params_are_printed_with_their_paths(finished, shape, dtype):
    leaf = jnp.full(shape, 0.5, dtype)
    result = finished._replace(params={"w": leaf}, grad={"w": leaf})
    assert "  params['w'] = " in str(result)
    assert str(result).count("0.5") >= leaf.size
    assert repr(result) == str(result)


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_params_are_printed_by_their_range(finished, dtype):
    leaves = {"a": jnp.arange(8.0).astype(dtype), "b": jnp.full(4, -3.0, dtype)}
    result = finished._replace(params=leaves, grad=leaves)
    reach = "absolute values from 0 to 7" if dtype == "complex64" else "from -3 to 7"
    assert row(result, "params") == f"12 of {dtype}, {reach}"
    assert "params[" not in str(result)


# SciPy's names.


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("x", "params"),
        ("fun", "value"),
        ("jac", "grad"),
        ("nit", "num_iters"),
        ("nfev", "num_evals"),
    ],
)
def test_names_of_scipy_are_read_only(finished, name, field):
    assert getattr(finished, name) is getattr(finished, field)
    with pytest.raises(AttributeError):
        setattr(finished, name, 0)
