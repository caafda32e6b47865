"""The callback and the progress bar get the start and each iteration, in order."""

import functools
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_ls
from optax_ls import MinimizeStatus


def fun(params):
    """The minimum in x is 0; the tag has no effect on the value, and identifies the run."""
    return jnp.sum(jnp.cosh(params["x"])) + 0 * params["tag"]


def start(tag=0.0, width=1.0):
    return {"x": width * jnp.array([2.0, -1.0]), "tag": jnp.asarray(tag)}


class Recorder:
    """A callback that keeps each info, and returns what ``answer`` returns for it."""

    def __init__(self):
        self.infos = []
        self.answer = lambda info: None

    def __call__(self, info):
        self.infos.append(info)
        return self.answer(info)


RECORDER = Recorder()
SETTINGS = {"memory_size": 1, "linesearch": "backtracking", "max_iters": 50}
minimize = functools.partial(optax_ls.minimize, fun, **SETTINGS)
PLAIN = functools.partial(minimize, callback=RECORDER)
RUNS = {"plain": PLAIN, "jit": jax.jit(PLAIN)}
each_run = pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
BATCH = jax.jit(jax.vmap(PLAIN))


@pytest.fixture
def recorder():
    RECORDER.__init__()
    return RECORDER


def finished(result):
    jax.block_until_ready(result)
    jax.effects_barrier()
    return result


# The callback.


@each_run
def test_callback_is_told_of_the_start_and_each_iteration_in_order(run, recorder):
    result = finished(run(start()))
    assert result.num_iters > 3
    assert [info.num_iters for info in recorder.infos] == list(range(result.num_iters + 1))


def test_callback_is_told_numbers_of_python(recorder):
    finished(PLAIN(start()))
    for info in recorder.infos:
        assert isinstance(info, optax_ls.IterationInfo)
        assert [type(x) for x in info[:5]] == [int, float, float, float, int]


def test_callback_is_told_params_as_numpy_arrays(recorder):
    finished(PLAIN(start()))
    assert {type(leaf) for info in recorder.infos for leaf in info.params.values()} == {np.ndarray}


def test_callback_gets_value_and_gradient_norm_of_the_params(recorder):
    finished(PLAIN(start()))
    for info in recorder.infos:
        value, grad = jax.value_and_grad(fun)(info.params)
        np.testing.assert_allclose(info.value, value, rtol=1e-6)
        np.testing.assert_allclose(info.grad_norm, np.max(np.abs(grad["x"])), rtol=1e-4, atol=1e-7)


def test_callback_gets_the_start_first(recorder):
    finished(PLAIN(start()))
    first = recorder.infos[0]
    np.testing.assert_array_equal(first.params["x"], start()["x"])
    assert (first.step, first.num_evals) == (0.0, 1)


def test_callback_gets_the_result_last(recorder):
    result = finished(PLAIN(start()))
    last = recorder.infos[-1]
    np.testing.assert_array_equal(last.params["x"], result.params["x"])
    assert (last.value, last.num_evals) == (result.value, result.num_evals)


def test_callback_changes_nothing(recorder):
    heard, alone = finished(PLAIN(start())), minimize(start())
    assert (heard.num_iters, heard.num_evals) == (alone.num_iters, alone.num_evals)
    np.testing.assert_allclose(heard.params["x"], alone.params["x"], atol=1e-6)


@each_run
@pytest.mark.parametrize("last", [0, 1, 3])
def test_true_stops(run, last, recorder):
    recorder.answer = lambda info: info.num_iters >= last
    result = finished(run(start()))
    assert (result.num_iters, result.status) == (last, MinimizeStatus.STOPPED_BY_CALLBACK)
    assert len(recorder.infos) == last + 1


@pytest.mark.parametrize("true", [np.True_, np.array(True), jnp.array(True)], ids=repr)
def test_true_of_an_array_stops_too(true, recorder):
    recorder.answer = lambda info: true
    assert finished(PLAIN(start())).status == MinimizeStatus.STOPPED_BY_CALLBACK


@pytest.mark.parametrize(
    "answer", [None, False, 1, "stop", [0], np.True_ & np.ones(2, bool)], ids=str
)
def test_nothing_but_true_stops(answer, recorder):
    recorder.answer = lambda info: answer
    assert finished(PLAIN(start())).status == MinimizeStatus.GRADIENT_SMALL


def test_callback_that_stops_what_has_ended_does_not_change_its_status(recorder):
    recorder.answer = lambda info: info.grad_norm < 1e-5
    assert finished(PLAIN(start(), gtol=1e-5)).status == MinimizeStatus.GRADIENT_SMALL


def test_callback_gets_a_start_that_is_not_finite(recorder):
    finished(PLAIN(start(width=np.nan)))
    assert [np.isnan(info.value) for info in recorder.infos] == [True]


def test_callback_of_a_resumed_run_gets_further_iterations_only(recorder):
    half = finished(PLAIN(start(), max_iters=2))
    recorder.infos.clear()
    result = finished(PLAIN(start(), state=half.state))
    assert [info.num_iters for info in recorder.infos] == list(range(3, result.num_iters + 1))


def test_error_in_the_callback_comes_out(recorder):
    def answer(info):
        raise ArithmeticError("too steep")

    recorder.answer = answer
    with pytest.raises(Exception, match="too steep"):
        finished(PLAIN(start()))
    jax.effects_barrier()


