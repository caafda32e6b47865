"""Small loops are compiled in one piece on a CPU, and say the same as others.

XLA is told here to emit code in an old way, and has eight devices, which are hidden. What it makes
of each operation by default, a process without either finds out.
"""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pieces
import pytest
from bestiary import rosenbrock

import optax_ls
from optax_ls import _piece

pytestmark = pytest.mark.skipif(
    not _piece._is_tried(), reason="nothing is compiled in one piece with this JAX, or here"
)


@pytest.fixture
def alone(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)


def minimized(fun, x, *args, **settings):
    """What minimize gives, and how many calls of its program are marked."""

    def fresh(*inputs):  # programs are kept by function
        return fun(*inputs)

    run = jax.jit(lambda x, args: optax_ls.minimize(fresh, x, args=args, **settings))
    program = run.lower(x, args).compile()
    return program(x, args), pieces.marked_calls(program)


def bowl(x):
    return sum(jnp.sum(jnp.abs(leaf - 2) ** 2) for leaf in jax.tree.leaves(x))


def misfit(w, points, labels):
    return jnp.mean(jax.nn.softplus(points @ w) - labels * (points @ w)) + jnp.sum(w**2)


POINTS = np.sin(np.arange(150.0)).reshape(50, 3).astype("float32")
LABELS = POINTS[:, 0] > POINTS[:, 1]
ONES = jnp.ones(5, "float32")
SMALL = {
    "chain": (rosenbrock, jnp.zeros(10, "float32")),
    "fit": (misfit, jnp.zeros(3, "float32"), POINTS, LABELS),
    "fit to what it closes over": (lambda w: misfit(w, POINTS, LABELS), jnp.zeros(3, "float32")),
    "number": (bowl, 1.0),
    "tree of numbers": (bowl, {"a": 1.0, "b": 0.0}),
    "tree": (bowl, {"a": jnp.zeros((3, 2)), "b": 0.0, "none": None, "empty": jnp.zeros((0, 2))}),
    "half types": (bowl, {"a": jnp.zeros(3, "bfloat16"), "b": jnp.zeros(2, "float16")}),
    "complex": (bowl, jnp.zeros(3, "complex64")),
    "choice": (lambda x: jax.lax.cond(x[0] > 1, bowl, rosenbrock, x), ONES),
    "largest": (lambda x: bowl(x) + jnp.sum(jnp.cos(x)) ** 2, jnp.zeros(2048, "float32")),
    # What is of no use must not be an operand that the compiler can do without.
    "useless params": (lambda x: bowl(x["a"]), {"a": ONES, "b": ONES, "c": 1.0}),
    "useless args": (lambda x, *args: bowl(x), ONES, ONES, jnp.arange(3), LABELS, 1, 2.0, True),
    "args times zero": (
        lambda x, *args: bowl(x) + sum(jnp.sum(0 * arg) for arg in args).astype(x.dtype),
        ONES,
        jnp.arange(3),
        jnp.arange(3, dtype="uint8"),
        jnp.ones(3, "bfloat16"),
    ),
    "constant": (lambda x: jnp.asarray(3.0), {"a": ONES, "b": ONES}),
    "constant closed over": (lambda x: bowl(x) + jnp.sum(jnp.arange(100) * 0), ONES),
    "nothing": (lambda x: jnp.sum(x), jnp.zeros(0, "float32")),
}
LARGE = {
    "product of matrices": (lambda x: jnp.sum((x.reshape(4, 3) @ x.reshape(3, 4) - 1) ** 2), (12,)),
    "sort": (lambda x: jnp.sum((jnp.sort(x) - 1) ** 2), (5,)),
    "scatter": (lambda x: jnp.sum((x[jnp.array([0, 0, 3])] - 1) ** 2), (5,)),
    "factors": (lambda x: bowl(jnp.linalg.solve(jnp.eye(5) + jnp.diag(x) ** 2, x)), (5,)),
    "random": (lambda x: bowl(x + jax.random.normal(jax.random.key(0), x.shape)), (5,)),
    "many params": (bowl, (2049,)),
    "long sum": (lambda x: jnp.sum(jnp.tile(x, 1000) ** 2), (5,)),
    "long product": (lambda x: jnp.tile(x, 1000) @ jnp.tile(x, 1000), (5,)),
    "long product with one row": (lambda x: (jnp.tile(x, 1000)[None] @ jnp.tile(x, 1000))[0], (5,)),
    "much data": (lambda x: bowl(jnp.ones((10_000, 5), "float32") @ x) / 10_000, (5,)),
    "printing": (lambda x: jax.debug.print("") or bowl(x), (5,)),
}


