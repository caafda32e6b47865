"""Runs solvers on problems of CUTEst, and compares their results.

Run it with ``make cutest``, or with ``python -m benchmarks.cutest`` from the root of the
repository. Results are saved as they come, so a run that was interrupted goes on where it was.
Runs that ended in an error are tried again.
"""

import argparse
import os
from pathlib import Path

from . import problems
from .figures import draw_profiles
from .records import Records, Task
from .report import summary
from .results import Results
from .solvers import BOUNDED, SOLVERS
from .workers import run_tasks

CHOICES = [name for name in SOLVERS if name != "minimize-zero"]
DTYPES = ("float64", "float32")


def parse(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cutest", description=__doc__)
    add = parser.add_argument
    add("--problems", nargs="+", metavar="NAME", help="of cutest.json, or others of sif2jax")
    add("--solvers", nargs="+", choices=CHOICES, default=CHOICES, help="default: all")
    add("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES), help="default: both")
    add("--bounds", action="store_true", help="problems with bounds, of cutest_bounds.json")
    add("--zero-tolerances", action="store_true", help="minimize with gtol=ftol=0")
    add("--again", nargs="+", choices=CHOICES, default=[], help="solvers to run anew")
    add("--jobs", type=int, default=os.cpu_count(), help="processes; default: %(default)s")
    add("--timeout", type=float, default=900.0, help="seconds for a run; default: %(default)g")
    add("--out", type=Path, help="default: build/cutest or build/cutest-bounds")
    options = parser.parse_args(arguments)

    options.kind = "bounded" if options.bounds else "unconstrained"
    options.out = options.out or Path("build/cutest-bounds" if options.bounds else "build/cutest")
    options.problems = options.problems or list(problems.listed(options.kind))
    if options.bounds:
        options.solvers = [name for name in options.solvers if name in BOUNDED]
    options.ours = "minimize-zero" if options.zero_tolerances else "minimize"
    for field in ("solvers", "again"):
        names = getattr(options, field)
        names = [options.ours if name == "minimize" else name for name in names]
        setattr(options, field, names)
    return options


def run(options, records):
    """Runs what has no result yet, or an error for one."""
    from tqdm import tqdm

    tasks = [
        Task(problem, solver, dtype)
        for dtype in options.dtype
        for problem in options.problems
        for solver in options.solvers
    ]
    records.forget([task for task in tasks if task.solver in options.again])
    tasks = [task for task in tasks if task not in records or records[task]["end"] == "error"]
    with tqdm(total=len(tasks), unit="run", disable=not tasks) as bar:

        def keep(record):
            records.add(record)
            bar.set_postfix_str("{problem} {solver} {dtype}".format(**record))
            if record["end"] == "error":
                bar.write("{problem} {solver} {dtype}: {message}".format(**record))
            bar.update()

        cache = (options.out.parent / "jax_cache").resolve()
        run_tasks(tasks, options.jobs, options.timeout, cache, keep)


def main(arguments=None):
    options = parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    records = Records(options.out / "results.jsonl")
    try:
        run(options, records)
    except KeyboardInterrupt:
        raise SystemExit("Interrupted. The same command goes on from here.") from None

    results = [Results(records, options.problems, options.solvers, d) for d in options.dtype]
    figure = options.out / "profiles.png"
    draw_profiles(results, figure)
    text = summary(results, options.kind, options.ours, figure)
    (options.out / "summary.md").write_text(text)
    print(text)
    print(f"Written to {options.out}: summary.md, {figure.name}, {records.path.name}")


if __name__ == "__main__":
    main()
