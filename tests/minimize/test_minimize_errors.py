"""Wrong arguments of ``minimize`` fail before anything runs, with errors that name them."""

import math
import re
import sys
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_ls

pytestmark = pytest.mark.runtime

PARAMS = {"w": jnp.ones(2), "layers": [jnp.ones(3)]}


def objective(params):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))


def raises(kind, *parts):
    """Expects an error of exactly this kind, with all the parts in its message, in order."""
    return pytest.raises(kind, match="(?s)" + ".*".join(map(re.escape, parts)))


def minimize(fun=objective, params=PARAMS, **arguments):
    return optax_ls.minimize(fun, params, **{"memory_size": 2, "max_iters": 2, **arguments})


def replace(path, leaf):
    """PARAMS with another leaf at the path ``'w'`` or ``'layers'``."""
    return {**PARAMS, path: [leaf] if path == "layers" else leaf}


# Settings.

NO_NUMBER, NO_COUNT = "must be a real number", "must be an integer"
SETTINGS = {
    "memory_size": [
        (0, ValueError, "at least 1"),
        (-3, ValueError, "at least 1"),
        (1.5, TypeError, NO_COUNT),
        (True, TypeError, NO_COUNT),
        (None, TypeError, NO_COUNT),
        ("10", TypeError, NO_COUNT),
    ],
    "gtol": [
        (-1e-3, ValueError, "at least 0"),
        (math.nan, ValueError, "at least 0"),
        ("small", TypeError, NO_NUMBER),
        (1j, TypeError, NO_NUMBER),
        (np.ones(2), TypeError, NO_NUMBER),
        (True, TypeError, NO_NUMBER),
    ],
    "ftol": [
        (-1e-3, ValueError, "at least 0"),
        (math.nan, ValueError, "at least 0"),
        ("small", TypeError, NO_NUMBER),
        ([1e-3], TypeError, NO_NUMBER),
    ],
    "max_iters": [
        (-1, ValueError, "at least 0"),
        (10.0, TypeError, NO_COUNT),
        (None, TypeError, NO_COUNT),
        (True, TypeError, NO_COUNT),
        (np.ones(1, int), TypeError, NO_COUNT),
    ],
    "max_evals": [
        (0, ValueError, "at least 1"),
        (10.0, TypeError, NO_COUNT),
        ("all", TypeError, NO_COUNT),
    ],
    "max_linesearch_steps": [
        (0, ValueError, "at least 1"),
        (2.5, TypeError, NO_COUNT),
        ("many", TypeError, NO_COUNT),
    ],
    "linesearch": [
        ("wolfe", ValueError, "one of 'more_thuente', 'zoom', 'backtracking'"),
        (3, TypeError, "'more_thuente', 'zoom', 'backtracking', or a line search"),
        (None, TypeError, "'more_thuente', 'zoom', 'backtracking', or a line search"),
        (optax_ls.scale_by_zoom_linesearch(5), TypeError, "or a line search"),
    ],
    "callback": [
        (3, TypeError, "must be a function of an IterationInfo"),
        ("print", TypeError, "must be a function of an IterationInfo"),
    ],
}
CASES = [(name, *case) for name, cases in SETTINGS.items() for case in cases]


@pytest.mark.parametrize(
    ("name", "value", "kind", "wanted"), CASES, ids=[f"{c[0]}-{c[1]!s:.12}" for c in CASES]
)
def test_setting_out_of_range_is_named_with_what_was_wanted(name, value, kind, wanted):
    with raises(kind, name, wanted, "got"):
        minimize(**{name: value})


@pytest.mark.parametrize("core", [optax_ls.Zoom(5), optax_ls.MoreThuente(5)], ids=["zoom", "mt"])
def test_number_of_steps_is_not_for_a_core_that_has_its_own(core):
    with raises(ValueError, "max_linesearch_steps", "own limit"):
        minimize(linesearch=core, max_linesearch_steps=5)


def test_history_needs_to_know_its_rows():
    with raises(ValueError, "history=True", "max_iters must not be traced"):
        jax.jit(lambda k: minimize(history=True, max_iters=k))(3)


# Params.


@pytest.mark.parametrize("leaf", [jnp.arange(3), jnp.ones(3, bool), 7], ids=["int", "bool", "7"])
def test_leaf_that_is_no_float_is_named_with_path_and_type(leaf):
    dtype = str(jnp.asarray(leaf).dtype)
    with raises(
        TypeError, "params['layers'][0]", dtype, "real or complex float: convert it to float"
    ):
        minimize(params=replace("layers", leaf))


