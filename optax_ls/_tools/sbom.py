"""The command that writes the bill of materials."""

import argparse
import sys
from typing import Any

from .bill import bill
from .common import SUCCESS, Refusal, reserved
from .requirements import installed
from .vendor.origin import find_origin, find_source
from .vendor.record import Malformed


def add(commands: Any) -> None:
    """Adds the parser of ``sbom``."""
    parser = commands.add_parser(
        "sbom",
        help="write a bill of materials of this package and what it runs on",
        description="Writes a bill of materials as CycloneDX 1.6 (JSON): this package and the "
        "run-time dependencies that are installed, with versions, licences and hashes. A hash is "
        "the SHA-256 of the list of a distribution's files as sha256sum prints it. The date is "
        "SOURCE_DATE_EPOCH if that is set, otherwise now.",
        epilog="Exit status: 0 for success, 2 for wrong usage and for what cannot be read or "
        "written.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--output", metavar="F", help="the file to write; standard output if not given"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Writes the bill; returns the exit status."""
    origin = find_origin()
    with reserved(output=options.output) as write:
        try:
            contents = bill(origin, find_source(origin), installed())
        except Malformed as error:
            raise Refusal(f"the record of this package is malformed: {error}") from None
        if options.output:
            print(write("output", contents).strip())
        else:
            sys.stdout.write(contents.decode())
    return SUCCESS
