"""The result of ``minimize`` is correct: its status, its counts, its history, its table."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bestiary import NAMES, objective, rosenbrock

import optax_ls
from optax_ls import MinimizeStatus

pytestmark = pytest.mark.runtime

ROWS = 101
double = pytest.mark.parametrize("x64", [True], indirect=True)


def minimize_kind(kind, z=(0.5, 1.5, 2.5), offset=0.0, **settings):
    args = NAMES.index(kind), 1.0, 1.0, offset
    params = jnp.asarray(z, "float32")
    return optax_ls.minimize(objective, params, args=args, memory_size=3, **settings)


def start():
    return jnp.array([-1.2, 1.0, -1.2, 1.0])


def starts():
    """Far away, at the minimum, nowhere, and elsewhere."""
    return jnp.stack([start(), jnp.ones(4), jnp.full(4, jnp.nan), start() + 0.7])


minimize_rosenbrock = functools.partial(optax_ls.minimize, rosenbrock, memory_size=3)
with_history = functools.partial(minimize_rosenbrock, history=True, max_iters=ROWS - 1)


@pytest.fixture(scope="module")
def result(enable_x64):
    """One run, with a history, in float64."""
    with enable_x64(True):
        return jax.device_get(with_history(start()))


@pytest.fixture(scope="module")
def results(enable_x64):
    """The runs of a batch, with histories, in float64."""
    with enable_x64(True):
        return jax.device_get(jax.jit(jax.vmap(with_history))(starts()))


# The status.


def stop(info):
    return True


ENDS = {
    MinimizeStatus.GRADIENT_SMALL: lambda: minimize_kind("bowl"),
    MinimizeStatus.VALUE_SETTLED: lambda: minimize_kind("waves", (1.1, 2.4, 1.3), gtol=0.0),
    MinimizeStatus.ITERATION_LIMIT: lambda: minimize_kind("rosenbrock", max_iters=2),
    MinimizeStatus.EVALUATION_LIMIT: lambda: minimize_kind("rosenbrock", max_evals=3),
    MinimizeStatus.SEARCH_FAILED: lambda: minimize_kind("wall"),
    MinimizeStatus.START_NOT_FINITE: lambda: minimize_kind("nan"),
    MinimizeStatus.STOPPED_BY_CALLBACK: lambda: minimize_rosenbrock(start(), callback=stop),
    MinimizeStatus.UNBOUNDED: lambda: minimize_kind("linear"),
}
each_end = pytest.mark.parametrize(("status", "run"), ENDS.items(), ids=[s.name for s in ENDS])


@each_end
def test_status_says_why_it_stopped(status, run):
    assert MinimizeStatus(int(run().status)) is status


@each_end
def test_success_is_a_small_gradient_or_a_settled_value(status, run):
    good = status in (MinimizeStatus.GRADIENT_SMALL, MinimizeStatus.VALUE_SETTLED)
    assert status.success == good
    assert run().success == good


@each_end
def test_message_begins_with_that_of_the_status(status, run):
    assert run().message.startswith(status.message)


def test_no_two_messages_are_alike():
    messages = {status.message for status in MinimizeStatus}
    assert len(messages) == len(MinimizeStatus) == len(ENDS) + 1
    assert all(message.endswith((".", "?")) for message in messages)


def test_start_that_is_not_finite_is_returned():
    result = minimize_kind("nan")
    np.testing.assert_array_equal(result.params, [0.5, 1.5, 2.5])
    assert (result.num_iters, result.num_evals) == (0, 1)


@pytest.mark.parametrize("limit", [("max_iters", 0), ("max_evals", 1)])
def test_no_iterations_give_the_start_with_its_value_and_gradient(limit):
    result = minimize_kind("bowl", **dict([limit]))
    np.testing.assert_array_equal(result.params, [0.5, 1.5, 2.5])
    np.testing.assert_array_equal(result.grad, [-0.5, 0.5, 1.5])
    assert (result.value, result.num_iters, result.num_evals) == (1.375, 0, 1)


# Tolerances.


@pytest.mark.parametrize("gtol", [1e-1, 1e-3, 1e-6])
def test_gtol_is_the_largest_entry_of_the_gradient(result, gtol, enable_x64):
    with enable_x64(True):
        first = np.flatnonzero(result.history.rows().grad_norm <= gtol)[0]
        assert with_history(start(), gtol=gtol).num_iters == first


def test_default_gtol_depends_on_the_dtype(result):
    norms = result.history.rows().grad_norm
    assert norms[-1] <= np.finfo(np.float64).eps ** 0.75 < norms[-2]


@double
@pytest.mark.parametrize("ftol", [0.3, 0.1])
def test_ftol_is_the_first_small_decrease(result, ftol, x64):
    values = result.history.rows().value
    decreases = -np.diff(values) / np.maximum(np.abs(values[1:]), np.abs(values[:-1]))
    result = with_history(start(), ftol=ftol)
    assert result.num_iters == np.flatnonzero(decreases <= ftol)[0] + 1
    assert result.status == MinimizeStatus.VALUE_SETTLED


@double
def test_ftol_of_zero_never_stops(result, x64):
    assert with_history(start(), ftol=0.0).num_iters == result.num_iters


# Counts.


class Counted:
    """Counts on the host how often it is evaluated; not finite beyond an edge."""

    def __init__(self):
        self.count = 0

    def __call__(self, x, edge):
        jax.debug.callback(self.increment, x)
        return rosenbrock(x) + jnp.where(x[0] > edge, jnp.inf, jnp.sum(jnp.abs(x)))

    def increment(self, x):
        self.count += 1


COUNTED = {name: Counted() for name in ("more_thuente", "zoom", "backtracking")}


@pytest.mark.parametrize("max_evals", [None, 5])
@pytest.mark.parametrize("edge", [np.inf, -1.0, -1.19, -2.0], ids=str)
@pytest.mark.parametrize(("linesearch", "fun"), COUNTED.items(), ids=COUNTED)
def test_num_evals_is_how_often_fun_was_evaluated(linesearch, fun, edge, max_evals):
    fun.count = 0
    settings = {"memory_size": 1, "linesearch": linesearch, "max_iters": 20}
    result = optax_ls.minimize(fun, start(), args=(edge,), max_evals=max_evals, **settings)
    jax.block_until_ready(result)
    jax.effects_barrier()
    assert result.num_evals == fun.count


def test_num_iters_is_that_of_the_iterates(result):
    assert result.num_iters == len(result.history.rows().value) - 1
    assert result.state.memory.count == result.num_iters + 1


# Value and gradient.


@double
@pytest.mark.parametrize("max_iters", [0, 3, 10])
def test_value_is_that_of_fun_at_the_params(max_iters, x64):
    result = minimize_rosenbrock(start(), max_iters=max_iters)
    np.testing.assert_allclose(result.value, rosenbrock(result.params), rtol=1e-13)


@double
@pytest.mark.parametrize("max_iters", [0, 3, 10])
def test_gradient_is_that_of_fun_at_the_params(max_iters, x64):
    result = minimize_rosenbrock(start(), max_iters=max_iters)
    np.testing.assert_allclose(result.grad, jax.grad(rosenbrock)(result.params), rtol=1e-11)


@double
@pytest.mark.parametrize("max_evals", range(2, 12))
def test_params_are_the_lowest_of_all_trials(max_evals, x64):
    here = minimize_rosenbrock(start(), max_evals=max_evals)
    before = minimize_rosenbrock(start(), max_evals=max_evals - 1)
    assert here.value <= before.value


# The history.


def test_history_is_none_unless_asked_for():
    assert minimize_kind("bowl").history is None


def test_history_begins_at_the_start(result, enable_x64):
    with enable_x64(True):
        value, grad = jax.value_and_grad(rosenbrock)(start())
        first = [column[0] for column in result.history]
        np.testing.assert_allclose(first, [value, np.max(np.abs(grad)), 0, 1], rtol=1e-12)


def test_history_ends_at_the_result(result):
    rows = result.history.rows()
    assert rows.value[-1] == result.value
    assert rows.grad_norm[-1] == np.max(np.abs(result.grad))
    assert rows.num_evals[-1] == result.num_evals


@double
@pytest.mark.parametrize("row", [0, 1, 2, 5, 11])
def test_row_of_the_history_is_the_state_after_as_many_iterations(result, row, x64):
    stopped = minimize_rosenbrock(start(), max_iters=row)
    values = result.history.value[row], result.history.grad_norm[row], result.history.step[row]
    state = stopped.state
    np.testing.assert_allclose(values, (state.value, state.grad_norm, state.step), rtol=1e-8)
    assert result.history.num_evals[row] == stopped.num_evals


def test_history_has_a_row_more_than_iterations_allowed(result):
    assert {column.shape for column in result.history} == {(ROWS,)}


def test_history_has_no_evaluations_where_it_was_not_reached(result):
    reached = np.arange(ROWS) <= result.num_iters
    np.testing.assert_array_equal(result.history.num_evals > 0, reached)
    assert not np.any(result.history.value[~reached])


def test_rows_are_those_reached(result):
    rows = result.history.rows()
    assert {column.shape for column in rows} == {(result.num_iters + 1,)}
    np.testing.assert_array_equal(rows.value, result.history.value[: result.num_iters + 1])


def test_row_of_a_start_that_is_nan_is_reached(results):
    history = jax.tree.map(lambda column: column[2], results.history)
    assert history.rows().value.shape == (1,)


def test_values_of_the_history_do_not_rise(result):
    values = result.history.rows().value
    assert np.all(np.diff(values) <= 256 * np.finfo(np.float64).eps * np.abs(values[:-1]))


def test_evaluations_of_the_history_rise(result):
    assert np.all(np.diff(result.history.rows().num_evals) > 0)


@double
def test_history_of_a_resumed_run_begins_where_it_was(result, x64):
    half = minimize_rosenbrock(start(), max_iters=5)
    resumed = with_history(start(), state=half.state).history
    np.testing.assert_allclose(resumed.value[:9], result.history.value[5:14], rtol=1e-6)
    np.testing.assert_array_equal(resumed.num_evals[:9], result.history.num_evals[5:14])


@pytest.mark.parametrize("element", range(4))
def test_history_under_vmap_is_that_of_each_run(results, element, enable_x64):
    with enable_x64(True):
        alone = with_history(starts()[element]).history
        together = jax.tree.map(lambda column: column[element], results.history)
        np.testing.assert_allclose(together.value[:9], alone.value[:9], rtol=1e-6)
        np.testing.assert_array_equal(together.num_evals[:9], alone.num_evals[:9])


def test_history_under_vmap_ends_with_each_run(results):
    reached = np.sum(results.history.num_evals > 0, axis=1)
    np.testing.assert_array_equal(reached, results.num_iters + 1)
    assert len(set(reached)) > 1


# As a tree.


@double
def test_result_goes_through_jit_and_vmap(result, x64):
    doubled = jax.jit(lambda r: jax.tree.map(lambda x: 2 * x, r))(result)
    assert isinstance(doubled, optax_ls.MinimizeResult)
    np.testing.assert_array_equal(doubled.params, 2 * result.params)
    assert doubled.history.value.shape == (ROWS,)


# The table.


def test_table_of_one_run():
    result = minimize_kind("bowl", max_iters=0)
    assert str(result) == "\n".join(
        [
            "MinimizeResult",
            "  value        1.375",
            "  max |grad|   1.5",
            "  iterations   0",
            "  evaluations  1",
            "  params       3 of float32",
            "  success      False",
            f"  {result.message}",
            "  params = [0.5 1.5 2.5]",
        ]
    )


def test_table_of_many_runs_says_from_where_to_where(results):
    table = str(results)
    assert f"iterations   0 to {results.num_iters.max()}" in table
    assert "success      3 of 4" in table


def test_table_says_the_types_of_the_params_in_any_mode(results):
    assert "params       16 of float64, from " in str(results)


def test_message_of_many_runs_counts_them(results):
    small, lost = MinimizeStatus.GRADIENT_SMALL, MinimizeStatus.START_NOT_FINITE
    assert results.message.startswith(f"2 of 4: {small.message}\n1 of 4: {small.message} It is")
    assert f"1 of 4: {lost.message}" in results.message


def test_table_of_a_tree_counts_its_params():
    tree = {"b": jnp.ones((2, 3), "bfloat16"), "z": jnp.ones(2, complex), "n": None}
    fun = lambda p: jnp.sum(p["b"] ** 2) + jnp.sum(jnp.abs(p["z"]) ** 2)  # noqa: E731
    shapes = jax.eval_shape(lambda tree: optax_ls.minimize(fun, tree), tree)
    table = str(jax.tree.map(lambda leaf: jnp.full(leaf.shape, 2, leaf.dtype), shapes))
    assert "params       8 of bfloat16, complex64" in table
    assert "max |grad|   2\n" in table


def test_repr_is_the_table(result):
    assert repr(result) == str(result)


def test_traced_result_may_be_printed():
    printed = []

    def run(x):
        result = minimize_rosenbrock(x)
        printed.append(f"{result} {result!r}")
        return result.value

    jax.make_jaxpr(run)(start())
    assert "MinimizeResult" in printed[0]


def test_shape_of_a_result_may_be_printed():
    assert "MinimizeResult" in str(jax.eval_shape(minimize_rosenbrock, start()))


def test_result_of_no_runs_may_be_printed(results):
    assert "MinimizeResult" in str(jax.tree.map(lambda x: x[:0], results))
