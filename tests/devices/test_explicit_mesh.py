"""On a mesh with explicit axes, states and results are sharded like the params.

The mesh is that of the params; some tests also run where the user has set it.
"""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from promises import fails_without, needs

import optax_ls

pytestmark = [
    pytest.mark.runtime,
    pytest.mark.slow,
    needs("mesh with explicit axes"),
    pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices"),
]

SPECS = {
    "rows": PartitionSpec("i"),
    "blocks": PartitionSpec("j", None, "i"),
    "everywhere": PartitionSpec(("i", "j")),
    "copied": PartitionSpec(),
    "scalar": PartitionSpec(),
}
SHAPES = {"rows": (8, 3), "blocks": (2, 3, 4), "everywhere": (8,), "copied": (5,), "scalar": ()}
SETTINGS = {"memory_size": 2, "max_iters": 6}


def start():
    return {
        name: jnp.sin(jnp.arange(1.0, 1 + np.prod(shape, dtype=int))).reshape(shape)
        for name, shape in SHAPES.items()
    }


def explicit_mesh(*shape):
    kinds = (jax.sharding.AxisType.Explicit,) * len(shape)
    return jax.make_mesh(shape, ("i", "j")[: len(shape)], axis_types=kinds)


def set_mesh(mesh):
    return jax.set_mesh(mesh) if hasattr(jax, "set_mesh") else jax.sharding.use_mesh(mesh)


def placed(mesh):
    return jax.device_put(
        start(), {name: NamedSharding(mesh, spec) for name, spec in SPECS.items()}
    )


@pytest.fixture
def sharded(request):
    """The params, on a mesh that is not set, unless the test asks for it."""
    mesh = explicit_mesh(4, 2)
    with set_mesh(mesh) if getattr(request, "param", "") == "set" else contextlib.nullcontext():
        yield placed(mesh)


set_or_not = pytest.mark.parametrize("sharded", ["not set", "set"], indirect=True)


def objective(params, c=1.0):
    """A bowl of degree four; leaves meet in scalars only."""
    return sum(jnp.sum((leaf - c) ** 2 + leaf**4) for leaf in params.values())


@functools.cache
def on_one_device(run):
    """The result of a function of the params that several tests compare with."""
    return run(start())


def assert_alike(found, wanted, params):
    """Numbers agree to rounding, and what stands for a leaf of the params is sharded like it."""
    for (path, leaf), other in zip(
        jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(wanted), strict=True
    ):
        np.testing.assert_allclose(leaf, other, rtol=1e-3, atol=1e-4, err_msg=str(path))
        name = getattr(path[-1], "key", None)
        if name in SHAPES:
            spec = PartitionSpec(*[None] * (leaf.ndim - len(SHAPES[name])), *SPECS[name])
            sharding = NamedSharding(params[name].sharding.mesh, spec)
            assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim), path


def vectors(result):
    """The trees like the params, and the numbers, of a result; other numbers may be rounding."""
    memory = result.state.memory
    return result.params, result.grad, result.value, memory.params, memory.diff_params_memory


@pytest.mark.parametrize("linesearch", ["more_thuente", "zoom", "backtracking"])
def test_minimize(sharded, linesearch):
    run = jax.jit(lambda p: optax_ls.minimize(objective, p, linesearch=linesearch, **SETTINGS))
    assert_alike(vectors(run(sharded)), vectors(run(start())), sharded)


def with_bounds_a_history_and_a_callback(params):
    seen = []
    upper = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.3), params)
    result = optax_ls.minimize(
        objective,
        params,
        bounds=(-1, upper),
        history=True,
        callback=lambda info: seen.append(info.params["rows"][0, 0]),
        **SETTINGS,
    )
    assert len(seen) == result.num_iters + 1
    assert "MinimizeResult" in str(result)
    return result.params, result.active, result.history.value


@set_or_not
def test_minimize_with_bounds_a_history_and_a_callback(sharded):
    run = with_bounds_a_history_and_a_callback
    assert_alike(run(sharded), on_one_device(run), sharded)


