"""The profiles as a picture."""

import numpy as np

STYLES = {
    "minimize": {"color": "#c62828", "linewidth": 2.6},
    "minimize-zero": {"color": "#c62828", "linewidth": 2.6},
    "scipy": {"color": "#1565c0", "linestyle": "--"},
    "optax": {"color": "#2e7d32", "linestyle": "-."},
    "jaxopt": {"color": "#ef6c00", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
    "optimistix": {"color": "#6a1b9a", "linestyle": ":"},
}
RATIOS = (1, 1.5, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)


def draw_profiles(all_results, path):
    """Draws a row of two panels for each dtype, and writes ``path``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2 * len(all_results)), layout="constrained")
    axes = figure.subplots(len(all_results), 2, squeeze=False)
    for (left, right), results in zip(axes, all_results, strict=True):
        _draw(left, results, results.efforts)
        left.set(title=f"Data profile, {results.dtype}", xlabel="evaluations / (n + 1)")
        _draw(right, results, results.ratios, start=1.0)
        right.set_xticks([tick for tick in RATIOS if tick <= right.get_xlim()[1]])
        right.minorticks_off()
        right.set(
            title=f"Performance profile, {results.dtype}",
            xlabel="evaluations / those of the cheapest solver",
        )
    figure.savefig(path, dpi=120)


def _draw(axes, results, values_of, start=None):
    """The share of problems with a value of at most x, as a step for each solver."""
    values = {solver: np.sort(values_of(solver)) for solver in results.solvers}
    everything = np.concatenate([*values.values(), [1.0]])
    start = everything.min() / 1.5 if start is None else start
    end = everything.max() * 1.5
    for solver, x in values.items():
        y = np.arange(1, len(x) + 1) / len(results.evals[solver])
        x = np.concatenate([[start], x, [end]])
        y = np.concatenate([[0.0], y, [y[-1] if len(y) else 0.0]])
        style = {"linewidth": 1.8, **STYLES[solver]}
        axes.step(x, y, where="post", label=solver, **style)
    axes.set(xscale="log", xlim=(start, end), ylim=(0, 1.02), ylabel="share of problems solved")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
