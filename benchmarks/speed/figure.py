"""The picture: time per iteration against n."""

import math

from ..figures import STYLES
from .derive import per_iteration

STYLE = {**STYLES, "lbfgs": {"color": "#c62828", "linewidth": 1.6, "linestyle": "--"}}
LABELS = {
    "minimize": "optax_ls.minimize",
    "lbfgs": "optax_ls.lbfgs in a scan",
    "objective": "the objective alone",
}
RECORDS = "small", "large"


def draw_iteration_times(records, path):
    """Draws what has been measured, and says whether there was anything to draw."""
    measured = [record for name in RECORDS for record in records.get(name, {}).get("data", [])]
    if not measured:
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.4), layout="constrained")
    axes = figure.subplots()
    for solver in dict.fromkeys(name for record in measured for name in record["solvers"]):
        times = {
            record["n"]: per_iteration(record, solver)
            for record in measured
            if solver in record["solvers"]
        }
        shown = sorted((n, t) for n, t in times.items() if math.isfinite(t))
        if not shown:
            continue
        style = STYLE.get(solver, {"color": "#9e9e9e", "linewidth": 1.2})
        label = LABELS.get(solver, solver)
        axes.plot(*zip(*shown, strict=True), marker="o", markersize=4, label=label, **style)
    axes.set(xscale="log", yscale="log", xlabel="n", ylabel="seconds per iteration")
    axes.set_title("One iteration with its evaluations, m = 10, float32")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    return True
