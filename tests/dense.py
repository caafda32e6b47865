"""Dense mathematics of BFGS, always in float64, and memories to compare with it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import optax_ls

N = 6


def dense_inverse_hessian(pairs, gamma):
    """The BFGS updates of gamma times the identity, one pair after the other (N&W 6.17)."""
    h = gamma * np.eye(len(pairs[0][0]))
    for s, y in pairs:
        rho = 1 / (s @ y)
        left = np.eye(len(s)) - rho * np.outer(s, y)
        h = left @ h @ left.T + rho * np.outer(s, s)
    return h


def scale_of(pair):
    """The gamma that L-BFGS takes from its newest pair."""
    s, y = pair
    return (s @ y) / (y @ y)


def curved_pairs(number, rng, size=N):
    """Steps, and changes of the gradient of one quadratic along them."""
    root = rng.normal(size=(size, size))
    hessian = root @ root.T + np.eye(size)
    return [(s, hessian @ s) for s in rng.normal(size=(number, size))]


def trajectory(pairs, rng):
    """Params and gradients whose differences are the pairs, and a last gradient."""
    params, grads = [rng.normal(size=N)], [rng.normal(size=N)]
    for s, y in pairs:
        params.append(params[-1] + s)
        grads.append(grads[-1] + y)
    return params, grads


@functools.cache
def compiled(memory_size, scale_init_precond=True):
    tx = optax_ls.scale_by_lbfgs(memory_size, scale_init_precond)
    return tx.init, jax.jit(tx.update)


def run(params, grads, memory_size, scale_init_precond=True, as_tree=jnp.asarray):
    """The last direction and state, from a whole history."""
    init, update = compiled(memory_size, scale_init_precond)
    state = init(as_tree(params[0]))
    for w, g in zip(params, grads, strict=True):
        direction, state = update(as_tree(g), state, as_tree(w))
    return direction, state


def pairs_in_memory(state):
    """The pairs of a state of one flat leaf, oldest first."""
    size = len(state.weights_memory)
    number = min(int(state.num_pairs), size)
    slots = [(int(state.num_pairs) - number + k) % size for k in range(number)]
    return [
        (np.asarray(state.diff_params_memory[k]), np.asarray(state.diff_updates_memory[k]))
        for k in slots
    ]


def as_tree(v):
    """A flat vector as a tree of several leaves."""
    return {
        "a": jnp.asarray(v[:1]),
        "b": [jnp.asarray(v[1:5].reshape(2, 2)), jnp.asarray(v[5])],
    }


def as_complex(v):
    """A flat vector as the real and the imaginary parts of one of half its length."""
    return jnp.asarray(v[: N // 2] + 1j * v[N // 2 :])


def relative_distance(got, wanted):
    return np.linalg.norm(np.asarray(got) - wanted) / np.linalg.norm(wanted)
