"""The time of one iteration: whole loops of two lengths, subtracted."""

import time

import jax
import jax.numpy as jnp

from .loops import (
    LENGTHS,
    LOOPS,
    MEMORY,
    prepare,
    quadratic,
    rosenbrock,
    rosenbrock_start,
    start,
)

# Of the smallest sizes, at which repeats are cheap.
REPEATS = {10: 60, 100: 60, 1000: 30}
# The objective alone takes little, and its fastest runs count: so many in each repeat.
OF_OBJECTIVE = 5


def large(quick, log):
    """All solvers at sizes that no cache holds, with the sweeps that they are measured by."""
    repeats, sizes = (2, (20_000,)) if quick else (9, (1_000_000, 4_000_000))
    return [_measure(n, MEMORY, LENGTHS, [*LOOPS], repeats, log, sweep=True) for n in sizes]


def small(quick, log):
    """All solvers at sizes where what counts is how many operations there are."""
    few = {10: 5, 1000: 5}
    return _small(few if quick else {**REPEATS, 10_000: 15, 100_000: 15}, log)


def small_flag(quick, log):
    """The smallest of these sizes, with the flag that makes XLA compile a loop as one function."""
    return _small({10: 5} if quick else REPEATS, log)


def _small(sizes, log):
    names = [name for name in [*LOOPS, "scipy"] if name != "objective"]
    chain = rosenbrock, rosenbrock_start
    return [
        _measure(n, MEMORY, LENGTHS, names, repeats, log, problem=chain, times=_times(n))
        for n, repeats in sizes.items()
    ]


def _times(n):
    """The number of loops in one program, so that the cost of calling the program is small."""
    return max(1, min(100, 2**18 // n))


def growth(quick, log):
    """Ours alone, from a million params to ten million, and from 5 pairs to 50."""
    names = ["minimize", "lbfgs", "objective"]
    if quick:
        n, sizes, memories, repeats = 10_000, (10_000, 30_000), (5, 10), 2
    else:
        n, sizes, repeats = 1_000_000, (1_000_000, 2_000_000, 4_000_000, 10_000_000), 5
        memories = 5, 10, 20, 50
    in_n = [_measure(size, MEMORY, LENGTHS, names, repeats, log) for size in sizes]
    in_m = [_measure(n, m, (m + 5, m + 25), names, repeats, log) for m in memories]
    return {"n": in_n, "m": in_m}


def _measure(
    n, memory, lengths, names, repeats, log, sweep=False, problem=(quadratic, start), times=1
):
    """Seconds of all loops, interleaved, and what the solvers say they did."""
    fun, begin = problem
    params, data = begin(n)
    runs = {}
    for name in names:
        log(f"n = {n}, m = {memory}: compiling {name}")
        for length in lengths:
            runs[name, length] = prepare(name, fun, params, data, length, memory, times)
    counts = {key: run() for key, run in runs.items()}  # a first run, not timed
    if sweep:
        # Once in a repeat: right after another it would find a part of the memory in the cache.
        runs["sweep"] = prepare_sweep(n, memory)
        runs["sweep"]()

    seconds = {key: [] for key in runs}
    for repeat in range(repeats):
        if repeats < 10 or repeat % 25 == 0:
            log(f"n = {n}, m = {memory}: repeat {repeat + 1} of {repeats}")
        for key, run in runs.items():
            for _ in range(OF_OBJECTIVE if key[0] == "objective" else 1):
                started = time.perf_counter()
                run()
                taken = time.perf_counter() - started
                seconds[key].append(taken if key[0] == "scipy" else taken / times)

    record = {"n": n, "memory": memory, "lengths": lengths, "sweep": seconds.pop("sweep", None)}
    record["solvers"] = {
        name: {
            "iterations": [counts[name, length][0] for length in lengths],
            "evaluations": [counts[name, length][1] for length in lengths],
            "seconds": [seconds[name, length] for length in lengths],
        }
        for name in names
    }
    return record


def prepare_sweep(n, memory):
    """One sweep through the memory, as the targets define it."""
    rows_s, rows_y = jnp.ones((memory, n), "float32"), jnp.ones((memory, n), "float32")
    sweep = jax.jit(lambda S, Y: jnp.sum(S * S) + jnp.sum(Y * Y))
    return lambda: jax.block_until_ready(sweep(rows_s, rows_y))
