"""``assert_stable_state`` passes stable states and says what changes in others, leaf by leaf."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

import optax_ls
from optax_ls.testing import assert_stable_state

PARAMS = {"w": jnp.ones(3), "b": jnp.float32(2.0)}


def objective(params):
    return jnp.sum(params["w"] ** 4) + params["b"] ** 2


def shifted(params, shift):
    return objective({**params, "b": params["b"] - shift})


class CounterState(NamedTuple):
    count: Any


def solver_whose_state(first, then):
    """A solver whose state holds ``first`` at init, and ``then`` of it after an update."""

    def update(updates, state, params=None):
        return updates, CounterState(then(state.count))

    return optax_ls.GradientTransformation(lambda params: CounterState(first), update)


def report_of(solver, **kwargs):
    with pytest.raises(AssertionError) as error:
        assert_stable_state(solver, PARAMS, objective, **kwargs)
    return str(error.value)


STABLE = {
    "lbfgs": optax_ls.lbfgs(memory_size=1),
    "lbfgs_without_search": optax_ls.lbfgs(0.1, memory_size=1, linesearch=None),
    "backtracking": optax_ls.chain(optax_ls.sgd(1.0), optax_ls.scale_by_backtracking_linesearch(5)),
    "momentum": optax_ls.sgd(0.1, momentum=0.9),
    "nothing": optax_ls.identity(),
}


@pytest.mark.parametrize("x64", [True], indirect=True)
@pytest.mark.parametrize("solver", STABLE.values(), ids=STABLE)
def test_passes_a_stable_state(solver, x64):
    assert_stable_state(solver, PARAMS, objective, steps=1)


def test_passes_extra_arguments_to_the_objective():
    assert_stable_state(STABLE["backtracking"], PARAMS, shifted, steps=1, shift=1.0)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_passes_solvers_of_optax_that_are_stable(name):
    optax = pytest.importorskip("optax")
    assert_stable_state(getattr(optax, name)(0.1), PARAMS, objective)


UNSTABLE = {
    "python_number": (0, lambda n: jnp.asarray(n) + 1, "was Python int 0", "became int32[]"),
    "dtype": (
        jnp.int32(0),
        lambda n: n.astype(jnp.float32),
        "was int32[]",
        "became float32[]",
    ),
    "shape": (jnp.zeros(2), lambda x: x[:1], "was float32[2]", "became float32[1]"),
    "weak_type": (
        jnp.asarray(1.0),
        lambda x: x * jnp.float32(2),
        "was float32[] weak",
        "became float32[]",
    ),
    "structure": (None, lambda _: jnp.zeros(2), "was absent", "became float32[2]"),
}


@pytest.mark.parametrize("case", UNSTABLE.values(), ids=UNSTABLE)
def test_failure_names_the_leaf_what_it_was_and_what_it_became(case):
    first, then, was, became = case
    # Only the first update changes the type, so that it runs as often as asked.
    report = report_of(solver_whose_state(first, then), steps=1)
    lines = [line for line in report.splitlines() if ".count:" in line]
    assert any(was in line and became in line for line in lines)


def test_failure_names_every_leaf_that_changed():
    def update(updates, state, params=None):
        return updates, {"a": [state["a"][0] + 0.5], "b": state["b"] + 0.5, "c": state["c"]}

    first = {"a": [jnp.int32(1)], "b": jnp.int32(2), "c": jnp.int32(3)}
    report = report_of(optax_ls.GradientTransformation(lambda params: first, update), steps=1)
    assert "['a'][0]: was int32" in report
    assert "['b']: was int32" in report
    assert "['c']" not in report.replace("(tree structure)", "")


def test_failure_says_after_which_update():
    def then(count):
        return (count + 1) if count < 1 else count.astype(jnp.float32)

    with jax.disable_jit():
        report = report_of(solver_whose_state(jnp.int32(0), then), steps=2)
    assert "update 2:" in report
    assert "update 1:" not in report


def test_failure_that_needs_jit_is_found():
    def init(params):
        # Under jit even this becomes an array.
        return CounterState(0)

    def update(updates, state, params=None):
        return updates, state

    report = report_of(optax_ls.GradientTransformation(init, update))
    assert "init under jit:" in report
    assert "init:" not in report


def test_fails_lbfgs_of_optax_and_lists_what_changes():
    optax = pytest.importorskip("optax", minversion="0.2.8")
    report = report_of(optax.lbfgs(memory_size=1), steps=1)
    assert "[2].info.num_linesearch_steps: was int32[] weak, became int32[]" in report


def test_works_for_any_object_with_init_and_update():
    class Nothing:
        def init(self, params):
            return ()

        def update(self, updates, state, params=None):
            return updates, state

    assert_stable_state(Nothing(), PARAMS, objective)
