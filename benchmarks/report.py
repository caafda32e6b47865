"""The summary of all results, as Markdown."""

from .problems import ACCURACY
from .results import UNSOLVED, share_within
from .solvers import MAX_EVALS, MAX_ITERS, MEMORY, versions
from .tables import percent, table

BASE = "scipy"
EFFORTS = (0.01, 0.1, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
RATIOS = (1, 1.1, 1.25, 1.5, 2, 3, 5, 10, 20)
SHOWN = 15

ENDS = {
    "solver": "stopped",
    "evaluations": "evaluations",
    "iterations": "iterations",
    "time": "time",
    "error": "error",
}


def summary(all_results, kind, ours, figure):
    """The whole text on problems of a kind. ``ours`` is the solver whose worst are listed."""
    libraries = ", ".join(f"{name} {version}" for name, version in versions().items())
    parts = [
        f"# {kind.capitalize()} problems of CUTEst",
        f"A problem is solved when an evaluation reaches f <= fL + {ACCURACY:g} (f0 - fL), within\n"
        f"{MAX_EVALS} evaluations and {MAX_ITERS} iterations; memory {MEMORY}; one setting for all"
        " problems.",
        libraries + ".",
        *(part for results in all_results for part in _of_one_dtype(results, ours)),
    ]
    if figure is not None:
        parts += ["## Profiles", f"![Profiles]({figure.name})"]
    return "\n\n".join(parts) + "\n"


def _of_one_dtype(results, ours):
    yield f"## {results.dtype}"
    if not results.solvers:
        yield "No results."
        return
    yield _solved(results)
    yield "Not solved, by how the run ended:"
    yield _ends(results)
    yield "Share of problems solved within a (n + 1) evaluations, for several a:"
    yield _shares(results, results.efforts, EFFORTS)
    yield "Share of problems solved within r times the evaluations of the cheapest solver:"
    yield _shares(results, results.ratios, RATIOS)
    if ours in results.solvers:
        yield from _worst(results, ours)
        yield from _unsolved(results, ours)
    yield from _notes(results)


def _solved(results):
    header = ["solver", "run", "solved", "cheapest or tied", f"mean over {BASE}", "both solve"]
    rows = []
    for solver in results.solvers:
        row = [solver, len(results.evals[solver]), len(results.solved(solver))]
        row += [len(results.cheapest(solver))]
        row += results.mean_ratio(solver, BASE) if BASE in results.solvers else ["–", "–"]
        rows.append(row)
    return table(header, rows)


def _ends(results):
    rows = []
    for solver in results.solvers:
        ends = [
            results.runs[solver][problem]["end"]
            for problem, evals in results.evals[solver].items()
            if evals == UNSOLVED
        ]
        rows.append([solver, *(ends.count(end) for end in ENDS)])
    return table(["solver", *ENDS.values()], rows)


def _shares(results, values_of, limits):
    rows = []
    for solver in results.solvers:
        values, total = values_of(solver), len(results.evals[solver])
        rows.append([solver, *(percent(share_within(values, limit, total)) for limit in limits)])
    return table(["solver", *(f"{limit:g}" for limit in limits)], rows)


def _worst(results, ours):
    worst = results.worst(ours)
    lost = sum(ratio == UNSOLVED for _, ratio in worst)
    yield (
        f"The worst problems of {ours}: {lost} that only others solve, and {len(worst) - lost} "
        f"where another is cheaper. The first {max(lost, min(SHOWN, len(worst)))}:"
    )
    rows = []
    for problem, ratio in worst[: max(lost, SHOWN)]:
        counts = results.counts(problem)
        row = [problem, results.facts[problem]["n"], ratio]
        rows.append([*row, *(_count(counts.get(solver)) for solver in results.solvers)])
    yield table(["problem", "n", "ratio", *results.solvers], rows)


def _unsolved(results, ours):
    rows = []
    for problem, evals in results.evals[ours].items():
        if evals == UNSOLVED:
            record, facts = results.runs[ours][problem], results.facts[problem]
            lowest = record.get("lowest")
            left = (lowest - facts["fL"]) / (facts["f0"] - facts["fL"]) if lowest is not None else 1
            how = record.get("message", ENDS[record["end"]]).splitlines()[0].replace("|", "/")
            rows.append([problem, facts["n"], f"{left:.1e}", record.get("evals", ""), how[:70]])
    if rows:
        yield (
            f"What {ours} does not solve. Where it ended (f - fL) / (f0 - fL) was left, and"
            f" {ACCURACY:g} is wanted:"
        )
        yield table(["problem", "n", "left", "evaluations", "how it ended"], rows)


def _count(evals):
    """A count as text; "–" if it was not solved, nothing if it was not run."""
    return "" if evals is None else "–" if evals == UNSOLVED else str(evals)


def _notes(results):
    """The remarks that a reader needs, if there are any."""
    unsolved = [p for p in results.facts if results.best(p) == UNSOLVED and results.counts(p)]
    if unsolved:
        yield f"Solved by none: {', '.join(unsolved)}."
    if results.found:
        yield (
            "Not in the list, so that fL is the lowest value that any solver found here, in"
            f" float64 where there are such runs: {', '.join(results.found)}."
        )
    bad, differ = [], []
    for solver in results.solvers:
        for problem, record in results.runs[solver].items():
            if record["end"] == "error":
                bad.append(f"- {solver} on {problem}: {record['message'].splitlines()[0][:200]}")
            own = record.get("own_evals")
            if own is not None and own != record["evals"]:
                differ.append(f"- {solver} on {problem}: {own}, and we count {record['evals']}")
    if bad:
        yield "Errors:\n\n" + "\n".join(bad)
    if differ:
        yield "Where a solver's own count differs from ours:\n\n" + "\n".join(differ)
