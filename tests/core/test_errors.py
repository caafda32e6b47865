"""Wrong input fails early, with an error that names the culprit, what it was, what was wanted.

Settings fail at construction; params, objectives and arguments at ``init`` or at the first trace
of ``update``.
"""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_ls

pytestmark = pytest.mark.runtime

SEARCHES = {
    "zoom": lambda **kwargs: optax_ls.scale_by_zoom_linesearch(5, **kwargs),
    "backtracking": lambda **kwargs: optax_ls.scale_by_backtracking_linesearch(5, **kwargs),
    "backtracking_store_grad": lambda **kwargs: optax_ls.scale_by_backtracking_linesearch(
        5, store_grad=True, **kwargs
    ),
}
SOLVERS = {**SEARCHES, "lbfgs": functools.partial(optax_ls.lbfgs, memory_size=1)}
PARAMS = {"w": jnp.ones(2), "layers": [jnp.ones(3)]}

each_search = pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
each_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)


def objective(params):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))


def raises(kind, *parts):
    """Expects an error of exactly this kind, with all the parts in its message, in order."""
    return pytest.raises(kind, match="(?s)" + ".*".join(map(re.escape, parts)))


def update(solver, updates=None, state=None, params=PARAMS, **changes):
    """One good update at PARAMS, but for what is changed; a change to ``...`` leaves it out."""
    good = {"value": jnp.array(5.0), "grad": jax.grad(objective)(PARAMS), "value_fn": objective}
    arguments = {name: x for name, x in {**good, **changes}.items() if x is not ...}
    updates = PARAMS if updates is None else updates
    state = solver.init(PARAMS) if state is None else state
    return solver.update(updates, state, params, **arguments)


def replace(path, leaf):
    """PARAMS with another leaf at the path ``'w'`` or ``'layers'``."""
    return {**PARAMS, path: [leaf] if path == "layers" else leaf}


# Leaves that are no floats.


@each_solver
@pytest.mark.parametrize("leaf", [jnp.arange(3), jnp.ones(3, bool), 7], ids=["int", "bool", "7"])
def test_init_names_path_and_type_of_a_leaf_that_is_no_float(solver, leaf):
    dtype = str(jnp.asarray(leaf).dtype)
    with raises(TypeError, "params['layers'][0]", dtype, "real or complex float"):
        solver().init(replace("layers", leaf))


@each_solver
def test_init_names_a_leaf_of_8_bits(solver):
    with raises(TypeError, "params['layers'][0]", "float8_e5m2", "16 bits or more"):
        solver().init(replace("layers", jnp.ones(3, jnp.float8_e5m2)))


@each_solver
def test_init_names_a_leaf_that_is_no_array(solver):
    with raises(TypeError, "params['w']", "str"):
        solver().init(replace("w", "weights"))


@each_solver
def test_update_names_path_and_type_of_a_leaf_that_is_no_float(solver):
    with raises(TypeError, "params['layers'][0]", "int32", "real or complex float"):
        update(solver(), params=replace("layers", jnp.ones(3, jnp.int32)))


# Arguments of update.


@each_solver
@pytest.mark.parametrize("name", ["value", "grad", "value_fn"])
def test_missing_argument_is_named(solver, name):
    with raises(ValueError, "linesearch needs", name, "call update(updates, state, params"):
        update(solver(), **{name: ...})


@each_search
def test_all_missing_arguments_are_named_at_once(search):
    with raises(ValueError, "value, grad, value_fn"):
        update(search(), value=..., grad=..., value_fn=...)


@each_solver
def test_missing_params_are_named(solver):
    with raises(ValueError, "needs params"):
        update(solver(), params=None)


@each_solver
def test_missing_arguments_lead_to_the_cure_inside_another_chain(solver):
    with raises(ValueError, "optax.GradientTransformationExtraArgs(*solver)"):
        update(solver(), value=..., grad=..., value_fn=...)


