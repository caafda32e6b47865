"""``plot_history``: the convergence history of a minimisation as a picture."""

from typing import Any, Union

import jax
import numpy as np

from .history import History
from .result import MinimizeResult

# Up to so many runs have a colour each; more are drawn as thin lines in one colour.
_FEW = 10
# Iterations are drawn as dots if the longest of few runs has no more than this.
_MAX_DOTS = 100


def plot_history(result: Union[MinimizeResult, History], figure: Any = None) -> Any:
    """Draws value, gradient and the steps of each search against the evaluations so far.

    The value is drawn less the lowest one, on a logarithmic scale, if that shows anything. If a run
    ended without success, its lowest value is no minimum, and values are drawn as they are. A
    triangle on the lower edge stands for zero. In short runs every dot is an iteration, so gaps
    between dots are searches that tried several steps. A dashed line shows ``gtol``. Many runs at
    once (from :func:`jax.vmap`) are many lines, each less the lowest value of its own.

    It needs matplotlib, but neither pyplot nor a screen, and opens no window.

    Args:
        result: what :func:`minimize` returned with ``history=True``, or its ``history``.
        figure: an empty matplotlib ``Figure`` or ``SubFigure`` to draw in; a new one if None.

    Returns:
        The figure.

    Raises:
        ValueError: the result has no history, or it is empty or being traced.
        TypeError: ``result`` is neither.
        ImportError: matplotlib is not installed.

    Example:
        .. code-block:: python

            result = optax_ls.minimize(fun, params, history=True)
            optax_ls.plot_history(result).savefig("history.png")
    """
    whole = result if isinstance(result, MinimizeResult) else None
    runs = _runs(_history_of(result))
    figure = new_figure() if figure is None else figure
    ends = np.array([run.num_evals[-1] for run in runs]) if whole is None else whole.num_evals
    ends = np.ravel(ends)
    top, middle, bottom = figure.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": [3, 3, 1]}
    )
    _draw_values(top, runs, has_minima=whole is None or bool(np.all(whole.success)))
    norms = [run.grad_norm for run in runs]
    _draw(middle, runs, norms, logarithmic=any(np.any(norm > 0) for norm in norms))
    middle.set_ylabel("max |gradient|")
    if whole is not None:
        top.set_title(whole.message, fontsize="medium", wrap=True)
        if whole.active is not None:
            middle.set_ylabel("max |projected gradient|")
        if whole.gtol is not None:
            _draw_tolerances(middle, np.unique(whole.gtol))
    _draw_searches(bottom, runs, ends)
    bottom.set_xlabel("evaluations")
    first, last = min(int(run.num_evals[0]) for run in runs), int(ends.max())
    margin = max(1, 0.03 * (last - first))
    bottom.set_xlim(first - margin, last + margin)
    bottom.xaxis.get_major_locator().set_params(integer=True)
    figure.align_ylabels([top, middle, bottom])
    return figure


def _history_of(result: Any) -> History:
    if isinstance(result, MinimizeResult):
        if result.history is None:
            raise ValueError("the result has no history: call minimize with history=True")
        result = result.history
    if not isinstance(result, History):
        raise TypeError(
            "plot_history draws what minimize returned with history=True, or its history; got "
            f"{type(result).__name__}"
        )
    if any(isinstance(column, jax.core.Tracer) for column in result):
        raise ValueError("a history cannot be drawn while it is traced: return it from jit first")
    return result


def new_figure() -> Any:
    """An empty figure of matplotlib, not registered with pyplot.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "plot_history needs matplotlib, the extra 'plot': pip install matplotlib"
        ) from error
    return Figure(figsize=(7, 6), layout="constrained")


def _runs(history: History) -> list[History]:
    """One history for each run, of the rows that it reached, with NaN for what is not finite."""
    columns = [np.asarray(column).reshape(-1, np.shape(column)[-1]) for column in history]
    columns[:3] = [np.where(np.isfinite(column), column, np.nan) for column in columns[:3]]
    runs = [History(*rows).rows() for rows in zip(*columns, strict=True)]
    if not runs or any(np.size(run.num_evals) == 0 for run in runs):
        raise ValueError("the history is empty: no row of it was reached")
    return runs


def _style(index: int, count: int) -> dict[str, Any]:
    if count > _FEW:
        return {"color": "C0", "linewidth": 0.6, "alpha": max(0.1, min(0.6, 30 / count))}
    return {"color": f"C{index}", "linewidth": 1.2}


def _draw_values(ax: Any, runs: list[History], has_minima: bool) -> None:
    """Values less the lowest of their run, if that is a minimum and shows anything."""
    values = [run.value for run in runs]
    excesses = [value - np.fmin.reduce(value) for value in values]
    if has_minima and any(np.any((excess > 0) & (excess < np.inf)) for excess in excesses):
        _draw(ax, runs, excesses, logarithmic=True)
        ax.set_ylabel("value \N{MINUS SIGN} lowest")
        return
    every = np.concatenate(values)
    is_wide = 0 < np.fmin.reduce(every) < np.fmax.reduce(every) / 10
    _draw(ax, runs, values, logarithmic=is_wide and not has_minima)
    ax.set_ylabel("value")


def _draw_tolerances(ax: Any, tolerances: Any) -> None:
    for tolerance in tolerances[tolerances > 0][:_FEW]:
        place = {"transform": ax.get_yaxis_transform()}  # x is a fraction of the width
        ax.hlines(tolerance, 0, 1, linestyle="--", linewidth=0.8, color="0.4", **place)
        ax.text(0.005, tolerance, "gtol", ha="left", va="bottom", color="0.4", **place)


def _draw(ax: Any, runs: list[History], columns: list[Any], logarithmic: bool) -> None:
    """Lines of a column against evaluations; on a logarithmic scale zeros are triangles."""
    longest = max(run.num_evals.size for run in runs)
    dots = {"marker": "."} if len(runs) <= _FEW and longest <= _MAX_DOTS else {}
    triangles = {"linestyle": "", "marker": 7, "markersize": 5, "clip_on": False}
    for index, (run, column) in enumerate(zip(runs, columns, strict=True)):
        style = _style(index, len(runs))
        shown = np.where(column > 0, column, np.nan) if logarithmic else column
        ax.plot(run.num_evals, shown, **style, **dots)
        zeros = run.num_evals[column == 0]
        if logarithmic and zeros.size:
            where = ax.get_xaxis_transform()  # x is an evaluation, y = 0 the lower edge
            (line,) = ax.plot(zeros, 0 * zeros, transform=where, **style, **triangles)
            line.set_in_layout(False)
    if logarithmic:
        ax.set_yscale("log")
    if not any(np.isfinite(column).any() for column in columns):
        ax.text(0.5, 0.5, "not finite", ha="center", va="center", transform=ax.transAxes)
        ax.set_yticks([])
    ax.grid(visible=True, alpha=0.3)


def _draw_searches(ax: Any, runs: list[History], ends: Any) -> None:
    """For each search a bar from evaluation to evaluation, as high as it tried steps.

    What a run tried after its last iteration is dotted.
    """
    highest = 1
    for index, (run, end) in enumerate(zip(runs, ends, strict=True)):
        style = _style(index, len(runs))
        tried, last = np.diff(run.num_evals), run.num_evals[-1]
        if tried.size:
            ax.stairs(tried, run.num_evals, **style)
        if end > last:
            ax.stairs([end - last], [last, end], linestyle=":", **style)
        highest = max([highest, end - last, *tried])
    ax.set_ylim(0, 1.1 * highest)
    ax.yaxis.get_major_locator().set_params(integer=True)
    ax.set_ylabel("steps tried")
