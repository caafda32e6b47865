"""The communication between devices in one iteration, counted while it runs.

The profiler of JAX records each run of an instruction on each device. So conditionals and loops
count as often as they are really run. Two runs of different length, subtracted, leave out what
happens before the first iteration.

The objective is made so that its own all-reduce, of its value, has a shape that no solver's has.
"""

import glob
import tempfile
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from .hlo import collectives as collectives_in, numbers
from .loops import LENGTHS, LOOPS, MEMORY

DEVICES = 8
ROWS = 16
MARK = 3, 7  # the shape of what the objective reduces over devices
MARK_TEXT = "f32[3,7]"
SOLVERS = "minimize", "lbfgs", "optax"


def objective(leaves, curvatures):
    """Nearly quadratic, and reduced over devices in one array of the shape that marks it."""
    weights = curvatures[:, None, None]
    sums = sum(jnp.sum(weights * leaf * leaf, axis=0) for leaf in leaves)
    return jnp.sum(sums + 1e-4 * sums**1.5)


def collectives(quick, log):
    counts = (1, 3) if quick else (1, 50)
    mesh = Mesh(np.array(jax.devices()[:DEVICES]), ("devices",))
    sharding = NamedSharding(mesh, PartitionSpec("devices"))
    curvatures = jax.device_put(jnp.linspace(1e-3, 1, ROWS), sharding)
    found = []
    for count in counts:
        leaves = [
            jax.device_put(jnp.full((ROWS, *MARK), 1 + 0.01 * i, "float32"), sharding)
            for i in range(count)
        ]
        solvers = {}
        for name in SOLVERS:
            log(f"{count} leaves: {name}")
            solvers[name] = _count(LOOPS[name], leaves, curvatures)
        found.append({"leaves": count, "memory": MEMORY, "solvers": solvers})
    return found


def _count(loop, leaves, curvatures):
    """The collectives that only the longer run executes, and those in the program."""

    @jax.jit
    def program(leaves, curvatures, length):
        return loop(objective, leaves, curvatures, length, MEMORY)

    compiled = program.lower(leaves, curvatures, jnp.asarray(0)).compile()
    instructions = collectives_in(compiled.as_text())
    runs = [_run(compiled, leaves, curvatures, length) for length in LENGTHS]
    iterations, evals = (runs[1][i] - runs[0][i] for i in (0, 1))
    executed = runs[1][2] - runs[0][2]
    return {
        "in_program": numbers(instructions),
        "iterations": iterations,
        "evaluations": evals,
        **tally(instructions, executed, iterations, evals),
    }


def tally(instructions, executed, iterations, evals):
    """All-reduces in an iteration of one evaluation: the objective's own, and the others.

    What was run as often as the objective was evaluated is part of an evaluation, and counts once.
    An all-reduce of the objective's array together with a solver's numbers is the objective's own,
    since it would be there in any case.
    """
    totals = Counter(own=0, beyond=0)
    for each in instructions:
        if each.kind == "all-reduce":
            times = executed[each.name]
            often = times / (evals if times == evals else iterations)
            totals["own" if MARK_TEXT in each.shapes else "beyond"] += often
    return dict(totals)


def _run(compiled, leaves, curvatures, length):
    """Iterations, evaluations, and how often each instruction was run on one device."""
    length = jnp.asarray(length)
    jax.block_until_ready(compiled(leaves, curvatures, length))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            _, iterations, evals = jax.block_until_ready(compiled(leaves, curvatures, length))
        (path,) = glob.glob(str(Path(folder) / "**" / "*.xplane.pb"), recursive=True)
        profile = jax.profiler.ProfileData.from_file(path)
        executed = Counter(
            event.name for plane in profile.planes for line in plane.lines for event in line.events
        )
    executed = Counter({name: count // DEVICES for name, count in executed.items()})
    return int(iterations), int(evals), executed
