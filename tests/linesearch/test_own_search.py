"""``scale_by_linesearch`` and ``minimize`` run any line search that follows the protocol."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_ls
from optax_ls.testing import assert_stable_state

pytestmark = pytest.mark.runtime


class HalvingState(NamedTuple):
    step: Any
    done: Any
    failed: Any
    num_steps: Any
    value_init: Any


class Halving:
    """Halves the step until the value is lower than at the start; does not move if none is."""

    needs_slope = False

    def __init__(self, max_steps=20):
        self.max_steps = max_steps

    def start(self, value, slope, step):
        return HalvingState(step, False, False, 0, value)

    def advance(self, state, value, slope):
        lower, last = value < state.value_init, state.num_steps + 1 == self.max_steps
        return HalvingState(
            step=jnp.where(lower, state.step, jnp.where(last, 0, state.step / 2)),
            done=lower | last,
            failed=~lower,
            num_steps=state.num_steps + 1,
            value_init=state.value_init,
        )


class Numbers(Halving):
    """Always tries 1 first; its first state consists of Python numbers."""

    def start(self, value, slope, step):
        return HalvingState(1.0, False, False, 0, value)


class SecantSearch:
    """Follows the secant of the slopes until the slope is a tenth; its state is a dictionary."""

    class State(dict):
        step = property(lambda self: self["step"])
        done = property(lambda self: self["done"])
        failed = property(lambda self: self["failed"])

    def start(self, value, slope, step):
        points = {"last": 0 * step, "slope": slope, "slope_init": slope}
        return self.State(step=step, done=False, failed=False, tries=0, **points)

    def advance(self, state, value, slope):
        good, tries = abs(slope) <= abs(state["slope_init"]) / 10, state["tries"] + 1
        change = slope - state["slope"]
        move = slope * (state.step - state["last"]) / jnp.where(change == 0, 1, change)
        return self.State(
            step=jnp.where(good, state.step, state.step - move),
            done=good | (tries > 20),
            failed=~good & (tries > 20),
            tries=tries,
            last=state.step,
            slope=slope,
            slope_init=state["slope_init"],
        )


jax.tree_util.register_pytree_node(
    SecantSearch.State,
    lambda state: (tuple(state[key] for key in sorted(state)), tuple(sorted(state))),
    lambda keys, values: SecantSearch.State(zip(keys, values, strict=True)),
)


class Ending(Halving):
    """Ends after one evaluation, at a step of its own."""

    def __init__(self, step):
        self.step = step

    def advance(self, state, value, slope):
        return state._replace(step=jnp.full_like(state.step, self.step), done=True)


class Outspoken(Halving):
    def diagnose(self, state):
        return [
            (True, "tried {count} steps", {"count": state.num_steps}),
            (state.step > 0, "moved", {}),
        ]


OWN = {"halving": Halving(), "numbers": Numbers(), "secant": SecantSearch()}
OURS = {
    "backtracking": optax_ls.Backtracking(20, decrease_factor=0.5),
    "zoom": optax_ls.Zoom(20),
    "more_thuente": optax_ls.MoreThuente(20),
}
each_own_search = pytest.mark.parametrize("search", OWN.values(), ids=OWN)
each_search = pytest.mark.parametrize("search", {**OWN, **OURS}.values(), ids=[*OWN, *OURS])
scale_by = optax_ls.scale_by_linesearch


def bowl(params):
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(params)]
    return sum(jnp.sum(jnp.abs(leaf - 1) ** 2 * (1 + jnp.arange(leaf.size))) for leaf in leaves)


def wall(x):
    """Lower to the right, where it is not finite beyond a limit."""
    return jnp.where(x > 0.3, -jnp.inf, -x)


def update(solver, params, state, fn=bowl, direction=None, **kwargs):
    """One update along the direction, or down the gradient."""
    value, grad = jax.value_and_grad(lambda p: fn(p, **kwargs))(params)
    grad = jax.tree.map(jnp.conj, grad)
    down = jax.tree.map(jnp.negative, grad) if direction is None else direction
    return solver.update(down, state, params, value=value, grad=grad, value_fn=fn, **kwargs)


def search_along(search, fn=bowl, start=0.0, **settings):
    """Params and state after one search from a scalar in the direction +1."""
    solver, x = scale_by(search, **settings), jnp.asarray(start)
    updates, state = jax.jit(lambda x, state: update(solver, x, state, fn, jnp.ones(())))(
        x, solver.init(x)
    )
    return x + updates, state


def minimise(solver, params, steps=60):
    value_and_grad = optax_ls.value_and_grad_from_state(bowl)

    def step(carry, _):
        params, state = carry
        value, grad = value_and_grad(params, state=state)
        down = jax.tree.map(lambda g: -jnp.conj(g), grad)
        updates, state = solver.update(
            down, state, params, value=value, grad=jax.tree.map(jnp.conj, grad), value_fn=bowl
        )
        return (optax_ls.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, solver.init(params)), length=steps)[0]


# The transformation.


@each_search
def test_search_leads_to_the_minimum(search):
    params, _ = minimise(scale_by(search), {"a": jnp.zeros(3), "b": jnp.asarray(4.0)})
    np.testing.assert_allclose(jax.tree.leaves(params)[0], 1, atol=1e-3)
    np.testing.assert_allclose(jax.tree.leaves(params)[1], 1, atol=1e-3)


TREES = {
    "float32": lambda: jnp.zeros(3, jnp.float32),
    "bfloat16": lambda: {"a": jnp.zeros(2, jnp.bfloat16), "b": 0.5},
    "complex": lambda: (jnp.zeros(2, jnp.complex64), jnp.zeros((), jnp.float32)),
    "float": lambda: 0.0,
}


@pytest.mark.slow
@pytest.mark.parametrize("make", TREES.values(), ids=TREES)
@each_own_search
def test_state_keeps_its_types(search, make, x64):
    assert_stable_state(scale_by(search), make(), bowl, steps=1)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["keep", "one"])
@pytest.mark.parametrize(
    ("search", "transformation"),
    [
        (optax_ls.Zoom, optax_ls.scale_by_zoom_linesearch),
        (optax_ls.MoreThuente, optax_ls.scale_by_more_thuente_linesearch),
    ],
    ids=["zoom", "more_thuente"],
)
def test_search_of_ours_takes_the_steps_of_its_transformation(search, transformation, strategy):
    search, named = search(15, 3.0), transformation(15, 3.0, initial_guess_strategy=strategy)
    start = jnp.linspace(-2, 2, 5)
    ours, _ = minimise(scale_by(search, strategy), start, steps=5)
    theirs, _ = minimise(named, start, steps=5)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("strategy", "first"), [("keep", 0.25), ("one", 1.0)])
def test_first_step_is_that_of_the_strategy(strategy, first):
    solver, x = scale_by(Halving(), strategy), jnp.zeros(())
    state = solver.init(x)._replace(learning_rate=jnp.float32(0.25))
    # Every step decreases the value, so the first is taken.
    updates, _ = update(solver, x, state, lambda x: -x, jnp.ones(()))
    assert updates == first


@pytest.mark.parametrize("step", [0.0, 0.5, 3.0])
def test_state_belongs_to_the_step_chosen_though_another_was_evaluated(step):
    x, state = search_along(Ending(step))
    assert (x, state.learning_rate) == (step, step)
    np.testing.assert_allclose(state.value, bowl(x), rtol=1e-6)
    np.testing.assert_allclose(state.grad, jax.grad(bowl)(x), rtol=1e-6)


def test_search_that_ends_at_no_number_comes_to_an_end():
    x, _ = search_along(Ending(jnp.nan))
    assert np.isnan(x)


def test_search_sees_minus_infinity_as_infinity():
    x, _ = search_along(Halving(), wall)
    assert x == 0.25


@pytest.mark.parametrize("store_grad", [False, True])
@each_search
def test_gradient_is_stored_if_asked(search, store_grad):
    x, state = search_along(search, store_grad=store_grad)
    assert (state.grad is not None) == store_grad
    if store_grad:
        np.testing.assert_allclose(state.grad, jax.grad(bowl)(x), rtol=1e-6)


@pytest.mark.parametrize("store_grad", [False, True])
@each_own_search
def test_aux_is_that_of_the_step_chosen(search, store_grad):
    fn = lambda x: (bowl(x), {"double": 2 * x})  # noqa: E731
    solver, x = scale_by(search, store_grad=store_grad, has_aux=True, aux_like={"double": 0.0}), 0.0
    (value, _), grad = jax.value_and_grad(fn, has_aux=True)(x)
    updates, state = solver.update(
        jnp.ones(()), solver.init(x), x, value=value, grad=grad, value_fn=fn
    )
    np.testing.assert_allclose(state.aux["double"], 2 * updates)


@each_own_search
def test_keyword_arguments_reach_the_objective(search):
    fn = lambda x, shift: (x - shift) ** 2  # noqa: E731
    solver, x = scale_by(search), jnp.zeros(())
    updates, _ = update(solver, x, solver.init(x), fn, jnp.ones(()), shift=0.75)
    assert abs(updates - 0.75) < 0.75


@each_own_search
def test_batch_of_searches_takes_the_steps_of_single_ones(search):
    solver = scale_by(search)

    def step(x):
        return update(solver, x, solver.init(x), direction=jnp.ones(()))[0]

    starts = jnp.array([0.0, -3.0, 0.99])
    np.testing.assert_allclose(jax.vmap(step)(starts), [step(x) for x in starts], rtol=1e-6)


@pytest.mark.slow
@each_search
def test_minimize_takes_the_same_object(search):
    result = optax_ls.minimize(bowl, jnp.zeros(3), linesearch=search)
    assert result.success
    np.testing.assert_allclose(result.params, 1, atol=1e-4)


# What is reported.


def test_number_of_steps_is_found_by_name(x64):
    _, state = search_along(Halving(), wall)
    count = optax_ls.tree.get(state, "num_linesearch_steps")
    assert (count, count.dtype) == (3, jnp.asarray(0).dtype)


def test_number_of_steps_is_none_for_a_search_that_does_not_count_them():
    _, state = search_along(SecantSearch())
    assert optax_ls.tree.get(state, "num_linesearch_steps") is None


@pytest.mark.parametrize(("fn", "failed"), [(bowl, False), (lambda x: x, True)])
@pytest.mark.parametrize("search", [Halving(), *OURS.values()], ids=["halving", *OURS])
def test_info_says_whether_the_search_failed(search, fn, failed):
    assert search_along(search, fn)[1].info.failed == failed


def test_errors_that_a_search_does_not_know_are_none():
    info = search_along(Halving())[1].info
    assert info.decrease_error is info.curvature_error is None


def test_errors_of_a_search_of_ours_are_in_the_info():
    _, state = search_along(optax_ls.Zoom(20))
    assert (state.info.decrease_error, state.info.curvature_error) == (0, 0)


@pytest.mark.parametrize(
    ("search", "fn", "printed", "silent"),
    [
        (Halving(3), lambda x: x, ["scale_by_linesearch", "failed"], []),
        (Outspoken(3), lambda x: x, ["scale_by_linesearch", "tried 3 steps"], ["moved"]),
        (Outspoken(3), bowl, [], ["scale_by_linesearch", "tried"]),
        (optax_ls.Zoom(3), lambda x: x, [optax_ls.FLAG_NO_STEPSIZE_FOUND], []),
    ],
    ids=["no_messages", "messages", "success", "zoom"],
)
def test_verbose_prints_the_messages_that_hold(search, fn, printed, silent, capfd):
    search_along(search, fn, verbose=True)
    jax.effects_barrier()
    out = capfd.readouterr().out
    assert all(text in out for text in printed)
    assert not any(text in out for text in silent)


def test_search_is_silent_unless_asked(capfd):
    search_along(Outspoken(3), lambda x: x)
    jax.effects_barrier()
    assert capfd.readouterr().out == ""


# Errors.


class WithoutAdvance:
    def start(self, value, slope, step):
        return HalvingState(step, False, False, 0, value)


class Forgetful(Halving):
    """Its state lacks what the protocol asks for."""

    def start(self, value, slope, step):
        return (step, False)


class Opaque(Halving):
    """Its state is no tree of arrays."""

    class State:
        step, done, failed = 1.0, False, False

    def start(self, value, slope, step):
        return self.State()


class Changing(Halving):
    """Its state has another shape after a step."""

    def advance(self, state, value, slope):
        return super().advance(state, value, slope)._replace(num_steps=jnp.zeros(2, int))


NO_SEARCHES = {
    "number": (3, ["type int", "no start and no advance"]),
    "none": (None, ["type NoneType", "no start and no advance"]),
    "name": ("zoom", ["type str", "no start and no advance"]),
    "half": (WithoutAdvance(), ["type WithoutAdvance", "no advance"]),
    "class": (Halving, ["the class Halving", "an instance"]),
    "transformation": (
        optax_ls.scale_by_zoom_linesearch(5),
        ["gradient transformation", "optax_ls.chain"],
    ),
}


@pytest.mark.parametrize(("search", "parts"), NO_SEARCHES.values(), ids=NO_SEARCHES)
def test_object_without_the_protocol_is_refused_with_what_it_lacks(search, parts):
    pattern = "search must be a line search.*" + ".*".join(map(re.escape, parts))
    with pytest.raises(TypeError, match=pattern) as error:
        scale_by(search)
    assert " at 0x" not in str(error.value)


@pytest.mark.parametrize(
    ("search", "kind", "parts"),
    [
        (
            Forgetful(),
            TypeError,
            ["Forgetful.start", "tuple has no step and no done and no failed"],
        ),
        (Opaque(), TypeError, ["Opaque.start", "must be", "State"]),
        (
            Changing(),
            ValueError,
            ["Changing.advance(...).num_steps", "(2,)", "Changing.start(...)"],
        ),
    ],
    ids=["forgetful", "opaque", "changing"],
)
def test_state_that_does_not_fit_is_named(search, kind, parts):
    with pytest.raises(kind, match=".*".join(map(re.escape, parts))):
        search_along(search)


@pytest.mark.parametrize("strategy", ["two", None])
def test_unknown_strategy_is_refused(strategy):
    with pytest.raises(ValueError, match="initial_guess_strategy must be one of 'one', 'keep'"):
        scale_by(Halving(), strategy)


def test_aux_like_needs_has_aux():
    with pytest.raises(ValueError, match="set has_aux=True"):
        scale_by(Halving(), aux_like=jnp.zeros(2))


def test_state_of_another_transformation_is_refused():
    state = optax_ls.scale_by_zoom_linesearch(5).init(0.0)
    with pytest.raises(TypeError, match="state of scale_by_linesearch is a ScaleByLinesearchState"):
        update(scale_by(Halving()), 0.0, state)
