"""The commands ``vendor`` and ``verify``."""

import argparse
import keyword
from pathlib import Path
from typing import Any

from ..._version import PROJECT, __version__
from .. import NO_SUCCESS, SUCCESS, CommandError
from .copy import Tree, check_replaceable, compose, put, target_of
from .files import digest, printable, reason
from .origin import VENDORED, Origin, find_origin
from .record import RECORD, MalformedRecord
from .verify import verify_package


def add_vendor(commands: Any) -> None:
    """Adds the parser of ``vendor``."""
    parser = commands.add_parser(
        "vendor",
        help="copy this package into a project, with licences and a record",
        description="Copies this package to DEST/NAME, with its licences, the SHA-256 of every "
        f"file in {RECORD}, and a note for the reader. The date is SOURCE_DATE_EPOCH if that is "
        "set, otherwise that of the source, otherwise now.",
        epilog="Exit status: 0 for success; 1 if a tree differs from its record, since such a tree "
        "is neither copied nor, without --force, overwritten; 2 for wrong usage, and for files "
        "that cannot be read or written.",
        allow_abbrev=False,
    )
    parser.add_argument("dest", metavar="DEST", help="the folder to copy into; made if need be")
    parser.add_argument("--name", default=PROJECT, help=f"of the copy; default: {PROJECT}")
    parser.add_argument("--with-tests", action="store_true", help="add tests that a copy can run")
    parser.add_argument("--dry-run", action="store_true", help="list the files, write nothing")
    parser.add_argument("--force", action="store_true", help="replace a changed tree, but keep it")
    parser.set_defaults(run=_vendor)


def _vendor(options: argparse.Namespace) -> int:
    if not options.name.isidentifier() or keyword.iskeyword(options.name):
        raise CommandError(f"--name must be a name that Python can import, got {options.name!r}")
    origin = find_origin()
    target = target_of(options.dest, options.name, origin)
    tree = compose(origin, with_tests=options.with_tests)
    if options.dry_run:
        return _rehearse(tree, target, options.force)
    kept = put(tree, target, force=options.force)
    print(f"vendored {_title(tree)} to {printable(target)}")
    print(f"{RECORD} has SHA-256 {digest(tree.files[RECORD])}")
    if kept:
        print(f"the old tree is kept in {printable(kept)}")
    return SUCCESS


def _rehearse(tree: Tree, target: Path, force: bool) -> int:
    try:
        kept = check_replaceable(target, force)
    except OSError as error:
        raise CommandError(f"cannot read {target}: {reason(error)}") from None
    print(f"would vendor {_title(tree)} to {printable(target)}")
    print(*(f"  {path}" for path in sorted(tree.files)), sep="\n")
    if kept:
        print("and keep the old tree beside it")
    return SUCCESS


def _title(tree: Tree) -> str:
    record = tree.record
    return f"{PROJECT} {record.version} ({record.revision or 'unknown revision'}, {record.date})"


def add_verify(commands: Any) -> None:
    """Adds the parser of ``verify``."""
    parser = commands.add_parser(
        "verify",
        help="compare a vendored copy, or this package, with its record",
        description=f"Compares a vendored tree with its {RECORD}, or this package with its record: "
        f"{RECORD}, or the RECORD of its installation. Python's bytecode in __pycache__ is not "
        "compared.",
        epilog="Exit status: 0 if every file is as recorded; 1 if not, with every file that is "
        "changed, missing or extra; 2 if there is no record, as in a checkout.",
        allow_abbrev=False,
    )
    parser.add_argument("dir", nargs="?", metavar="DIR", help="a vendored tree; else this package")
    parser.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> int:
    origin = find_origin() if options.dir is None else Origin(VENDORED, Path(options.dir))
    place = printable(origin.package)
    try:
        if options.dir is not None and not Path(options.dir).is_dir():
            raise CommandError(f"there is no folder {options.dir}")
        found = verify_package(origin)
    except MalformedRecord as error:
        print(f"{place}: {error}")
        return NO_SUCCESS
    except OSError as error:
        raise CommandError(f"cannot read {place}: {reason(error)}") from None
    name = RECORD if found.record else "RECORD"
    if number := len(found.differences):
        print(*found.differences, sep="\n")
        print(f"{place}: {number} file{'s are' if number > 1 else ' is'} not as {name} says")
        return NO_SUCCESS
    title, files = f"{PROJECT} {__version__}", f"{len(found.recorded)} files as in {name}"
    if found.record:
        revision = printable(found.record.revision or "unknown")
        title = f"{PROJECT} {printable(found.record.version)}, revision {revision}"
        files += f", whose SHA-256 is {found.sha256}"
    print(f"{title}, {files}")
    return SUCCESS
