"""With ``implicit_diff`` the minimum is differentiable, by the implicit function theorem."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_ls

pytestmark = [pytest.mark.runtime, pytest.mark.parametrize("x64", [True], indirect=True)]

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(8, 2))
TARGETS = RNG.normal(size=8)
LAM = 0.7
TARGET_OF = jnp.array([[2.0, -1.0], [0.5, 1.0]])


# Ridge regression, whose minimum is known.


def ridge(w, targets, *, lam, scale=None):
    errors = INPUTS @ w["w"] - targets
    return jnp.sum(errors**2) / 2 + lam * jnp.sum(w["w"] ** 2) / 2


def closed_form(targets, lam):
    return jnp.linalg.solve(INPUTS.T @ INPUTS + lam * jnp.eye(2), INPUTS.T @ targets)


def closed_form_value(targets, lam):
    return ridge({"w": closed_form(targets, lam)}, targets, lam=lam)


minimize = functools.partial(
    optax_ls.minimize, memory_size=1, linesearch="backtracking", gtol=1e-11
)


def fit(targets, lam, start=(0.0, 0.0), **settings):
    settings = {"implicit_diff": True, **settings}
    start = {"w": jnp.asarray(start)}
    return minimize(ridge, start, args=(targets,), kwargs={"lam": lam}, **settings)


def minimum(targets, lam):
    return fit(targets, lam).params["w"]


def minimum_and_value(*args):
    result = fit(*args)
    return result.params["w"], result.value


def in_closed_form(targets, lam, start):
    return closed_form(targets, lam), closed_form_value(targets, lam)


def close(got, wanted, rtol=1e-7):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-9), got, wanted)


@pytest.mark.parametrize("derivative", [jax.jacfwd, jax.jacrev])
def test_derivatives_of_minimum_and_value_are_those_of_the_closed_form(derivative, x64):
    args = TARGETS, LAM, jnp.ones(2)
    got = jax.jit(derivative(minimum_and_value, argnums=(0, 1, 2)))(*args)
    close(got, jax.jacfwd(in_closed_form, argnums=(0, 1, 2))(*args))


@pytest.mark.slow
def test_derivatives_come_without_jit(x64):
    got = jax.grad(lambda lam: jnp.sum(minimum(TARGETS, lam)))(LAM)
    close(got, jnp.sum(jax.jacfwd(closed_form, argnums=1)(TARGETS, LAM)))


@pytest.mark.slow
def test_derivatives_under_vmap_are_those_of_each_run(x64):
    lams = jnp.array([0.1, 1.0, 30.0])
    got = jax.jit(jax.vmap(jax.jacrev(minimum, argnums=1), in_axes=(None, 0)))(TARGETS, lams)
    close(got, jax.vmap(jax.jacfwd(closed_form, argnums=1), in_axes=(None, 0))(TARGETS, lams))


def test_result_is_the_same_as_without(x64):
    with_it, without = jax.jit(fit)(TARGETS, LAM), fit(TARGETS, LAM, implicit_diff=False)
    np.testing.assert_allclose(with_it.params["w"], without.params["w"], rtol=1e-14)
    np.testing.assert_allclose(with_it.value, without.value, rtol=1e-14)
    assert (with_it.num_iters, with_it.num_evals) == (without.num_iters, without.num_evals)


# What is handed over.


def bowl(x, centre, power, *, extra):
    """The minimum is at ``centre[0] * extra["scale"]``; how it gets there is a word."""
    offset = x - centre[0] * extra["scale"]
    value = jnp.sum(offset**2) if power == "square" else jnp.sum(jnp.cosh(offset))
    return value, {"doubled": 2 * x + centre[0], "count": 3}


def bowl_minimum(centre, scale, **settings):
    return minimize(
        bowl,
        jnp.zeros(2),
        args=((centre, np.arange(3)), "cosh"),
        kwargs={"extra": {"scale": scale, "none": None}},
        has_aux=True,
        implicit_diff=True,
        **settings,
    )


def test_derivatives_of_aux_follow_the_minimum_among_words_and_integers(x64):
    def found(centre, scale):
        result = bowl_minimum(centre, scale)
        return result.params, result.aux["doubled"]

    centre, scale, eye = jnp.array([1.0, -0.5]), 2.0, np.eye(2)
    got = jax.jit(jax.jacfwd(found, argnums=(0, 1)))(centre, scale)
    close(got, ((2 * eye, centre), (5 * eye, 2 * centre)))


def test_function_with_its_own_gradient_is_differentiated(x64):
    def fun(x, centre):
        return jnp.sum((x - centre) ** 4 + (x - centre) ** 2), 4 * (x - centre) ** 3 + 2 * (
            x - centre
        )

    def at(centre):
        start = jnp.zeros(2)
        return minimize(fun, start, args=(centre,), value_and_grad=True, implicit_diff=True).params

    close(jax.jit(jax.jacrev(at))(jnp.array([1.0, 2.0])), np.eye(2))


@pytest.mark.slow
def test_arrays_of_a_function_that_is_a_tree_are_differentiated(x64):
    def fun(x, *, centre):
        return jnp.sum(jnp.cosh(x - centre**2))

    def at(centre):
        found = jax.tree_util.Partial(fun, centre=centre)
        return minimize(found, jnp.zeros(2), implicit_diff=True).params

    close(jax.jit(jax.jacrev(at))(jnp.array([1.0, -0.5])), np.diag([2.0, -1.0]))


def distance(z, centre):
    """The minimum is at 2 conj(centre)."""
    return jnp.sum(jnp.abs(z - 2 * jnp.conj(centre)) ** 2)


def test_complex_params_are_differentiated(x64):
    def parts(x):
        found = minimize(
            distance,
            jnp.zeros(1, complex),
            args=(jax.lax.complex(x[:1], x[1:]),),
            implicit_diff=True,
        )
        return jnp.concatenate([found.params.real, found.params.imag])

    close(jax.jit(jax.jacrev(parts))(jnp.array([0.5, 1.5])), np.diag([2.0, -2.0]))


# A problem without a closed form.


def softmax_loss(w, inputs, penalty):
    scores = inputs @ w
    labels = jnp.arange(len(inputs)) % 3
    picked = jnp.take_along_axis(jax.nn.log_softmax(scores), labels[:, None], axis=1)
    return -jnp.mean(picked) + penalty * jnp.sum(w**2)


def held_out_loss(inputs, penalty):
    """The loss on other data, of what these data led to."""
    found = minimize(softmax_loss, jnp.zeros((2, 3)), args=(inputs, penalty), implicit_diff=True)
    return softmax_loss(found.params, jnp.asarray(INPUTS[::-1]), 0.0)


def test_softmax_regression_agrees_with_finite_differences(x64):
    compiled = jax.jit(jax.value_and_grad(held_out_loss, argnums=(0, 1)))
    inputs, penalty, eps = jnp.asarray(INPUTS), 0.05, 1e-4
    direction = jnp.cos(jnp.arange(16.0)).reshape(8, 2)

    def slope(along_inputs, along_penalty):
        above, below = (
            compiled(inputs + step * along_inputs, penalty + step * along_penalty)[0]
            for step in (eps, -eps)
        )
        return (above - below) / (2 * eps)

    _, (by_inputs, by_penalty) = compiled(inputs, penalty)
    np.testing.assert_allclose(by_penalty, slope(0, 1), rtol=1e-5)
    np.testing.assert_allclose(jnp.sum(by_inputs * direction), slope(direction, 0), rtol=1e-5)


# Derivatives that there are not.


def squares_to(x, c):
    return jnp.sum((x - c) ** 2)


def forgotten(c):
    return minimize(squares_to, jnp.zeros(2), args=(c,)).value


def of_the_start(c):
    return minimize(squares_to, jnp.zeros(2) + c, args=(1.0,)).value


def closed_over(c, **settings):
    return minimize(lambda x: squares_to(x, c), jnp.zeros(2), **settings).value


MISTAKES = {
    "forgotten": (forgotten, "only with implicit_diff=True"),
    "start": (of_the_start, "only with implicit_diff=True"),
    "closed over": (closed_over, r"closes over: pass the value in args.*implicit_diff=True"),
    "closed over, implicit": (
        functools.partial(closed_over, implicit_diff=True),
        "closes over: pass the value in args",
    ),
}
TRANSFORMED = {
    "grad": jax.grad,
    "jacfwd": jax.jacfwd,
    "grad of jit": lambda f: jax.grad(jax.jit(f)),
    "jit of vmap of grad": lambda f: jax.jit(lambda c: jax.vmap(jax.grad(f))(c[None])),
}


@pytest.mark.parametrize("transform", TRANSFORMED.values(), ids=TRANSFORMED)
@pytest.mark.parametrize(("fun", "said"), MISTAKES.values(), ids=MISTAKES)
def test_derivative_that_there_is_not_raises_an_error_that_says_so(x64, fun, said, transform):
    with pytest.raises(TypeError, match=said):
        transform(fun)(jnp.ones(()))


@pytest.mark.parametrize("fun", [forgotten, closed_over])
def test_arguments_without_derivatives_may_be_traced(x64, fun):
    def stopped(c):
        return c**2 + fun(jax.lax.stop_gradient(c))

    np.testing.assert_allclose(jax.grad(stopped)(1.5), 3.0)
    np.testing.assert_allclose(jax.jit(jax.vmap(fun))(jnp.arange(2.0)), 0, atol=1e-12)


def test_minimum_of_mixed_dtypes_is_differentiable(x64):
    start = {"a": jnp.zeros(2, "float32"), "b": jnp.zeros(2, "float64")}

    def minimum(c):
        fun = lambda p, c: jnp.sum((p["a"] - c) ** 2) + jnp.sum((p["b"] + c) ** 2)  # noqa: E731
        return jnp.sum(minimize(fun, start, args=(c,), implicit_diff=True).params["b"])

    np.testing.assert_allclose(jax.grad(minimum)(1.0), -2.0, rtol=1e-6)


# Derivatives of higher order, of part of the params, and with respect to bounds.


def logarithm(a):
    """The minimum of exp(x) - a x is at log a."""
    return optax_ls.minimize(
        lambda x, a: jnp.exp(x) - a * x, 0.0, args=(a,), implicit_diff=True
    ).params


@pytest.mark.parametrize(("order", "exact"), [(1, 1 / 2), (2, -1 / 4), (3, 1 / 4)])
@pytest.mark.parametrize("derivative", [jax.jacfwd, jax.grad])
def test_derivatives_of_higher_order_are_those_of_the_closed_form(x64, derivative, order, exact):
    found = logarithm
    for _ in range(order):
        found = derivative(found)
    assert jax.jit(found)(2.0) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("inner", [jax.jit, jax.checkpoint], ids=["jit", "checkpoint"])
def test_traced_data_that_the_function_closes_over_stay_constants(x64, inner):
    def summed(c, y):
        fun = lambda x, c: jnp.sum((x - c * y) ** 2)  # noqa: E731
        return jnp.sum(optax_ls.minimize(fun, jnp.zeros(2), args=(c,), implicit_diff=True).params)

    assert jax.grad(inner(summed))(2.0, 5.0) == pytest.approx(10)
    over = lambda c: jax.lax.scan(lambda s, y: (s + summed(c, y), None), 0.0, jnp.ones(3))  # noqa: E731
    assert jax.grad(lambda c: over(c)[0])(2.0) == pytest.approx(6)


def test_second_derivative_counts_the_motion_of_the_minimum(x64):
    def loss(a):
        return (logarithm(a) - 0.1) ** 2

    exact = 2 * (1 / 4 - (math.log(2) - 0.1) / 4)
    assert jax.jit(jax.hessian(loss))(2.0) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("derivative", [jax.jacfwd, jax.jacrev])
def test_leaves_that_do_not_depend_on_an_argument_do_not_move(x64, derivative):
    def fun(p, c):
        return jnp.sum((p["moves"] - c) ** 2) + jnp.sum((p["stays"] - 1) ** 2)

    start = {"moves": jnp.zeros(2), "stays": jnp.zeros(3), "nothing": jnp.zeros(0)}
    moved = derivative(
        lambda c: optax_ls.minimize(fun, start, args=(c,), implicit_diff=True).params
    )(2.0)
    wanted = {"moves": jnp.ones(2), "stays": jnp.zeros(3), "nothing": jnp.zeros(0)}
    jax.tree.map(np.testing.assert_allclose, moved, wanted)


@pytest.mark.parametrize("derivative", [jax.jacfwd, jax.jacrev])
def test_entries_at_a_bound_move_with_it_and_the_free_ones_follow(x64, derivative):
    def fun(x):
        return x[0] ** 2 + x[0] * x[1] + x[1] ** 2 - 3 * jnp.sum(x)

    def minimum_in_a_box(lower, upper):
        box = jnp.stack([lower, -jnp.inf]), jnp.stack([upper, jnp.inf])
        return optax_ls.minimize(fun, jnp.zeros(2), bounds=box, implicit_diff=True).params

    by_upper = jax.jit(derivative(minimum_in_a_box, argnums=(0, 1)))(-1.0, 0.5)
    np.testing.assert_allclose(by_upper, [[0, 0], [1, -0.5]], atol=1e-9)
    by_lower = derivative(minimum_in_a_box, argnums=(0, 1))(1.5, 2.0)
    np.testing.assert_allclose(by_lower, [[1, -0.5], [0, 0]], atol=1e-9)


def test_bounds_inside_which_the_minimum_lies_do_not_move_it(x64):
    def minimum_around(c):
        return optax_ls.minimize(
            lambda x, c: jnp.sum((x - c) ** 4 + (x - c) ** 2),
            jnp.zeros(3),
            args=(c,),
            bounds=(c - 1, c + 1),
            implicit_diff=True,
        ).params

    np.testing.assert_allclose(jax.jacrev(minimum_around)(0.5), jnp.ones(3), rtol=1e-9)
