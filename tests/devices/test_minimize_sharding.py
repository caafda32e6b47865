"""The minimum of sharded params is sharded alike, and no device gathers what others hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from promises import needs

import optax_ls

pytestmark = [pytest.mark.runtime, pytest.mark.slow, needs("mesh with automatic axes")]

SPECS = {
    "rows": PartitionSpec("i"),
    "blocks": PartitionSpec("j", None, "i"),
    "everywhere": PartitionSpec(("i", "j")),
    "copied": PartitionSpec(),
}
SHAPES = {"rows": (8, 3), "blocks": (2, 3, 4), "everywhere": (16,), "copied": (5,)}
LINESEARCHES = ["more_thuente", "zoom", "backtracking"]
each_linesearch = pytest.mark.parametrize("linesearch", LINESEARCHES)


def start():
    return {
        name: jnp.sin(jnp.arange(1.0, 1 + np.prod(shape))).reshape(shape)
        for name, shape in SHAPES.items()
    }


@pytest.fixture(scope="module")
def mesh():
    if jax.device_count() < 8:
        pytest.skip("needs eight devices")
    return Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("i", "j"))


@pytest.fixture(scope="module")
def sharded(mesh):
    shardings = {name: NamedSharding(mesh, spec) for name, spec in SPECS.items()}
    return jax.device_put(start(), shardings)


def objective(params):
    """A bowl of degree four; leaves meet in scalars only, so it needs no gathering itself."""
    squares = sum(jnp.sum((leaf - 1) ** 2) for leaf in params.values())
    return squares + sum(jnp.sum(leaf**4) for leaf in params.values())


PROGRAMS = {
    name: jax.jit(
        lambda params, name=name: optax_ls.minimize(
            objective, params, memory_size=2, linesearch=name, max_iters=6
        )
    )
    for name in LINESEARCHES
}


@pytest.fixture(scope="module", params=LINESEARCHES)
def compiled(request, sharded):
    return PROGRAMS[request.param].lower(sharded).compile()


def mirrors(tree):
    """The leaves that stand for a leaf of the params, as (path, name of that leaf, leaf)."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = getattr(path[-1], "key", None)
        if name in SPECS:
            yield jax.tree_util.keystr(path), name, leaf


def test_result_is_sharded_like_the_params(compiled, sharded, mesh):
    result = compiled(sharded)
    found = {}
    for path, name, leaf in mirrors(result):
        leading = [None] * (leaf.ndim - len(SHAPES[name]))
        wanted = NamedSharding(mesh, PartitionSpec(*leading, *SPECS[name]))
        found[path] = leaf.sharding.is_equivalent_to(wanted, leaf.ndim)
    assert {".params['rows']", ".grad['rows']", ".state.direction['rows']"} <= set(found)
    assert found == dict.fromkeys(found, True)


@pytest.mark.parametrize("exchange", ["all-gather", "collective-permute", "all-to-all"])
def test_devices_share_sums_only(compiled, exchange):
    program = compiled.as_text()
    assert "all-reduce" in program, "the program does not run on several devices"
    assert exchange not in program


def test_sharded_path_is_that_of_one_device_to_rounding(sharded):
    many, one = (PROGRAMS["more_thuente"](params) for params in (sharded, start()))
    assert many.num_evals == one.num_evals
    for name in SHAPES:
        np.testing.assert_allclose(many.params[name], one.params[name], rtol=1e-4, atol=1e-5)


def test_result_lives_on_the_device_of_the_params():
    device = jax.devices()[-1]
    result = optax_ls.minimize(
        objective, jax.device_put(start(), device), memory_size=2, max_iters=6
    )
    assert {d for _, _, leaf in mirrors(result) for d in leaf.devices()} == {device}


@pytest.mark.parametrize("sharded_bounds", [False, True])
def test_minimum_inside_bounds_is_that_of_one_device_and_sharded_alike(sharded, sharded_bounds):
    upper = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.3), sharded) if sharded_bounds else 0.3
    result = optax_ls.minimize(objective, sharded, bounds=(-1, upper), memory_size=2)
    alone = optax_ls.minimize(objective, start(), bounds=(-1, 0.3), memory_size=2)
    for name, leaf in sharded.items():
        assert result.params[name].sharding.is_equivalent_to(leaf.sharding, leaf.ndim)
        assert result.active[name].sharding.is_equivalent_to(leaf.sharding, leaf.ndim)
        np.testing.assert_allclose(result.params[name], alone.params[name], atol=1e-5)
        np.testing.assert_array_equal(result.active[name], 1)
