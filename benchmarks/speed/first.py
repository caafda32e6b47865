"""The first answer: each solver on a small function, in a process that has compiled nothing yet."""

import importlib
import subprocess
import sys
import time

import jax
import jax.numpy as jnp

from .loops import LOOPS, OURS, rosenbrock

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
    return {"n": PARAMS, "solvers": {name: {"seconds": seconds[name]} for name in SOLVERS}}


def measure(name):
    """Seconds to the answer of one solver, in this process."""
    importlib.import_module("optax_ls" if name in OURS else name)

    def solve(x):
        return LOOPS[name](rosenbrock, x, None, LENGTH, MEMORY)[0]

    # ``minimize`` compiles by itself, and is called as people call it.
    solve, start = solve if name == "minimize" else jax.jit(solve), jnp.zeros(PARAMS)
    began = time.perf_counter()
    jax.block_until_ready(solve(start))
    return time.perf_counter() - began


if __name__ == "__main__":
    print(measure(sys.argv[1]))