@each_solver
def test_unused_keyword_arguments_are_named_with_what_value_fn_takes(solver):
    with raises(TypeError, "['momentum', 'zeal']", "value_fn(params)"):
        update(solver(), zeal=1.0, momentum=0.9)


@each_search
def test_value_that_is_no_scalar_is_named_with_its_shape(search):
    with raises(ValueError, "value", "(2,)"):
        update(search(), value=jnp.ones(2))


@each_search
def test_complex_value_is_named_with_its_dtype(search):
    with raises(TypeError, "value", "complex64"):
        update(search(), value=jnp.array(1j))


# The objective.


@each_solver
def test_value_fn_must_be_callable(solver):
    with raises(TypeError, "value_fn must be a function", "3"):
        update(solver(), value_fn=3)


@each_solver
def test_objective_that_returns_an_array_is_told_its_shape(solver):
    with raises(ValueError, "value_fn must return a scalar", "(3,)"):
        update(solver(), value_fn=lambda params: params["layers"][0])


@each_solver
@pytest.mark.parametrize(
    ("factor", "dtype"), [(1j, "complex64"), (jnp.int32(1), "int32")], ids=["complex", "integer"]
)
def test_objective_that_returns_no_real_float_is_told_its_dtype(solver, factor, dtype):
    with raises(TypeError, "value_fn must return a real float", dtype):
        update(solver(), value_fn=lambda params: jnp.array(1, jnp.asarray(factor).dtype))


@each_solver
@pytest.mark.parametrize("out", [None, "low"], ids=["None", "str"])
def test_objective_that_returns_no_number_is_told_what_it_returned(solver, out):
    with raises(TypeError, "value_fn must return a scalar", repr(out)):
        update(solver(), value_fn=lambda params: out)


@each_solver
def test_objective_that_returns_a_pair_is_told_of_has_aux(solver):
    with raises((TypeError, ValueError), "value_fn must return a scalar", "has_aux=True"):
        update(solver(), value_fn=lambda params: (objective(params), {"note": params["w"]}))


# Trees that do not fit.


@each_solver
@pytest.mark.parametrize("name", ["updates", "grad"])
def test_leaf_of_another_shape_is_named_with_both_shapes(solver, name):
    with raises(ValueError, f"{name}['layers'][0]", "(4,)", "params['layers'][0]", "(3,)"):
        update(solver(), **{name: replace("layers", jnp.ones(4))})


@each_solver
@pytest.mark.parametrize("name", ["updates", "grad"])
def test_missing_leaf_is_named(solver, name):
    with raises(ValueError, f"{name}['layers'][0]", "params['layers'][0]"):
        update(solver(), **{name: {"w": jnp.ones(2)}})


@each_solver
@pytest.mark.parametrize("name", ["updates", "grad"])
def test_superfluous_leaf_is_named(solver, name):
    with raises(ValueError, f"{name}['bias']", "params"):
        update(solver(), **{name: {**PARAMS, "bias": jnp.ones(1)}})


@each_solver
@pytest.mark.parametrize("name", ["updates", "grad"])
def test_other_containers_are_another_tree(solver, name):
    with raises(ValueError, name, "params"):
        update(solver(), **{name: {**PARAMS, "layers": (jnp.ones(3),)}})


@pytest.mark.parametrize("name", ["zoom", "backtracking_store_grad", "lbfgs"])
def test_state_of_other_params_is_named_with_both_shapes(name):
    solver = SOLVERS[name]()
    other = solver.init(replace("layers", jnp.ones(4)))
    with raises(ValueError, "state.", "['layers'][0]"):
        update(solver, state=other)


@each_search
def test_state_of_another_kind_is_named(search):
    with raises((TypeError, ValueError), "state"):
        update(search(), state=optax_ls.EmptyState())


# Settings.


@pytest.mark.parametrize("make", [optax_ls.lbfgs, optax_ls.scale_by_lbfgs])
@pytest.mark.parametrize("size", [0, -3])
def test_memory_size_below_one_is_refused(make, size):
    with raises(ValueError, "memory_size must be at least 1", str(size)):
        make(memory_size=size)


