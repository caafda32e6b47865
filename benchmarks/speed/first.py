"""The first answer: each solver on a small function, in a process that has compiled nothing yet."""

import statistics
import subprocess
import sys
import time

from .loops import LOOPS

PARAMS, LENGTH, MEMORY = 5, 40, 10
SOLVERS = [name for name in LOOPS if name != "objective"]
REPEATS = 7


def first(quick, log):
    """Seconds from the call of a solver to its answer, in turns; imports are not counted."""
    seconds = {name: [] for name in SOLVERS}
    repeats = 1 if quick else REPEATS
    for repeat in range(repeats):
        log(f"repeat {repeat + 1} of {repeats}")
        for name in SOLVERS:
            command = [sys.executable, "-m", "benchmarks.speed.first", name]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            seconds[name].append(float(done.stdout))
    return {"n": PARAMS, "solvers": seconds}


def medians(data):
    """The median of each solver."""
    return {name: statistics.median(seconds) for name, seconds in data["solvers"].items()}


def measure(name):
    """Seconds to the answer of one solver, in this process."""
    import importlib

    import jax
    import jax.numpy as jnp

    from .loops import rosenbrock

    importlib.import_module("optax_ls" if name in ("minimize", "lbfgs") else name)
    start = jnp.zeros(PARAMS)
    loop = LOOPS[name]

    def solve(x):
        return loop(rosenbrock, x, None, LENGTH, MEMORY)[0]

    began = time.perf_counter()
    # ``minimize`` compiles by itself, and is called as people call it.
    jax.block_until_ready((solve if name == "minimize" else jax.jit(solve))(start))
    return time.perf_counter() - began


if __name__ == "__main__":
    print(measure(sys.argv[1]))