def test_leaf_of_8_bits_is_named():
    with raises(TypeError, "params['w']", "float8_e4m3fn", "16 bits or more, such as bfloat16"):
        minimize(params=replace("w", jnp.ones(2, jnp.float8_e4m3fn)))


@pytest.mark.parametrize("leaf", ["weights", objective], ids=["str", "function"])
def test_leaf_that_is_no_array_is_named(leaf):
    with raises(TypeError, "params['w']", type(leaf).__name__):
        minimize(params=replace("w", leaf))


@pytest.mark.parametrize("params", [None, {}, (None, [])], ids=["None", "dict", "tuple"])
def test_params_without_an_array_are_refused(params):
    with raises(TypeError, "params must hold at least one array", repr(params)):
        minimize(lambda params: 0.0, params)


def test_module_is_told_how_to_pass_its_arrays():
    with raises(TypeError, "params['activation']", "partition", "combine"):
        minimize(params={**PARAMS, "activation": jnp.tanh})


NOT_OF_JAX = {
    "big-endian": (">f4", ">f4", 'x.astype(x.dtype.newbyteorder("="))'),
    "little-endian": ("<f4", "<f4", 'x.astype(x.dtype.newbyteorder("="))'),
    "long double": (np.longdouble, str(np.dtype(np.longdouble)), "x.astype(float)"),
    "complex": (np.clongdouble, str(np.dtype(np.clongdouble)), "x.astype(complex)"),
}
NOT_OF_JAX.pop(f"{sys.byteorder}-endian")


@pytest.mark.parametrize(("dtype", "name", "remedy"), NOT_OF_JAX.values(), ids=NOT_OF_JAX)
def test_dtype_that_jax_does_not_have_is_named_with_the_remedy(dtype, name, remedy):
    data = {"x": np.ones(3, dtype)}
    with raises(TypeError, "params['w']", name, remedy):
        minimize(params=replace("w", data["x"]))
    with raises(TypeError, "args[0]['x']", name, remedy):
        minimize(lambda params, data: 0.0, args=(data,))
    with raises(TypeError, "kwargs['data']['x']", name, remedy):
        minimize(lambda params, data: 0.0, kwargs={"data": data})
    with raises(TypeError, "fun", name, remedy):
        minimize(jax.tree_util.Partial(lambda data, params: 0.0, data))


# Addresses of objects say nothing.


@pytest.mark.parametrize("name", ["gtol", "memory_size", "linesearch", "callback", "kwargs"])
def test_errors_print_no_address(name):
    with pytest.raises(TypeError) as caught:
        minimize(**{name: object()})
    assert "0x" not in str(caught.value)
    assert "object" in str(caught.value)


# The objective.


@pytest.mark.parametrize("fun", [3, None, "f", PARAMS], ids=["3", "None", "str", "dict"])
def test_fun_must_be_callable(fun):
    with raises(TypeError, "fun must be a function", "got"):
        minimize(fun)


RETURNED = {
    "array": (lambda p: p["layers"][0], ValueError, "(3,)"),
    "array_of_one": (lambda p: p["w"][:1], ValueError, "(1,)"),
    "integer": (lambda p: 3, TypeError, "real float", "int"),
    "bool": (lambda p: p["w"][0] > 0, TypeError, "real float", "bool"),
    "complex": (lambda p: p["w"][0] * 1j, TypeError, "real float", "complex64"),
    "none": (lambda p: None, TypeError, "None"),
    "string": (lambda p: "low", TypeError, "'low'"),
    "dict": (lambda p: {"loss": 1.0}, TypeError, "dict"),
    "pair": (lambda p: (1.0, 2.0), TypeError, "has_aux=True"),
}


@pytest.mark.parametrize("case", RETURNED.values(), ids=RETURNED)
def test_fun_must_return_a_real_scalar(case):
    fun, kind, *parts = case
    with raises(kind, "fun must return a", *parts):
        minimize(fun)


@pytest.mark.parametrize(
    "returned",
    [lambda f, x: f, lambda f, x: (f, x, x), lambda f, x: [f, x]],
    ids=["1", "3", "list"],
)
def test_has_aux_needs_a_pair(returned):
    with raises(TypeError, "has_aux=True", "fun must return (value, aux)"):
        minimize(lambda p: returned(objective(p), p), has_aux=True)


