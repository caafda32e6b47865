"""Many problems at once under vmap, as ``benchmarks.rosenbrock_vmap`` measures them."""

from ..rosenbrock_vmap import timings

DIMENSION = 10
SEED = 0


def batch(quick, log):
    if quick:
        plan = {20: (["minimize", "minimize-map", "optax"], 2)}
    else:
        plan = {
            1000: (["minimize", "minimize-map", "optax", "jaxopt", "optimistix"], 7),
            # jaxopt takes 30 times as long
            10_000: (["minimize", "minimize-map", "optax", "optimistix"], 5),
        }
    found = []
    for count, (names, repeats) in plan.items():
        log(f"{count} problems: {', '.join(names)}")
        solvers = timings(count, DIMENSION, names, repeats, SEED)
        found.append({"size": count, "dimension": DIMENSION, "solvers": solvers})
    return found
