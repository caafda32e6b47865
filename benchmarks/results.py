"""From records to counts: what each solver needed for each problem."""

import math

from . import problems
from .records import Task

UNSOLVED = math.inf


class Results:
    """The counts of one dtype.

    Attributes:
      dtype: the name of the dtype.
      solvers: the solvers with at least one result.
      facts: problems mapped to dicts of ``n``, ``f0``, ``fL``.
      evals: solvers mapped to dicts from problems to evaluations; ``UNSOLVED`` if it was not
        solved, no entry if it was not run.
      found: the problems whose ``fL`` is the lowest value of these runs.
    """

    def __init__(self, records, names, solvers, dtype):
        self.dtype = dtype
        listed = problems.listed()
        self.facts = {name: listed.get(name) or _found(records, name) for name in names}
        self.facts = {name: facts for name, facts in self.facts.items() if facts}
        self.found = [name for name in self.facts if name not in listed]
        tasks = {s: [Task(p, s, dtype) for p in self.facts] for s in solvers}
        self.runs = {s: {t.problem: records[t] for t in tasks[s] if t in records} for s in solvers}
        self.solvers = [s for s in solvers if self.runs[s]]
        self.evals = {
            s: {p: _evals(record, self.facts[p]) for p, record in self.runs[s].items()}
            for s in self.solvers
        }

    def counts(self, problem):
        """The evaluations of each solver that ran ``problem``."""
        return {s: self.evals[s][problem] for s in self.solvers if problem in self.evals[s]}

    def best(self, problem):
        return min(self.counts(problem).values(), default=UNSOLVED)

    def solved(self, solver):
        return [p for p, evals in self.evals[solver].items() if evals < UNSOLVED]

    def cheapest(self, solver):
        """The problems that no solver solved in fewer evaluations."""
        return [p for p in self.solved(solver) if self.evals[solver][p] == self.best(p)]

    def mean_ratio(self, solver, base):
        """The geometric mean of evaluations over those of ``base``, and of how many problems."""
        both = sorted(set(self.solved(solver)) & set(self.solved(base)))
        logs = [math.log(self.evals[solver][p] / self.evals[base][p]) for p in both]
        return (math.exp(sum(logs) / len(logs)) if logs else math.nan), len(both)

    def efforts(self, solver):
        """Evaluations over ``n + 1``, of the problems solved."""
        return [self.evals[solver][p] / (self.facts[p]["n"] + 1) for p in self.solved(solver)]

    def ratios(self, solver):
        """Evaluations over those of the cheapest solver, of the problems solved."""
        return [self.evals[solver][p] / self.best(p) for p in self.solved(solver)]

    def worst(self, solver):
        """Pairs (problem, ratio to the best), worst first: problems where another was better."""
        ratios = {
            p: e / self.best(p) for p, e in self.evals[solver].items() if self.best(p) < UNSOLVED
        }
        worse = [(p, ratio) for p, ratio in ratios.items() if ratio > 1]
        return sorted(worse, key=lambda pair: (-pair[1], self.best(pair[0])))


def share_within(values, limit, total):
    """The share of ``total`` that has a value of at most ``limit``."""
    return sum(value <= limit for value in values) / total if total else math.nan


def _evals(record, facts):
    if "improvements" not in record:
        return record["solved_at"] or UNSOLVED
    level = problems.threshold(facts["f0"], facts["fL"])
    return next((at for at, value in record["improvements"] if value <= level), UNSOLVED)


def _found(records, name):
    """The facts of a problem that is not listed, from all its runs; None if there are none."""
    runs = [r for r in records if r["problem"] == name and r.get("lowest") is not None]
    runs = [r for r in runs if r["dtype"] == "float64"] or runs
    if not runs:
        return None
    return {"n": runs[0]["n"], "f0": runs[0]["f0"], "fL": min(r["lowest"] for r in runs)}