def test_a_traced_value_in_place_of_a_pair_is_described():
    with raises(TypeError, "fun must return (value, aux), got an array of shape ()"):
        minimize(has_aux=True)


def test_has_aux_needs_a_scalar_value():
    with raises(ValueError, "fun must return a scalar", "(2,)"):
        minimize(lambda p: (p["w"], p), has_aux=True)


def test_argument_that_fun_does_not_take_is_named():
    with raises(TypeError, "zeal"):
        minimize(kwargs={"zeal": 1.0})


@pytest.mark.parametrize("args", [3.0, {"a": 1.0}, jnp.ones(2)], ids=["3.0", "dict", "array"])
def test_args_must_be_a_tuple_or_a_list(args):
    with raises(TypeError, "args", "tuple"):
        minimize(lambda p, *_: objective(p), args=args)


@pytest.mark.parametrize("kwargs", [3.0, (1.0,), "ab"], ids=["3.0", "tuple", "str"])
def test_kwargs_must_be_a_dict(kwargs):
    with raises(TypeError, "kwargs", "dict"):
        minimize(lambda p, **_: objective(p), kwargs=kwargs)


def branching(x):
    return x[0] if x[0] > 0 else -x[0]


UNTRACEABLE = {
    "if": (branching, jax.errors.TracerBoolConversionError, "jax.lax.cond"),
    "numpy": (lambda x: np.exp(x)[0], jax.errors.TracerArrayConversionError, "jax.pure_callback"),
    "float": (lambda x: float(x[0]), jax.errors.ConcretizationTypeError, "jax.numpy"),
}


@pytest.mark.parametrize(("fun", "kind", "advice"), UNTRACEABLE.values(), ids=UNTRACEABLE)
@pytest.mark.parametrize("value_and_grad", [False, True])
def test_function_that_cannot_be_traced_is_told_what_to_do(fun, kind, advice, value_and_grad):
    with pytest.raises(kind) as caught:
        minimize(fun, jnp.ones(2), value_and_grad=value_and_grad)
    begin, _, rest = str(caught.value).partition("\n\n")
    assert begin.startswith("fun ")
    assert advice in begin
    assert "traced" in rest.lower()


def test_advice_on_value_fn_is_the_same():
    with raises(jax.errors.TracerBoolConversionError, "value_fn has a Python condition"):
        params = jnp.ones(2)
        solver = optax_ls.scale_by_zoom_linesearch(5)
        gradient = {"value": jnp.ones(()), "grad": params, "value_fn": branching}
        solver.update(-params, solver.init(params), params, **gradient)


def last_frame(call):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        call()
    return traceback.extract_tb(caught.value.__traceback__)[-1]


