"""From raw seconds to the numbers of the page."""

import math
import statistics

import numpy as np

from .loops import PEERS


def per_iteration(record, name):
    """Seconds of one iteration: the median over repeats of both lengths subtracted.

    Of the objective alone, which is subtracted from others, the fastest of both lengths, so that
    slow runs of it make no solver look fast. NaN if noise hides it, or if the solver stopped before
    the shorter limit.
    """
    solver = record["solvers"][name]
    short, long = solver["iterations"]
    if name == "objective":
        fastest = [min(seconds) for seconds in solver["seconds"]]
        difference = fastest[1] - fastest[0]
    else:
        difference = statistics.median(b - a for a, b in zip(*solver["seconds"], strict=True))
    return difference / (long - short) if long > short and difference > 0 else math.nan


def evaluations_per_iteration(record, name):
    solver = record["solvers"][name]
    (short, long), (first, last) = solver["iterations"], solver["evaluations"]
    return (last - first) / (long - short) if long > short else math.nan


def per_evaluation(record, name):
    """Seconds of one evaluation, with all that a solver does for it."""
    return per_iteration(record, name) / evaluations_per_iteration(record, name)


def beyond_objective(record, name):
    """Seconds of one iteration without those of the evaluations made in it."""
    objective = np.nan_to_num(per_iteration(record, "objective"))
    evaluations = evaluations_per_iteration(record, name)
    return float(per_iteration(record, name) - evaluations * objective)


def over_two_sweeps(record, name):
    return beyond_objective(record, name) / (2 * statistics.median(record["sweep"]))


def best(values, among=PEERS):
    """The name and the value of the least among the peers; a pair of None and NaN without any."""
    known = {name: values[name] for name in among if name in values}
    known = {name: value for name, value in known.items() if math.isfinite(value) and value > 0}
    name = min(known, key=known.get, default=None)
    return name, known.get(name, math.nan)


def each(record, measure, names=None):
    """``measure(record, name)`` for all solvers of a record, or for those named."""
    names = [name for name in record["solvers"] if name != "objective"] if names is None else names
    return {name: measure(record, name) for name in names}


def growth_ratio(records, key, name):
    """The growth of time from the smallest to the largest, over that of n or m; 1 is linear."""
    first, last = records[0], records[-1]
    time = beyond_objective(last, name) / beyond_objective(first, name)
    return time / (last[key] / first[key])


def largest_deviation(records, key, name):
    """The largest relative deviation of the times from the best fitting line a + b x."""
    x = np.array([record[key] for record in records], float)
    y = np.array([beyond_objective(record, name) for record in records])
    design = np.stack([np.ones_like(x), x], axis=1) / y[:, None]
    fitted, *_ = np.linalg.lstsq(design, np.ones_like(y), rcond=None)
    return float(np.max(np.abs(design @ fitted - 1)))


def over_optax(values):
    """The value of each solver, over that of Optax."""
    return {name: value / values["optax"] for name, value in values.items()}


def compile_seconds(solver):
    """The median of tracing and compiling together."""
    sums = [a + b for a, b in zip(solver["trace"], solver["compile"], strict=True)]
    return statistics.median(sums)


def median_seconds(record):
    """The median time of each solver."""
    return {name: statistics.median(each["seconds"]) for name, each in record["solvers"].items()}
