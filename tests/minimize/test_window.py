"""Lanes that take turns in a window end where they would alone, in fewer trips of all together.

Windows are made small here, and the eight devices of the tests are hidden: over several devices
lanes make their trips together.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bestiary import rosenbrock

import optax_ls
from optax_ls._minimize import window as _window

pytestmark = pytest.mark.runtime

WIDTH, ENOUGH = 4, 2


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(_window, "_WIDTH", WIDTH)
    monkeypatch.setattr(_window, "_ENOUGH", ENOUGH)


# The loop alone.


class Countdown:
    """Every lane counts down to zero, and adds its input to a sum as it does; trips are counted."""

    def __init__(self, in_turns=True):
        self.trips, self.in_turns = 0, in_turns

    def note(self):
        self.trips += 1

    def __call__(self, left, name, addend):
        def running(carry):
            return carry["left"] > 0

        def trip(carry, addend):
            jax.debug.callback(self.note)
            step = running(carry).astype(int)
            return {**carry, "left": carry["left"] - step, "sum": carry["sum"] + step * addend}

        carry = {"left": left, "name": name, "sum": jnp.zeros_like(addend)}
        return _window.loop(running, trip, carry, addend, in_turns=self.in_turns)

    def of(self, lefts, addends=3, addend_axis=None):
        lefts = jnp.asarray(lefts)
        run = jax.vmap(self, in_axes=(0, 0, addend_axis))
        out = jax.block_until_ready(run(lefts, jnp.arange(len(lefts)), jnp.asarray(addends)))
        jax.effects_barrier()
        return out


def assert_counted(out, lefts, addends=3):
    np.testing.assert_array_equal(out["left"], np.zeros(len(lefts)))
    np.testing.assert_array_equal(out["name"], np.arange(len(lefts)))
    np.testing.assert_array_equal(out["sum"], np.asarray(lefts) * np.asarray(addends))


LEFTS = {
    "equal": [5] * 19,
    "falling": list(range(20, 0, -1)),
    "rising": list(range(20)),
    "none": [0] * 9,
    "one long": [30, *[2] * 11],
    "one long at the end": [*[2] * 11, 30],
    "two windows": [3, 1, 4, 1, 5, 9, 2, 6],
    "random": np.random.default_rng(0).integers(0, 40, 101),
}
each_lefts = pytest.mark.parametrize("lefts", LEFTS.values(), ids=LEFTS)


@each_lefts
def test_every_lane_makes_its_own_trips_and_keeps_its_place(lefts, narrow):
    assert_counted(Countdown().of(lefts), lefts)


@each_lefts
def test_every_lane_has_its_own_inputs(lefts, narrow):
    addends = np.arange(len(lefts)) + 7
    assert_counted(Countdown().of(lefts, addends, 0), lefts, addends)


def test_shared_carry_with_inputs_of_each_lane(narrow):
    addends = jnp.arange(20)
    run = jax.vmap(Countdown(), in_axes=(None, None, 0))
    out = run(jnp.asarray(6), jnp.asarray(1), addends)
    np.testing.assert_array_equal(out["sum"], 6 * addends)
    np.testing.assert_array_equal(out["name"], np.ones(20))


def test_trips_are_hardly_more_than_lanes_need(narrow):
    lefts = np.random.default_rng(1).integers(10, 20, 200)
    countdown = Countdown()
    assert_counted(countdown.of(lefts), lefts)
    # Between moves of the window half of its lanes at most have stopped.
    assert sum(lefts) <= countdown.trips * WIDTH < 1.5 * sum(lefts)


def test_slow_lane_keeps_none_waiting(narrow):
    lefts = [200, *[5] * 100]
    countdown = Countdown()
    assert_counted(countdown.of(lefts), lefts)
    # The others are done meanwhile, beside it.
    assert countdown.trips == 200


TOGETHER = {
    "several devices": (jax, "device_count", lambda: 8),
    "another device": (jax, "default_backend", lambda: "gpu"),
    "larger than the cache": (_window, "_MOST_BYTES", 4 * WIDTH),
    "few": (_window, "_WIDTH", 7),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_all_lanes_make_trips_together_where_windows_do_not_pay(name, narrow, monkeypatch):
    monkeypatch.setattr(*TOGETHER[name])
    lefts = [*range(12), 30]
    countdown = Countdown()
    assert_counted(countdown.of(lefts), lefts)
    assert countdown.trips == 30


def test_lanes_that_must_not_take_turns_make_trips_together(narrow):
    lefts = [*range(40), 50]
    countdown = Countdown(in_turns=False)
    assert_counted(countdown.of(lefts), lefts)
    assert countdown.trips == 50


def test_vmap_of_vmap(narrow):
    lefts = np.random.default_rng(2).integers(0, 9, (12, 10))
    names = np.arange(10)
    run = jax.vmap(jax.vmap(Countdown(), in_axes=(0, 0, None)), in_axes=(0, None, 0))
    out = run(jnp.asarray(lefts), jnp.asarray(names), jnp.arange(12))
    np.testing.assert_array_equal(out["sum"], lefts * np.arange(12)[:, None])
    np.testing.assert_array_equal(out["name"], np.tile(names, (12, 1)))


# minimize.

minimize = functools.partial(
    optax_ls.minimize, memory_size=2, linesearch="backtracking", max_iters=8
)
SCALES = np.arange(1, 10)


def starts():
    return jnp.asarray(np.random.default_rng(3).uniform(-2, 2, (len(SCALES), 4)))


def closing_over(fun, x, scale):
    return minimize(lambda x: fun(x, scale), x)


def with_aux(fun, x, scale):
    return minimize(lambda x: (fun(x, scale), {"scale": scale, "x": x}), x, has_aux=True)


def resumed(fun, x, scale):
    state = minimize(fun, x, args=(scale,), max_iters=3).state
    return minimize(fun, x, args=(scale,), state=state, max_iters=4)


RUNS = {
    "args": lambda fun, x, scale: minimize(fun, x, args=(scale,)),
    "kwargs": lambda fun, x, scale: minimize(fun, x, kwargs={"scale": scale}),
    "closure": closing_over,
    "aux": with_aux,
    "history": lambda fun, x, scale: minimize(fun, x, args=(scale,), history=True),
    "a limit of each": lambda fun, x, scale: minimize(fun, x, args=(1,), max_iters=scale),
    "resumed": resumed,
    "more_thuente": lambda fun, x, scale: minimize(
        fun, x, args=(scale,), linesearch="more_thuente", memory_size=3
    ),
}


def over_lanes(run):
    """All lanes, in a program of their own."""

    def fun(x, scale):
        return scale * rosenbrock(x)

    return jax.jit(jax.vmap(functools.partial(run, fun)))(starts(), SCALES)


@pytest.mark.parametrize("x64", [True], indirect=True)
@pytest.mark.parametrize("name", RUNS)
def test_minimisations_that_take_turns_end_as_they_would_together(name, narrow, monkeypatch, x64):
    take_turns, taken = _window._take_turns, []
    monkeypatch.setattr(_window, "_take_turns", lambda *a: taken.append(1) or take_turns(*a))
    in_turns = over_lanes(RUNS[name])
    assert taken
    monkeypatch.setattr(_window, "_WIDTH", 1000)
    together = over_lanes(RUNS[name])
    assert len(set(np.asarray(together.num_evals))) > 1
    for field in ("num_iters", "num_evals", "status"):
        np.testing.assert_array_equal(getattr(in_turns, field), getattr(together, field))
    for field in ("params", "value", "aux", "history"):
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-7, atol=1e-12),
            getattr(in_turns, field),
            getattr(together, field),
        )


def test_objective_that_knows_other_lanes_keeps_them_together(narrow):
    def fun(x, target):
        return jnp.sum((x - jax.lax.pmean(target, "lane")) ** 2)

    targets = starts()
    run = jax.vmap(lambda x: minimize(fun, jnp.zeros(4), args=(x,)), axis_name="lane")
    mean = jnp.broadcast_to(jnp.mean(targets, axis=0), targets.shape)
    np.testing.assert_allclose(run(targets).params, mean, rtol=1e-3, atol=1e-4)


def test_objective_that_tells_someone_keeps_lanes_together(narrow, capfd):
    def told(x):
        jax.debug.print("here")
        return jnp.sum(x**2)

    result = jax.vmap(lambda x: minimize(told, x))(starts())
    jax.block_until_ready(result)
    jax.effects_barrier()
    assert capfd.readouterr().out.count("here") == np.max(result.num_evals)


def test_lanes_outside_the_window_take_no_memory_but_their_result(narrow):
    def temporary(lanes):
        run = jax.vmap(lambda x: minimize(lambda x: rosenbrock(x), x).params)
        compiled = jax.jit(run).lower(jnp.zeros((lanes, 50), "float32")).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # The params are there twice while they are put in order; a state has ten vectors like them.
    assert temporary(1040) - temporary(40) < 1000 * 3 * (50 * 4)


def test_program_holds_one_copy_of_the_objective(narrow):
    run = jax.vmap(lambda x: minimize(lambda x: jnp.sum(jnp.sinh(x) ** 2), x))
    assert jax.jit(run).lower(starts()).as_text().count("chlo.sinh") == 1