MISTAKES = {
    "setting": {"gtol": -1.0},
    "params": {"params": None},
    "returned": {"fun": lambda p: p},
    "search": {"linesearch": "fast"},
    "state": {"state": 3},
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_traceback_of_a_mistake_ends_in_minimize(mistake):
    assert last_frame(lambda: minimize(**mistake)).name == "minimize"


def test_traceback_of_an_error_in_fun_ends_there():
    def failing(x):
        return undefined + jnp.sum(x)  # noqa: F821

    assert last_frame(lambda: minimize(failing, jnp.ones(2))).name == "failing"
    assert last_frame(lambda: minimize(branching, jnp.ones(2))).name == "branching"


def test_traceback_of_a_mistake_in_an_inner_call_ends_in_fun():
    def outer(x):
        return minimize(lambda y: y, x).value

    assert last_frame(lambda: minimize(outer, jnp.ones(2))).name in ("outer", "minimize")


def test_auxiliary_output_that_is_no_array_is_named():
    with raises(TypeError, "aux['note']", "must be a number or an array", "'text' of type str"):
        minimize(lambda params: (objective(params), {"note": "text"}), has_aux=True)


# A gradient of the user's own.


def with_gradient(grad):
    return lambda params: (objective(params), grad(jax.grad(objective)(params)))


def test_value_and_grad_needs_a_pair():
    with raises(TypeError, "value_and_grad=True", "fun must return (value, grad)"):
        minimize(value_and_grad=True)


def test_value_and_grad_with_aux_needs_a_pair_of_a_pair():
    with raises(TypeError, "fun must return (value, aux)"):
        minimize(with_gradient(lambda grad: grad), value_and_grad=True, has_aux=True)


def test_value_and_grad_with_aux_needs_a_pair_at_all():
    with raises(TypeError, "value_and_grad=True", "fun must return ((value, aux), grad)"):
        minimize(value_and_grad=True, has_aux=True)


def test_gradient_of_another_structure_is_named():
    with raises(ValueError, "grad['layers']", "missing", "params['layers']"):
        minimize(with_gradient(lambda grad: {"w": grad["w"]}), value_and_grad=True)


def test_gradient_of_another_shape_is_named_with_both_shapes():
    with raises(ValueError, "grad['w']", "(1,)", "params['w']", "(2,)"):
        minimize(with_gradient(lambda grad: {**grad, "w": grad["w"][:1]}), value_and_grad=True)


def test_complex_gradient_of_real_params_is_named():
    with raises(TypeError, "grad['w']", "complex64"):
        minimize(with_gradient(lambda grad: {**grad, "w": grad["w"] * 1j}), value_and_grad=True)


# States.


@pytest.fixture(scope="module")
def state():
    return minimize(max_iters=0).state


@pytest.mark.parametrize(
    "stranger",
    [3, PARAMS, (), optax_ls.lbfgs().init(PARAMS)],
    ids=["3", "params", "tuple", "lbfgs"],
)
def test_state_of_another_solver_is_refused(stranger):
    with raises(TypeError, "state of minimize is a MinimizeState", "got", type(stranger).__name__):
        minimize(state=stranger)


def test_result_in_place_of_its_state_is_refused():
    with raises(TypeError, "MinimizeState", "got MinimizeResult; pass its field state"):
        minimize(state=minimize(max_iters=0))


def test_state_of_another_memory_is_refused(state):
    with raises(ValueError, "state has a memory of 2 pairs", "memory_size is 3"):
        minimize(state=state, memory_size=3)


def test_state_of_another_number_of_bits_is_refused(state, enable_x64):
    with enable_x64(True), raises(TypeError, "counters", "int32", "int64", "jax_enable_x64"):
        minimize(params=jax.tree.map(lambda p: p.astype("float32"), PARAMS), state=state)


def test_state_of_another_search_is_refused(state):
    with raises(ValueError, "another line search", "linesearch needs"):
        minimize(state=state, linesearch="zoom")


def test_state_of_params_of_another_structure_is_refused(state):
    with raises(ValueError, "params['layers'][0] is missing", "state"):
        minimize(params={"w": jnp.ones(2)}, state=state)


def test_state_of_params_of_another_shape_is_refused(state):
    with raises(ValueError, "params['w']", "(4,)", "state", "(2,)"):
        minimize(params=replace("w", jnp.ones(4)), state=state)


def test_state_of_params_of_another_dtype_is_refused(state):
    with raises(TypeError, "params['w']", "bfloat16", "state", "float32"):
        minimize(params=replace("w", jnp.ones(2, "bfloat16")), state=state)


def test_state_without_auxiliary_output_is_refused_where_there_is_some(state):
    with raises(ValueError, "state", "aux"):
        minimize(lambda p: (objective(p), p["w"]), state=state, has_aux=True)


# The inverse Hessian.


def test_state_without_a_memory_has_no_inverse_hessian():
    with raises(ValueError, "no memory of L-BFGS", "EmptyState"):
        optax_ls.inverse_hessian(optax_ls.EmptyState())


def test_state_with_two_memories_has_no_inverse_hessian():
    state = optax_ls.chain(*(optax_ls.scale_by_lbfgs(1) for _ in range(2))).init(PARAMS)
    with raises(KeyError, "2 times"):
        optax_ls.inverse_hessian(state)


def test_inverse_hessian_names_a_leaf_that_is_unlike_the_params(state):
    with raises(ValueError, "v['w']", "(3,)", "params['w']", "(2,)"):
        optax_ls.inverse_hessian(state)(replace("w", jnp.ones(3)))


def test_dense_inverse_hessian_of_complex_params_is_refused():
    state = optax_ls.scale_by_lbfgs(1).init(jnp.ones(2, complex))
    with raises(TypeError, "real params", "complex"):
        optax_ls.inverse_hessian(state).dense()


# Under jit.


def test_errors_are_the_same_under_jit():
    with raises(ValueError, "fun must return a scalar", "(2,)"):
        jax.jit(lambda params: minimize(lambda p: p["w"], params))(PARAMS)


def test_failed_call_leaves_nothing_behind():
    calls = []

    def fun(params):
        calls.append(None)
        return objective(params) if len(calls) > 1 else params["w"]

    with raises(ValueError, "fun must return a scalar"):
        minimize(fun)
    assert minimize(fun).success
