"""The compiled programs: the time to make them, and the memory that they need."""

import re
import time

import jax
import jax.numpy as jnp
import numpy as np

from .loops import LOOPS, MEMORY, quadratic, start

SOLVERS = [name for name in LOOPS if name != "objective"]
LENGTH = 30
LAYERS, WIDTH, BATCH = 20, 16, 32


class Network:
    """A network as objective. It counts its traces.

    Every evaluation has one sinh, with the gradient or without it, since no derivative has one.
    """

    def __init__(self):
        self.traces = 0

    def __call__(self, params, inputs):
        self.traces += 1
        hidden = jnp.sinh(inputs)
        for weights, bias in params:
            hidden = jnp.tanh(hidden @ weights + bias)
        return jnp.mean(hidden**2)

    @staticmethod
    def copies(text):
        """The number of evaluations in the text of a lowered program."""
        return len(re.findall(r"\bchlo\.sinh\b", text))


def network(quick):
    layers = 3 if quick else LAYERS
    random = np.random.default_rng(0)
    weights = random.normal(size=(layers, WIDTH, WIDTH)) / WIDTH**0.5
    params = [(jnp.asarray(w, "float32"), jnp.zeros(WIDTH, "float32")) for w in weights]
    return params, jnp.asarray(random.normal(size=(BATCH, WIDTH)), "float32")


def compilation(quick, log):
    """Seconds to trace and compile the whole loop, afresh each time; copies and traces."""
    repeats = 1 if quick else 3
    params, inputs = network(quick)
    jax.jit(Network())(params, inputs).block_until_ready()  # what is done once in a process
    found = {name: {"trace": [], "compile": []} for name in SOLVERS}
    for repeat in range(repeats):
        for name in SOLVERS:
            log(f"repeat {repeat + 1} of {repeats}: {name}")
            jax.clear_caches()
            objective = Network()
            loop = LOOPS[name]

            def program(params, inputs, loop=loop, objective=objective):
                return loop(objective, params, inputs, LENGTH, MEMORY)

            began = time.perf_counter()
            lowered = jax.jit(program).lower(params, inputs)
            traced = time.perf_counter()
            lowered.compile()
            found[name]["trace"].append(traced - began)
            found[name]["compile"].append(time.perf_counter() - traced)
            found[name]["copies"] = Network.copies(lowered.as_text())
            found[name]["traces"] = objective.traces
    return {"layers": len(params), "leaves": 2 * len(params), "solvers": found}


def memory(quick, log):
    """Temporary memory of the whole loop in words of four bytes per parameter."""
    n = 10_000 if quick else 1_000_000
    params, data = start(n)
    words = {}
    for name in SOLVERS:
        log(name)
        loop = LOOPS[name]

        def program(params, data, loop=loop):
            return loop(quadratic, params, data, LENGTH, MEMORY)

        analysis = jax.jit(program).lower(params, data).compile().memory_analysis()
        words[name] = analysis.temp_size_in_bytes / 4 / n
    return {"n": n, "memory": MEMORY, "words": words}
