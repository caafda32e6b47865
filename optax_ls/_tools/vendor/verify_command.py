"""The command that compares a tree with its record."""

import argparse
from pathlib import Path
from typing import Any

from ..._version import PROJECT
from ..common import NO_SUCCESS, SUCCESS, Refusal
from .files import shown, why
from .origin import find_origin
from .record import RECORD, Malformed
from .verify import verify_package, verify_tree


def add(commands: Any) -> None:
    """Adds the parser of ``verify``."""
    parser = commands.add_parser(
        "verify",
        help="compare a vendored copy, or this package, with its record",
        description=f"Compares a vendored tree with its {RECORD}, or this package with its record: "
        f"that, or the RECORD of its installation. What Python keeps in __pycache__ is not looked "
        "at.",
        epilog="Exit status: 0 if every file is as recorded; 1 if not, with every file that is "
        "changed, missing or extra; 2 if there is no record, as in a checkout.",
        allow_abbrev=False,
    )
    parser.add_argument("dir", nargs="?", metavar="DIR", help="a vendored tree; else this package")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compares and prints; returns the exit status."""
    try:
        if options.dir is None:
            origin = find_origin()
            folder: Any = origin.package
            verdict = verify_package(origin)
        else:
            folder = Path(options.dir)
            if not folder.is_dir():
                raise Refusal(f"there is no folder {options.dir}")
            verdict = verify_tree(folder)
    except Malformed as error:
        print(f"{shown(folder)}: the record is malformed: {error}")
        return NO_SUCCESS
    except OSError as error:
        raise Refusal(f"cannot read {options.dir}: {why(error)}") from None
    if verdict.differences:
        print(*verdict.differences, sep="\n")
        files = (
            "1 file is"
            if len(verdict.differences) == 1
            else f"{len(verdict.differences)} files are"
        )
        print(f"{shown(folder)}: {files} not as {verdict.record} says")
        return NO_SUCCESS
    details = [f"{verdict.num_files} files as in {verdict.record}"]
    if verdict.sha256:
        details.insert(0, f"revision {shown(verdict.revision or 'unknown')}")
        details.append(f"whose SHA-256 is {verdict.sha256}")
    print(f"{PROJECT} {shown(verdict.version)}, {', '.join(details)}")
    return SUCCESS