def test_minimize_goes_on_with_the_same_bits(sharded):
    whole = optax_ls.minimize(objective, sharded, **SETTINGS)
    half = optax_ls.minimize(objective, sharded, memory_size=2, max_iters=3)
    rest = optax_ls.minimize(objective, sharded, memory_size=2, max_iters=3, state=half.state)
    jax.tree.map(np.testing.assert_array_equal, rest.params, whole.params)


@set_or_not
def test_auxiliary_output_is_sharded_alike(sharded):
    def with_aux(params):
        return objective(params), jax.tree.map(jnp.cos, params)

    result = optax_ls.minimize(with_aux, sharded, has_aux=True, **SETTINGS)
    assert_alike(result.aux, jax.tree.map(jnp.cos, result.params), sharded)


def test_inverse_hessian(sharded):
    def products(params):
        inverse = optax_ls.inverse_hessian(optax_ls.minimize(objective, params, **SETTINGS))
        return inverse(params), inverse.dense()

    assert_alike(products(sharded), products(start()), sharded)


@jax.jit
def derivative(params):
    def minimum(c):
        settings = {"memory_size": 2, "implicit_diff": True}
        return optax_ls.minimize(objective, params, args=(c,), **settings).params

    return jax.jvp(minimum, (jnp.ones(()),), (jnp.ones(()),))[1]


@set_or_not
def test_derivative_of_the_minimum(sharded):
    assert_alike(derivative(sharded), on_one_device(derivative), sharded)


@needs("explicit axes: `vmap` over an unsharded axis")
def test_minima_of_a_batch_that_is_on_every_device(sharded):
    def minima(rows, targets):
        def minimum(rows, c):
            return optax_ls.minimize(objective, rows, args=(c,), **SETTINGS).params

        return jax.jit(jax.vmap(minimum, in_axes=(None, 0)))({"rows": rows}, targets)

    targets = jnp.array([0.5, 1.0])
    assert_alike(minima(sharded["rows"], targets), minima(start()["rows"], targets), sharded)


def minimum(c):
    return optax_ls.minimize(quartic, c * 0, args=(c,), **SETTINGS).params


def minimum_within_bounds(c):
    settings = {"bounds": (-1.0, 20.0), "linesearch": "zoom", **SETTINGS}
    return optax_ls.minimize(quartic, c * 0, args=(c,), history=True, **settings).params


def derivative_of_minimum(c):
    def minimum(c):
        return optax_ls.minimize(quartic, c * 0, args=(c,), implicit_diff=True).params

    return jax.jvp(minimum, (c,), (c,))[1]


def scan_of_lbfgs(c, **settings):
    solver, fun = optax_ls.lbfgs(memory_size=2, **settings), functools.partial(quartic, c=c)

    def step(carry, _):
        params, state = carry
        value, grad = optax_ls.value_and_grad_from_state(fun)(params, state=state)
        updates, state = solver.update(grad, state, params, value=value, grad=grad, value_fn=fun)
        return (optax_ls.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (c * 0, solver.init(c * 0)), length=4)[0][0]


def quartic(x, c):
    return jnp.sum((x - c) ** 2 + (x - c) ** 4)


OF_BATCHES = {
    "minimize": minimum,
    "bounds": minimum_within_bounds,
    "derivative": derivative_of_minimum,
    "zoom": scan_of_lbfgs,
    "more_thuente": functools.partial(
        scan_of_lbfgs, linesearch=optax_ls.scale_by_more_thuente_linesearch(20)
    ),
    "backtracking": functools.partial(
        scan_of_lbfgs, linesearch=optax_ls.scale_by_backtracking_linesearch(20, store_grad=True)
    ),
}


@fails_without("explicit axes: `vmap` over a sharded axis")
@pytest.mark.parametrize("is_set", [False, True], ids=["not set", "set"])
@pytest.mark.parametrize("name", OF_BATCHES)
def test_batch_that_is_sharded(name, is_set):
    mesh = explicit_mesh(4, 2)
    targets = jnp.arange(32.0).reshape(8, 4)
    sharded = jax.device_put(targets, NamedSharding(mesh, PartitionSpec("i", "j")))
    run = jax.jit(jax.vmap(OF_BATCHES[name]))
    with set_mesh(mesh) if is_set else contextlib.nullcontext():
        found = run(sharded)
    np.testing.assert_allclose(found, on_one_device_of_batches(name), rtol=1e-3, atol=1e-4)
    assert found.sharding.is_equivalent_to(sharded.sharding, 2)


