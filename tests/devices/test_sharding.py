"""The state lives where the params live.

Params are sharded over a mesh of eight devices, some leaves along one axis of the mesh, some
along both, some along none. The state is sharded likewise, stays so, and no device ever gathers
what others hold.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from promises import needs

import optax_ls

pytestmark = [pytest.mark.runtime, pytest.mark.slow, needs("mesh with automatic axes")]

SOLVERS = {
    "lbfgs": optax_ls.lbfgs(memory_size=2),
    "lbfgs_backtracking_store_grad": optax_ls.lbfgs(
        memory_size=2, linesearch=optax_ls.scale_by_backtracking_linesearch(20, store_grad=True)
    ),
    "lbfgs_no_search": optax_ls.lbfgs(0.2, memory_size=2, linesearch=None),
    "sgd_zoom": optax_ls.chain(optax_ls.sgd(1.0), optax_ls.scale_by_zoom_linesearch(20)),
    "momentum_backtracking_store_grad": optax_ls.chain(
        optax_ls.sgd(1.0, momentum=0.5),
        optax_ls.scale_by_backtracking_linesearch(20, store_grad=True),
    ),
}
SPECS = {
    "rows": PartitionSpec("i"),
    "blocks": PartitionSpec("j", None, "i"),
    "everywhere": PartitionSpec(("i", "j")),
    "copied": PartitionSpec(),
}
SHAPES = {"rows": (8, 3), "blocks": (2, 3, 4), "everywhere": (16,), "copied": (5,)}

each_solver = pytest.mark.parametrize("name", SOLVERS)
each_init = pytest.mark.parametrize("transform", [lambda fn: fn, jax.jit], ids=["plain", "jit"])


def start():
    return {
        name: jnp.sin(jnp.arange(1.0, 1 + np.prod(shape))).reshape(shape)
        for name, shape in SHAPES.items()
    }


@pytest.fixture
def mesh():
    if jax.device_count() < 8:
        pytest.skip("needs eight devices")
    return Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("i", "j"))


@pytest.fixture
def sharded(mesh):
    shardings = {name: NamedSharding(mesh, spec) for name, spec in SPECS.items()}
    return jax.device_put(start(), shardings)


def objective(params):
    """A bowl of degree four; leaves meet in scalars only, so it needs no gathering itself."""
    squares = sum(jnp.sum((leaf - 1) ** 2) for leaf in params.values())
    return squares + sum(jnp.sum(leaf**4) for leaf in params.values())


def stepping(solver):
    def step(params, state):
        value, grad = jax.value_and_grad(objective)(params)
        updates, state = solver.update(
            grad, state, params, value=value, grad=grad, value_fn=objective
        )
        return optax_ls.apply_updates(params, updates), state

    return jax.jit(step)


# Shared by the tests, so that each program is compiled once.
STEPS = {name: stepping(solver) for name, solver in SOLVERS.items()}


def mirrors(tree):
    """The leaves that stand for a leaf of the params, as (path, name of that leaf, leaf)."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = getattr(path[-1], "key", None)
        if name in SPECS:
            yield jax.tree_util.keystr(path), name, leaf


def sharded_like_params(tree, mesh):
    """True if each leaf is sharded like that of the params, and leading axes are not sharded."""

    def wanted(name, leaf):
        leading = [None] * (leaf.ndim - len(SHAPES[name]))
        return NamedSharding(mesh, PartitionSpec(*leading, *SPECS[name]))

    return {
        path: leaf.sharding.is_equivalent_to(wanted(name, leaf), leaf.ndim)
        for path, name, leaf in mirrors(tree)
    }


def all_true(named):
    return dict.fromkeys(named, True)


@each_solver
@each_init
def test_init_shards_the_state_like_the_params(name, transform, mesh, sharded):
    found = sharded_like_params(transform(SOLVERS[name].init)(sharded), mesh)
    assert found
    assert found == all_true(found)


@each_solver
@each_init
def test_update_keeps_the_state_sharded_like_the_params(name, transform, mesh, sharded):
    params, state = sharded, transform(SOLVERS[name].init)(sharded)
    for _ in range(3):
        params, state = STEPS[name](params, state)
    found = sharded_like_params((params, state), mesh)
    assert found == all_true(found)


@each_solver
def test_update_gathers_nothing(name, sharded):
    compiled = STEPS[name].lower(sharded, SOLVERS[name].init(sharded)).compile().as_text()
    assert "all-reduce" in compiled, "the program does not run on several devices"
    assert "all-gather" not in compiled


@each_solver
def test_sharded_steps_are_those_of_one_device_to_rounding(name, sharded):
    one, many = start(), sharded
    state_one, state_many = SOLVERS[name].init(one), SOLVERS[name].init(many)
    for _ in range(3):
        one, state_one = STEPS[name](one, state_one)
        many, state_many = STEPS[name](many, state_many)
    for leaf in SHAPES:
        np.testing.assert_allclose(many[leaf], one[leaf], rtol=1e-4, atol=1e-5)


def test_short_changes_of_the_gradient_keep_their_digits_on_many_devices(sharded):
    solver = optax_ls.scale_by_lbfgs(memory_size=3)
    wave = jax.tree.map(lambda leaf: jnp.cos(7 * leaf), sharded)

    @jax.jit
    def run(params, wave):
        """Directions along points where the gradient is long and hardly changes."""
        state, direction = solver.init(params), params
        for k in range(4):
            point = jax.tree.map(lambda p, w, k=k: p + w ** (k + 1), params, wave)
            grad = jax.tree.map(lambda p, w: 1000 * w + 0.1 * p + 0.01 * p**3, point, wave)
            direction, state = solver.update(grad, state, point)
        return direction, state.inverse_r

    one_device = jax.devices()[0]
    many, one = run(sharded, wave), run(*jax.device_put((sharded, wave), one_device))
    for ours, wanted in zip(jax.tree.leaves(many), jax.tree.leaves(one), strict=True):
        scale = np.max(np.abs(wanted))
        atol = (1e-4 if jax.__version_info__ < (0, 11) else 1e-3) * scale
        np.testing.assert_allclose(ours, wanted, rtol=0, atol=atol)


@each_solver
@each_init
def test_state_lives_on_the_device_of_the_params(name, transform):
    device = jax.devices()[-1]
    state = transform(SOLVERS[name].init)(jax.device_put(start(), device))
    assert {d for _, _, leaf in mirrors(state) for d in leaf.devices()} == {device}
