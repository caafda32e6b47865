"""The targets, and what was reached."""

from .derive import (
    best,
    compile_seconds,
    each,
    growth_ratio,
    largest_deviation,
    median_seconds,
    over_optax,
    over_two_sweeps,
    per_evaluation,
)
from .loops import OURS

LINEAR = 0.15
MISSING = "not measured"


def summary(records):
    """The rows of the table: what, target, ours, the best peer, whether it is reached."""
    for name, rows in ROWS.items():
        if name in records:
            yield from rows(**records[name])
        else:
            yield [name, "", "", "", "", MISSING]


def yes_or_no(*conditions):
    return "yes" if all(conditions) else "no"


def _row(what, target, minimize="–", lbfgs="–", peer=None, reached=""):
    name, value = peer or (None, "–")
    value = f"{value:.2f}" if isinstance(value, float) else value
    shown = f"{value} ({name})" if name else value
    return [what, target, minimize, lbfgs, shown, reached]


def large(data, **_):
    for record in data:
        ratios = each(record, over_two_sweeps)
        peer = best(ratios)
        what = f"one iteration beyond the objective over two sweeps, n = {record['n']:,}"
        ours = ratios["minimize"]
        yield _row(f"minimize: {what}", "1.7", ours, peer=peer, reached=yes_or_no(ours <= 1.7))
        ours = ratios["lbfgs"]
        yield _row(f"lbfgs: {what}", "1.9", lbfgs=ours, peer=peer, reached=yes_or_no(ours <= 1.9))


# An evaluation of minimize over one of Optax's, by the number of params: on JAX 0.10, and newer.
SMALL = {10: (1.8, 1.3), 100: (1.1, 1.0), 1000: (0.7, 0.7)}


def small(data, versions, how="", **_):
    is_newer = tuple(map(int, versions["jax"].split(".")[:2])) > (0, 10)
    for record in data:
        over = over_optax(each(record, per_evaluation))
        target = SMALL[record["n"]][is_newer] if record["n"] in SMALL else None
        reached = yes_or_no(over["minimize"] <= target) if target else ""
        what = f"time of an evaluation over Optax's{how}, n = {record['n']:,}"
        yield _row(what, f"{target or '–'}", *(over[name] for name in OURS), best(over), reached)


def small_flag(**record):
    yield from small(**record, how=", with the flag for small loops")


def first(data, **_):
    over = over_optax(median_seconds(data))
    ours = [over[name] for name in OURS]
    what = f"first answer over Optax's, n = {data['n']}"
    yield _row(what, "1.0", *ours, best(over), yes_or_no(ours[0] <= 1))


def growth(data, **_):
    of_n, of_m = data["n"], data["m"]
    yield from _growth("n", "n", of_n, "0.85–1.15")
    if len(of_n) > 2:  # the first may be in a large cache
        yield from _growth("n", "n", of_n[-2:], "0.85–1.15")
    # What grows with m is not all: the vectors that are read once do not.
    yield from _growth("m", "memory", of_m, "at most 1.15")


def _growth(key, field, records, target):
    span = f"{key} = {records[0][field]:,} to {records[-1][field]:,}"
    ratios = [growth_ratio(records, field, name) for name in OURS]
    reached = ratios[0] <= 1 + LINEAR and (field == "memory" or ratios[0] >= 1 - LINEAR)
    what = f"growth of time over that of {key}, {span}"
    yield _row(what, target, *ratios, None, yes_or_no(reached))
    if len(records) > 2:  # a line fits any two
        misfits = [largest_deviation(records, field, name) for name in OURS]
        shown = [f"{misfit:.0%}" for misfit in misfits]
        what = f"largest deviation from a line, {span}"
        yield _row(what, "15%", *shown, None, yes_or_no(misfits[0] <= LINEAR))


def compilation(data, **_):
    solvers = data["solvers"]
    over = over_optax({name: compile_seconds(solver) for name, solver in solvers.items()})
    ours = [over[name] for name in OURS]
    what = f"trace and compilation over Optax's, network of {data['layers']} layers"
    yield _row(what, "0.6", *ours, best(over), yes_or_no(ours[0] <= 0.6))
    for key, target in ("copies", {"minimize": 1, "lbfgs": 2}), ("traces", {"minimize": 2}):
        counts = {name: solver[key] for name, solver in solvers.items()}
        wanted = ", ".join(f"{value} ({name})" for name, value in target.items())
        reached = yes_or_no(*(counts[name] <= value for name, value in target.items()))
        what = f"{key} of the objective"
        ours = [counts[name] for name in OURS]
        yield _row(what, wanted, *ours, best(counts), reached)


def memory(data, **_):
    words, limit = data["words"], 2 * data["memory"] + 8
    what = f"temporary memory, words per parameter, n = {data['n']:,}"
    ours = [words[name] for name in OURS]
    # The rest of a word is for what does not grow with n.
    yield _row(what, f"2m + 8 = {limit}", *ours, best(words), yes_or_no(max(ours) <= limit + 0.01))


# For a thousand problems, and for ten thousand.
BATCH = {"minimize": (1.0, 0.5), "minimize-map": (0.9, 0.35)}


def batch(data, **_):
    for record in data:
        over = over_optax(median_seconds(record))
        for name, targets in BATCH.items():
            target = targets[record["size"] >= 10_000]
            solved = record["solvers"][name]["converged"] == record["size"]
            what = f"{record['size']:,} Rosenbrock problems, {name}, over Optax's vmap"
            reached = yes_or_no(over[name] <= target, solved)
            yield _row(what, f"{target}", over[name], peer=best(over), reached=reached)


def collectives(data, **_):
    for record in data:
        counts = {name: solver["beyond"] for name, solver in record["solvers"].items()}
        what = f"all-reduces per iteration beyond the objective's, {_leaves(record)}"
        reached = yes_or_no(round(counts["minimize"]) <= 3, round(counts["lbfgs"]) <= 2)
        ours = [counts[name] for name in OURS]
        target = "3 (minimize), 2 (lbfgs) in most iterations"
        yield _row(what, target, *ours, ("optax", counts["optax"]), reached)
        others = {
            name: sum(n for kind, n in solver["in_program"].items() if kind != "all-reduce")
            for name, solver in record["solvers"].items()
        }
        what = f"other collectives in the program, {_leaves(record)}"
        ours = [others[name] for name in OURS]
        yield _row(what, "0", *ours, ("optax", others["optax"]), yes_or_no(max(ours) == 0))


def _leaves(record):
    return "1 leaf" if record["leaves"] == 1 else f"{record['leaves']} leaves"


ROWS = {
    "first": first,
    "large": large,
    "small": small,
    "small_flag": small_flag,
    "growth": growth,
    "compilation": compilation,
    "memory": memory,
    "batch": batch,
    "collectives": collectives,
}
