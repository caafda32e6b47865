"""The time of one iteration: whole loops of two lengths, subtracted."""

import time

import jax
import jax.numpy as jnp

from .loops import LENGTHS, LOOPS, MEMORY, prepare, quadratic, start


def large(quick, tell):
    """All solvers at sizes that no cache holds, with the sweeps that they are measured by."""
    repeats, sizes = (2, (20_000,)) if quick else (5, (1_000_000, 4_000_000))
    return [_measure(n, MEMORY, LENGTHS, [*LOOPS], repeats, tell, sweep=True) for n in sizes]


def small(quick, tell):
    """All solvers at sizes where what counts is how many operations there are."""
    if quick:
        sizes = {10: 5, 1000: 5}
    else:
        sizes = {10: 300, 100: 300, 1000: 200, 10_000: 100, 100_000: 30}
    return [
        _measure(n, MEMORY, LENGTHS, [*LOOPS, "scipy"], repeats, tell)
        for n, repeats in sizes.items()
    ]


def growth(quick, tell):
    """Ours alone, from a million params to ten million, and from 5 pairs to 50."""
    names = ["minimize", "lbfgs", "objective"]
    if quick:
        n, sizes, memories, repeats = 10_000, (10_000, 30_000), (5, 10), 2
    else:
        n, sizes, repeats = 1_000_000, (1_000_000, 2_000_000, 4_000_000, 10_000_000), 5
        memories = 5, 10, 20, 50
    in_n = [_measure(size, MEMORY, LENGTHS, names, repeats, tell) for size in sizes]
    in_m = [_measure(n, m, (m + 5, m + 25), names, repeats, tell) for m in memories]
    return {"n": in_n, "m": in_m}


def _measure(n, memory, lengths, names, repeats, tell, sweep=False):
    """Seconds of all loops, interleaved, and what the solvers say they did."""
    params, data = start(n)
    runs = {}
    for name in names:
        tell(f"n = {n}, m = {memory}: compiling {name}")
        for length in lengths:
            runs[name, length] = prepare(name, quadratic, params, data, length, memory)
    counts = {key: run() for key, run in runs.items()}  # a first run, not timed
    if sweep:
        runs["sweep"] = prepare_sweep(n, memory)
        runs["sweep"]()

    seconds = {key: [] for key in runs}
    for repeat in range(repeats):
        if repeats < 10 or repeat % 25 == 0:
            tell(f"n = {n}, m = {memory}: repeat {repeat + 1} of {repeats}")
        for key, run in runs.items():
            started = time.perf_counter()
            run()
            seconds[key].append(time.perf_counter() - started)

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
