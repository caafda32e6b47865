"""``minimize`` is one program with one copy of the objective, compiled once for shapes and types.

Copies are counted in the lowered program, by an operation that every evaluation of the objective
contains exactly once, with the gradient or without it.
"""

import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bestiary import rosenbrock

import optax_ls
from optax_ls._minimize import programs

pytestmark = pytest.mark.runtime

LINESEARCHES = ["more_thuente", "zoom", "backtracking"]
each_linesearch = pytest.mark.parametrize("linesearch", LINESEARCHES)
SETTINGS = {
    "plain": {},
    "history": {"history": True, "max_iters": 5},
    "callback": {"callback": print},
    "progress": {"progress": True},
    "ftol": {"ftol": 1e-3},
    "implicit_diff": {"implicit_diff": True},
}


class Objective:
    """Counts how often it is called; no derivative of it adds another sinh."""

    operation = "chlo.sinh"

    def __init__(self):
        self.calls = 0

    def __call__(self, x, centre=0.0):
        self.calls += 1
        return jnp.sum(jnp.sinh(x - centre) ** 2)


def start():
    return jnp.array([0.5, -1.0, 1.5], "float32")


# The shortest program.
minimize_briefly = functools.partial(
    optax_ls.minimize, memory_size=1, linesearch="backtracking", max_iters=50
)


def lowered(fun, **settings):
    return jax.jit(lambda x: optax_ls.minimize(fun, x, **settings)).lower(start())


# Copies and traces.


@each_linesearch
def test_program_holds_one_copy_of_the_objective(linesearch):
    program = lowered(Objective(), linesearch=linesearch)
    assert program.as_text().count(Objective.operation) == 1


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "implicit_diff"])
def test_settings_add_no_copy_of_the_objective(name):
    program = lowered(Objective(), **SETTINGS[name])
    assert program.as_text().count(Objective.operation) == 1


def test_resumed_program_holds_one_copy_of_the_objective():
    fun = Objective()
    state = jax.eval_shape(lambda x: optax_ls.minimize(fun, x).state, start())
    program = jax.jit(lambda x, state: optax_ls.minimize(fun, x, state=state)).lower(start(), state)
    assert program.as_text().count(Objective.operation) == 1


@each_linesearch
@pytest.mark.parametrize("has_aux", [False, True])
def test_objective_is_traced_once(linesearch, has_aux, x64):
    fun = Objective()
    returned = (lambda x: (fun(x), x)) if has_aux else fun
    lowered(returned, linesearch=linesearch, has_aux=has_aux)
    assert fun.calls == 1


def test_objective_in_a_scan_is_traced_once():
    fun = Objective()
    body = lambda carry, x: (carry, optax_ls.minimize(fun, x).value)  # noqa: E731
    jax.jit(lambda xs: jax.lax.scan(body, 0, xs)).lower(jnp.ones((4, 3)))
    assert fun.calls == 1


# Calls that find a program.

AGAIN = {
    "params": lambda fun: minimize_briefly(fun, 2 * start(), args=(1.0,)),
    "args": lambda fun: minimize_briefly(fun, start(), args=(5.0,)),
    "numpy": lambda fun: minimize_briefly(fun, np.asarray(start()), args=(1.0,)),
    "gtol": lambda fun: minimize_briefly(fun, start(), args=(1.0,), gtol=1e-2),
    "max_iters": lambda fun: minimize_briefly(fun, start(), args=(1.0,), max_iters=3),
    "max_evals": lambda fun: minimize_briefly(fun, start(), args=(1.0,), max_evals=7),
    "limits of numpy": lambda fun: minimize_briefly(
        fun, start(), args=(1.0,), gtol=np.float64(1e-2), max_iters=np.int64(3)
    ),
    "limits of jax": lambda fun: minimize_briefly(
        fun, start(), args=(1.0,), gtol=jnp.asarray(1e-2), max_iters=jnp.asarray(3)
    ),
    "steps": lambda fun: minimize_briefly(fun, start(), args=(1.0,), max_linesearch_steps=30),
}
ANEW = {
    "shape": lambda fun: minimize_briefly(fun, jnp.ones(4), args=(1.0,)),
    "memory_size": lambda fun: minimize_briefly(fun, start(), args=(1.0,), memory_size=2),
    "linesearch": lambda fun: minimize_briefly(fun, start(), args=(1.0,), linesearch="zoom"),
}


@pytest.fixture(scope="module")
def called():
    fun = Objective()
    minimize_briefly(fun, start(), args=(1.0,))
    return fun


