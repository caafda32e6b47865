"""The operator of ``inverse_hessian`` is the dense BFGS matrix of the pairs in the memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bestiary import rosenbrock
from dense import (
    N,
    as_complex,
    as_tree,
    compiled,
    curved_pairs,
    dense_inverse_hessian,
    pairs_in_memory,
    relative_distance,
    run,
    scale_of,
    trajectory,
)

import optax_ls

pytestmark = pytest.mark.runtime

double = pytest.mark.parametrize("x64", [True], indirect=True)
apply = jax.jit(lambda state, v: optax_ls.inverse_hessian(state)(v))
dense = jax.jit(lambda state: optax_ls.inverse_hessian(state).dense())


def memory_of(number, memory_size, seed=0, **kwargs):
    """Pairs, and the state of an L-BFGS memory that has seen them."""
    rng = np.random.default_rng(seed)
    pairs = curved_pairs(number, rng)
    return pairs, run(*trajectory(pairs, rng), memory_size, **kwargs)[1]


def vector(seed=1):
    return np.random.default_rng(seed).normal(size=N)


# Against the dense matrix.


@pytest.mark.parametrize(("x64", "tolerance"), [(False, 2e-4), (True, 1e-11)], indirect=["x64"])
@pytest.mark.parametrize("number", [1, 3, 4, 5, 11])
@pytest.mark.parametrize("memory_size", [1, 4])
def test_operator_is_the_dense_matrix_of_the_last_pairs(memory_size, number, x64, tolerance):
    pairs, state = memory_of(number, memory_size)
    wanted = dense_inverse_hessian(pairs[-memory_size:], scale_of(pairs[-1]))
    got = apply(state, jnp.asarray(vector()))
    assert relative_distance(got, wanted @ vector()) <= tolerance


@pytest.mark.parametrize(("x64", "tolerance"), [(False, 2e-4), (True, 1e-11)], indirect=["x64"])
@pytest.mark.parametrize("number", [1, 6])
def test_dense_is_the_dense_matrix(number, x64, tolerance):
    pairs, state = memory_of(number, 4)
    wanted = dense_inverse_hessian(pairs[-4:], scale_of(pairs[-1]))
    assert relative_distance(dense(state), wanted) <= tolerance


@double
def test_operator_is_scale_and_low_rank_by_its_fields(x64):
    _, state = memory_of(6, 4)
    h = optax_ls.inverse_hessian(state)
    rows = np.concatenate([h.s, h.y])
    wanted = h.scale * np.eye(N) + rows.T @ np.asarray(h.coefficients) @ rows
    np.testing.assert_allclose(h.dense(), wanted, rtol=1e-9, atol=1e-12)


@double
def test_direction_of_lbfgs_is_the_operator_on_the_gradient(x64):
    rng = np.random.default_rng(3)
    params, grads = trajectory(curved_pairs(7, rng), rng)
    direction, state = run(params, grads, 4)
    np.testing.assert_allclose(apply(state, jnp.asarray(grads[-1])), direction, rtol=1e-9)


@double
def test_operator_of_minimize_takes_the_bent_change_of_the_gradient_to_the_step(x64):
    result = optax_ls.minimize(rosenbrock, jnp.array([-1.2, 1.0, -0.5]), max_iters=12)
    memory = result.state.memory
    newest = (memory.num_pairs - 1) % len(memory.bends)
    s, y = memory.diff_params_memory[newest], memory.diff_updates_memory[newest]
    assert memory.bends[newest] != 0
    np.testing.assert_allclose(apply(result, y + memory.bends[newest] * s), s, rtol=1e-9)


@pytest.mark.parametrize("memory_size", [1, 4])
def test_operator_without_pairs_is_the_identity(memory_size):
    init, _ = compiled(memory_size)
    np.testing.assert_array_equal(apply(init(jnp.ones(N)), jnp.arange(6.0)), np.arange(6.0))


# Trees.


@double
def test_operator_on_a_tree_is_that_on_the_flat_vector(x64):
    _, flat = memory_of(5, 3)
    _, in_tree = memory_of(5, 3, as_tree=as_tree)
    wanted = as_tree(np.asarray(apply(flat, jnp.asarray(vector()))))
    got = apply(in_tree, as_tree(vector()))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10), got, wanted)


@double
def test_dense_of_a_tree_is_in_the_order_of_its_leaves(x64):
    flat, in_tree = (dense(memory_of(5, 3, as_tree=kind)[1]) for kind in (jnp.asarray, as_tree))
    np.testing.assert_allclose(in_tree, flat, rtol=1e-9, atol=1e-12)


@double
def test_operator_on_complex_params_is_that_on_the_real_vector_of_twice_the_length(x64):
    _, real = memory_of(5, 3)
    _, of_complex = memory_of(5, 3, as_tree=as_complex)
    wanted = as_complex(np.asarray(apply(real, jnp.asarray(vector()))))
    np.testing.assert_allclose(apply(of_complex, as_complex(vector())), wanted, rtol=1e-9)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_operator_on_a_real_vector_of_complex_params_is_complex(dtype):
    _, state = memory_of(5, 3, as_tree=as_complex)
    real = jnp.arange(1, 1 + N // 2).astype(dtype)
    got = apply(state, real)
    assert got.dtype == jnp.complex64
    assert np.any(got.imag != 0)
    np.testing.assert_array_equal(got, apply(state, real.astype(jnp.complex64)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_operator_gives_the_dtype_of_its_vector(dtype):
    _, state = memory_of(2, 3)
    assert apply(state, jnp.ones(N, dtype)).dtype == dtype


# Out of states and results.


@pytest.fixture(scope="module")
def result(enable_x64):
    with enable_x64(True):
        return optax_ls.minimize(rosenbrock, jnp.array([-1.2, 1, -1.2, 1]), memory_size=3)


@double
def test_operator_of_a_result_is_the_dense_matrix_of_its_pairs(result, x64):
    pairs = pairs_in_memory(result.state.memory)
    assert len(pairs) == 3
    wanted = dense_inverse_hessian(pairs, scale_of(pairs[-1]))
    assert relative_distance(dense(result), wanted) <= 1e-8


@double
def test_operator_of_a_result_is_symmetric_and_positive_definite(result, x64):
    h = np.asarray(dense(result))
    np.testing.assert_allclose(h, h.T, rtol=1e-7, atol=1e-12)
    assert np.all(np.linalg.eigvalsh(h) > 0)


@double
@pytest.mark.parametrize(
    "part", [lambda r: r.state, lambda r: r.state.memory, lambda r: {"deep": [r]}]
)
def test_operator_is_found_wherever_its_memory_is(result, part, x64):
    got = dense(part(result))
    np.testing.assert_array_equal(got, dense(result))


def test_operator_of_the_state_of_lbfgs():
    solver = optax_ls.lbfgs(0.1, memory_size=2, linesearch=None)
    x = jnp.array([1.0, -1.0])
    state, update = solver.init(x), jax.jit(solver.update)
    for _ in range(3):
        updates, state = update(jnp.array([1.0, 4.0]) * x, state, x)
        x = optax_ls.apply_updates(x, updates)
    assert np.all(np.linalg.eigvalsh(dense(state)) > 0)
    assert optax_ls.tree.get(state, "num_pairs") == 2


@double
def test_operator_works_under_vmap(x64):
    states = [memory_of(number, 4)[1] for number in (1, 4, 6)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    together = jax.vmap(apply, in_axes=(0, None))(batch, jnp.asarray(vector()))
    for element, state in zip(together, states, strict=True):
        np.testing.assert_allclose(element, apply(state, jnp.asarray(vector())), rtol=1e-9)


# What it is good for.


def quadratic(x, hessian):
    return x @ hessian @ x / 2


@functools.cache
def spd(size, seed):
    root = np.random.default_rng(seed).normal(size=(size, size))
    return root @ root.T + np.eye(size)


@double
@pytest.mark.parametrize("seed", range(4))
def test_operator_approximates_the_inverse_hessian_of_a_quadratic(seed, x64):
    hessian = spd(3, seed)
    result = optax_ls.minimize(
        quadratic, jnp.ones(3), args=(hessian,), memory_size=10, gtol=1e-12, max_iters=50
    )
    distance = relative_distance(dense(result), np.linalg.inv(hessian))
    assert distance < 0.1


@double
@pytest.mark.parametrize("seed", range(4))
def test_operator_satisfies_the_newest_secant_equation(seed, x64):
    _, state = memory_of(6, 4, seed)
    s, y = pairs_in_memory(state)[-1]
    np.testing.assert_allclose(apply(state, jnp.asarray(y)), s, rtol=1e-9, atol=1e-12)


@double
def test_laplace_approximation_of_a_linear_regression_is_its_posterior(x64):
    rng = np.random.default_rng(5)
    inputs, noise, prior = rng.normal(size=(200, 3)) * [1.0, 2.0, 0.5], 0.5, 4.0
    targets = inputs @ [1.0, -2.0, 0.5] + noise * rng.normal(size=200)

    def negative_log_posterior(w, inputs, targets):
        errors = (inputs @ w - targets) / noise
        return jnp.sum(errors**2) / 2 + jnp.sum((w / prior) ** 2) / 2

    precision = inputs.T @ inputs / noise**2 + np.eye(3) / prior**2
    result = optax_ls.minimize(
        negative_log_posterior, jnp.zeros(3), args=(inputs, targets), gtol=1e-10
    )
    mean = np.linalg.solve(precision, inputs.T @ targets / noise**2)
    np.testing.assert_allclose(result.params, mean, rtol=1e-9)
    covariance = dense(result)
    assert relative_distance(covariance, np.linalg.inv(precision)) < 0.1
