"""A function that returns its own gradient, as jax.value_and_grad makes it, in every search."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_ls

START = jnp.array([1.0, 2.0, 3.0])
SEARCHES = {
    "zoom": functools.partial(optax_ls.scale_by_zoom_linesearch, 15),
    "more_thuente": functools.partial(optax_ls.scale_by_more_thuente_linesearch, 15),
    "backtracking": functools.partial(optax_ls.scale_by_backtracking_linesearch, 15),
    "backtracking, store_grad": functools.partial(
        optax_ls.scale_by_backtracking_linesearch, 15, store_grad=True
    ),
    "own": functools.partial(optax_ls.scale_by_linesearch, optax_ls.MoreThuente(15)),
}


def objective(w):
    return jnp.sum((w - 1.0) ** 4)


def update(search, function):
    value, grad = jax.value_and_grad(objective)(START)
    return search.update(
        -grad, search.init(START), START, value=value, grad=grad, value_fn=function
    )


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_step_is_that_of_the_gradient_of_jax(search):
    found = update(search(value_and_grad=True), jax.value_and_grad(objective))
    jax.tree.map(np.testing.assert_array_equal, found, update(search(), objective))


def test_gradient_of_the_function_is_used_and_stored():
    search = SEARCHES["zoom"](value_and_grad=True)
    _, state = update(search, lambda w: (objective(w), jnp.full(3, 7.0)))
    np.testing.assert_array_equal(state.grad, 7)


def test_first_value_and_gradient_come_from_the_function():
    function = optax_ls.value_and_grad_from_state(
        lambda w, scale: (scale * objective(w), scale * w), value_and_grad=True
    )
    value, grad = function(START, 2.0, state=SEARCHES["zoom"]().init(START))
    assert value == 2 * objective(START)
    np.testing.assert_array_equal(grad, 2 * START)


def test_auxiliary_output_stands_beside_the_value():
    def function(w):
        return (objective(w), w + 1), w

    with_aux = {"has_aux": True, "value_and_grad": True}
    search = SEARCHES["zoom"](aux_like=START, **with_aux)
    first = optax_ls.value_and_grad_from_state(function, **with_aux)
    (_, aux), grad = first(START, state=search.init(START))
    np.testing.assert_array_equal(aux, grad + 1)
    updates, state = update(search, function)
    np.testing.assert_allclose(state.aux, START + updates + 1, rtol=1e-6)


def test_function_that_returns_a_value_alone_is_refused():
    with pytest.raises(TypeError, match="value_and_grad=True value_fn must return"):
        update(SEARCHES["zoom"](value_and_grad=True), objective)


def test_batch_whose_values_are_all_stored_is_not_evaluated_again():
    calls = []

    def function(w):
        jax.debug.callback(lambda: calls.append(1))
        return objective(w)

    search = SEARCHES["zoom"]()

    @jax.jit
    @jax.vmap
    def evaluate(w, value):
        state = search.init(w)._replace(value=value, grad=jnp.full(3, 7.0))
        return optax_ls.value_and_grad_from_state(function)(w, state=state)

    batch = jnp.stack([START, 2 * START])
    values, grads = jax.block_until_ready(evaluate(batch, jnp.array([5.0, 6.0])))
    jax.effects_barrier()
    assert not calls
    np.testing.assert_array_equal(values, [5, 6])
    np.testing.assert_array_equal(grads, 7)

    values, grads = evaluate(batch, jnp.array([5.0, jnp.inf]))
    np.testing.assert_allclose(values, [5, objective(2 * START)])
    np.testing.assert_allclose(grads, [jnp.full(3, 7.0), jax.grad(objective)(2 * START)])
