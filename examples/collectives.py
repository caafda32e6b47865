"""Counts the collectives of one iteration of ``lbfgs()`` and ``minimize`` in the compiled program.

The params have several leaves, each spread over all devices. The objective is a sum over their
entries, so it needs one sum over devices itself. For example:

    python examples/collectives.py --host-devices 8 --leaves 1 --memory-size 10
"""

import argparse
import math
import re
from collections import defaultdict
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import optax_ls

KINDS = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


# Reading a compiled program.


class Exchange(NamedTuple):
    """One collective operation of a program.

    Attributes:
        where: the loops and branches around it, outermost first; () is the program itself. The
            branches of one conditional differ only in their number.
        kind: one of ``KINDS``.
        numbers: count of numbers that each device receives.
        bytes: size of these numbers in bytes.
    """

    where: tuple[str, ...]
    kind: str
    numbers: int
    bytes: int


def exchanges(program):
    """Returns all collectives of a compiled program, given as text (``compiled.as_text()``)."""
    computations, entry = _computations(program)

    def visit(name, where):
        for line in computations[name]:
            found = _exchange(line, where)
            if found:
                yield found
            for inner, step in _called(line):
                yield from visit(inner, (*where, step) if step else where)

    return list(visit(entry, ()))


def _computations(program):
    """Returns the lines of each computation by name, and the name of the entry computation."""
    computations, entry, lines = {}, None, []
    for line in program.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.-]+) \(.*\{$", line)
        if head:
            lines = computations[head[2]] = []
            entry = head[2] if head[1] else entry
        lines.append(line)
    return computations, entry


def _exchange(line, where):
    kinds = "|".join(KINDS)
    # An asynchronous operation is counted where it starts.
    found = re.search(rf"= (.*?) (?:{kinds})(?:-start)?\(", line)
    if not found:
        return None
    kind = re.search(rf" ({kinds})(?:-start)?\(", line)[1]
    numbers = size = 0
    for bits, dimensions in re.findall(r"[a-z]+(\d+)\w*\[([\d,]*)\]", found[1]):
        entries = math.prod(int(n) for n in dimensions.split(",") if n)
        numbers, size = numbers + entries, size + entries * int(bits) // 8
    return Exchange(where, kind, numbers, size)


def _called(line):
    """Yields the computations that a line calls, each with its addition to ``where``."""
    loop = re.search(r" while\(.*body=%?([\w.-]+)", line)
    if loop:
        yield loop[1], "loop"
    branches = re.search(r"branch_computations=\{(.*?)\}", line)
    if branches:
        names = re.findall(r"[\w.-]+", branches[1])
    else:  # the conditional has a boolean, not an index
        names = re.findall(r"(?:false|true)_computation=%?([\w.-]+)", line)
    for number, name in enumerate(names):
        yield name, f"branch {number}"
    call = re.search(r" call\(.*to_apply=%?([\w.-]+)", line)
    if call:
        yield call[1], None


# An ordinary iteration has one trial of the line search, no restart and no overflow.


def of_lbfgs(found):
    """Returns the collectives of an ordinary step of ``lbfgs()``: those in no branch."""
    return [e for e in found if not any(step.startswith("branch") for step in e.where)]


def of_minimize(found):
    """Returns the collectives of an ordinary loop iteration of ``minimize``.

    The next direction is computed in a branch of the loop. The branches inside that branch are for
    other cases.
    """
    return [e for e in found if e.where in (("loop",), ("loop", "branch 1"))]


# The programs.


def objective(params):
    return sum(jnp.sum((leaf - 1) ** 2 + leaf**4) for leaf in params)


def make_params(leaves, size, sharding):
    return [jax.device_put(jnp.sin(jnp.arange(k, k + size)), sharding) for k in range(leaves)]


def lower_objective(params):
    return jax.jit(jax.value_and_grad(objective)).lower(params)


def lower_step(params, memory_size):
    """Lowers a step of ``lbfgs()`` as in Optax's documentation."""
    solver = optax_ls.lbfgs(memory_size=memory_size)
    value_and_grad = optax_ls.value_and_grad_from_state(objective)

    def step(params, state):
        value, grad = value_and_grad(params, state=state)
        updates, state = solver.update(
            grad, state, params, value=value, grad=grad, value_fn=objective
        )
        return optax_ls.apply_updates(params, updates), state

    return jax.jit(step).lower(params, solver.init(params))


def lower_minimize(params, memory_size, **settings):
    def run(params):
        return optax_ls.minimize(objective, params, memory_size=memory_size, **settings)

    return jax.jit(run).lower(params)


def table(found):
    """Yields the lines of a table: kind, count, total numbers and total bytes."""
    kinds = defaultdict(list)
    for exchange in found:
        kinds[exchange.kind].append(exchange)
    yield f"  {'kind':20}{'count':>6}{'numbers':>10}{'bytes':>10}"
    for kind, some in sorted(kinds.items()):
        sums = sum(e.numbers for e in some), sum(e.bytes for e in some)
        yield f"  {kind:20}{len(some):6}{sums[0]:10}{sums[1]:10}"
    if not kinds:
        yield "  none"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--host-devices", type=int, metavar="N", help="divide the CPU into N devices"
    )
    parser.add_argument("--leaves", type=int, default=1, help="leaves of the params (default 1)")
    parser.add_argument("--size", type=int, default=4096, help="size of each leaf (default 4096)")
    parser.add_argument(
        "--memory-size", type=int, default=10, metavar="M", help="pairs to keep (default 10)"
    )
    options = parser.parse_args()
    if options.host_devices is not None:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", options.host_devices)

    mesh = Mesh(np.array(jax.devices()), ("devices",))
    params = make_params(
        options.leaves, options.size, NamedSharding(mesh, PartitionSpec("devices"))
    )
    print(f"{mesh.size} devices, {options.leaves} leaves, a memory of {options.memory_size} pairs")
    print("\nThe objective and its gradient:")
    print(*table(exchanges(lower_objective(params).compile().as_text())), sep="\n")
    for name, lower, ordinary in (
        ("lbfgs()", lower_step, of_lbfgs),
        ("minimize", lower_minimize, of_minimize),
    ):
        found = exchanges(lower(params, options.memory_size).compile().as_text())
        print(f"\nAn iteration of {name} with one trial, the objective included:")
        print(*table(ordinary(found)), sep="\n")
        print(f"  {len(found) - len(ordinary(found))} more in branches for other cases")


if __name__ == "__main__":
    main()
