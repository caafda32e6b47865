"""The picture of a minimisation's course."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_ls

pytest.importorskip("matplotlib")


def history(values, norms=None, evaluations=None):
    """A history of the values given, in a row that has room for two more."""
    values = np.asarray(values, np.float32)
    rows = values.shape[-1]
    norms = values if norms is None else np.asarray(norms, np.float32)
    evaluations = np.arange(1, rows + 1) if evaluations is None else evaluations
    evaluations = np.broadcast_to(evaluations, values.shape)
    room = [(0, 0)] * (values.ndim - 1) + [(0, 2)]
    nan = {"constant_values": np.nan}
    return optax_ls.History(
        np.pad(values, room, **nan),
        np.pad(norms, room, **nan),
        np.pad(np.ones_like(values), room, **nan),
        np.pad(evaluations, room),
    )


def drawn(ax, number=0):
    return tuple(np.asarray(data) for data in ax.lines[number].get_data())


@pytest.fixture(scope="module")
def result():
    return optax_ls.minimize(lambda x: jnp.sum((x - 3) ** 4), jnp.zeros(2), history=True)


def test_value_and_gradient_are_drawn_against_evaluations(result):
    value, grad, _ = optax_ls.plot_history(result).axes
    rows = result.history.rows()
    np.testing.assert_array_equal(drawn(value)[0], rows.num_evals)
    np.testing.assert_allclose(drawn(value)[1][:-1], (rows.value - rows.value.min())[:-1])
    np.testing.assert_array_equal(drawn(grad)[1], rows.grad_norm)
    assert (value.get_yscale(), grad.get_yscale()) == ("log", "log")


@pytest.mark.parametrize(
    ("bounds", "label"), [(None, "max |gradient|"), ((0, 1), "max |projected gradient|")]
)
def test_label_says_which_gradient_is_shown(bounds, label):
    run = optax_ls.minimize(lambda x: jnp.sum(x**2), jnp.ones(2), bounds=bounds, history=True)
    assert optax_ls.plot_history(run).axes[1].get_ylabel() == label


def test_bars_are_the_steps_of_each_search():
    searches = optax_ls.plot_history(history([3, 2, 1], evaluations=[1, 5, 6])).axes[2]
    steps = searches.patches[0].get_data()
    np.testing.assert_array_equal(steps.values, [4, 1])
    np.testing.assert_array_equal(steps.edges, [1, 5, 6])


def test_steps_after_the_last_iteration_are_dotted(result):
    failed = result._replace(history=history([3, 2]), num_evals=jnp.array(9))
    dotted = optax_ls.plot_history(failed).axes[2].patches[-1]
    assert dotted.get_linestyle() == ":"
    np.testing.assert_array_equal(dotted.get_data().values, [7])


def test_title_says_why_it_ended(result):
    assert optax_ls.plot_history(result).axes[0].get_title() == result.message


def test_zeros_are_triangles_on_the_edge():
    value, grad, _ = optax_ls.plot_history(history([3, 2, 1], norms=[2, 1, 0])).axes
    for ax in (value, grad):
        assert np.isnan(drawn(ax)[1][-1])
        np.testing.assert_array_equal(drawn(ax, 1), [[3], [0]])


@pytest.mark.parametrize("values", [[2.0], [2.0, 2.0], [-np.inf, 1.0]])
def test_value_is_drawn_as_it_is_where_less_the_lowest_shows_nothing(values):
    value = optax_ls.plot_history(history(values)).axes[0]
    assert (value.get_yscale(), value.get_ylabel()) == ("linear", "value")
    np.testing.assert_array_equal(drawn(value)[1], np.where(np.isinf(values), np.nan, values))


def test_start_that_is_not_finite_is_told():
    bad = optax_ls.minimize(lambda x: jnp.sum(jnp.log(x)), jnp.array([-1.0]), history=True)
    figure = optax_ls.plot_history(bad)
    assert figure.axes[0].texts[0].get_text() == "not finite"


@pytest.mark.parametrize("runs", [3, 40])
def test_every_run_of_a_batch_is_a_line(runs):
    values = np.linspace(3, 1, 5) * np.arange(1, runs + 1)[:, None]
    value = optax_ls.plot_history(history(values)).axes[0]
    lines = [line for line in value.lines if len(line.get_xdata()) == 5]
    assert len(lines) == runs
    for line, row in zip(lines, values, strict=True):
        np.testing.assert_allclose(line.get_ydata()[0], row[0] - row[-1], rtol=1e-6)
    assert (lines[0].get_marker() == ".") == (runs < 10)


@pytest.mark.slow
def test_result_of_vmap():
    def run(x):
        return optax_ls.minimize(lambda x: jnp.sum((x - 1) ** 4), x, history=True, max_iters=5)

    figure = optax_ls.plot_history(jax.vmap(jax.vmap(run))(jnp.full((2, 2, 1), 0.3)))
    assert len(figure.axes[1].lines) == 4


def test_long_runs_have_no_dots():
    value = optax_ls.plot_history(history(np.linspace(2, 1, 500))).axes[0]
    assert value.lines[0].get_marker() in ("None", None, "")


def test_gtol_is_a_line_in_the_panel_of_the_gradient(result):
    _, grad, _ = optax_ls.plot_history(result).axes
    (line,) = grad.collections
    np.testing.assert_allclose(line.get_segments()[0][:, 1], result.gtol)
    (label,) = grad.texts
    assert (label.get_text(), label.get_ha()) == ("gtol", "left")
    assert label.get_position()[0] < 0.1  # the curve meets the line at the right edge


def test_unfinished_run_is_drawn_by_its_values(result):
    limit = optax_ls.MinimizeStatus.ITERATION_LIMIT
    unfinished = result._replace(history=history([30, 20, 2.9, 2.8]), status=jnp.array(int(limit)))
    value = optax_ls.plot_history(unfinished).axes[0]
    np.testing.assert_allclose(drawn(value)[1], [30, 20, 2.9, 2.8])
    assert (value.get_ylabel(), value.get_yscale()) == ("value", "log")
    below = unfinished._replace(history=history([30, 20, -2.8]))
    assert optax_ls.plot_history(below).axes[0].get_yscale() == "linear"


def test_figure_given_is_drawn_in(result):
    from matplotlib.figure import Figure

    figure = Figure()
    left, right = figure.subfigures(1, 2)
    assert optax_ls.plot_history(result, left) is left
    assert optax_ls.plot_history(result, figure=right) is right
    assert len(figure.axes) == 6


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_figure_is_saved(result, tmp_path, kind, start):
    path = tmp_path / f"course.{kind}"
    optax_ls.plot_history(result).savefig(path)
    assert path.read_bytes().startswith(start)


@pytest.mark.parametrize("values", [[np.nan], [3, 2, 1], [[3, 2], [2, 1]], [np.inf, 1], [0, 0]])
def test_drawing_gives_no_warning(values, tmp_path, recwarn):
    optax_ls.plot_history(history(values)).savefig(tmp_path / "course.png")
    assert [str(warning.message) for warning in recwarn] == []


def test_without_history():
    result = optax_ls.minimize(lambda x: jnp.sum(x**2), jnp.zeros(1))
    with pytest.raises(ValueError, match="history=True"):
        optax_ls.plot_history(result)


def test_empty_history():
    with pytest.raises(ValueError, match="empty"):
        optax_ls.plot_history(optax_ls.History(*[jnp.zeros(3)] * 3, jnp.zeros(3, int)))


def test_neither_result_nor_history():
    with pytest.raises(TypeError, match="got dict"):
        optax_ls.plot_history({"value": [1]})


def test_traced_history():
    @jax.jit
    def draw(history):
        optax_ls.plot_history(history)

    with pytest.raises(ValueError, match="traced"):
        draw(history([2, 1]))


def test_matplotlib_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        optax_ls.plot_history(history([2, 1]))


def test_package_imports_no_matplotlib_and_drawing_no_pyplot():
    program = (
        "import sys, numpy as np, optax_ls\n"
        "assert 'matplotlib' not in sys.modules\n"
        "ones = np.ones(3)\n"
        "optax_ls.plot_history(optax_ls.History(ones, ones, ones, np.arange(3)))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
