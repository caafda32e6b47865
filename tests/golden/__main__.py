"""The commands: ``compare`` with the golden runs, ``renew`` them, a ``table`` of comparisons."""

import argparse
import json
import os
import sys
from pathlib import Path

from . import processes, records


def main():
    parser = argparse.ArgumentParser(prog="python -m golden", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("compare", help="run everything here, and compare")
    command.add_argument("--save", type=Path, metavar="DIR", help="keep the comparison for a table")
    command.set_defaults(run=compare)
    command = commands.add_parser("renew", help="make what runs here the golden runs")
    command.set_defaults(run=renew)
    command = commands.add_parser("table", help="all comparisons in one table")
    command.add_argument("folder", type=Path)
    command.set_defaults(run=table)
    options = parser.parse_args()
    sys.exit(options.run(options))


def compare(options):
    """Prints how far the runs made here are from the golden ones; 1 if too far."""
    golden_made, golden = records.decoded(records.FILE.read_text())
    made, runs = processes.run()
    drifts = {name: records.drift(name, golden[name], run) for name, run in runs.items()}
    by_bits = records.bits_are_comparable(golden_made, made)
    wrong = [name for name, d in drifts.items() if not (d.same_bits if by_bits else d.excess <= 1)]
    print(f"here:        {made}\ngolden runs: {golden_made}")
    print("The bits should be the same." if by_bits else "Bits may differ, within a tolerance.")
    for dtype in processes.DTYPES:
        print(summary(dtype, drifts))
    for name in wrong:
        print(f"  too far: {name}: {drifts[name]}")
    if options.save:
        options.save.mkdir(parents=True, exist_ok=True)
        name = os.environ.get("TOX_ENV_NAME", f"python{made['python']}-jax{made['jax']}")
        report = {"made": made, "by_bits": by_bits, "wrong": wrong, "drifts": drifts}
        report["bits"] = records.short_digest_of_bits(runs)
        (options.save / f"{name}.json").write_text(json.dumps(report))
    return bool(wrong)


def summary(dtype, drifts):
    ours = {name: drift for name, drift in drifts.items() if name.endswith(dtype)}
    worst = max(ours, key=lambda name: ours[name].largest)
    return (
        f"  {dtype}: same bits in {sum(d.same_bits for d in ours.values())} of {len(ours)} runs, "
        f"largest drift {ours[worst].largest:.1e} at iteration {ours[worst].at} of {worst}"
    )


def renew(_):
    """Writes the runs made here, and says how far they are from those before."""
    made, runs = processes.run()
    before = records.decoded(records.FILE.read_text())[1] if records.FILE.exists() else {}
    drifts = {
        name: records.drift(name, before[name], run) for name, run in runs.items() if name in before
    }
    records.FILE.write_text(records.encoded(made, runs))
    if drifts:
        print("Against the golden runs before:")
        print(*(summary(dtype, drifts) for dtype in processes.DTYPES), sep="\n")
    print(f"{len(runs)} runs by {made}")
    print(f"Say in CHANGELOG.md why: it must name golden runs {records.short_digest()}.")


def table(options):
    """Prints a row for every comparison that was saved; 1 if a run was too far off.

    The same digits under "bits" are the same bits of all runs.
    """
    reports = {path.stem: json.loads(path.read_text()) for path in options.folder.glob("*.json")}
    if not reports:
        sys.exit(f"there are no comparisons in {options.folder}")
    columns = "{:<14}{:<9}{:<10}{:<14}{:<13}{:<10}{:<10}{}"
    print(columns.format("", "Python", "jax", "bits", "runs with", "largest drift", "", ""))
    print(columns.format("", "", "", "", "golden bits", "float32", "float64", "result"))
    for name, report in sorted(reports.items()):
        drifts = {run: records.Drift(*drift) for run, drift in report["drifts"].items()}
        largest = [
            max(d.largest for run, d in drifts.items() if run.endswith(dtype))
            for dtype in processes.DTYPES
        ]
        made, same = report["made"], sum(d.same_bits for d in drifts.values())
        result = "too far" if report["wrong"] else "same bits" if report["by_bits"] else "close"
        cells = name, made["python"], made["jax"], report["bits"], f"{same} of {len(drifts)}"
        print(columns.format(*cells, *(f"{drift:.1e}" for drift in largest), result))
    return any(report["wrong"] for report in reports.values())


if __name__ == "__main__":
    main()
