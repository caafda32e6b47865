"""The direction is that of the dense inverse Hessian made of the pairs in the memory."""

import dense
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trees
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
from optax_ls._core.lbfgs import compact, direction, memory

# The direction.


@pytest.mark.parametrize(("x64", "tolerance"), [(False, 2e-4), (True, 1e-11)], indirect=["x64"])
@pytest.mark.parametrize("scale_init_precond", [True, False])
@pytest.mark.parametrize("number", [1, 3, 4, 5, 11])
@pytest.mark.parametrize("memory_size", [1, 4, direction._MAX_UNROLLED + 1])
def test_direction_is_that_of_the_dense_matrix_of_the_last_pairs(
    memory_size, number, scale_init_precond, x64, tolerance
):
    rng = np.random.default_rng(number)
    pairs = curved_pairs(number, rng)
    params, grads = trajectory(pairs, rng)
    found, _ = run(params, grads, memory_size, scale_init_precond)
    gamma = scale_of(pairs[-1]) if scale_init_precond else 1.0
    wanted = dense_inverse_hessian(pairs[-memory_size:], gamma) @ grads[-1]
    assert relative_distance(found, wanted) <= tolerance


@pytest.mark.parametrize("devices", [1, 8])
def test_direction_is_the_same_for_any_number_of_devices(monkeypatch, devices):
    rng = np.random.default_rng(0)
    history = trajectory(curved_pairs(6, rng), rng)
    wanted, _ = run(*history, memory_size=4, as_tree=as_tree)
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    monkeypatch.setattr(dense, "compiled", compiled.__wrapped__)  # a program of its own
    found, _ = run(*history, memory_size=4, as_tree=as_tree)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5), found, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("size", [direction._MAX_UNROLLED, direction._MAX_UNROLLED + 1])
@pytest.mark.parametrize("name", trees.TREES)
def test_combination_is_the_weighted_sum_of_all_rows(name, size, enable_x64):
    with enable_x64(name in trees.ONLY_WITH_X64):
        one = jax.tree.map(jnp.asarray, trees.TREES[name]())
        rows = jax.tree.map(lambda x: jnp.stack([x + k / 8 for k in range(size)]), one)
        of_s, of_y = jnp.arange(size) / size, jnp.ones(size) / 4
        found = direction.combine((rows, rows), one, jnp.asarray(1.5), of_s, of_y)
        assert trees.dtypes(found) == trees.dtypes(one)

        def check(found, one, rows):
            of_rows = np.asarray(of_s + of_y, "float64")
            wanted = np.tensordot(of_rows, np.asarray(rows).astype(complex), 1)
            wanted = wanted + 1.5 * np.asarray(one).astype(complex)
            error = np.abs(np.asarray(found).astype(complex) - wanted)
            eps = jnp.finfo(one.dtype).eps
            assert np.all(error <= 4 * eps * np.abs(wanted) + 32 * 6e-8 * size)

        jax.tree.map(check, found, one, rows)


@pytest.mark.parametrize(("length", "factor"), [(0.5, 1.0), (1.0, 1.0), (40.0, 1 / 40)])
def test_direction_before_the_first_pair_is_the_gradient_no_longer_than_one(length, factor):
    g = jnp.zeros(3).at[1].set(length)
    direction, _ = run([np.ones(3)], [g], memory_size=1)
    np.testing.assert_allclose(direction, factor * g, rtol=1e-6)


def test_direction_before_the_first_pair_is_the_gradient_without_scaling():
    g = jnp.array([30.0, 40.0])
    direction, _ = run([np.ones(2)], [g], memory_size=1, scale_init_precond=False)
    np.testing.assert_array_equal(direction, g)


def test_zero_gradient_gives_a_zero_direction():
    direction, _ = run([np.ones(3)], [np.zeros(3)], memory_size=1)
    np.testing.assert_array_equal(direction, 0)


