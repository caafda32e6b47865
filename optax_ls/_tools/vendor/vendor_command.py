"""The command that copies the package into another project."""

import argparse
import keyword
import sys
from typing import Any

from ..._version import PROJECT
from ..common import NO_SUCCESS, SUCCESS, Refusal
from .copy import Differs, Tree, compose, put, target_of, unlike_record
from .files import digest, shown, why
from .origin import find_origin
from .record import RECORD


def add(commands: Any) -> None:
    """Adds the parser of ``vendor``."""
    parser = commands.add_parser(
        "vendor",
        help="copy this package into a project, with licences and a record",
        description="Copies this package to DEST/NAME, with its licences, the SHA-256 of every "
        f"file in {RECORD}, and a note for the reader. The date is SOURCE_DATE_EPOCH if that is "
        "set, otherwise that of the source, otherwise now.",
        epilog="Exit status: 0 for success; 1 if a tree differs from its record, since such a tree "
        "is neither copied nor, without --force, overwritten; 2 for wrong usage, and for what "
        "cannot be read or written.",
        allow_abbrev=False,
    )
    parser.add_argument("dest", metavar="DEST", help="the folder to copy into; made if need be")
    parser.add_argument("--name", default=PROJECT, help=f"of the copy; {PROJECT} if not given")
    parser.add_argument(
        "--with-tests", action="store_true", help="copy the tests that it can run there, too"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done, write nothing"
    )
    parser.add_argument(
        "--force", action="store_true", help="replace a tree that was changed, and keep it beside"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Copies; returns the exit status."""
    if not options.name.isidentifier() or keyword.iskeyword(options.name):
        raise Refusal(f"--name must be a name that Python can import, got {options.name!r}")
    origin = find_origin()
    target = target_of(options.dest, options.name, origin)
    try:
        tree = compose(origin, with_tests=options.with_tests)
        if options.dry_run:
            return _rehearse(tree, target, options.force)
        kept = put(tree, target, force=options.force)
    except Differs as differs:
        print(
            f"{differs}:", *(f"  {reason}" for reason in differs.reasons), sep="\n", file=sys.stderr
        )
        if differs.where == target:
            print("--force replaces it, and keeps it beside", file=sys.stderr)
        return NO_SUCCESS
    print(f"vendored {_described(tree)} to {shown(target)}")
    print(f"{RECORD} has SHA-256 {digest(tree.files[RECORD])}")
    if kept:
        print(f"what was there is kept in {shown(kept)}")
    return SUCCESS


def _rehearse(tree: Tree, target: Any, force: bool) -> int:
    try:
        reasons = unlike_record(target)
    except OSError as error:
        raise Refusal(f"cannot read {target}: {why(error)}") from None
    if reasons and not force:
        raise Differs(target, reasons)
    print(f"would vendor {_described(tree)} to {shown(target)}")
    print(*(f"  {path}" for path in sorted(tree.files)), sep="\n")
    if reasons:
        print("and keep what is there beside it")
    return SUCCESS


def _described(tree: Tree) -> str:
    record = tree.record
    return f"{PROJECT} {record.version} ({record.revision or 'unknown revision'}, {record.date})"
