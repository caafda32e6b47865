"""The host drives: the callback is plain Python, Ctrl-C ends a run, and neither changes a bit."""

import functools
import os
import signal
import threading
import time
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bestiary import rosenbrock

import optax_ls
from optax_ls import MinimizeStatus

START = np.array([-1.2, 1, -1.2, 1], "float32")
minimize = functools.partial(optax_ls.minimize, rosenbrock, START, memory_size=3)


def bits(result):
    """The bits of all but the history, by path."""
    leaves = jax.tree_util.tree_leaves_with_path(result._replace(history=None))
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}


# The same bits, however the run is watched.

WATCHED = {
    "callback": {"callback": lambda info: None},
    "progress": {"progress": True},
    "history": {"history": True},
    "all": {"callback": lambda info: None, "progress": True, "history": True},
}


@pytest.mark.parametrize("linesearch", ["more_thuente", "zoom", "backtracking"])
@pytest.mark.parametrize("watched", WATCHED.values(), ids=WATCHED)
def test_watching_a_run_changes_no_bit(watched, linesearch):
    watched_run = minimize(linesearch=linesearch, max_iters=200, **watched)
    assert bits(watched_run) == bits(minimize(linesearch=linesearch, max_iters=200))


def test_history_is_the_same_with_a_callback():
    alone = minimize(history=True, max_iters=60)
    watched = minimize(history=True, max_iters=60, callback=lambda info: None)
    jax.tree.map(np.testing.assert_array_equal, watched.history, alone.history)


def test_a_run_inside_jit_differs_by_rounding_only():
    jitted, alone = jax.jit(minimize)(), minimize()
    assert jitted.success == alone.success  # rounding decides which of two rules ends it first
    np.testing.assert_allclose(jitted.params, alone.params, rtol=1e-3)


# The callback is plain Python.


class Mistake(Exception):
    pass


def test_an_exception_of_the_callback_arrives_as_itself():
    mistake = Mistake("a bug")

    def callback(info):
        raise mistake

    with pytest.raises(Mistake) as caught:
        minimize(callback=callback)
    assert caught.value is mistake
    assert traceback.extract_tb(caught.tb)[-1].name == "callback"


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_stop_iteration_ends_a_run_as_true_does(transform):
    def callback(info):
        if info.num_iters == 3:
            raise StopIteration

    result = transform(lambda: minimize(callback=callback))()
    assert (result.num_iters, result.status) == (3, MinimizeStatus.STOPPED_BY_CALLBACK)


def test_a_run_that_the_callback_stopped_can_go_on():
    stopped = minimize(callback=lambda info: info.num_iters == 5)
    assert bits(minimize(state=stopped.state)) == bits(minimize())


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_a_callback_need_not_be_hashable(transform):
    class Recorder(list):
        def __call__(self, info):
            self.append(info.num_iters)

    recorder = Recorder()
    result = transform(lambda: minimize(callback=recorder))()
    assert recorder == list(range(result.num_iters + 1))


def test_params_that_a_callback_keeps_stay_as_they_are():
    kept = []
    minimize(callback=lambda info: kept.append((info.value, info.params)))
    for value, params in kept:
        np.testing.assert_allclose(rosenbrock(params), value, rtol=1e-4, atol=1e-9)


def test_a_new_callback_compiles_nothing():
    compiled = []

    def fun(x):
        compiled.append(1)
        return jnp.sum(x**2)

    for _ in range(3):
        optax_ls.minimize(fun, START, callback=lambda info: None)
    assert len(compiled) == 1


# Ctrl-C.


def interrupt(after):
    threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT)).start()


ENDLESS = functools.partial(
    optax_ls.minimize,
    rosenbrock,
    np.tile(START, 20_000),
    max_iters=10**6,
    gtol=0.0,
    ftol=0.0,
)


@pytest.fixture(scope="module")
def compiled():
    ENDLESS(max_iters=1)


@pytest.fixture
def sigint_raises():
    """Python's handler of Ctrl-C; shells let commands in the background ignore the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("compiled", "sigint_raises")
@pytest.mark.parametrize("callback", [None, lambda info: None], ids=["plain", "callback"])
def test_an_interrupt_ends_a_run_within_a_second_and_leaves_the_best_point(callback):
    begin = time.perf_counter()
    interrupt(1.0)
    with pytest.raises(KeyboardInterrupt) as caught:
        ENDLESS(callback=callback)
    assert time.perf_counter() - begin < 2.0
    result = caught.value.result
    assert result.num_iters > 0
    assert result.value <= rosenbrock(ENDLESS.args[1])
    assert ENDLESS(state=result.state, max_iters=2).value <= result.value


@pytest.mark.usefixtures("compiled", "sigint_raises")
def test_an_interrupt_closes_the_bar(capfd):
    pytest.importorskip("tqdm")
    interrupt(0.5)
    with pytest.raises(KeyboardInterrupt) as caught:
        ENDLESS(progress=True)
    assert caught.value.result.num_iters > 0
    assert capfd.readouterr().err.endswith("\n")


def test_an_interrupted_run_goes_on_to_the_bit():
    def callback(info):
        if info.num_iters == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        minimize(callback=callback)
    assert caught.value.result.num_iters == 4
    assert bits(minimize(state=caught.value.result.state)) == bits(minimize())


# Nothing of the user's is given away.


def test_params_args_and_state_stay_usable():
    params, shift = jnp.asarray(START), jnp.ones(4)
    fun = lambda x, shift: rosenbrock(x - shift)  # noqa: E731
    begun = optax_ls.minimize(fun, params, args=(shift,), max_iters=3)
    first, second = (
        optax_ls.minimize(fun, params, args=(shift,), state=begun.state) for _ in range(2)
    )
    assert bits(first) == bits(second)
    jax.block_until_ready((params, shift, begun))


# What a function closes over may be traced.

TRANSFORMED = {
    "vmap": lambda run, xs: jax.vmap(run)(xs),
    "jit": lambda run, xs: jnp.stack([jax.jit(run)(x) for x in xs]),
    "scan": lambda run, xs: jax.lax.scan(lambda carry, x: (carry, run(x)), 0, xs)[1],
    "map": lambda run, xs: jax.lax.map(run, xs),
}


@pytest.mark.slow
@pytest.mark.parametrize("transformed", TRANSFORMED.values(), ids=TRANSFORMED)
def test_a_closed_over_centre_may_be_traced(transformed):
    def run(centre):
        return optax_ls.minimize(lambda x: jnp.sum((x - centre) ** 2), START, memory_size=1).params

    centres = jnp.array([0.0, 1.0, 3.0])
    np.testing.assert_allclose(
        transformed(run, centres), centres[:, None] * np.ones(4), rtol=1e-5, atol=1e-5
    )
