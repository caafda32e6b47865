"""The sections of the page, each from the data of one measurement: how it is measured, and all."""

import math
import statistics

from .. import rosenbrock_vmap
from ..tables import table
from .derive import (
    beyond_objective,
    compile_seconds,
    each,
    evaluations_per_iteration,
    median_seconds,
    over_two_sweeps,
    per_iteration,
)
from .loops import OURS
from .plan import SMALL_LOOP_FLAG

QUADRATIC = """\
The objective is a quadratic with curvatures spread evenly from 0.001 to 1, from a start of ones,
in float32."""
CHAIN = """\
The objective is a chain of Rosenbrock's function from its usual start, in float32: a quadratic of
ten params is solved before the iterations that are measured."""
LOOPS = """\
Tolerances are zero, so all solvers go on to the limit. The time of one iteration is that of the
loop of {1} iterations less that of the loop of {0}, over the iterations between, which the solvers
count. "Evaluations" are those per iteration, by the solvers' own count. jaxopt counts some that the
compiler removes."""


def large(data):
    yield QUADRATIC
    yield LOOPS.format(*data[0]["lengths"])
    yield """\
The objective alone is measured in the same way, by descent with steps of minus the gradient, but of
its runs the fastest count. Its time, times the evaluations, is subtracted from that of an
iteration, for jaxopt a little too much.
A sweep is `jit(lambda S, Y: sum(S * S) + sum(Y * Y))` over the memory, and two of them are the
unit. A step of Optimistix is one evaluation; steps that are not accepted are no iterations."""
    header = ["solver", "ms per iteration", "evaluations", "ms beyond", "over two sweeps"]
    for record in data:
        names = each(record, per_iteration)
        rows = [
            [
                name,
                _milliseconds(seconds),
                evaluations_per_iteration(record, name),
                _milliseconds(beyond_objective(record, name)),
                over_two_sweeps(record, name),
            ]
            for name, seconds in names.items()
        ]
        sweep = statistics.median(record["sweep"])
        objective = per_iteration(record, "objective")
        yield (
            f"n = {record['n']:,}, m = {record['memory']}: one sweep takes"
            f" {_milliseconds(sweep)} ms, one evaluation {_milliseconds(objective)} ms."
        )
        yield table(header, rows)


def small(data):
    yield CHAIN
    yield LOOPS.format(*data[0]["lengths"])
    yield """\
An iteration includes its evaluations. A program runs the loop many times, from the same start, so
the cost of calling the program is small. SciPy, which evaluates the objective by a call into JAX
and computes in float64, runs it once. "–" is a difference smaller than the noise, or a solver that
stopped before the shorter limit."""
    yield from _iterations(data)


def small_flag(data):
    yield f"""\
The same for all solvers with `XLA_FLAGS={SMALL_LOOP_FLAG}`.
XLA then compiles a loop that touches fewer bytes than this as one function. By default the limit is
1 kB on JAX 0.10, and a larger loop becomes more than a hundred functions."""
    yield from _iterations(data)


def _iterations(data):
    names = [name for name in data[0]["solvers"] if name != "objective"]
    header = ["microseconds per iteration, n =", *(f"{record['n']:,}" for record in data)]
    times = [[name, *(_microseconds(per_iteration(r, name)) for r in data)] for name in names]
    yield table(header, times)
    header = ["evaluations per iteration, n =", *header[1:]]
    counts = [[name, *(evaluations_per_iteration(r, name) for r in data)] for name in names]
    yield table(header, counts)


def growth(data):
    yield """\
The quadratic again, beyond the objective. A million params with ten pairs need some 0.1 GB, and
where a cache holds a good part of that an iteration takes less than its share. For m the two loops
have m + 5 and m + 25 iterations. The vectors that are read once in an iteration do not grow with m,
so time grows less than m does. The deviation from the best fitting line shows how linear the growth
is."""
    for key, field in ("n", "n"), ("m", "memory"):
        records = data[key]
        fixed = records[0]["memory" if key == "n" else "n"]
        other = "m" if key == "n" else "n"
        header = [f"ms beyond the objective, {other} = {fixed:,}, {key} ="]
        header += [f"{record[field]:,}" for record in records]
        rows = [
            [name, *(_milliseconds(beyond_objective(record, name)) for record in records)]
            for name in OURS
        ]
        yield table(header, rows)


def first(data):
    yield f"""\
Seconds from the call to the answer for a function of {data["n"]} params, with compilation and
without imports, each time in a new process."""
    seconds = median_seconds(data)
    rows = [[name, value, value / seconds["optax"]] for name, value in seconds.items()]
    yield table(["solver", "median s", "over optax"], rows)


def compilation(data):
    yield f"""\
A network of {data["layers"]} layers in {data["leaves"]} leaves, with tanh. Each repeat clears JAX's
caches and begins with a new function; nothing is kept on disk. Copies are counted in the lowered
program, by an operation that each evaluation has once."""
    header = ["solver", "trace s", "compile s", "together", "over optax", "copies", "traces"]
    optax = compile_seconds(data["solvers"]["optax"])
    rows = []
    for name, solver in data["solvers"].items():
        medians = [statistics.median(solver[part]) for part in ("trace", "compile")]
        together = compile_seconds(solver)
        row = [name, *medians, together, together / optax, solver["copies"], solver["traces"]]
        rows.append(row)
    yield table(header, rows)


def memory(data):
    yield f"""\
The result of XLA's `memory_analysis` for the whole loop under jit, in words of four bytes, n =
{data["n"]:,}, m = {data["memory"]}, float32. The pairs themselves are 2m = {2 * data["memory"]}."""
    yield table(["solver", "words per parameter"], [*data["words"].items()])


def batch(data):
    yield """\
Rosenbrock's function from random starts, in float64, to a gradient of at most 1e-6 in the maximum
norm, in one program for all problems; see `make rosenbrock`. "minimize-map" is `jax.lax.map` with a
`batch_size` of 512 instead of `vmap`. Optimistix stops by its own rule."""
    for record in data:
        yield f"{record['size']:,} problems of dimension {record['dimension']}:"
        rows = rosenbrock_vmap.rows(record["solvers"])
        yield table(rosenbrock_vmap.HEADER[:-1], [row[:-1] for row in rows])


def collectives(data):
    yield """\
Params sharded over eight devices of the host, m = 10. All-reduces are counted as they are run, by
the profiler, from the end of the shorter loop to that of the longer; a number is for an iteration
of one evaluation. An all-reduce of the objective's value together with a solver's numbers counts as
the objective's. The other kinds are counted in the text of the compiled program."""
    header = ["solver", "leaves", "all-reduces", "beyond the objective's", "evaluations"]
    header += ["all-gather", "collective-permute", "all-to-all", "reduce-scatter"]
    rows = []
    for record in data:
        for name, solver in record["solvers"].items():
            own, beyond = solver["own"], solver["beyond"]
            row = [name, record["leaves"], f"{own + beyond:.3g}", f"{beyond:.3g}"]
            row.append(solver["evaluations"] / solver["iterations"])
            rows.append([*row, *(solver["in_program"][kind] for kind in header[5:])])
    yield table(header, rows)


def _milliseconds(seconds):
    return f"{1e3 * seconds:.3g}" if math.isfinite(seconds) else "–"


def _microseconds(seconds):
    return f"{1e6 * seconds:.3g}" if math.isfinite(seconds) else "–"