@pytest.mark.parametrize("again", AGAIN.values(), ids=AGAIN)
def test_other_data_and_limits_find_the_program(called, again):
    before = called.calls
    again(called)
    assert called.calls == before


@pytest.mark.parametrize("anew", ANEW.values(), ids=ANEW)
def test_other_shapes_and_settings_are_another_program(called, anew):
    before = called.calls
    jax.eval_shape(lambda: anew(called))
    assert called.calls > before


def test_tolerances_of_the_value_share_a_program():
    fun = Objective()
    calls = [minimize_briefly(fun, start(), ftol=ftol) and fun.calls for ftol in (1e-3, 0.0, 0.1)]
    assert len(set(calls)) == 1


def test_limits_may_be_larger_than_any_counter(x64):
    result = minimize_briefly(rosenbrock, jnp.ones(4), max_iters=2**31, max_evals=10**30)
    resumed = minimize_briefly(
        rosenbrock, jnp.ones(4), state=result.state, max_iters=10**30, max_evals=2**63 - 1
    )
    assert result.status == resumed.status == optax_ls.MinimizeStatus.GRADIENT_SMALL


def test_numbers_of_iterations_and_evaluations_may_be_traced():
    run = jax.jit(lambda *k: minimize_briefly(rosenbrock, start(), max_iters=k[0], max_evals=k[1]))
    assert run(3, 50).num_iters == 3
    assert run(50, 4).num_evals == 4


def test_method_is_the_same_function_at_every_access():
    class Model:
        calls = 0

        def loss(self, x):
            self.calls += 1
            return jnp.sum(x**2)

    model = Model()
    minimize_briefly(model.loss, start())
    before = model.calls
    minimize_briefly(model.loss, start())
    assert model.calls == before


def test_partial_of_arrays_is_the_same_program_with_other_arrays():
    fun, calls = Objective(), []
    for centre in (1.0, 2.0):
        with_centre = jax.tree_util.Partial(fun, centre=jnp.asarray(centre))
        result = minimize_briefly(with_centre, start())
        np.testing.assert_allclose(result.params, centre, atol=1e-2)
        calls.append(fun.calls)
    assert calls[0] == calls[1]


def test_numbers_and_texts_that_the_function_reads_as_python_are_constants():
    equinox = pytest.importorskip("equinox")

    class Power(equinox.Module):
        centre: jax.Array
        is_even: bool
        times: int

        def __call__(self, x, names, unit):
            factor = len(names) * (10 if unit == "mm" else 1)
            errors = (x - self.centre) ** 2 if self.is_even else jnp.abs(x - self.centre)
            return factor * sum(jnp.sum(errors) for _ in range(self.times))

    data = np.array(["a", "b"]), "mm"
    for centre in (1.0, 2.0):
        fun = Power(jnp.asarray(centre), True, 2)
        result = optax_ls.minimize(fun, jnp.zeros(2), args=data)
        np.testing.assert_allclose(result.params, centre, rtol=1e-5)


# Functions that go.


class Data:
    """Stands for something large."""


def lambda_of(data):
    return lambda x: jnp.sum(x**2) if data else None


def method_of(data):
    class Model:
        def __init__(self):
            self.data = data

        def loss(self, x):
            return jnp.sum(x**2)

    return Model().loss


MAKERS = {"lambda": lambda_of, "method": method_of}


def test_programs_of_a_function_are_few():
    settings = programs.Settings(optax_ls.Zoom(5), 2, False, False, 0, True)

    def look_up(arg):
        return programs.look_up(rosenbrock, programs.Inputs((arg,), {}), settings)[0]

    first = weakref.ref(look_up("first"))
    for k in range(100):
        look_up(str(k))
    gc.collect()
    assert first() is None
    assert look_up("99") is look_up("99")


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_function_that_goes_leaves_nothing_behind(make):
    data = Data()
    fun, gone = make(data), weakref.ref(data)
    jax.block_until_ready(minimize_briefly(fun, start()))
    del fun, data
    gc.collect()
    assert gone() is None


# Under transformations.


def run(x):
    return optax_ls.minimize(rosenbrock, x, memory_size=3, max_iters=10)


def batch():
    x = jnp.array([-1.2, 1.0, -1.2, 1.0])
    return jnp.stack([x, jnp.ones(4), x + 0.1, x + 2.2, jnp.full(4, jnp.nan), x - 0.5])


