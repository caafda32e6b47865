"""Measures this package beside its peers, and writes ``benchmarks/RESULTS.md`` and its picture.

Run it with ``make bench``, or with ``python -m benchmarks.speed`` from the root of the repository,
on a machine that does nothing else. Results are saved as they come, in ``build/bench``.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from .figure import draw_iteration_times
from .page import page
from .plan import NAMES, run

FIGURE = "iteration_time.png"


def parse(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="small sizes, to see that it runs; writes elsewhere")
    add(
        "--only",
        nargs="*",
        choices=NAMES,
        metavar="NAME",
        help=f"measure these anew and keep the others' results: {', '.join(NAMES)}; "
        "without a name, only write the page",
    )
    add("--name", help="of another environment: writes RESULTS-NAME.md, and no picture")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
    suffix = f"-{options.name}" if options.name else ""
    folder = Path("build/bench-quick" if options.quick else f"build/bench{suffix}")
    folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in NAMES if options.only is None else options.only:
        started = time.monotonic()
        if not run(name, options.quick, folder / f"{name}.json"):
            failed.append(name)
        print(f"{name}: {time.monotonic() - started:.0f} seconds", file=sys.stderr, flush=True)

    paths = {name: folder / f"{name}.json" for name in NAMES}
    records = {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}
    out = folder if options.quick else Path(__file__).parent.parent
    pictured = not options.name and draw_iteration_times(records, out / FIGURE)
    name = f"RESULTS{suffix}.md"
    (out / name).write_text(page(records, FIGURE if pictured else None, options.quick))
    print(f"Written: {out.name}/{name}" + (f", {FIGURE}" if pictured else ""))
    if failed:
        raise SystemExit(f"Failed, so that older results were kept: {', '.join(failed)}")


if __name__ == "__main__":
    main()
