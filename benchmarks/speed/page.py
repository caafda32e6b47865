"""The page of results, as Markdown."""

from ..tables import table
from . import sections
from .targets import summary

INTRODUCTION = """\
Written by `benchmarks.speed` (`make bench`); [README.md](README.md) says how to run it. All numbers
of a section come from one run on one machine, with the runs of the solvers interleaved, and the
ratios are of medians. Seconds of another machine differ; ratios should hold roughly. Targets that
are missed are marked."""

TITLES = {
    "first": "The first answer",
    "large": "One iteration over two sweeps through the memory",
    "small": "One iteration at smaller sizes",
    "small_flag": "Small problems, with small loops compiled as one function",
    "growth": "Growth with n and m",
    "compilation": "Trace and compilation, copies of the objective",
    "memory": "Temporary memory",
    "batch": "Many problems at once",
    "collectives": "Between devices",
}


def page(records, picture, quick=False):
    """The whole text, from the records by name; it names the measurements that are missing."""
    parts = ["# Speed and size, beside the peers"]
    if quick:
        parts.append("**A quick run, to see that the benchmark works. The numbers mean nothing.**")
    parts += [INTRODUCTION, *_circumstances(records), "## Targets"]
    header = ["what", "target", "minimize", "lbfgs()", "best peer", "reached"]
    parts.append(table(header, summary(records)))
    if picture is not None:
        parts.append(f"![Time per iteration against n]({picture})")
    for name, title in TITLES.items():
        parts.append(f"## {title}")
        if name in records:
            parts += getattr(sections, name)(records[name]["data"])
        else:
            parts.append(f'Not measured yet: `make bench ARGS="--only {name}"`.')
    return "\n\n".join(parts) + "\n"


def _circumstances(records):
    """Versions and machines; one line if all measurements share them."""
    groups = {}
    for name, record in records.items():
        facts = tuple({**record["machine"], **record["versions"]}.items())
        groups.setdefault(facts, []).append(name)
    for facts, names in groups.items():
        text = ", ".join(f"{key} {value}" for key, value in facts)
        yield f"{', '.join(names)}: {text}." if len(groups) > 1 else f"{text}."