@pytest.mark.parametrize("name", SMALL)
def test_small_problem_is_one_piece_and_ends_as_in_many(name, alone, monkeypatch):
    fun, x, *args = SMALL[name]
    found, marks = minimized(fun, x, *args)
    assert marks == 1
    monkeypatch.setattr(_piece, "_VERSIONS", ())
    wanted, marks = minimized(fun, x, *args)
    assert marks == 0
    assert bool(found.success)
    assert bool(wanted.success)
    for one, other in zip(*map(jax.tree.leaves, (found.params, wanted.params)), strict=True):
        assert (one.dtype, one.weak_type) == (other.dtype, other.weak_type)
        tolerance = max(1e-2, 4 * float(jnp.finfo(one.dtype).eps))
        np.testing.assert_allclose(one.astype("complex64"), other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", LARGE)
def test_others_are_compiled_as_ever(name, alone):
    fun, shape = LARGE[name]
    found, marks = minimized(fun, jnp.full(shape, 0.5, "float32"), max_iters=3)
    assert marks == 0
    assert found.num_iters > 0


SETTINGS = {
    "few pairs": {"memory_size": 1},
    "many pairs": {"memory_size": 30},
    "zoom": {"linesearch": "zoom"},
    "backtracking": {"linesearch": "backtracking"},
    "history": {"history": True, "max_iters": 20},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_leave_it_one_piece(name, alone):
    found, marks = minimized(rosenbrock, jnp.zeros(4, "float32"), **SETTINGS[name])
    assert marks == 1
    assert found.value < 1e-2


def test_double_precision_is_one_piece_too(alone, enable_x64):
    with enable_x64(True):
        found, marks = minimized(rosenbrock, jnp.zeros(4, "float64"))
        assert marks == 1
        assert found.value < 1e-12


@pytest.mark.parametrize("dtype", ["int4", "float8_e4m3fn"])
def test_data_of_rare_types_leaves_it_in_many(dtype, alone):
    data = jnp.ones(3, getattr(jnp, dtype))
    _, marks = minimized(lambda x, data: bowl(x) + jnp.sum(data.astype(x.dtype)), ONES, data)
    assert marks == 0


def test_run_that_is_told_of_is_not(alone):
    _, marks = minimized(bowl, ONES, callback=lambda info: None)
    assert marks == 0


def test_neither_is_one_among_several_devices():
    assert jax.device_count() > 1
    _, marks = minimized(bowl, ONES)
    assert marks == 0


# Under vmap.


def lanes_of(fun, *shape):
    """A vmap of minimize over lanes that begin at different points, compiled."""
    x = jnp.linspace(-1, 1, int(np.prod(shape)), dtype="float32").reshape(shape)
    run = jax.jit(jax.vmap(lambda x, scale: optax_ls.minimize(lambda x: fun(x, scale), x)))
    scales = jnp.linspace(1, 2, shape[0], dtype="float32")
    return run.lower(x, scales).compile(), x, scales


def scaled_chain(x, scale):
    return rosenbrock(scale * x)


def test_lanes_pass_through_one_piece_one_by_one(alone):
    program, x, scales = lanes_of(scaled_chain, 5, 4)
    assert pieces.marked_calls(program) == 1
    found = program(x, scales)
    for lane, (start, scale) in enumerate(zip(x, scales, strict=True)):
        single = optax_ls.minimize(scaled_chain, start, args=(scale,))
        assert found.status[lane] == single.status
        np.testing.assert_allclose(found.params[lane], single.params, rtol=1e-2)
    np.testing.assert_allclose(found.params * scales[:, None], 1, rtol=1e-2)


def test_lanes_share_what_has_no_lanes(alone):
    run = jax.jit(jax.vmap(lambda c: optax_ls.minimize(lambda x: jnp.sum((x - c) ** 2), ONES)))
    program = run.lower(jnp.arange(3.0)).compile()
    assert pieces.marked_calls(program) == 1
    found = program(jnp.arange(3.0)).params
    np.testing.assert_allclose(found, np.broadcast_to([[0], [1], [2]], (3, 5)), atol=1e-5)


def test_large_lanes_go_together(alone):
    program, *inputs = lanes_of(lambda x, scale: scale * bowl(x), 300, 100)
    assert pieces.marked_calls(program) == 0
    np.testing.assert_allclose(program(*inputs).params, 2, rtol=1e-5)


def test_lanes_of_lanes_go_together(alone):
    run = jax.jit(jax.vmap(jax.vmap(lambda x: optax_ls.minimize(bowl, x).params)))
    program = run.lower(jnp.zeros((2, 3, 4), "float32")).compile()
    assert pieces.marked_calls(program) == 0
    np.testing.assert_allclose(program(jnp.zeros((2, 3, 4), "float32")), 2, rtol=1e-5)


def test_derivatives_of_lanes(alone):
    def solutions(centres):
        return jax.vmap(lambda c: optax_ls.minimize(lambda x: jnp.sum((x - c) ** 2), ONES).params)(
            centres
        )

    _, tangents = jax.jvp(solutions, (2 + jnp.arange(3.0),), (jnp.ones(3),))
    np.testing.assert_allclose(tangents, 1, rtol=1e-4)


# Wherever a program may have it.


def test_what_nobody_asks_for_is_not_computed_and_the_rest_is_one_piece(alone):
    run = jax.jit(lambda x: optax_ls.minimize(bowl, x).num_iters)
    program = run.lower(ONES).compile()
    assert pieces.marked_calls(program) == 1
    assert program(ONES) > 0


def test_run_goes_on_from_its_state(alone):
    def run(x):
        begun = optax_ls.minimize(rosenbrock, x, max_iters=3)
        return optax_ls.minimize(rosenbrock, begun.params, state=begun.state)

    program = jax.jit(run).lower(jnp.zeros(4, "float32")).compile()
    assert pieces.marked_calls(program) == 2
    whole = optax_ls.minimize(rosenbrock, jnp.zeros(4, "float32"))
    found = program(jnp.zeros(4, "float32"))
    np.testing.assert_array_equal(found.params, whole.params)
    assert found.num_evals == whole.num_evals


def test_in_loops_and_branches(alone):
    def once_more(x):
        return optax_ls.minimize(rosenbrock, x, max_iters=5).params

    def step(x, _):
        far = jnp.max(jnp.abs(x - 1)) > 0.1
        return jax.lax.cond(far, once_more, lambda x: x, x), None

    run = jax.jit(lambda x: jax.lax.scan(step, x, None, length=20)[0], donate_argnums=0)
    program = run.lower(jnp.zeros(4, "float32")).compile()
    assert pieces.marked_calls(program) == 1
    np.testing.assert_allclose(program(jnp.zeros(4, "float32")), 1, atol=0.1)


def test_forward_derivatives_are_those_of_the_loop(alone):
    def solution(centre):
        def fun(x):
            return jnp.sum((x - centre) ** 2)

        return optax_ls.minimize(fun, jnp.zeros(3, "float32")).params

    centre = jnp.array([1.0, 2.0, 3.0], "float32")
    _, tangent = jax.jvp(solution, (centre,), (jnp.ones_like(centre),))
    np.testing.assert_allclose(tangent, 1, rtol=1e-4)


def test_constants_of_the_start_that_others_need_too(alone):
    def fit(targets):  # the gradient of the solution begins its loops with the same numbers
        def fun(x, targets):
            return jnp.sum((x - targets) ** 2)

        start = jnp.zeros(2, "float32")
        return optax_ls.minimize(
            fun,
            start,
            args=(targets,),
            implicit_diff=True,
            memory_size=1,
            linesearch="backtracking",
        )

    targets = jnp.array([1.0, 2.0], "float32")
    program = jax.jit(fit).lower(targets).compile()
    assert pieces.marked_calls(program) == 1
    np.testing.assert_allclose(program(targets).params, targets, rtol=1e-5)


def test_without_jit(alone):
    with jax.disable_jit():
        found = optax_ls.minimize(bowl, jnp.ones(2, "float32"), memory_size=2)
    np.testing.assert_allclose(found.params, 2, rtol=1e-5)


# The operations.


def operations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name
        for program in _piece._programs_in(eqn.params.values()):
            yield from operations(program)


def test_every_operation_that_is_let_in_has_a_step():
    listed = _piece._OF_ENTRIES | _piece._SUMS | _piece._CALLS
    assert set(pieces.STEPS) == listed | {"dot_general", "scatter"}
    for name, step in pieces.STEPS.items():
        assert name in operations(jax.make_jaxpr(step)(jnp.ones(40)).jaxpr)


@pytest.mark.slow
def test_xla_compiles_every_operation_in_one_piece_as_in_many():
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_ENABLE_X64")}
    environment["JAX_PLATFORMS"] = "cpu"
    done = subprocess.run(
        [sys.executable, "-m", "pieces"],
        cwd=Path(__file__).parent,
        env={**environment, "PYTHONPATH": str(Path(optax_ls.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{len(pieces.STEPS)} steps\n"
