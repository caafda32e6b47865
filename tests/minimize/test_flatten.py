"""Small leaves share one vector in the loop of ``minimize`` on one device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trees
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import optax_ls
from optax_ls._minimize import flatten

pytestmark = pytest.mark.runtime


def arrays(name):
    return jax.tree.map(jnp.asarray, trees.TREES[name]())


def flattening_of(params):
    return flatten.Flattening.of(params, joins=True)


def stacked(tree, *leading):
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*leading, *x.shape)) + 1, tree)


@pytest.mark.parametrize("leading", [(), (3,)], ids=["one", "stack"])
@pytest.mark.parametrize("name", sorted(set(trees.TREES) - trees.ONLY_WITH_X64))
def test_unflatten_is_the_inverse_of_flatten(name, leading):
    params = arrays(name)
    flattening, tree = flattening_of(params), stacked(params, *leading)
    found = flattening.unflatten(flattening.flatten(tree, *leading), *leading)
    assert trees.dtypes(found) == trees.dtypes(tree)
    jax.tree.map(np.testing.assert_array_equal, found, tree)


def test_leaves_of_one_dtype_share_an_array():
    halves = [jnp.zeros(3, "bfloat16"), jnp.zeros((), "bfloat16")]
    params = {"a": [jnp.zeros((k, 2)) for k in range(1, 5)], "b": halves}
    flat = flattening_of(params).flatten(params)
    assert sorted((x.size, x.dtype.name) for x in flat) == [(4, "bfloat16"), (20, "float32")]


def test_large_leaves_and_single_and_empty_ones_stay_as_they_are():
    large, small, empty = jnp.zeros((3, flatten._MAX_SIZE)), jnp.zeros(2), jnp.zeros((0, 3))
    params = [large, small, empty, large, jnp.zeros((), "bfloat16"), jnp.zeros((1, 2))]
    flat = flattening_of(params).flatten(params)
    assert [x.shape for x in flat] == [(4,), large.shape, (0, 3), large.shape, ()]


def test_leaves_are_not_moved_where_they_may_lie_on_several_devices():
    devices = jax.devices()
    if len(devices) < 2:
        pytest.skip("needs two devices")
    here = jnp.zeros(2 * len(devices))
    sharding = NamedSharding(Mesh(np.array(devices), ("x",)), PartitionSpec("x"))
    assert flatten.on_one_device((here, np.zeros(2), 1.0, "text", None, print))
    assert not flatten.on_one_device((here, jax.device_put(here, sharding)))
    traced = []
    jax.jit(lambda x: traced.append(flatten.on_one_device(x)) or x)(here)
    assert traced == [False]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["python_floats", "empty_leaf+none", "float16+complex64"])
def test_result_has_the_types_of_one_that_was_not_flattened(name):
    minimize = functools.partial(optax_ls.minimize, trees.objective, max_iters=5)
    params = trees.TREES[name]()
    flat, plain = minimize(params), jax.jit(minimize)(params)
    for field in ("params", "grad", "state"):
        flat_field, plain_field = getattr(flat, field), getattr(plain, field)
        assert trees.signature(flat_field) == trees.signature(plain_field), field
    np.testing.assert_allclose(flat.value, plain.value, rtol=0.05, atol=1e-6)


def products(leaves, monkeypatch):
    """The number of inner products in the program for params of ``num_leaves`` leaves."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)

    def fun(params):
        return sum(jnp.sum(jnp.sinh(x) ** 2) for x in params)

    params = [jnp.ones(2 + k) for k in range(leaves)]
    run = jax.jit(lambda params: optax_ls.minimize(fun, params).params)
    return run.lower(params).as_text().count("stablehlo.dot_general")


def test_program_is_as_long_for_many_small_leaves_as_for_one(monkeypatch):
    assert products(30, monkeypatch) == products(1, monkeypatch)
