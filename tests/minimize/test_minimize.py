"""``minimize`` finds the minimum of anything that may be called, over any tree of floats."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bestiary import rosenbrock
from trees import ONLY_WITH_X64, TREES, objective, signature, vector

import optax_ls

CORES = {
    "more_thuente": optax_ls.MoreThuente(30, curv_rtol=0.45),
    "zoom": optax_ls.Zoom(30),
    "backtracking": optax_ls.Backtracking(30, decrease_factor=0.5),
}
each_linesearch = pytest.mark.parametrize("linesearch", CORES)
double = pytest.mark.parametrize("x64", [True], indirect=True)

# The shortest program.
minimize_briefly = functools.partial(
    optax_ls.minimize, memory_size=1, linesearch="backtracking", max_iters=50
)


def minimize_rosenbrock(linesearch="more_thuente", **settings):
    return optax_ls.minimize(
        rosenbrock, jnp.array([-1.2, 1, -1.2, 1]), memory_size=3, linesearch=linesearch, **settings
    )


# Params.

MODES = [(tree, x64) for x64 in (False, True) for tree in TREES if x64 or tree not in ONLY_WITH_X64]
each_tree = pytest.mark.parametrize(
    ("tree", "x64"),
    MODES,
    ids=[f"{tree}-{'x64' if x64 else 'x32'}" for tree, x64 in MODES],
    indirect=["x64"],
)
REACHED = {
    "float16": (False, 2e-3),
    "bfloat16": (False, 2e-2),
    "python_floats": (False, 1e-5),
    "bfloat16+complex128": (True, 2e-2),
}


@functools.cache
def traced(tree, x64):
    """The types of a result and of what the objective was given, without computing anything."""
    seen = []

    def recorded(params):
        seen.append(signature(params))
        return objective(params)

    def run(params, state=None):
        return optax_ls.minimize(recorded, params, memory_size=2, state=state)

    params = TREES[tree]()
    first, result = jax.make_jaxpr(run, return_shape=True)(params)
    second = jax.make_jaxpr(run)(params, result.state)
    structure = jax.tree.structure(result)
    return (
        params,
        seen,
        *(
            jax.tree.unflatten(structure, [type_of(aval) for aval in jaxpr.out_avals])
            for jaxpr in (first, second)
        ),
    )


def type_of(x):
    return f"{x.dtype}{list(x.shape)}{' weak' if x.weak_type else ''}"


def types(tree):
    return jax.tree.map(lambda leaf: type_of(jnp.asarray(leaf)), tree)


@each_tree
def test_params_keep_their_types(tree, x64):
    params, _, result, _ = traced(tree, x64)
    assert result.params == types(params)


@each_tree
def test_objective_sees_the_types_of_the_user(tree, x64):
    params, seen, _, _ = traced(tree, x64)
    assert set(seen) == {signature(params)}


@each_tree
def test_types_of_the_result_are_those_of_a_resumed_one(tree, x64):
    _, _, first, second = traced(tree, x64)
    assert first == second


@each_tree
def test_state_and_gradient_have_no_weak_types(tree, x64):
    _, _, result, _ = traced(tree, x64)
    assert not [leaf for leaf in jax.tree.leaves((result.state, result.grad)) if "weak" in leaf]


@each_tree
def test_scalars_have_the_widest_real_float_and_counters_the_integer(tree, x64):
    _, _, result, _ = traced(tree, x64)
    wide = any("64" in leaf and "complex64" not in leaf for leaf in jax.tree.leaves(result.params))
    wide = wide or any("complex128" in leaf for leaf in jax.tree.leaves(result.params))
    assert result.value == f"float{64 if wide else 32}[]"
    assert {result.num_iters, result.num_evals, result.status} == {f"int{64 if x64 else 32}[]"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tree", "x64", "tolerance"),
    [(tree, *case) for tree, case in REACHED.items()],
    indirect=["x64"],
    ids=REACHED,
)
def test_minimum_is_reached_as_closely_as_the_dtype_allows(tree, x64, tolerance):
    params = TREES[tree]()
    result = optax_ls.minimize(objective, params, memory_size=1)
    assert signature(result.params) == signature(params)
    assert result.success
    for leaf in jax.tree.leaves(result.params):
        leaf = np.asarray(leaf)
        target = 1 + 1j if np.iscomplexobj(leaf) else 1
        assert np.all(np.abs(leaf.astype(np.result_type(leaf, np.float32)) - target) <= tolerance)


def test_nothing_to_optimise_is_a_minimum():
    params = {"empty": jnp.zeros((0, 3)), "none": None}
    result = minimize_briefly(lambda params: jnp.float32(3.0), params)
    assert (result.value, result.num_iters, result.num_evals) == (3.0, 0, 1)
    assert result.success
    assert signature(result.params) == signature(params)


def test_numpy_params_are_arrays_of_jax_afterwards():
    result = minimize_briefly(objective, np.zeros(3, "float32"))
    assert isinstance(result.params, jax.Array)


def test_params_given_are_not_changed():
    params = np.zeros(3, "float32")
    minimize_briefly(objective, params)
    np.testing.assert_array_equal(params, 0)


# Line searches.


@double
@each_linesearch
def test_each_linesearch_finds_the_minimum(linesearch, x64):
    result = minimize_rosenbrock(linesearch)
    assert result.success
    np.testing.assert_allclose(result.params, 1, rtol=1e-7)


@double
@each_linesearch
def test_linesearch_by_name_is_the_core_with_its_settings(linesearch, x64):
    by_name, core = minimize_rosenbrock(linesearch), minimize_rosenbrock(CORES[linesearch])
    assert by_name.num_evals == core.num_evals
    np.testing.assert_array_equal(by_name.params, core.params)


@each_linesearch
def test_max_linesearch_steps_is_the_limit_of_the_core(linesearch):
    core = dataclasses.replace(CORES[linesearch], max_steps=7)

    def program(linesearch, steps=None):
        run = lambda x: optax_ls.minimize(  # noqa: E731
            rosenbrock, x, linesearch=linesearch, max_linesearch_steps=steps
        )
        return jax.jit(run).lower(jnp.ones(4)).as_text()

    assert program(linesearch, 7) == program(core) != program(linesearch)


# What fun is called with.


def fit(params, inputs, how, scale_of, *, targets, power=2.0, options=None):
    assert options == {"label": "a", "axes": (0, None)} or options is None
    error = scale_of(inputs) * params - targets["values"]
    return jnp.sum(jnp.abs(error) ** power) if how == "sum" else jnp.mean(jnp.abs(error) ** power)


def double_of(x):
    return 2 * x


def test_args_and_kwargs_are_arrays_or_anything_else():
    inputs, targets = jnp.array([1.0, 2.0]), {"values": np.array([2.0, 8.0], "float32")}
    result = optax_ls.minimize(
        fit,
        jnp.zeros(2),
        args=(inputs, "sum", double_of),
        kwargs={"targets": targets, "power": 2.0, "options": None},
        memory_size=2,
    )
    np.testing.assert_allclose(result.params, [1, 2], rtol=1e-5)


def test_other_words_in_args_are_another_function():
    fun = lambda x, sign: x**2 if sign == "plus" else (x - 1) ** 2  # noqa: E731
    assert abs(minimize_briefly(fun, 3.0, args=("plus",)).params) < 1e-3
    assert abs(minimize_briefly(fun, 3.0, args=("minus",)).params - 1) < 1e-3


def test_args_without_a_hash_work():
    fun = lambda x, words: (x - len(words)) ** 2  # noqa: E731
    result = minimize_briefly(fun, 0.5, args=({"a", "b"},))
    np.testing.assert_allclose(result.params, 2, rtol=1e-3)


# Auxiliary output and gradients of one's own.


def smooth(x):
    return jnp.sum(jnp.cosh(x - 1))


def with_aux(x):
    return smooth(x), {"doubled": 2 * x, "steps": 3, "none": None, "deep": [x[0] > 0]}


RETURNING = {
    (True, False): with_aux,
    (False, True): jax.value_and_grad(smooth),
    (True, True): jax.value_and_grad(with_aux, has_aux=True),
}
each_return = pytest.mark.parametrize(("has_aux", "value_and_grad"), RETURNING)


@functools.cache
def minimize_returning(has_aux, value_and_grad):
    fun = RETURNING[has_aux, value_and_grad]
    return minimize_briefly(fun, jnp.zeros(2), has_aux=has_aux, value_and_grad=value_and_grad)


@each_return
def test_objective_may_return_aux_and_its_gradient(has_aux, value_and_grad):
    result = minimize_returning(has_aux, value_and_grad)
    assert result.success
    np.testing.assert_allclose(result.params, 1, atol=1e-4)
    np.testing.assert_allclose(result.grad, jax.grad(smooth)(result.params), atol=1e-6)


@pytest.mark.parametrize("value_and_grad", [False, True])
def test_aux_is_that_at_the_params(value_and_grad):
    result = minimize_returning(True, value_and_grad)
    wanted = with_aux(result.params)[1]
    assert jax.tree.structure(result.aux) == jax.tree.structure(wanted)
    np.testing.assert_array_equal(result.aux["doubled"], wanted["doubled"])
    assert (result.aux["steps"], result.aux["deep"][0]) == (3, True)


def test_aux_is_none_without_has_aux():
    assert minimize_briefly(objective, vector("float32")).aux is None


def test_gradient_of_complex_params_is_as_jax_gives_it():
    result = minimize_briefly(objective, vector("complex64"), max_iters=1)
    np.testing.assert_allclose(result.grad, jax.grad(objective)(result.params), rtol=1e-4)


def test_own_gradient_of_complex_params_is_taken_as_jax_gives_it():
    fun = jax.value_and_grad(objective)
    result = optax_ls.minimize(fun, vector("complex64"), value_and_grad=True, memory_size=1)
    assert result.success
    np.testing.assert_allclose(result.params, 1 + 1j, atol=1e-4)


# Callables.


class Distance:
    """From a centre, as a method and by a call."""

    def __init__(self, centre):
        self.centre = centre

    def __call__(self, x):
        return (x - self.centre) ** 2

    def squared(self, x):
        return (x - self.centre) ** 2

    @classmethod
    def from_four(cls, x):
        return (x - 4.0) ** 2


class Module(eqx.Module):
    centre: jax.Array
    power: int = eqx.field(static=True)

    def __call__(self, x):
        return jnp.sum(jnp.abs(x - self.centre) ** self.power)

    def squared(self, x):
        return self(x)


def distance(x, centre=2.0):
    return (x - centre) ** 2


CALLABLES = {
    "function": (distance, 2),
    "lambda": (lambda x: (x - 3) ** 2, 3),
    "partial": (functools.partial(distance, centre=4.0), 4),
    "object": (Distance(6.0), 6),
    "method": (Distance(7.0).squared, 7),
    "classmethod": (Distance.from_four, 4),
    "tree_partial": (jax.tree_util.Partial(distance, centre=8.0), 8),
    "module": (Module(jnp.array(9.0), 2), 9),
    "method_of_module": (Module(jnp.array(10.0), 2).squared, 10),
    "jitted": (jax.jit(distance), 2),
}


@pytest.mark.parametrize(("fun", "centre"), CALLABLES.values(), ids=CALLABLES)
def test_anything_that_may_be_called_is_minimised(fun, centre):
    with jax.disable_jit():  # compiles nothing, so shows that this works as well
        result = minimize_briefly(fun, jnp.float32(0.5))
    np.testing.assert_allclose(result.params, centre, rtol=1e-3)


def test_methods_of_two_objects_are_two_functions():
    near, far = Distance(1.0), Distance(12.0)
    for this in (near, far, near):
        np.testing.assert_allclose(
            minimize_briefly(this.squared, 0.5).params, this.centre, rtol=1e-3
        )


def test_arrays_of_a_module_are_data():
    for centre in (1.0, 2.0, 1.0):
        np.testing.assert_allclose(
            minimize_briefly(Module(jnp.array(centre), 2), 0.5).params, centre, rtol=1e-3
        )


def test_static_fields_of_a_module_make_another_function():
    for power in (2, 4):
        result = minimize_briefly(Module(jnp.array(1.0), power), 3.0, max_iters=0)
        assert result.value == 2**power


def test_module_may_be_the_params():
    layer = eqx.nn.Linear(2, 1, key=jax.random.key(0))
    inputs = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    targets = jnp.array([1.0, 3.0, 4.0])

    def loss(layer):
        return jnp.mean((jax.vmap(layer)(inputs)[:, 0] - targets) ** 2)

    result = optax_ls.minimize(loss, layer, memory_size=3)
    assert isinstance(result.params, eqx.nn.Linear)
    np.testing.assert_allclose(result.params.weight, [[2, 3]], rtol=1e-3)
    np.testing.assert_allclose(result.params.bias, [1], rtol=1e-3)