@pytest.fixture(scope="module")
def alone(enable_x64):
    """The run of each element of the batch."""
    with enable_x64(True):
        return jax.tree.map(lambda *leaves: np.stack(leaves), *(run(x) for x in batch()))


NESTS = {
    "vmap_of_jit": jax.vmap(jax.jit(run)),
    "jit_of_vmap_of_vmap": lambda xs: jax.tree.map(
        lambda leaf: leaf.reshape(-1, *leaf.shape[2:]),
        jax.jit(jax.vmap(jax.vmap(run)))(xs.reshape(3, 2, 4)),
    ),
    "scan": lambda xs: jax.lax.scan(lambda carry, x: (carry, run(x)), None, xs)[1],
}


@pytest.mark.slow
@pytest.mark.parametrize("x64", [True], indirect=True)
@pytest.mark.parametrize("nest", NESTS.values(), ids=NESTS)
def test_every_lane_goes_its_own_way(nest, alone, x64):
    together = nest(batch())
    for field in ("num_iters", "num_evals", "status"):
        np.testing.assert_array_equal(getattr(together, field), getattr(alone, field))
    np.testing.assert_allclose(together.params, alone.params, rtol=1e-9)
    np.testing.assert_allclose(together.value, alone.value, rtol=1e-7)


@pytest.mark.parametrize("x64", [True], indirect=True)
@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")
def test_params_may_be_donated_to_a_jit(alone, x64):
    jitted = jax.jit(run, donate_argnums=0)
    # JAX 0.5, and 0.11 and newer, round in another way where the program is another.
    has_same_bits = (0, 6) <= jax.__version_info__ < (0, 11) or jax.__version_info__ < (0, 5)
    for lane, x in enumerate(batch()):
        rtol = 0 if has_same_bits else 1e-9
        np.testing.assert_allclose(jitted(x).params, alone.params[lane], rtol=rtol)


# Memory.


def quartics(x):
    return jnp.sum(x**4 + x**2)


def temporary_words(run, size):
    analysis = jax.jit(run).lower(jnp.ones(size, "float32")).compile().memory_analysis()
    if analysis is None:
        pytest.skip("this JAX does not say")
    return analysis.temp_size_in_bytes / 4 / size


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wanted", "bounds", "vectors"),
    [(None, None, 8), ("params", None, 8), (None, (0.1, 0.5), 12)],
    ids=["result", "params", "bounds"],
)
def test_temporary_memory_is_that_of_the_pairs_and_a_few_vectors(wanted, bounds, vectors):
    size, memory_size = 1_000_000, 10

    def run(x):
        result = optax_ls.minimize(quartics, x, memory_size=memory_size, bounds=bounds)
        return getattr(result, wanted) if wanted else result

    vectors += jax.__version_info__ < (0, 5)
    assert temporary_words(run, size) <= 2 * memory_size + vectors + 0.01


STACK = "f32[10,1000]"


def scan_of_lbfgs(x):
    solver = optax_ls.lbfgs(memory_size=10)
    value_and_grad = optax_ls.value_and_grad_from_state(quartics)

    def step(carry, _):
        x, state = carry
        value, grad = value_and_grad(x, state=state)
        updates, state = solver.update(grad, state, x, value=value, grad=grad, value_fn=quartics)
        return (optax_ls.apply_updates(x, updates), state), None

    return jax.lax.scan(step, (x, solver.init(x)), length=30)[0][0]


@pytest.mark.skipif(jax.__version_info__ < (0, 5), reason="the compiler copied more")
def test_scan_of_lbfgs_needs_the_pairs_and_eight_vectors():
    assert temporary_words(scan_of_lbfgs, 1_000_000) <= 2 * 10 + 8 + 0.04


LOOPS = {
    "minimize": lambda x: optax_ls.minimize(quartics, x, memory_size=10).params,
    "lbfgs": scan_of_lbfgs,
}


def parts_of_the_loop(loop, size=1000):
    """The compiled program of a loop, but for what runs once, before and after."""
    program = jax.jit(loop).lower(jnp.ones(size, "float32")).compile().as_text()
    return [part for part in program.split("\n\n") if not part.lstrip().startswith("ENTRY")]


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_loop_writes_the_pairs_in_place_and_never_copies_a_stack(loop):
    lines = "\n".join(parts_of_the_loop(loop)).splitlines()
    stacks = [line for line in lines if f"= {STACK}" in line]
    assert stacks
    assert not [line for line in stacks if " copy(" in line]
