"""Collective operations in the text of a compiled program."""

import re
from typing import NamedTuple

KINDS = "all-reduce", "all-gather", "collective-permute", "all-to-all", "reduce-scatter"

# %name = type opcode(...), where the type may be a tuple with comments in it
_LINE = re.compile(
    r"^\s*(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<type>\(.*?\)|\S+) "
    rf"(?P<kind>{'|'.join(KINDS)})(?:-start)?\(",
)
_SHAPE = re.compile(r"\w+\[[\d,]*\]")


class Collective(NamedTuple):
    """One instruction: its name, what it is, and the shapes of its results, as ``f32[3,7]``."""

    name: str
    kind: str
    shapes: tuple[str, ...]


def collectives(text):
    """All collective instructions of a compiled program, each where it stands in the text."""
    found = []
    for line in text.splitlines():
        if match := _LINE.match(line):
            shapes = tuple(_SHAPE.findall(match["type"]))
            found.append(Collective(match["name"], match["kind"], shapes))
    return found


def numbers(found):
    """The number of instructions of each kind."""
    return {kind: sum(each.kind == kind for each in found) for kind in KINDS}