def test_direction_of_a_tree_is_that_of_the_flat_vector():
    rng = np.random.default_rng(0)
    params, grads = trajectory(curved_pairs(5, rng), rng)
    flat, _ = run(params, grads, 3)
    in_tree, _ = run(params, grads, 3, as_tree=as_tree)
    parts = [in_tree["a"], in_tree["b"][0].ravel(), in_tree["b"][1][None]]
    np.testing.assert_allclose(np.concatenate(parts), flat, rtol=1e-4, atol=1e-6)


def test_complex_direction_is_that_of_the_real_vector_of_twice_the_length():
    rng = np.random.default_rng(1)
    params, grads = trajectory(curved_pairs(5, rng), rng)
    real, _ = run(params, grads, 3)
    direction, _ = run(params, grads, 3, as_tree=as_complex)
    np.testing.assert_allclose(
        np.concatenate([direction.real, direction.imag]), real, rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("x64", [True], indirect=True)
@pytest.mark.parametrize("size", [2, 5])
def test_quadratic_is_minimised_in_as_many_exact_searches_as_it_has_dimensions(size, x64):
    rng = np.random.default_rng(2)
    root = rng.normal(size=(size, size))
    hessian, centre = root @ root.T + np.eye(size), rng.normal(size=size)
    tx = optax_ls.scale_by_lbfgs(memory_size=size)
    update = jax.jit(tx.update)
    x = jnp.zeros(size)
    state = tx.init(x)
    for _ in range(size):
        g = hessian @ (x - centre)
        direction, state = update(g, state, x)
        x = x - (g @ direction) / (direction @ hessian @ direction) * direction
    np.testing.assert_allclose(x, centre, rtol=1e-8)


@pytest.mark.parametrize("x64", [True], indirect=True)
def test_direction_after_all_dimensions_of_a_quadratic_is_newtons(x64):
    rng = np.random.default_rng(3)
    root = rng.normal(size=(4, 4))
    hessian = root @ root.T + np.eye(4)
    # With conjugate steps every pair survives the later ones.
    _, axes = np.linalg.eigh(hessian)
    params = [np.zeros(4)]
    for axis in axes.T:
        params.append(params[-1] + axis)
    grads = [hessian @ w for w in params]
    direction, _ = run(params, grads, 4)
    np.testing.assert_allclose(direction, np.linalg.solve(hessian, grads[-1]), rtol=1e-10)


# The memory.


@pytest.mark.parametrize("number", [0, 1, 3, 4, 9])
def test_memory_holds_the_last_pairs(number):
    rng = np.random.default_rng(4)
    pairs = curved_pairs(number, rng)
    _, state = run(*trajectory(pairs, rng), memory_size=3)
    held = pairs_in_memory(state)
    assert len(held) == min(number, 3)
    if held:
        np.testing.assert_allclose(held, pairs[-3:], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("number", [1, 3, 7])
def test_weights_are_the_inverse_inner_products_of_the_pairs(number):
    rng = np.random.default_rng(5)
    _, state = run(*trajectory(curved_pairs(number, rng), rng), memory_size=4)
    wanted = sorted(1 / (s @ y) for s, y in pairs_in_memory(state))
    held = sorted(float(rho) for rho in state.weights_memory if rho != 0)
    np.testing.assert_allclose(held, wanted, rtol=1e-4)


@pytest.mark.parametrize("number", [1, 3, 7])
def test_inverse_r_inverts_the_triangle_of_inner_products(number):
    rng = np.random.default_rng(6)
    _, state = run(*trajectory(curved_pairs(number, rng), rng), memory_size=4)
    pairs = pairs_in_memory(state)
    r = np.triu([[s @ y for _, y in pairs] for s, _ in pairs])
    slots = [(int(state.num_pairs) - len(pairs) + k) % 4 for k in range(len(pairs))]
    held = np.asarray(state.inverse_r)[np.ix_(slots, slots)]
    np.testing.assert_allclose(held @ r, np.eye(len(pairs)), atol=1e-3)


@pytest.mark.parametrize("number", [1, 3, 7])
def test_gram_matrix_holds_the_inner_products_of_the_changes(number):
    rng = np.random.default_rng(7)
    _, state = run(*trajectory(curved_pairs(number, rng), rng), memory_size=4)
    y = np.asarray(state.diff_updates_memory)
    np.testing.assert_allclose(state.gram_y, y @ y.T, rtol=1e-4, atol=1e-4)


def test_pairs_that_were_dropped_leave_no_trace_in_the_direction():
    rng = np.random.default_rng(9)
    _, state = run(*trajectory(curved_pairs(6, rng), rng), memory_size=4)
    yes = jnp.ones((), bool)
    used = state.coefficients.without_pairs(yes), state.rows
    fresh = memory.init(state.params, 4)
    fresh = fresh.coefficients, fresh.rows

    def added(memory_before, s, y, g):
        coefficients, rows = memory_before
        slot = coefficients.next_slot
        rows = memory.write_row(rows, slot, (s, y))
        products = direction.inner_products(coefficients, rows, slot, g, (s, y))
        coefficients, _ = compact.add_pair(coefficients, slot, products, yes)
        of_s, of_y = compact.apply(coefficients, jnp.ones(()), products.s_g, products.y_g)
        return direction.combine(rows, g, jnp.ones(()), of_s, of_y), (coefficients, rows)

    for _ in range(4):
        s, g, y = rng.normal(size=(3, N))
        y = y + s * (1 - y @ s) / (s @ s)
        pair = [jnp.asarray(x, "float32") for x in (s, y, g)]
        (found, used), (wanted, fresh) = added(used, *pair), added(fresh, *pair)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


STEP = np.array([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
SIDEWAYS = np.array([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])
REFUSED = {
    "negative_curvature": (STEP, -STEP),
    "no_curvature": (STEP, SIDEWAYS),
    "curvature_below_rounding": (STEP, SIDEWAYS + 1e-9 * STEP),
    "no_step": (0 * STEP, STEP),
    "no_change": (STEP, 0 * STEP),
    "nan": (STEP, np.full(N, np.nan)),
    "infinite": (STEP, np.full(N, np.inf)),
}
each_finite = pytest.mark.parametrize(
    "name", [name for name, pair in REFUSED.items() if np.all(np.isfinite(pair))]
)


def before_and_after(pair, memory_size=3):
    """The states before and after an update whose pair is given, with a memory that is full."""
    # Integers, so that differences are exact in float32; the gradient is that of |w|^2.
    steps = np.random.default_rng(8).integers(1, 9, size=(4, N))
    params = np.vstack([np.zeros(N), np.cumsum(steps, axis=0)])
    grads = 2 * params
    _, before = run(params, grads, memory_size)
    _, update = compiled(memory_size)
    s, y = pair
    direction, after = update(jnp.asarray(grads[-1] + y), before, jnp.asarray(params[-1] + s))
    return before, after, direction


@pytest.mark.parametrize("pair", REFUSED.values(), ids=REFUSED)
def test_pair_without_curvature_takes_nothing_but_the_place_of_the_oldest(pair):
    before, after, _ = before_and_after(pair)
    oldest = int(before.num_pairs) % 3
    np.testing.assert_array_equal(after.weights_memory, before.weights_memory.at[oldest].set(0))
    for field in ("diff_params_memory", "diff_updates_memory"):
        rows = getattr(after, field)
        assert np.all(np.isfinite(rows))
        others = np.delete(rows, oldest, axis=0), np.delete(getattr(before, field), oldest, axis=0)
        np.testing.assert_array_equal(*others)
    for field in ("num_pairs", "inverse_r", "gram_y"):
        np.testing.assert_array_equal(getattr(after, field), getattr(before, field))


@each_finite
def test_direction_after_a_refused_pair_is_that_of_the_others(name):
    before, after, direction = before_and_after(REFUSED[name])
    others = pairs_in_memory(before)[1:]
    wanted = dense_inverse_hessian(others, scale_of(others[-1])) @ np.asarray(after.updates)
    assert relative_distance(direction, wanted) <= 1e-5


@each_finite
def test_direction_without_the_only_pair_is_that_before_the_first(name):
    _, after, direction = before_and_after(REFUSED[name], memory_size=1)
    wanted = after.updates * min(1, 1 / np.linalg.norm(after.updates))
    np.testing.assert_allclose(direction, wanted, rtol=1e-6)


@pytest.mark.parametrize("pair", REFUSED.values(), ids=REFUSED)
def test_update_with_a_refused_pair_counts_all_the_same(pair):
    before, after, _ = before_and_after(pair)
    assert after.count == before.count + 1


@each_finite
def test_direction_after_a_refused_pair_still_leads_downhill(name):
    _, after, direction = before_and_after(REFUSED[name])
    assert optax_ls.tree.vdot(direction, after.updates) > 0


def test_pair_with_curvature_enters():
    before, after, _ = before_and_after((STEP, STEP))
    assert after.num_pairs == before.num_pairs + 1


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
@pytest.mark.parametrize("of_step", [True, False], ids=["step", "gradient"])
def test_whether_a_pair_enters_does_not_depend_on_scale(scale, of_step):
    s = np.array([1.0, 1.0]) * (scale if of_step else 1.0)
    y = np.array([1.0, 2.0]) * (1.0 if of_step else scale)
    _, state = run([0 * s, s], [0 * y, y], memory_size=1)
    assert state.num_pairs == 1


def test_pair_whose_square_is_too_small_for_the_dtype_does_not_enter():
    direction, state = run(
        [np.zeros(2), np.ones(2)], [np.zeros(2), np.full(2, 1e-24)], memory_size=1
    )
    assert state.num_pairs == 0
    assert np.all(np.isfinite(direction))


def test_first_update_makes_no_pair():
    _, state = run([np.ones(3)], [np.ones(3)], memory_size=1)
    assert state.num_pairs == 0


@pytest.mark.parametrize("memory_size", [1, 3])
def test_memory_has_a_leading_axis_of_its_size(memory_size):
    state = optax_ls.scale_by_lbfgs(memory_size).init({"w": jnp.ones((2, 5)), "b": jnp.ones(())})
    shapes = {name: leaf.shape for name, leaf in state.diff_params_memory.items()}
    assert shapes == {"w": (memory_size, 2, 5), "b": (memory_size,)}


@pytest.mark.parametrize("name", ["ScaleByLBFGSState"])
def test_state_begins_with_the_fields_of_optax(name):
    optax = pytest.importorskip("optax", minversion="0.2.8")
    theirs = getattr(optax, name)._fields
    assert getattr(optax_ls, name)._fields[: len(theirs)] == theirs


# The whole method.


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def minimise(solver, fn, x, iterations):
    value_and_grad = optax_ls.value_and_grad_from_state(fn)

    def step(carry, _):
        x, state = carry
        value, grad = value_and_grad(x, state=state)
        updates, state = solver.update(
            jnp.conj(grad), state, x, value=value, grad=jnp.conj(grad), value_fn=fn
        )
        return (optax_ls.apply_updates(x, updates), state), value

    return jax.lax.scan(step, (x, solver.init(x)), length=iterations)


SEARCHES = {
    "zoom": optax_ls.scale_by_zoom_linesearch(20, initial_guess_strategy="one"),
    "backtracking": optax_ls.scale_by_backtracking_linesearch(30, store_grad=True),
}


@pytest.mark.parametrize("x64", [True], indirect=True)
@pytest.mark.parametrize("linesearch", SEARCHES.values(), ids=SEARCHES)
def test_rosenbrock_is_minimised(linesearch, x64):
    solver = optax_ls.lbfgs(memory_size=5, linesearch=linesearch)
    (x, _), _ = minimise(solver, rosenbrock, jnp.array([-1.2, 1.0, -1.2, 1.0]), 80)
    np.testing.assert_allclose(x, 1, rtol=1e-6)


@pytest.mark.parametrize("x64", [True], indirect=True)
@pytest.mark.parametrize("linesearch", SEARCHES.values(), ids=SEARCHES)
def test_values_never_increase(linesearch, x64):
    solver = optax_ls.lbfgs(memory_size=5, linesearch=linesearch)
    _, values = minimise(solver, rosenbrock, jnp.array([-1.2, 1.0, -1.2, 1.0]), 40)
    assert np.all(np.diff(values) <= 1e-6 * np.abs(values[:-1]))


@pytest.mark.parametrize("x64", [True], indirect=True)
def test_complex_objective_is_minimised(x64):
    target = jnp.array([1 + 2j, -3j, 0.5])
    fn = lambda z: jnp.sum(jnp.abs(z**2 - target) ** 2)  # noqa: E731
    (z, _), _ = minimise(
        optax_ls.lbfgs(memory_size=3), fn, jnp.array([1.0, 1.0 - 1j, 0.5 + 1j]), 40
    )
    np.testing.assert_allclose(z**2, target, atol=1e-6)


@pytest.mark.parametrize(
    ("learning_rate", "rate"), [(0.5, 0.5), (lambda count: 0.25, 0.25)], ids=["number", "schedule"]
)
def test_learning_rate_scales_the_direction_without_a_search(learning_rate, rate):
    solver = optax_ls.lbfgs(learning_rate, memory_size=1, linesearch=None)
    g = jnp.array([0.3, 0.4])
    updates, _ = jax.jit(solver.update)(g, solver.init(g), g)
    np.testing.assert_allclose(updates, -rate * g, rtol=1e-6)


def test_descends_from_a_saddle_where_every_pair_has_negative_curvature():
    fn = lambda x: x[0] ** 2 - x[1] ** 2 + x[1] ** 4 / 50  # noqa: E731
    solver = optax_ls.lbfgs(0.1, memory_size=3, linesearch=None)
    x, values = jnp.array([0.0, 0.1]), []
    state, step = solver.init(x), jax.jit(solver.update)
    for _ in range(20):
        values.append(float(fn(x)))
        updates, state = step(jax.grad(fn)(x), state, x)
        x = optax_ls.apply_updates(x, updates)
    assert np.all(np.diff(values) < 0)


# Corrections of a pair by values, in minimize.


@pytest.mark.parametrize("x64", [True], indirect=True)
@pytest.mark.parametrize("third", [-0.3, 0.0, 0.4])
def test_corrected_pair_has_the_larger_second_derivative_of_a_cubic(third, x64):
    """At the newer end, where it is larger than the mean along the step for a positive third."""
    phi = lambda t: t**2 + third * t**3 - 2 * t  # noqa: E731
    step = 0.7
    values = phi(0.0), phi(step)
    slopes = jax.grad(phi)(0.0), jax.grad(phi)(step)
    s_y = step * (slopes[1] - slopes[0])
    pair = compact.PairProducts(jnp.asarray(step**2), s_y, s_y, step * slopes[1], s_y)
    multiple = direction.curvature_correction(pair, *values)
    wanted = jax.grad(jax.grad(phi))(step)
    np.testing.assert_allclose(
        s_y / step**2 + multiple, wanted if third > 0 else s_y / step**2, rtol=1e-9
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [(1e9, 1e9 - 1), (1.0, float("inf")), (1.0, float("nan"))],
    ids=["rounding", "infinite", "nan"],
)
def test_values_that_show_no_curvature_correct_no_pair(values):
    values = tuple(jnp.asarray(value) for value in values)
    pair = compact.PairProducts(*(jnp.asarray(x) for x in (1.0, 1.0, 1.0, 0.1, 1.0)))
    assert direction.curvature_correction(pair, *values) == 0
