"""The commands ``vendor`` and ``verify``."""

import argparse
import contextlib
import keyword
from pathlib import Path
from typing import Any, Optional

from ..._version import PROJECT, __version__
from .. import NO_SUCCESS, SUCCESS, CommandError
from . import verify
from .changes import new_entries
from .origin import CHANGELOG, VENDORED, Origin, Record, compare, find_origin, read_record
from .replace import check_replaceable, put, target_of
from .selection import LIBRARY, SELECTIONS, Copy, compose


def add_vendor(commands: Any) -> None:
    """Adds the parser of ``vendor``."""
    selections = "; ".join(f"{name}: {text}" for name, text in SELECTIONS.items())
    parser = commands.add_parser(
        "vendor",
        help="copy this package, or a part of it, into a project",
        description="Copies this package to DEST/NAME, with its licences, its changelog, "
        f"{verify.SUMS}, and verify.py to compare them. An older copy there is replaced if no file "
        "of it was changed, and what is new since then is printed.",
        epilog="Exit status: 0 for success; 1 if a copy or this package is not as recorded, since "
        "it is then neither copied nor, without --force, replaced, or if --check found that the "
        "copy would change; 2 for wrong usage, and for files that cannot be read or written.",
    )
    parser.add_argument(
        "dest",
        metavar="DEST",
        help="the folder to copy into; made if the folder above it exists",
    )
    parser.add_argument("--name", default=PROJECT, help=f"of the copy; default: {PROJECT}")
    parser.add_argument(
        "--parts",
        choices=SELECTIONS,
        help=f"{selections}. Default: as in the copy that is replaced, or {LIBRARY}",
    )
    parser.add_argument("--force", action="store_true", help="replace a changed copy, but keep it")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--dry-run", action="store_true", help="list files and sizes, write nothing")
    ways.add_argument(
        "--check", action="store_true", help="tell whether the copy would change, write nothing"
    )
    parser.set_defaults(run=_vendor)


def _vendor(options: argparse.Namespace) -> int:
    if not options.name.isidentifier() or keyword.iskeyword(options.name):
        raise CommandError(f"--name must be a name that Python can import, got {options.name!r}")
    origin = find_origin()
    target = target_of(options.dest, options.name, origin)
    old = None
    with contextlib.suppress(OSError, ValueError, RecursionError):  # a copy that will be refused
        old = read_record(target)
    copies = compose(origin)
    copy = copies[options.parts or (old.parts if old and old.parts in SELECTIONS else LIBRARY)]
    if options.check:
        return _check(copy, target, old)
    changes = _changes(copy, target, old)
    place = verify.printable(target)
    if options.dry_run:
        try:
            kept: object = check_replaceable(target, options.force)
        except OSError as error:
            raise CommandError(f"cannot read {target}: {error.strerror or error}") from None
        print(f"would vendor {copy.record} to {place}")
        print(*(f"  {path}" for path in sorted(copy.files)), *_sizes(copies), sep="\n")
    else:
        kept = put(copy, target, force=options.force)
        print(f"vendored {copy.record} to {place}")
        print(f"{verify.SUMS} has SHA-256 {verify.digest(copy.files[verify.SUMS])}")
    for line in changes:
        print(line)
    if kept:
        print(f"the old copy is kept {'beside it' if options.dry_run else f'in {kept}'}")
    if not (target.parent / "__init__.py").is_file():
        print(
            f"note: {verify.printable(target.parent)} has no __init__.py. If it is a folder of a "
            "package, create one: without it, find_packages of setuptools leaves out this folder "
            f"and {options.name} in it"
        )
    return SUCCESS


def _changes(copy: Copy, target: Path, old: Optional[Record]) -> list[str]:
    """Lines on what is new since the copy that is replaced."""
    if old is None:
        return []
    changelog = ""
    with contextlib.suppress(OSError):
        changelog = (target / CHANGELOG).read_text("utf-8", "replace")
    entries = new_entries(changelog, copy.files[CHANGELOG].decode())
    news = ["new in the changelog since then:", *entries] if entries else []
    return [f"the old copy is {old}", *news]


def _sizes(copies: dict[str, Copy]) -> list[str]:
    """A table of the sizes of the selections."""
    lines = ["selection   files  lines of Python      bytes"]
    for name, copy in copies.items():
        files, python, size = copy.size
        lines.append(f"{name:<10}  {files:>5}  {python:>15,}  {size:>9,}")
    return lines


def _check(copy: Copy, target: Path, old: Optional[Record]) -> int:
    if old is None:
        raise CommandError(f"there is no copy in {target}")
    files = verify.files_in(target)
    found = verify.differences(copy.sums, {x: f for x, f in files.items() if x != verify.SUMS})
    if not found:
        print(f"{verify.printable(target)} is {copy.record}")
        return SUCCESS
    number = f"{len(found)} file{'s' if len(found) > 1 else ''}"
    summary = f"{copy.record} would change {number} of {verify.printable(target)}"
    print(*found, *_changes(copy, target, old), summary, sep="\n")
    return NO_SUCCESS


def add_verify(commands: Any) -> None:
    """Adds the parser of ``verify``."""
    parser = commands.add_parser(
        "verify",
        help="compare a vendored copy, or this package, with its record",
        description=f"Compares a vendored copy with its {verify.SUMS}, as its verify.py does, or "
        f"this package with its record: {verify.SUMS}, or the RECORD of its installation. Python's "
        "bytecode in __pycache__ is not compared.",
        epilog="Exit status: 0 if every file is as recorded; 1 if not, with every file that is "
        "changed, missing or extra; 2 if nothing can be compared, as in a checkout.",
    )
    parser.add_argument("dir", nargs="?", metavar="DIR", help="a vendored copy; else this package")
    parser.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> int:
    origin = find_origin() if options.dir is None else Origin(VENDORED, Path(options.dir))
    if origin.kind == VENDORED:
        return verify.main(origin.package)
    try:
        sums, found = compare(origin)
    except (OSError, ValueError) as error:
        place = verify.printable(origin.package)
        raise CommandError(f"{place} cannot be compared: {error}") from None
    if found:
        print(verify.summary(origin.package, found, "RECORD"))
        return NO_SUCCESS
    print(f"{PROJECT} {__version__}, {len(sums)} files as in RECORD")
    return SUCCESS
