"""The line searches take the step that they promise, on good lines and on broken ones."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import optax_ls

zoom = optax_ls.scale_by_zoom_linesearch
backtracking = functools.partial(optax_ls.scale_by_backtracking_linesearch, store_grad=True)
more_thuente = optax_ls.scale_by_more_thuente_linesearch
SEARCHES = {"zoom": zoom, "backtracking": backtracking, "more_thuente": more_thuente}
each_search = pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
many = settings(max_examples=60, derandomize=True)


# Functions of one variable, and a search along them from 0.


def wavy(x, coefficients):
    """Bounded below, with several minima or one."""
    slope, bend, wall, wave, frequency = coefficients
    return slope * x + bend * x**2 / 2 + wall * x**4 + wave * jnp.cos(frequency * x)


def wavy_slope(x, coefficients):
    slope, bend, wall, wave, frequency = coefficients
    return slope + bend * x + 4 * wall * x**3 - wave * frequency * np.sin(frequency * x)


wavy_lines = st.tuples(
    st.floats(-10, -0.1), st.floats(-5, 5), st.floats(0.01, 5), st.floats(-2, 2), st.floats(0, 5)
)


def parabola(x):
    return jnp.sum((x - 1.0) ** 2) / 2


def far_parabola(x):
    return jnp.sum((x - 100.0) ** 2) / 2


def kink(x):
    """No step has a small curvature."""
    return jnp.sum(jnp.abs(x - 0.3))


def uphill(x):
    return jnp.sum(x)


def broken(x, limit, there):
    """A parabola that becomes another function beyond a limit."""
    return jnp.where(x > limit, there, parabola(x))


class Recorder:
    """An objective that writes down where it is evaluated."""

    def __init__(self, fn):
        self.fn = fn
        self.visited = []

    def __call__(self, x, **kwargs):
        jax.debug.callback(lambda x: self.visited.append(float(x)), x)
        return self.fn(x, **kwargs)

    def __enter__(self):
        self.visited.clear()
        return self.visited

    def __exit__(self, *_):
        jax.effects_barrier()


def make_step(solver, fn, evaluate=None, direction=1.0):
    """A jitted step along a fixed direction: new point and state."""
    evaluate = evaluate or fn

    @jax.jit
    def step(x, state, **kwargs):
        value, grad = jax.value_and_grad(evaluate)(x, **kwargs)
        updates, state = solver.update(
            jnp.full_like(x, direction), state, x, value=value, grad=grad, value_fn=fn, **kwargs
        )
        return optax_ls.apply_updates(x, updates), state

    return step


@functools.cache
def prepared(search, fn, max_steps, **settings):
    """A solver, what records where it evaluates the objective, and a compiled step."""
    solver, recorder = search(max_steps, **settings), Recorder(fn)
    return solver, recorder, make_step(solver, recorder, evaluate=fn)


def search_from_zero(search, fn, max_steps, learning_rate=1.0, fn_kwargs=None, **settings):
    """The end of one search along +1 from 0, its state, and the steps tried, in order.

    The learning rate is that of the state before.
    """
    solver, recorder, step = prepared(search, fn, max_steps, **settings)
    zero = jnp.zeros(())
    state = solver.init(zero)._replace(learning_rate=jnp.float32(learning_rate))
    with recorder as visited:
        x, state = step(zero, state, **(fn_kwargs or {}))
        jax.block_until_ready(x)
    return x, state, list(visited)


def search_broken_line(search, max_steps, limit, there):
    kwargs = {"limit": jnp.float32(limit), "there": jnp.float32(there)}
    return search_from_zero(search, broken, max_steps, fn_kwargs=kwargs)


# The conditions.


@pytest.fixture(scope="module")
def compiled():
    """Compiled steps along wavy lines, made once per solver."""
    return functools.cache(lambda make: (make(), make_step(make(), wavy)))


def search_wavy(compiled, make, coefficients):
    solver, step = compiled(make)
    zero = jnp.zeros((), float)
    coefficients = jnp.array(coefficients, float)
    x, state = step(zero, solver.init(zero), coefficients=coefficients)
    return float(x), state, float(wavy(zero, coefficients))


def wolfe_search(search, slope_rtol, curv_rtol):
    return functools.partial(search, 40, slope_rtol=slope_rtol, curv_rtol=curv_rtol)


exact_zoom = functools.partial(zoom, approx_dec_rtol=None)
WOLFE = [
    (setting, wolfe_search(search, *setting))
    for search in (exact_zoom, more_thuente)
    for setting in [(1e-4, 0.9), (1e-4, 0.1), (0.1, 0.5)]
]
each_wolfe_search = pytest.mark.parametrize(("setting", "make"), WOLFE)


@each_wolfe_search
@many
@given(coefficients=wavy_lines)
def test_wolfe_step_decreases_the_value_sufficiently(
    setting, make, coefficients, compiled, enable_x64
):
    with enable_x64(True):
        x, _, start = search_wavy(compiled, make, coefficients)
        bound = start + setting[0] * x * wavy_slope(0, coefficients)
        assert x > 0
        assert float(wavy(x, coefficients)) <= bound + 1e-12 * abs(start)


@each_wolfe_search
@many
@given(coefficients=wavy_lines)
def test_wolfe_step_has_a_small_curvature(setting, make, coefficients, compiled, enable_x64):
    with enable_x64(True):
        x, _, _ = search_wavy(compiled, make, coefficients)
        bound = setting[1] * abs(wavy_slope(0, coefficients))
        assert abs(wavy_slope(x, coefficients)) <= bound * (1 + 1e-12)


ARMIJO = {
    (slope_rtol, factor): functools.partial(
        optax_ls.scale_by_backtracking_linesearch,
        60,
        slope_rtol=slope_rtol,
        decrease_factor=factor,
        max_learning_rate=3.0,
        increase_factor=math.inf,
    )
    for slope_rtol, factor in [(1e-4, 0.8), (0.3, 0.5)]
}


@pytest.mark.parametrize(("setting", "make"), ARMIJO.items(), ids=map(str, ARMIJO))
@many
@given(coefficients=wavy_lines)
def test_backtracking_takes_the_first_step_of_sufficient_decrease(
    setting, make, coefficients, compiled, enable_x64
):
    with enable_x64(True):
        x, state, start = search_wavy(compiled, make, coefficients)
        steps = 3.0 * setting[1] ** np.arange(61)
        bounds = start + setting[0] * steps * wavy_slope(0, coefficients)
        sufficient = np.asarray(wavy(steps, coefficients)) <= bounds
        assert state.info.num_linesearch_steps == np.argmax(sufficient) + 1
        np.testing.assert_allclose(x, steps[np.argmax(sufficient)], rtol=1e-12)


def test_atol_lets_the_value_rise():
    assert search_from_zero(backtracking, uphill, 20, atol=2.0)[0] == 1


def test_rtol_lets_the_value_rise_relative_to_it():
    assert search_from_zero(backtracking, lambda x: x + 10.0, 20, rtol=0.5)[0] == 1


def test_tol_accepts_a_step_that_misses_small_curvature_by_as_much():
    fn = lambda x: (x - 1.25) ** 2 / 2  # noqa: E731
    assert search_from_zero(zoom, fn, 20, curv_rtol=0.0, tol=0.5)[0] == 1


def test_infinite_curv_rtol_switches_the_curvature_condition_off():
    assert search_from_zero(zoom, far_parabola, 20, curv_rtol=math.inf)[0] == 1


@pytest.mark.parametrize(("approx_dec_rtol", "met"), [(1e-6, True), (None, False)])
def test_approximate_decrease_accepts_what_rounding_hides(approx_dec_rtol, met):
    # The parabola lies so high that float32 does not see it; the slope does.
    high = lambda x: parabola(x) + jnp.float32(1e9)  # noqa: E731
    _, state, _ = search_from_zero(zoom, high, 20, approx_dec_rtol=approx_dec_rtol)
    assert (state.info.decrease_error == 0) == met


# What the state says.


@each_search
@pytest.mark.parametrize("fn", [parabola, far_parabola, kink, uphill], ids=lambda f: f.__name__)
def test_state_holds_the_value_at_the_params_returned(search, fn):
    x, state, _ = search_from_zero(search, fn, 8)
    np.testing.assert_allclose(state.value, fn(x), rtol=1e-6)


@each_search
@pytest.mark.parametrize("fn", [parabola, far_parabola, kink, uphill], ids=lambda f: f.__name__)
def test_state_holds_the_gradient_at_the_params_returned(search, fn):
    x, state, _ = search_from_zero(search, fn, 8)
    np.testing.assert_allclose(state.grad, jax.grad(fn)(x), rtol=1e-6)


@each_search
@pytest.mark.parametrize("fn", [parabola, far_parabola, kink, uphill], ids=lambda f: f.__name__)
def test_updates_are_scaled_by_the_learning_rate_of_the_state(search, fn):
    x, state, _ = search_from_zero(search, fn, 8)
    assert x == state.learning_rate


@pytest.mark.parametrize("max_steps", [1, 3, 8])
@pytest.mark.parametrize("fn", [parabola, far_parabola, kink], ids=lambda f: f.__name__)
def test_zoom_errors_are_those_of_the_step_returned(fn, max_steps):
    settings = {"slope_rtol": 0.1, "curv_rtol": 0.1, "approx_dec_rtol": None}
    x, state, _ = search_from_zero(zoom, fn, max_steps, **settings)
    start, slope = jax.value_and_grad(fn)(0.0)
    decrease = max(fn(x) - start - 0.1 * x * slope, 0)
    curvature = max(abs(jax.grad(fn)(x)) - 0.1 * abs(slope), 0)
    np.testing.assert_allclose(state.info[1:], (decrease, curvature), rtol=1e-5)


@pytest.mark.parametrize("max_steps", [0, 3])
def test_backtracking_error_is_that_of_the_last_step(max_steps):
    x, state, _ = search_from_zero(backtracking, uphill, max_steps)
    np.testing.assert_allclose(state.info.decrease_error, x - 1e-4 * x, rtol=1e-5)


@pytest.mark.parametrize("fn", [parabola, far_parabola, kink], ids=lambda f: f.__name__)
@each_search
def test_number_of_steps_is_that_of_the_points_tried(search, fn):
    _, state, visited = search_from_zero(search, fn, 20)
    assert state.info.num_linesearch_steps == len(set(visited))


@each_search
def test_successful_search_evaluates_each_point_once(search):
    _, state, visited = search_from_zero(search, parabola, 20)
    assert len(visited) == state.info.num_linesearch_steps


def test_zoom_that_falls_back_evaluates_its_best_point_once_more():
    x, state, visited = search_from_zero(zoom, kink, 3)
    assert (len(visited), visited[-1]) == (state.info.num_linesearch_steps + 1, x)


@pytest.mark.parametrize("max_steps", [1, 2, 5])
@pytest.mark.parametrize(
    ("search", "more"), [(zoom, 0), (backtracking, 1)], ids=["zoom", "backtracking"]
)
def test_failing_search_tries_as_many_steps_as_it_may(search, more, max_steps):
    _, state, _ = search_from_zero(search, uphill, max_steps)
    assert state.info.num_linesearch_steps == max_steps + more


# Where the search begins, and how far it may go.


@pytest.mark.parametrize(("strategy", "first"), [("keep", 0.25), ("one", 1.0)], ids=["keep", "one"])
def test_zoom_tries_first_what_its_strategy_says(strategy, first):
    _, _, visited = search_from_zero(
        zoom, parabola, 20, learning_rate=0.25, initial_guess_strategy=strategy
    )
    assert visited[0] == first


@pytest.mark.parametrize(
    ("increase_factor", "first"), [(1.0, 0.25), (1.5, 0.375), (2.0, 0.5), (8.0, 1.0), (math.inf, 1)]
)
def test_backtracking_tries_first_a_multiple_of_the_step_before(increase_factor, first):
    _, _, visited = search_from_zero(
        backtracking, parabola, 20, learning_rate=0.25, increase_factor=increase_factor
    )
    assert visited[0] == first


@pytest.mark.parametrize("limit", [0.01, 0.3, 1.0, 5.0])
@each_search
def test_no_step_beyond_max_learning_rate_is_tried(search, limit):
    _, _, visited = search_from_zero(
        search, far_parabola, 20, learning_rate=30.0, max_learning_rate=limit
    )
    assert max(visited) <= np.float32(limit)


def test_zoom_takes_the_largest_step_if_the_minimum_lies_beyond():
    assert search_from_zero(zoom, far_parabola, 20, max_learning_rate=5.0)[0] == 5


@pytest.mark.parametrize("factor", [2.0, 10.0])
def test_zoom_grows_its_step_by_the_increase_factor(factor):
    fn = lambda x: (x - 1e4) ** 2  # noqa: E731
    _, _, visited = search_from_zero(zoom, fn, 20, increase_factor=factor, curv_rtol=0.5)
    assert visited[:3] == [1, factor, factor**2]


# Failure.


@many
@given(coefficients=wavy_lines, max_steps=st.integers(1, 4))
def test_failed_zoom_returns_the_best_point_of_sufficient_decrease(
    coefficients, max_steps, recorded, enable_x64
):
    with enable_x64(True):
        x, state, visited, start = recorded(max_steps, coefficients)
        if state.info.curvature_error == 0 and state.info.decrease_error == 0:
            return
        values = {step: float(wavy(step, coefficients)) for step in visited}
        slope = wavy_slope(0, coefficients)
        good = [step for step in visited if values[step] <= start + 1e-4 * step * slope]
        if good:
            assert values[x] == min(values[step] for step in good)


@pytest.fixture(scope="module")
def recorded():
    """Zoom searches that ask for more than they can reach, with the points they tried."""

    @functools.cache
    def make(max_steps):
        solver = optax_ls.scale_by_zoom_linesearch(max_steps, curv_rtol=1e-3, approx_dec_rtol=None)
        recorder = Recorder(wavy)
        return solver, recorder, make_step(solver, recorder, evaluate=wavy)

    def search(max_steps, coefficients):
        solver, recorder, step = make(max_steps)
        zero, coefficients = jnp.zeros((), float), jnp.array(coefficients, float)
        with recorder as visited:
            x, state = step(zero, solver.init(zero), coefficients=coefficients)
            jax.block_until_ready(x)
        return float(x), state, visited, float(wavy(zero, coefficients))

    return search


@each_search
def test_search_without_decrease_takes_its_last_step(search):
    x, _, visited = search_from_zero(search, uphill, 5)
    assert x == visited[-1] > 0


@each_search
def test_search_at_a_minimum_stays_there(search):
    solver = search(10)
    x, _ = make_step(solver, parabola, direction=0.0)(jnp.ones(()), solver.init(jnp.ones(())))
    assert x == 1


# Lines with holes.


HOLES = {"nan": jnp.nan, "inf": jnp.inf, "minus_inf": -jnp.inf}
each_hole = pytest.mark.parametrize("there", HOLES.values(), ids=HOLES)


@each_search
@each_hole
@pytest.mark.parametrize("limit", [0.9, 0.3, 0.01])
def test_step_stays_where_the_objective_is_finite(search, there, limit):
    x, state, _ = search_broken_line(search, 40, limit, there)
    assert 0 < x <= limit
    assert np.isfinite(state.value)


@each_search
@each_hole
def test_search_that_sees_nothing_finite_does_not_move(search, there):
    x, _, _ = search_broken_line(search, 5, 0.0, there)
    assert x == 0


@each_search
@each_hole
def test_search_that_did_not_move_keeps_value_and_gradient(search, there):
    _, state, _ = search_broken_line(search, 5, 0.0, there)
    assert (state.value, state.grad) == (parabola(0.0), jax.grad(parabola)(0.0))


@each_search
@each_hole
def test_search_that_did_not_move_says_by_how_much_it_missed(search, there):
    _, state, _ = search_broken_line(search, 5, 0.0, there)
    assert state.info.decrease_error == np.inf


@each_search
def test_search_after_one_that_did_not_move_begins_anew(search):
    assert search_from_zero(search, parabola, 10, learning_rate=0.0)[0] > 0


@each_search
def test_not_moving_leaves_params_alone_even_along_an_infinite_direction(search):
    solver = search(5)
    step = make_step(solver, parabola, direction=jnp.inf)
    assert step(jnp.zeros(()), solver.init(jnp.zeros(())))[0] == 0


@functools.cache
def lbfgs_step(search):
    fn = lambda x, there: jnp.sum(broken(x, 0.75, there))  # noqa: E731
    solver = optax_ls.lbfgs(memory_size=2, linesearch=search(10))

    @jax.jit
    def step(x, state, there):
        value, grad = jax.value_and_grad(fn)(x, there)
        updates, state = solver.update(
            grad, state, x, value=value, grad=grad, value_fn=fn, there=there
        )
        x = optax_ls.apply_updates(x, updates)
        return x, state, fn(x, there)

    return solver, step


@each_search
@each_hole
def test_lbfgs_stays_before_a_wall(search, there):
    # The minimum at 1 lies behind the wall.
    solver, step = lbfgs_step(search)
    x = jnp.array([0.0, 0.5])
    state = solver.init(x)
    for _ in range(10):
        x, state, value = step(x, state, jnp.float32(there))
    assert np.isfinite(x).all()
    assert np.isfinite(value)


def test_params_stay_finite_where_only_the_gradient_is_not():
    # The square root of zero has a value, but no gradient.
    fn = lambda x: parabola(x) + jnp.where(x > 0.5, jnp.sqrt(0 * x), 0.0)  # noqa: E731
    solver = optax_ls.lbfgs(memory_size=2)
    value_and_grad = optax_ls.value_and_grad_from_state(fn)

    @jax.jit
    def step(x, state):
        value, grad = value_and_grad(x, state=state)
        updates, state = solver.update(grad, state, x, value=value, grad=grad, value_fn=fn)
        return optax_ls.apply_updates(x, updates), state

    x = jnp.zeros(())
    state = solver.init(x)
    for _ in range(5):
        x, state = step(x, state)
    assert np.isfinite(x)


# Complex params are real ones of twice the length.


@each_search
def test_complex_search_takes_the_step_of_the_real_one(search):
    real_fn = lambda x: complex_fn(x[0] + 1j * x[1])  # noqa: E731
    z, _ = first_updates(search, complex_fn, jnp.zeros(2, complex))
    x, _ = first_updates(search, real_fn, jnp.zeros((2, 2)))
    np.testing.assert_allclose(z, x[0] + 1j * x[1], rtol=1e-5)


@each_search
def test_state_holds_the_gradient_of_complex_params_as_jax_grad_gives_it(search):
    updates, state = first_updates(search, complex_fn, jnp.zeros(2, complex))
    np.testing.assert_allclose(state[-1].grad, jax.grad(complex_fn)(updates), rtol=1e-5)


def complex_fn(z):
    return jnp.sum(jnp.abs(z - (3 + 4j)) ** 4 + z.real**2)


def first_updates(search, fn, zeros):
    """Updates and state of gradient descent from zero; of complex params, conjugates go in."""
    solver = optax_ls.chain(optax_ls.sgd(1.0), search(20))
    grad = jnp.conj(jax.grad(fn)(zeros))
    return jax.jit(solver.update, static_argnames="value_fn")(
        grad, solver.init(zeros), zeros, value=fn(zeros), grad=grad, value_fn=fn
    )


# What verbose prints.


FAILURES = {
    far_parabola: {"max_learning_rate": 0.5},
    kink: {},
    uphill: {},
}
HOLDS = {
    "FLAG_INTERVAL_NOT_FOUND": {far_parabola: True, kink: False, uphill: False},
    "FLAG_INTERVAL_TOO_SMALL": {far_parabola: False, kink: True},
    "FLAG_CURVATURE_COND_NOT_SATISFIED": {far_parabola: True, kink: True, uphill: False},
    "FLAG_NO_STEPSIZE_FOUND": {far_parabola: False, kink: False, uphill: True},
    "FLAG_NOT_A_DESCENT_DIRECTION": {far_parabola: False, kink: False, uphill: True},
}


@pytest.fixture
def printed(capfd):
    """The text that a search prints."""

    def run(search, fn, max_steps, **settings):
        search_from_zero(search, fn, max_steps, **settings)
        return capfd.readouterr().out

    return run


@pytest.mark.parametrize(
    ("flag", "fn", "holds"),
    [(flag, fn, holds) for flag, cases in HOLDS.items() for fn, holds in cases.items()],
    ids=lambda case: getattr(case, "__name__", str(case)),
)
def test_verbose_zoom_gives_the_reasons_that_hold(flag, fn, holds, printed):
    out = printed(zoom, fn, 30, verbose=True, **FAILURES[fn])
    assert (getattr(optax_ls, flag) in out) == holds


def test_verbose_zoom_says_that_the_steps_ran_out(printed):
    assert "All steps allowed were tried" in printed(zoom, kink, 3, verbose=True)


def test_verbose_zoom_says_that_it_does_not_move(printed):
    assert "not moving" in printed(zoom, lambda x: jnp.where(x > 0, jnp.nan, x), 3, verbose=True)


def test_verbose_backtracking_says_why_it_failed(printed):
    out = printed(backtracking, uphill, 3, verbose=True)
    assert "No step satisfying sufficient decrease was found" in out


@each_search
def test_verbose_search_prints_its_numbers(search, printed):
    out = printed(search, uphill, 3, verbose=True)
    assert all(name in out for name in ("Value", "Slope", "Stepsize", "Decrease error"))


@each_search
def test_verbose_search_that_succeeds_is_silent(search, printed):
    assert printed(search, parabola, 20, verbose=True) == ""


@each_search
def test_search_is_silent_unless_asked(search, printed):
    assert printed(search, uphill, 3) == ""


@each_search
def test_verbose_does_not_change_the_step(search):
    verbose, _, _ = search_from_zero(search, kink, 5, verbose=True)
    assert verbose == search_from_zero(search, kink, 5)[0]