@pytest.mark.parametrize("make", [optax_ls.lbfgs, optax_ls.scale_by_lbfgs])
@pytest.mark.parametrize("size", [2.0, "ten", None, True])
def test_memory_size_must_be_an_integer(make, size):
    with raises(TypeError, "memory_size must be an integer", repr(size)):
        make(memory_size=size)


@pytest.mark.parametrize("size", [np.int64(2), jnp.array(2)], ids=["numpy", "jax"])
def test_memory_size_may_be_an_integer_of_numpy_or_jax(size):
    assert optax_ls.scale_by_lbfgs(size).init(jnp.ones(3)).weights_memory.shape == (2,)


OUT_OF_RANGE = {
    optax_ls.scale_by_zoom_linesearch: {
        "max_linesearch_steps": [0, -1],
        "max_learning_rate": [0, -1.0],
        "tol": [-1e-3],
        "increase_factor": [0.0, -2.0],
        "slope_rtol": [-0.1, 1.0],
        "curv_rtol": [-0.1],
        "approx_dec_rtol": [-1e-6],
        "stepsize_precision": [-1e-5],
    },
    optax_ls.scale_by_more_thuente_linesearch: {
        "max_linesearch_steps": [0, -1],
        "max_learning_rate": [0, -1.0],
        "slope_rtol": [-0.1, 1.0],
        "curv_rtol": [-0.1],
        "noise_rtol": [-1e-6],
        "interval_rtol": [-1e-5],
    },
    optax_ls.Zoom: {
        "max_steps": [0, -1],
        "max_step_size": [0, -1.0],
        "tol": [-1e-3],
        "increase_factor": [0.0, -2.0],
        "slope_rtol": [-0.1, 1.0],
        "curv_rtol": [-0.1],
        "approx_dec_rtol": [-1e-6],
        "stepsize_precision": [-1e-5],
    },
    optax_ls.MoreThuente: {
        "max_steps": [0, -1],
        "max_step_size": [0, -1.0],
        "slope_rtol": [-0.1, 1.0],
        "curv_rtol": [-0.1],
        "noise_rtol": [-1e-6],
        "interval_rtol": [-1e-5],
    },
    optax_ls.Backtracking: {
        "max_steps": [-1],
        "slope_rtol": [-0.1, 1.0],
        "decrease_factor": [-0.5, 0.0, 1.0, 1.5],
        "atol": [-1e-3],
        "rtol": [-1e-3],
    },
    optax_ls.scale_by_backtracking_linesearch: {
        "max_backtracking_steps": [-1],
        "slope_rtol": [-0.1, 1.0],
        "decrease_factor": [-0.5, 0.0, 1.0, 1.5],
        "increase_factor": [0.0, -2.0],
        "max_learning_rate": [0.0, -1.0],
        "atol": [-1e-3],
        "rtol": [-1e-3],
    },
}
INTEGERS = ("max_linesearch_steps", "max_backtracking_steps", "max_steps")
ALL_SETTINGS = [(make, name) for make, settings in OUT_OF_RANGE.items() for name in settings]
REALS = [(make, name) for make, name in ALL_SETTINGS if name not in INTEGERS]


def construct(make, name, setting):
    first = next(iter(OUT_OF_RANGE[make]))
    return make(**{first: 5, name: setting})


@pytest.mark.parametrize(
    ("make", "name", "setting"),
    [(make, name, bad) for make, name in ALL_SETTINGS for bad in OUT_OF_RANGE[make][name]],
)
def test_setting_out_of_range_is_named_with_its_bounds(make, name, setting):
    with raises(ValueError, f"{name} must be ", "than" if setting >= 1 else "", repr(setting)):
        construct(make, name, setting)


@pytest.mark.parametrize(("make", "name"), REALS)
def test_setting_that_is_not_a_number_is_out_of_range(make, name):
    with raises(ValueError, name, "nan"):
        construct(make, name, math.nan)


