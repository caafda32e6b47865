"""On a mesh with explicit axes, states and results are sharded like the params.

The mesh is that of the params; some tests also run where the user has set it.
"""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import optax_ls

pytestmark = [
    pytest.mark.runtime,
    pytest.mark.skipif(jax.__version_info__ < (0, 7), reason="JAX 0.7 has types that say it all"),
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


batched = pytest.mark.skipif(
    jax.__version_info__ < (0, 10), reason="JAX 0.7 does not have all rules of vmap on such axes"
)
set_or_not = pytest.mark.parametrize("sharded", ["not set", "set"], indirect=True)


def objective(params, c=1.0):
    """A bowl of degree four; leaves meet in scalars only."""
    return sum(jnp.sum((leaf - c) ** 2 + leaf**4) for leaf in params.values())


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


@set_or_not
def test_minimize_with_bounds_a_history_and_a_callback(sharded):
    def run(params):
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

    assert_alike(run(sharded), run(start()), sharded)


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


@set_or_not
def test_derivative_of_the_minimum(sharded):
    @jax.jit
    def derivative(params):
        def minimum(c):
            return optax_ls.minimize(objective, params, args=(c,), implicit_diff=True).params

        return jax.jvp(minimum, (jnp.ones(()),), (jnp.ones(()),))[1]

    assert_alike(derivative(sharded), derivative(start()), sharded)


@batched
def test_minima_of_a_batch_that_is_on_every_device(sharded):
    def minima(rows, targets):
        def minimum(rows, c):
            return optax_ls.minimize(objective, rows, args=(c,), **SETTINGS).params

        return jax.jit(jax.vmap(minimum, in_axes=(None, 0)))({"rows": rows}, targets)

    targets = jnp.array([0.5, 1.0])
    assert_alike(minima(sharded["rows"], targets), minima(start()["rows"], targets), sharded)


@batched
def test_minima_of_a_batch_that_is_sharded():
    mesh = explicit_mesh(4, 2)
    target = jax.device_put(
        jnp.arange(32.0).reshape(8, 4), NamedSharding(mesh, PartitionSpec("i", "j"))
    )

    @jax.jit
    @jax.vmap
    def minima(c):
        return optax_ls.minimize(lambda x: jnp.sum((x - c) ** 2), c * 0, **SETTINGS).params

    with set_mesh(mesh):  # without, JAX has no vmap over a sharded axis
        found = minima(target)
    np.testing.assert_allclose(found, target, rtol=1e-3, atol=1e-4)
    assert found.sharding.is_equivalent_to(target.sharding, 2)


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


@pytest.mark.parametrize(
    ("name", "sharded"),
    [*((name, "not set") for name in SOLVERS), ("zoom", "set")],
    indirect=["sharded"],
)
def test_steps_of_a_solver_with_one_trace(sharded, name):
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

    assert_alike(run(sharded), run(start()), sharded)


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
