"""Many problems at once under vmap, as ``benchmarks.rosenbrock_vmap`` measures them."""

from ..rosenbrock_vmap import timings

DIMENSION = 10
SEED = 0


def batch(quick, log):
    if quick:
        plan = {20: (["minimize", "optax"], 2)}
    else:
        plan = {
            1000: (["minimize", "optax", "jaxopt", "optimistix"], 7),
            10_000: (["minimize", "optax", "optimistix"], 5),  # jaxopt takes 30 times as long
        }
    found = []
    for count, (names, repeats) in plan.items():
        log(f"{count} problems: {', '.join(names)}")
        solvers = timings(count, DIMENSION, names, repeats, SEED)
        found.append({"size": count, "dimension": DIMENSION, "solvers": solvers})
    return found