@pytest.mark.parametrize("setting", ["fast", 1j, np.ones(2), True], ids=repr)
@pytest.mark.parametrize(("make", "name"), REALS)
def test_setting_that_is_no_real_number_is_refused(make, name, setting):
    with raises(TypeError, f"{name} must be a real number", repr(setting)):
        construct(make, name, setting)


@pytest.mark.parametrize("setting", [2.5, "many", None])
@pytest.mark.parametrize(
    ("make", "name"), [(make, name) for make, name in ALL_SETTINGS if name in INTEGERS]
)
def test_number_of_steps_must_be_an_integer(make, name, setting):
    with raises(TypeError, f"{name} must be an integer", repr(setting)):
        construct(make, name, setting)


@pytest.mark.parametrize("strategy", ["two", "", None])
def test_unknown_strategy_is_refused_with_the_known_ones(strategy):
    with raises(ValueError, "initial_guess_strategy", "'one'", "'keep'", repr(strategy)):
        optax_ls.scale_by_zoom_linesearch(5, initial_guess_strategy=strategy)


@pytest.mark.parametrize("rate", ["fast", 1j, np.ones(3)], ids=repr)
@pytest.mark.parametrize(
    "make",
    [optax_ls.scale_by_learning_rate, optax_ls.sgd, optax_ls.lbfgs],
    ids=lambda f: f.__name__,
)
def test_learning_rate_must_be_a_number_or_a_schedule(make, rate):
    with raises(TypeError, "learning_rate must be a real number", repr(rate)):
        make(rate)


# Auxiliary output.


@each_search
def test_aux_like_needs_has_aux(search):
    with raises(ValueError, "aux_like", "has_aux=True"):
        search(aux_like=jnp.zeros(2))


@each_search
@pytest.mark.parametrize(
    "returned",
    [lambda f, x: f, lambda f, x: (f, x, x), lambda f, x: [f, x]],
    ids=["1", "3", "list"],
)
def test_has_aux_needs_a_pair(search, returned):
    with raises(TypeError, "has_aux=True", "value_fn must return (value, aux)"):
        update(search(has_aux=True), value_fn=lambda params: returned(objective(params), params))


@each_search
def test_aux_of_another_structure_than_aux_like_is_named(search):
    solver = search(has_aux=True, aux_like={"margin": jnp.zeros(2)})
    with raises(ValueError, "aux['margin']", "aux_like"):
        update(solver, value_fn=lambda params: (objective(params), {"slack": jnp.zeros(2)}))


@each_search
def test_aux_of_another_shape_than_aux_like_is_named_with_both_shapes(search):
    solver = search(has_aux=True, aux_like={"margin": jnp.zeros(2)})
    with raises(ValueError, "aux['margin']", "(3,)", "aux_like['margin']", "(2,)"):
        update(solver, value_fn=lambda params: (objective(params), {"margin": jnp.zeros(3)}))


@each_search
def test_aux_like_that_is_no_array_is_named(search):
    with raises(TypeError, "aux_like['note']", "str"):
        search(has_aux=True, aux_like={"note": "text"}).init(PARAMS)


# Chains.


@pytest.mark.parametrize("stranger", [3, jnp.sin, [optax_ls.identity()]], ids=["3", "sin", "list"])
def test_chain_names_the_argument_that_is_no_transformation(stranger):
    with raises(TypeError, "argument 1 of chain", "init and update", "got"):
        optax_ls.chain(optax_ls.identity(), stranger)


def test_lbfgs_refuses_a_linesearch_that_is_no_transformation():
    with raises(TypeError, "init and update", "'zoom'"):
        optax_ls.lbfgs(linesearch="zoom")


def test_with_extra_args_support_refuses_what_is_no_transformation():
    with raises(TypeError, "init and update", "3"):
        optax_ls.with_extra_args_support(3)


@pytest.mark.parametrize("length", [0, 1, 3])
def test_chain_refuses_a_state_of_another_length(length):
    solver = optax_ls.chain(optax_ls.identity(), optax_ls.identity())
    state = (optax_ls.EmptyState(),) * length
    with raises(ValueError, "chain of 2", f"state of {length}"):
        solver.update(PARAMS, state, PARAMS)


