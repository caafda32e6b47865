"""Products of large arrays are made in chunks, and are those of any other way to make them.

This process has several devices, where chunks are for sums that each device makes by itself, so
most tests ask for them; the last one starts processes with one device.
"""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import optax_ls
from optax_ls._core import reductions as _reductions
from optax_ls._core import sweep as _sweep

pytestmark = pytest.mark.runtime

# Whole chunks, some entries more, and several axes.
SHAPES = [(8192,), (12291,), (3, 4100, 2)]
EPS = {"float64": 2.0**-53}


@pytest.fixture
def in_sweeps(monkeypatch):
    monkeypatch.setattr(_sweep, "_on_one_cpu", lambda: True)
    monkeypatch.setattr(_sweep, "_gains", lambda x, products: True)


def entries(key, shape, dtype):
    """Not of mean zero, so that no product is small beside what it is a sum of."""
    parts = 0.5 + jax.random.normal(jax.random.key(key), (2, *shape))
    x = parts[0] + 1j * parts[1] if jnp.issubdtype(dtype, jnp.complexfloating) else parts[0]
    return x.astype(dtype)


def exact(x, y):
    """The products in float64, and the sums of the absolute values of what they are sums of."""
    wide = np.complex128 if jnp.iscomplexobj(x) else np.float64
    terms = (np.conj(np.asarray(x).astype(wide)) * np.asarray(y).astype(wide)).real
    axes = tuple(range(x.ndim - y.ndim, x.ndim))
    return terms.sum(axes), np.abs(terms).sum(axes)


def assert_products(found, x, y, dtype):
    wanted, size = exact(x, y)
    assert (found.dtype, found.shape) == (dtype, wanted.shape)
    assert np.all(np.abs(np.asarray(found) - wanted) <= 100 * EPS.get(dtype, 2.0**-24) * size)


DTYPES = ["float32", "float64", "bfloat16", "float16", "complex64", "complex128"]
ACCUMULATED = dict.fromkeys(DTYPES, "float32") | {"float64": "float64", "complex128": "float64"}


@pytest.mark.parametrize("x64", [True], indirect=True)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_are_those_of_numpy(dtype, shape, in_sweeps, x64):
    x, y, z = (entries(key, shape, dtype) for key in range(3))
    pairs = [(x, y), (z, z), (y, z)]
    found = jax.jit(lambda pairs: _sweep.dots(pairs, ACCUMULATED[dtype]))(pairs)
    for product, pair in zip(found, pairs, strict=True):
        assert_products(product, *pair, ACCUMULATED[dtype])


@pytest.mark.parametrize("x64", [True], indirect=True)
@pytest.mark.parametrize("number", [1, 5, 10, 23])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex128"])
def test_products_with_rows_are_those_of_numpy(dtype, number, in_sweeps, x64):
    shape = SHAPES[2]
    rows, y = entries(0, (number, *shape), dtype), entries(1, shape, dtype)
    found = jax.jit(lambda rows, y: _sweep.dot(rows, y, ACCUMULATED[dtype]))(rows, y)
    assert_products(found, rows, y, ACCUMULATED[dtype])


