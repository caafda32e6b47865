"""The initial scaling gamma of the direction of minimize."""

import jax.numpy as jnp
import numpy as np
import pytest

from optax_ls._core.lbfgs import compact, direction, memory, scaling

SIZE, MEMORY = 8, 4
UNKNOWN = jnp.zeros(SIZE).at[-1].set(1.0)  # orthogonal to every pair below


def unit(i, length=1.0):
    return jnp.zeros(SIZE).at[i].set(length)


def scaling_after(pairs, g=UNKNOWN, beyond=-0.2):
    """The scaling after the last of the pairs, for a gradient with the part ``g``.

    ``beyond`` is the fraction of each step that lies beyond the minimum along it; by default each
    step ends before the minimum.
    """
    state = memory.init(jnp.zeros(SIZE), MEMORY)
    coefficients, rows, yes = state.coefficients, state.rows, jnp.ones((), bool)
    for s, y in pairs:
        new_g, slot = g + beyond * y, coefficients.next_slot
        rows = memory.write_row(rows, slot, (s, y))
        products = direction.inner_products(coefficients, rows, slot, new_g, (s, y))
        coefficients, entered = compact.add_pair(coefficients, slot, products, yes)
        grad_norm = direction.norm(new_g, products.grad_square.dtype)
        gamma = scaling.for_long_steps(coefficients, grad_norm, products.pair, entered)
    return float(gamma)


@pytest.mark.parametrize(
    ("curvatures", "expected"),
    [
        ([4.0], 1 / 4),
        ([2.0, 4.0], 1 / 2),
        ([4.0, 2.0, 8.0], 1 / 2),
        ([1.0, 4.0, 2.0, 8.0], 1 / 2),  # the first is not among the last three
        ([1.0, 1.0, 4.0, 2.0, 8.0, 16.0], 1 / 2),  # and slots were used twice
    ],
)
def test_scaling_is_the_largest_of_the_last_three_pairs(curvatures, expected):
    pairs = [(unit(i), unit(i, c)) for i, c in enumerate(curvatures)]
    assert scaling_after(pairs) == pytest.approx(expected)


@pytest.mark.parametrize("beyond", [0.1, 0.5])
@pytest.mark.parametrize("curvatures", [[4.0], [2.0, 4.0], [1.0, 4.0, 2.0, 8.0, 16.0]])
def test_scaling_is_that_of_the_newest_pair_after_a_step_beyond_the_minimum(curvatures, beyond):
    pairs = [(unit(i), unit(i, c)) for i, c in enumerate(curvatures)]
    assert scaling_after(pairs, beyond=beyond) == pytest.approx(1 / curvatures[-1])


@pytest.mark.parametrize(
    ("beyond", "expected"), [(-0.5, 1 / 2), (-0.1, 1 / 2), (0.0, 1 / np.sqrt(2 * 8)), (0.1, 1 / 8)]
)
def test_scaling_goes_over_from_the_largest_to_the_newest_without_a_jump(beyond, expected):
    pairs = [(unit(0), unit(0, 2.0)), (unit(1), unit(1, 8.0))]
    assert scaling_after(pairs, beyond=beyond) == pytest.approx(expected)


def test_new_pair_counts_by_lengths_too():
    s, y = unit(0), unit(0) + unit(1)
    by_curvature, by_lengths = 1 / 2, 1 / np.sqrt(2)
    assert scaling_after([(s, y)]) == pytest.approx(np.sqrt(by_curvature * by_lengths))


@pytest.mark.parametrize(("last", "longest"), [(0.125, 0.25), (100.0, 1.0)])
def test_without_pairs_the_step_is_no_longer_than_twice_the_last(last, longest):
    negative_curvature = unit(0, last), unit(0, -1.0)
    for length in (1e-3, 1.0, 1e3):
        step = scaling_after([negative_curvature], length * UNKNOWN, beyond=0) * length
        assert step == pytest.approx(min(longest, length))