def test_chain_refuses_a_state_that_is_no_tuple():
    solver = optax_ls.chain(optax_ls.identity(), optax_ls.identity())
    with raises((TypeError, ValueError), "chain", "state"):
        solver.update(PARAMS, None, PARAMS)


# The value and gradient of a state.


def test_state_without_a_search_holds_no_value():
    value_and_grad = optax_ls.value_and_grad_from_state(objective)
    with raises(ValueError, "state", "no line search"):
        value_and_grad(PARAMS, state=optax_ls.sgd(0.1).init(PARAMS))


def test_state_with_two_searches_is_ambiguous():
    solver = optax_ls.chain(*(optax_ls.scale_by_zoom_linesearch(5) for _ in range(2)))
    value_and_grad = optax_ls.value_and_grad_from_state(objective)
    with raises(KeyError, "state", "2"):
        value_and_grad(PARAMS, state=solver.init(PARAMS))


def test_state_that_stores_no_gradient_leads_to_store_grad():
    solver = optax_ls.scale_by_backtracking_linesearch(5)
    value_and_grad = optax_ls.value_and_grad_from_state(objective)
    with raises(ValueError, "scale_by_backtracking_linesearch", "store_grad=True"):
        value_and_grad(PARAMS, state=solver.init(PARAMS))


def test_value_and_grad_names_params_that_do_not_fit_the_state():
    solver = optax_ls.lbfgs()
    value_and_grad = optax_ls.value_and_grad_from_state(objective)
    with raises(ValueError, "params['layers'][0]", "(4,)", "state", "(3,)"):
        value_and_grad(replace("layers", jnp.ones(4)), state=solver.init(PARAMS))


def test_value_and_grad_needs_a_scalar_objective():
    value_and_grad = optax_ls.value_and_grad_from_state(lambda params: params["w"])
    with raises(ValueError, "value_fn must return a scalar", "(2,)"):
        value_and_grad(PARAMS, state=optax_ls.lbfgs().init(PARAMS))


def test_value_and_grad_with_aux_needs_a_pair():
    value_and_grad = optax_ls.value_and_grad_from_state(objective, has_aux=True)
    with raises(TypeError, "has_aux=True", "(value, aux)"):
        value_and_grad(PARAMS, state=optax_ls.lbfgs().init(PARAMS))


def test_value_and_grad_refuses_what_is_no_function():
    with raises(TypeError, "value_fn must be a function", "3"):
        optax_ls.value_and_grad_from_state(3)(PARAMS, state=optax_ls.lbfgs().init(PARAMS))


# Line searches and transformations.


def test_search_in_place_of_a_transformation_leads_to_scale_by_linesearch():
    with raises(TypeError, "got MoreThuente(max_steps=9", "scale_by_linesearch"):
        optax_ls.lbfgs(linesearch=optax_ls.MoreThuente(9))


def test_object_in_place_of_a_transformation_is_named_without_its_address():
    with raises(TypeError, "init and update", "an object of type object"):
        optax_ls.chain(object())


# The rest.


def test_norm_refuses_an_unknown_order():
    with raises(ValueError, "ord must be None, 1, 2 or infinity", "3"):
        optax_ls.tree.norm(PARAMS, ord=3)


def test_get_lists_every_place_of_an_ambiguous_key():
    with raises(KeyError, "'w'", "2 times", "['a']['w']", "['b']['w']"):
        optax_ls.tree.get({"a": {"w": 1.0}, "b": {"w": 2.0}}, "w")


@each_solver
def test_errors_are_the_same_under_jit(solver):
    solver = solver()
    with raises(ValueError, "grad['layers'][0]", "(4,)", "params['layers'][0]", "(3,)"):
        jax.jit(lambda state: update(solver, state=state, grad=replace("layers", jnp.ones(4))))(
            solver.init(PARAMS)
        )
