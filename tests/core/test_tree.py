"""Linear algebra on trees agrees with NumPy on the flattened vector, and with ``optax.tree``."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import optax_ls
from optax_ls import tree

DTYPES = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.complex64)
SHAPES = ((), (3,), (2, 2), (0,))

# Quarters of small integers, so that sums and products are exact in every dtype.
quarters = st.integers(-8, 8).map(lambda n: n / 4)
exact = settings(deadline=None, max_examples=30, derandomize=True)


@st.composite
def arrays(draw, shape, dtype):
    size = int(np.prod(shape))
    values = np.array(draw(st.lists(quarters, min_size=size, max_size=size)), complex)
    if dtype == jnp.complex64:
        values += 1j * np.array(draw(st.lists(quarters, min_size=size, max_size=size)))
    else:
        values = values.real
    return jnp.asarray(values.reshape(shape), dtype)


def structures():
    leaf = st.tuples(st.sampled_from(SHAPES), st.sampled_from(DTYPES))
    return st.recursive(
        leaf | st.none(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        ),
        max_leaves=4,
    )


@st.composite
def trees(draw, number):
    """Several trees of one structure, with leaves of the same shapes and dtypes."""
    structure = draw(structures())
    is_leaf = lambda x: isinstance(x, tuple)  # noqa: E731
    made = [
        jax.tree.map(lambda spec: draw(arrays(*spec)), structure, is_leaf=is_leaf)
        for _ in range(number)
    ]
    return made[0] if number == 1 else made


def vector(a_tree):
    """All elements of a tree as one vector of NumPy's widest dtype."""
    leaves = [np.asarray(x, np.complex128).ravel() for x in jax.tree.leaves(a_tree)]
    return np.concatenate([np.zeros(0), *leaves])


def assert_same(got, wanted):
    """Equal structures, and leaves of equal dtypes, shapes and values."""
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert jnp.asarray(a).dtype == jnp.asarray(b).dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


# Leaf by leaf, as optax.tree.


BINARY = {
    "add": lambda t, x, y: t.add(x, y),
    "add_of_three": lambda t, x, y: t.add(x, y, x),
    "sub": lambda t, x, y: t.sub(x, y),
    "scale": lambda t, x, y: t.scale(0.5, x),
    "add_scale": lambda t, x, y: t.add_scale(x, 0.5, y),
    "where_true": lambda t, x, y: t.where(True, x, y),
    "where_false": lambda t, x, y: t.where(jnp.array(False), x, y),
    "zeros_like": lambda t, x, y: t.zeros_like(x),
    "zeros_like_float32": lambda t, x, y: t.zeros_like(x, dtype=jnp.float32),
    "real": lambda t, x, y: t.real(x),
    "conj": lambda t, x, y: t.conj(x),
}


@pytest.mark.parametrize("operation", BINARY.values(), ids=BINARY)
@exact
@given(pair=trees(2))
def test_leafwise_operation_gives_what_optax_gives(operation, pair):
    optax = pytest.importorskip("optax", minversion="0.2.5")
    assert_same(operation(tree, *pair), operation(optax.tree, *pair))


@pytest.mark.parametrize("dtype", DTYPES)
def test_cast_like_gives_the_dtypes_of_the_other_tree(dtype):
    cast = tree.cast_like({"a": jnp.ones(2), "b": [0.5]}, {"a": dtype(1), "b": [dtype(2)]})
    assert {leaf.dtype for leaf in jax.tree.leaves(cast)} == {jnp.dtype(dtype)}


def test_cast_like_keeps_the_values():
    cast = tree.cast_like([jnp.array([0.5, 1.5])], [jnp.zeros(2, jnp.bfloat16)])
    assert cast[0].tolist() == [0.5, 1.5]


def test_where_takes_a_condition_per_element():
    chosen = tree.where(jnp.array([True, False]), {"a": jnp.ones(2)}, {"a": jnp.zeros(2)})
    assert chosen["a"].tolist() == [1.0, 0.0]


# Reductions, as NumPy.


@exact
@given(pair=trees(2))
def test_vdot_is_the_inner_product_that_conjugates_the_first(pair):
    x, y = pair
    np.testing.assert_allclose(tree.vdot(x, y), np.vdot(vector(x), vector(y)), rtol=1e-6)


@exact
@given(x=trees(1))
def test_sum_is_that_of_all_elements(x):
    np.testing.assert_allclose(tree.sum(x), np.sum(vector(x)), rtol=1e-6)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize(
    ("ord", "numpy_ord"), [(None, 2), (2, 2), (1, 1), ("inf", np.inf), (jnp.inf, np.inf)]
)
@exact
@given(x=trees(1))
def test_norm_is_that_of_the_vector(x, ord, numpy_ord, squared):
    flat = vector(x)
    wanted = np.linalg.norm(flat, numpy_ord) if flat.size else 0.0
    got = tree.norm(x, ord=ord, squared=squared)
    np.testing.assert_allclose(got, wanted**2 if squared else wanted, rtol=1e-6)


