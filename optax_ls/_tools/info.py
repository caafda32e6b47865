"""The command that says what is running."""

import argparse
import json
from typing import Any

from .common import SUCCESS
from .environment import describe
from .vendor.files import shown
from .vendor.origin import find_origin

_VERIFIED = {True: "yes", False: "NO: see verify", None: "there is no record"}


def add(commands: Any) -> None:
    """Adds the parser of ``info``."""
    parser = commands.add_parser(
        "info",
        help="print versions, devices, and whether this package is as recorded",
        description="Prints what a report of a bug or a section on methods needs.",
        epilog="Exit status: 0.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints; returns the exit status."""
    facts = describe(find_origin())
    if options.json:
        print(json.dumps(facts))
        return SUCCESS
    told = {
        **facts,
        "revision": facts["revision"] or "unknown",
        "jaxlib": facts["jaxlib"] or "unknown",
        "verified": _VERIFIED[facts["verified"]],
        "devices": _listed(facts["devices"]),
    }
    width = max(map(len, told))
    print(*(f"{name:<{width}}  {shown(fact)}" for name, fact in told.items()), sep="\n")
    return SUCCESS


def _listed(devices: Any) -> str:
    if isinstance(devices, str):
        return devices
    return ", ".join("{number} x {kind} ({platform})".format(**each) for each in devices)