@functools.cache
def on_one_device_of_batches(name):
    return jax.jit(jax.vmap(OF_BATCHES[name]))(jnp.arange(32.0).reshape(8, 4))


@fails_without("explicit axes: `vmap` over a sharded axis")
def test_jax_itself_selects_one_of_two_numbers_in_a_batch_that_is_sharded():
    """Where it cannot, no program with such a selection has a ``vmap``, ours among them."""
    mesh = explicit_mesh(8)
    batch = jax.device_put(jnp.arange(8.0), NamedSharding(mesh, PartitionSpec("i")))
    number = jax.device_put(2.0, NamedSharding(mesh, PartitionSpec()))
    select = jax.vmap(lambda c, x: jnp.where(c > 3, x, -x), in_axes=(0, None))
    np.testing.assert_array_equal(jax.jit(select)(batch, number), [-2] * 4 + [2] * 4)


SOLVERS = {
    "zoom": optax_ls.lbfgs(memory_size=2),
    "more_thuente": optax_ls.lbfgs(
        memory_size=2, linesearch=optax_ls.scale_by_more_thuente_linesearch(20)
    ),
    "backtracking": optax_ls.lbfgs(
        memory_size=2, linesearch=optax_ls.scale_by_backtracking_linesearch(20, store_grad=True)
    ),
    "own search, momentum": optax_ls.chain(
        optax_ls.sgd(0.1, momentum=0.5), optax_ls.scale_by_linesearch(optax_ls.MoreThuente(20))
    ),
    "schedule": optax_ls.lbfgs(lambda count: 0.1, memory_size=2, linesearch=None),
}


@functools.cache
def steps(name):
    """A function of the params that makes three steps of a solver, compiled once."""
    solver, traces = SOLVERS[name], []

    @jax.jit
    def step(params, state):
        traces.append(1)
        value, grad = jax.value_and_grad(objective)(params)
        if name != "schedule":
            value, grad = optax_ls.value_and_grad_from_state(objective)(params, state=state)
        updates, state = solver.update(
            grad, state, params, value=value, grad=grad, value_fn=objective
        )
        return optax_ls.apply_updates(params, updates), state

    def run(params):
        traces.clear()
        state = solver.init(params)
        for _ in range(3):
            params, state = step(params, state)
        assert len(traces) == 1
        return params, state

    return run


@pytest.mark.parametrize(
    ("name", "sharded"),
    [*((name, "not set") for name in SOLVERS), ("zoom", "set")],
    indirect=["sharded"],
)
def test_steps_of_a_solver_with_one_trace(sharded, name):
    assert_alike(steps(name)(sharded), on_one_device(steps(name)), sharded)


def test_directions_without_jit(sharded):
    def directions(params):
        solver = optax_ls.scale_by_lbfgs(memory_size=2)
        _, state = solver.update(params, solver.init(params), params)
        further = jax.tree.map(lambda leaf: 2 * leaf, params)
        return solver.update(further, state, further)

    names = "rows", "scalar"
    found, wanted = ({name: tree[name] for name in names} for tree in (sharded, start()))
    assert_alike(directions(found), directions(wanted), sharded)


@set_or_not
def test_reductions_of_trees(sharded):
    def numbers(params):
        tree = optax_ls.tree
        norms = [tree.norm(params, ord=order) for order in (None, 1, "inf")]
        return tree.sum(params), tree.vdot(params, params), norms

    wanted = jax.tree.leaves(numbers(start()))
    for run in (numbers, jax.jit(numbers)):
        np.testing.assert_allclose(jax.tree.leaves(run(sharded)), wanted, rtol=1e-5)


def test_mesh_of_one_axis():
    mesh = explicit_mesh(8)
    target = jax.device_put(jnp.arange(16.0), NamedSharding(mesh, PartitionSpec("i")))
    result = optax_ls.minimize(lambda x: jnp.sum((x - target) ** 2), target * 0)
    np.testing.assert_allclose(result.params, target, atol=1e-4)
    assert result.params.sharding.is_equivalent_to(target.sharding, 1)