@pytest.mark.parametrize("ord", [None, 1, 2, "inf"])
@exact
@given(x=trees(1))
def test_norm_is_real(x, ord):
    assert jnp.issubdtype(tree.norm(x, ord=ord).dtype, jnp.floating)


REDUCTIONS = {
    "sum": tree.sum,
    "vdot": lambda x: tree.vdot(x, x),
    "norm": tree.norm,
    "squared_norm": lambda x: tree.norm(x, squared=True),
    "norm_1": lambda x: tree.norm(x, ord=1),
    "norm_inf": lambda x: tree.norm(x, ord="inf"),
}
each_reduction = pytest.mark.parametrize("reduce", REDUCTIONS.values(), ids=REDUCTIONS)


@each_reduction
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_reductions_of_half_types_return_float32(reduce, dtype):
    assert reduce({"a": jnp.ones(3, dtype), "b": jnp.ones((), dtype)}).dtype == jnp.float32


@each_reduction
@pytest.mark.parametrize("empty", [(), {}, None, {"a": None, "b": []}], ids=repr)
def test_reductions_of_trees_without_leaves_are_zero(reduce, empty):
    assert reduce(empty) == 0


@pytest.mark.parametrize("reduce", [REDUCTIONS["vdot"], tree.sum], ids=["vdot", "sum"])
def test_reductions_of_bfloat16_do_not_lose_small_terms(reduce):
    # A bfloat16 accumulator stops growing at 256.
    assert reduce(jnp.ones(4096, jnp.bfloat16)) == 4096


def test_norm_of_float16_does_not_overflow_in_its_squares():
    np.testing.assert_allclose(tree.norm(jnp.full(4, 30_000.0, jnp.float16)), 60_000, rtol=1e-3)


@pytest.mark.parametrize("ord", [None, 1, "inf"])
def test_norm_of_something_that_is_not_a_number_is_not_a_number(ord):
    assert jnp.isnan(tree.norm({"a": jnp.array([1.0, jnp.nan]), "b": jnp.ones(2)}, ord=ord))


# get.


class Inner(NamedTuple):
    count: Any
    trace: Any


class Outer(NamedTuple):
    inner: Any
    count: Any


STATE = Outer(inner=(Inner(count=1, trace={"w": 2.0}), None), count=3)


@pytest.mark.parametrize(
    ("a_tree", "key", "found"),
    [
        ({"a": 1, "b": [2]}, "a", 1),
        ({"a": 1, "b": [2]}, "b", [2]),
        ([{"a": {"deep": 4}}], "deep", 4),
        ({7: "seven"}, 7, "seven"),
        (STATE, "trace", {"w": 2.0}),
        (STATE, "w", 2.0),
        (STATE, "Inner", STATE.inner[0]),
        (STATE, "Outer", STATE),
        (Inner(count=None, trace=5), "count", None),
        ({"same": {"b": 1}}, "b", 1),
    ],
)
def test_get_finds_what_optax_finds(a_tree, key, found):
    optax = pytest.importorskip("optax", minversion="0.2.5")
    assert tree.get(a_tree, key) == found == optax.tree.get(a_tree, key)


@pytest.mark.parametrize("a_tree", [(), None, 3.0, {"a": 1}, STATE], ids=repr)
def test_get_returns_the_default_for_what_is_not_there(a_tree):
    assert tree.get(a_tree, "nowhere", default="none") == "none"


def test_get_without_a_default_returns_none():
    assert tree.get({"a": 1}, "b") is None


def test_get_raises_for_a_key_that_stands_twice():
    with pytest.raises(KeyError, match="'count' is found 2 times"):
        tree.get(STATE, "count")


def test_get_counts_a_key_below_the_same_key_as_well():
    with pytest.raises(KeyError, match="2 times"):
        tree.get({"a": {"a": 1}}, "a")


def test_filtering_by_value_leaves_finds_out():
    assert tree.get(STATE, "count", filtering=lambda path, value: value > 2) == 3


def test_filtering_sees_the_path():
    assert tree.get(STATE, "count", filtering=lambda path, value: len(path) == 1) == 3


def test_filtering_may_leave_nothing():
    assert tree.get(STATE, "w", default=0, filtering=lambda path, value: False) == 0


@pytest.mark.parametrize("key", ["num_linesearch_steps", "learning_rate", "decrease_error"])
def test_get_reads_the_state_of_a_solver(key):
    assert tree.get(optax_ls.lbfgs().init(jnp.ones(3)), key) is not None


def test_get_fetches_a_state_by_its_class():
    state = optax_ls.lbfgs().init(jnp.ones(3))
    assert tree.get(state, "ScaleByLBFGSState") is state[0]


def test_get_works_on_traced_states():
    state = optax_ls.lbfgs().init(jnp.ones(3))
    assert jax.jit(lambda s: tree.get(s, "learning_rate"))(state) == 1