@pytest.fixture
def batch(recorder):
    """Runs of a batch, some longer than others, and the infos of each."""
    widths, tags = jnp.array([0.1, 1.0, 4.0, 0.0]), jnp.arange(4.0)
    starts = jax.vmap(start)(tags, widths)
    results = finished(BATCH(starts))
    return results, [[i for i in recorder.infos if i.params["tag"] == tag] for tag in tags]


def test_callback_under_vmap_gets_each_run_until_its_end(batch):
    results, infos = batch
    assert len(set(results.num_iters.tolist())) > 2
    for run, num_iters in enumerate(results.num_iters):
        assert [info.num_iters for info in infos[run]] == list(range(num_iters + 1))


def test_callback_under_vmap_gets_one_run_at_a_time(batch):
    _, infos = batch
    assert {info.params["x"].shape for run in infos for info in run} == {(2,)}


@pytest.mark.slow
def test_callback_under_vmap_stops_one_run_alone(recorder):
    recorder.answer = lambda info: info.params["tag"] == 1.0 and info.num_iters == 2
    recorder.answer = lambda info, answer=recorder.answer: bool(answer(info))
    results = finished(BATCH(jax.vmap(start)(jnp.arange(3.0))))
    wanted = [MinimizeStatus.GRADIENT_SMALL] * 3
    wanted[1] = MinimizeStatus.STOPPED_BY_CALLBACK
    np.testing.assert_array_equal(results.status, wanted)
    assert results.num_iters[1] == 2


# The bar.

SHOWN = functools.partial(minimize, progress=True)
SHOWN_RUNS = {"plain": SHOWN, "jit": jax.jit(SHOWN)}
each_shown = pytest.mark.parametrize("run", SHOWN_RUNS.values(), ids=SHOWN_RUNS)


def shown(capfd, run, *args, **settings):
    """A result, and what stood on stderr in the meantime, by redrawn line."""
    capfd.readouterr()
    result = finished(run(*args, **settings))
    out, err = capfd.readouterr()
    assert out == ""
    return result, [line.strip() for line in re.split(r"[\r\n]", err) if line.strip()]


@pytest.fixture
def no_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)


@each_shown
def test_bar_shows_iterations_value_and_gradient(run, capfd):
    pytest.importorskip("tqdm")
    result, lines = shown(capfd, run, start())
    assert lines[0].startswith("minimize:   0%|")
    assert f"{result.num_iters}/50" in lines[-1]
    assert re.search(r"value 2, max \|grad\| \d\.\d\de[-+]\d\d", lines[-1])


@each_shown
def test_every_call_opens_a_bar_of_its_own(run, capfd):
    pytest.importorskip("tqdm")
    for _ in range(2):
        _, lines = shown(capfd, run, start())
        assert lines[0].startswith("minimize:   0%|")
        assert sum("  0%|" in line for line in lines) <= 3


@each_shown
@pytest.mark.usefixtures("no_tqdm")
def test_lines_without_tqdm_show_the_start_and_the_end(run, capfd):
    result, lines = shown(capfd, run, start())
    assert re.fullmatch(r"minimize: 0/50 value 5.305\d+, max \|grad\| 3.63e\+00", lines[0])
    assert re.fullmatch(rf"minimize: {result.num_iters}/50 value 2, max \|grad\| .*", lines[-1])


@pytest.mark.usefixtures("no_tqdm")
def test_lines_without_tqdm_are_few(capfd):
    _, lines = shown(capfd, SHOWN, start())
    assert len(lines) < 6


@pytest.mark.usefixtures("no_tqdm")
def test_every_call_begins_its_lines_anew(capfd):
    for _ in range(2):
        _, lines = shown(capfd, SHOWN, start())
        assert lines[0].startswith("minimize: 0/50")


@pytest.mark.usefixtures("no_tqdm")
def test_number_of_iterations_allowed_is_shown_if_it_is_known(capfd):
    run = jax.jit(lambda limit: minimize(start(), progress=True, max_iters=limit))
    _, lines = shown(capfd, run, 3)
    assert lines[0].startswith("minimize: 0 value")
    assert lines[-1].startswith("minimize: 3 value")


@pytest.mark.slow
@pytest.mark.parametrize("with_tqdm", [True, False])
def test_bar_under_vmap_is_one(with_tqdm, capfd, monkeypatch):
    if with_tqdm:
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    run = shown_batch()
    for _ in range(2):
        results, lines = shown(capfd, run, jax.vmap(start)(jnp.arange(3.0), jnp.arange(3.0)))
        assert lines[0].startswith("minimize:   0%|" if with_tqdm else "minimize: 0/50")
        assert f"{results.num_iters.max()}/50" in lines[-1]


@functools.cache
def shown_batch():
    return jax.jit(jax.vmap(SHOWN))


def test_bar_of_a_run_that_broke_off_is_closed(capfd, recorder):
    pytest.importorskip("tqdm")

    def answer(info):
        if info.num_iters == 2:
            raise ArithmeticError("too steep")

    recorder.answer = answer
    with pytest.raises(Exception, match="too steep"):
        finished(SHOWN(start(), callback=recorder))
    recorder.answer = lambda info: None
    result, lines = shown(capfd, SHOWN, start(), callback=recorder)
    assert lines[0].startswith("minimize:   0%|")
    assert f"{result.num_iters}/50" in lines[-1]


def test_nothing_is_shown_unless_asked_for(capfd):
    _, lines = shown(capfd, minimize, start())
    assert lines == []