@pytest.mark.parametrize("x64", [True], indirect=True)
@pytest.mark.parametrize("backend", ["cpu", "any other"])
@pytest.mark.parametrize("shape", [SHAPES[2], (64,), ()], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_with_rows_of_several_are_those_of_each(
    dtype, shape, backend, in_sweeps, monkeypatch, x64
):
    rows, vectors = entries(0, (13, *shape), dtype), entries(1, (3, *shape), dtype)
    monkeypatch.setattr(_sweep, "_gains", lambda x, products: x.size > 64)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    found = _sweep.dot_with_each(rows, list(vectors), ACCUMULATED[dtype])
    for products, vector in zip(found, vectors, strict=True):
        assert_products(products, rows, vector, ACCUMULATED[dtype])


def test_long_sums_keep_their_digits(in_sweeps):
    x = jnp.full(2**22, 0.1, "float32")
    (found,) = _sweep.dots([(x, x)], "float32")
    wanted, _ = exact(x, x)
    assert abs(found / wanted - 1) < 3e-5  # added in order, 2e-2 is lost


def test_products_of_infinities_are_not_finite(in_sweeps):
    x = jnp.ones(8192, "float32").at[5000].set(jnp.inf)
    found = _sweep.dots([(x, x), (x, -x), (x, 0 * x)], "float32")
    np.testing.assert_array_equal(found, [np.inf, -np.inf, np.nan])


def test_lanes_have_the_products_of_single_ones(in_sweeps):
    xs, y = entries(0, (4, 12291), "float32"), entries(1, (12291,), "float32")
    together = jax.vmap(lambda x: jnp.stack(_sweep.dots([(x, y), (x, x)], "float32")))(xs)
    single = [jnp.stack(_sweep.dots([(x, y), (x, x)], "float32")) for x in xs]
    np.testing.assert_allclose(together, single, rtol=1e-5)


@pytest.mark.parametrize("x64", [True], indirect=True)
@pytest.mark.parametrize("transform", [jax.grad, jax.jacfwd, lambda fn: jax.grad(jax.grad(fn))])
def test_derivatives_are_those_of_the_products(transform, in_sweeps, x64):
    rows, direction = entries(0, (2, 8192), "float64"), entries(1, (8192,), "float64")

    def along(step):
        y = rows[0] + step * direction
        return jnp.sum(_sweep.dot(rows, y, "float64")) + _sweep.dots([(y, y)], "float64")[0]

    def wanted(step):
        y = rows[0] + step * direction
        return jnp.sum(rows @ y) + y @ y

    np.testing.assert_allclose(transform(along)(0.3), transform(wanted)(0.3), rtol=1e-12)


def test_a_solver_goes_the_same_way(in_sweeps, monkeypatch):
    curvatures = jnp.linspace(0.01, 1, 10_000)

    def run():
        return optax_ls.minimize(lambda x: x @ (curvatures * x), jnp.ones(10_000), max_iters=20)

    chunked = run()
    monkeypatch.undo()
    plain = run()
    assert chunked.num_evals == plain.num_evals
    np.testing.assert_allclose(chunked.params, plain.params, atol=1e-4)


def number_of_reductions(fn, *args):
    return str(jax.make_jaxpr(fn)(*args)).count(" reduce[")


@pytest.mark.parametrize(
    ("version", "dtype", "shape", "slopes"),
    [
        ((0, 4, 30), "float32", (2**17,), 1),
        ((0, 4, 30), "float32", (2**8, 2**9), 0),
        ((0, 8, 0), "float32", (2**8, 2**9), 1),
        ((0, 10, 2), "float32", (2**17,), 0),
        ((0, 10, 2), "bfloat16", (2**17,), 1),
        ((0, 10, 2), "complex64", (2**17,), 1),
        ((0, 4, 30), "float32", (2**17 - 1,), 0),
        ((0, 10, 2), "complex64", (2**17 - 1,), 0),
    ],
)
def test_compiler_is_left_to_itself_where_it_does_as_well(
    version, dtype, shape, slopes, monkeypatch
):
    monkeypatch.setattr(jax, "__version_info__", version)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    x = jnp.ones(shape, dtype)
    found = number_of_reductions(lambda x: _reductions.slopes(x, (x, x), "float32"), x)
    assert found == slopes


@pytest.mark.skipif(jax.__version_info__ < (0, 5), reason="with this JAX devices sum leaf by leaf")
@pytest.mark.parametrize("spread", [False, True], ids=["one device", "all devices"])
def test_a_device_makes_chunks_of_what_it_holds(spread, monkeypatch):
    devices = jax.devices()[:8]
    if len(devices) < 8:
        pytest.skip("needs eight devices")
    sharding = NamedSharding(Mesh(np.array(devices), ("i",)), PartitionSpec("i"))
    x, y = (entries(key, (2**20,), "complex64") for key in range(2))
    if spread:
        x, y = jax.device_put((x, y), sharding)
    sizes, in_one_sweep = [], _sweep._in_one_sweep

    def told(pairs, dtype):
        sizes.append(pairs[0][0].size)
        return in_one_sweep(pairs, dtype)

    monkeypatch.setattr(_sweep, "_in_one_sweep", told)
    found = jax.jit(lambda x, y: _reductions.inner(x, y, "float32"))(x, y)
    assert_products(found, x, y, "float32")
    assert set(sizes) == ({2**20, 2**17} if spread else {2**20})


# What follows has one device.

ONE_DEVICE = """
import importlib, os, sys
threads = int(sys.argv[1])
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
import jax, jax.numpy as jnp
_sweep = importlib.import_module(sys.argv[2])
assert jax.device_count() == 1
x = jnp.sin(jnp.arange(2**18 + 5.0)).astype("complex64")
rows = jnp.stack([x, 2 * x, x * x, x[::-1]])

@jax.jit
def products(rows, x):
    return jnp.stack([*_sweep.dot(rows, x, "float32"), *_sweep.dots([(x, x)] * 3, "float32")])

assert str(jax.make_jaxpr(products)(rows, x)).count(" reduce[") == 2
print(products(rows, x).tobytes().hex())
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be limited here")
def test_bits_do_not_depend_on_the_number_of_threads():
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is but one processor")
    path = [os.path.dirname(os.path.dirname(optax_ls.__file__)), *sys.path]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "XLA_FLAGS": ""}

    def bits(threads):
        command = [sys.executable, "-c", ONE_DEVICE, str(threads), _sweep.__name__]
        done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    assert bits(1) == bits(2)
