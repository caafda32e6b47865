"""Copying the package into another project, so that years later it can be shown what it is.

A tree is made in memory, written to a hidden folder beside its place, and takes its place by being
renamed. Its bytes depend only on the source, its date and whether tests come along: a checkout, a
wheel built from it and a vendored tree give the same tree, under any name.
"""

import contextlib
import ctypes
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution
from pathlib import Path
from typing import NamedTuple, Optional

from ..._version import LICENCE, PROJECT, REQUIRES, REQUIRES_PYTHON, __version__
from ..common import Refusal
from .files import digest, listed, read, why
from .origin import (
    CHECKOUT,
    INSTALLED,
    REVISION,
    VENDORED,
    Origin,
    dated,
    find_source,
    installed_listing,
    installed_record,
)
from .record import RECORD, Malformed, Record, differences, read_record, written
from .vendored_tests import TESTS, WITH_TESTS, runtime_tests

NOTE = "VENDORED.md"
LICENCES = ("LICENSE", "third_party_licenses")


class Differs(Exception):
    """A tree is not what its record says, so it is neither copied nor overwritten.

    Attributes:
        where: the tree.
        reasons: a line each, at least one.
    """

    def __init__(self, where: object, reasons: list[str]) -> None:
        super().__init__(f"{where} is not what its record says")
        self.where, self.reasons = where, reasons


class Tree(NamedTuple):
    """A tree to be written: the contents of its files, and the record, which is one of them."""

    files: Mapping[str, bytes]
    record: Record


# What to copy.


def compose(origin: Origin, *, with_tests: bool = False) -> Tree:
    """The tree that the running package makes.

    Args:
        origin: of the running package.
        with_tests: whether the tests come along that a copy can run.

    Raises:
        Refusal: the package is not complete enough.
        Differs: it is not what its own record says.
    """
    try:
        files = _collected(origin)
        source = find_source(origin)
    except Malformed as error:
        raise Differs(origin.package, [f"its record is malformed: {error}"]) from None
    except OSError as error:
        raise Refusal(f"cannot read {error.filename or origin.package}: {why(error)}") from None
    if not all(any(path.startswith(licence) for path in files) for licence in LICENCES):
        raise Refusal(f"{origin.package} comes without its licences: they are part of every copy")
    tests = {path: files.pop(path) for path in [*files] if path.startswith(f"{TESTS}/")}
    if with_tests:
        files.update(tests or _tests_of(origin))
    date = dated(source.date)
    files[NOTE] = _note(source.revision, date).encode()
    hashes = {path: digest(files[path]) for path in sorted(files)}
    record = Record(__version__, source.revision, date, REQUIRES_PYTHON, REQUIRES, hashes)
    return Tree({**files, RECORD: written(record)}, record)


def _collected(origin: Origin) -> dict[str, bytes]:
    """The package with its licences, by paths in the vendored tree."""
    if origin.kind == VENDORED:
        return _of_vendored(origin)
    if origin.kind == CHECKOUT and isinstance(origin.package, Path):
        return _of_checkout(origin.package)
    if origin.kind == INSTALLED and origin.distribution is not None:
        return _of_installed(origin.distribution)
    raise Refusal(
        f"{origin.package} was neither installed nor vendored, and is no checkout: where its "
        "licences are is not known"
    )


def _of_vendored(origin: Origin) -> dict[str, bytes]:
    record, _ = read_record(origin.package)
    listing = listed(origin.package)
    listing.files.pop(RECORD, None)
    if found := [str(difference) for difference in differences(record.files, listing)]:
        raise Differs(origin.package, found)
    return {path: read(listing.files[path]) for path in record.files if path != NOTE}


def _of_checkout(package: Path) -> dict[str, bytes]:
    """What a wheel would hold: sources, the marker of types, licences."""
    licence, others = LICENCES
    sources, licences = listed(package), listed(package.parent / others)
    for folder, listing in ((package, sources), (package.parent / others, licences)):
        for path, reason in listing.others.items():
            raise Refusal(f"{folder / path} {reason}")
    files = {
        path: read(file)
        for path, file in sources.files.items()
        if path.endswith(".py") or file.name == "py.typed"
    }
    files[licence] = read(package.parent / licence)
    files.update({f"{others}/{path}": read(file) for path, file in licences.files.items()})
    return files


def _of_installed(distribution: Distribution) -> dict[str, bytes]:
    """Sources from the package, licences from its metadata."""
    recorded = installed_record(distribution)
    listing = installed_listing(distribution, recorded)
    if found := [str(difference) for difference in differences(recorded, listing)]:
        raise Differs(distribution.locate_file(PROJECT), found)
    files = {}
    for path in recorded:
        folder, _, inner = path.partition("/")
        in_licences = inner.removeprefix("licenses/")
        if folder == PROJECT and inner != REVISION:
            files[inner] = read(listing.files[path])
        elif folder != PROJECT and in_licences != inner:
            files[in_licences] = read(listing.files[path])
    return files


def _tests_of(origin: Origin) -> dict[str, bytes]:
    if origin.kind == CHECKOUT and isinstance(origin.package, Path):
        return runtime_tests(origin.package.parent / TESTS)
    kind = "tree was vendored without" if origin.kind == VENDORED else "installation has no"
    raise Refusal(f"--with-tests: this {kind} tests; vendor from {WITH_TESTS}")


def _note(revision: Optional[str], date: str) -> str:
    needs = ", ".join(f"{name}{versions}" for name, versions in REQUIRES.items())
    return f"""\
# {PROJECT} {__version__}, vendored

This folder is a copy of {PROJECT}, made by its command `vendor`. It is never changed by hand: what
is wrong in it is mended at its source, and the copy made anew.

| | |
| --- | --- |
| Version | {__version__} |
| Revision | {revision or "unknown"} |
| Date | {date} |
| Needs | Python{REQUIRES_PYTHON}, {needs} |
| Licence | {LICENCE}, see [LICENSE](LICENSE) |
| Third-party licences | [third_party_licenses](third_party_licenses/README.md) |

`{RECORD}` has the SHA-256 of every file. To see whether anything was changed, ask the copy itself,
or any other {PROJECT}:

    python -m NAME.OF.THIS.PACKAGE verify
    python -m {PROJECT} verify THIS_FOLDER

To renew it, from the source of a newer version:

    python -m {PROJECT} vendor FOLDER_AROUND_THIS_ONE --name NAME_OF_THIS_FOLDER
"""


# Putting it in place.


def target_of(dest: str, name: str, origin: Origin) -> Path:
    """The folder that a tree shall have.

    Raises:
        Refusal: there can be none of that name there.
    """
    try:
        parent = Path(dest).resolve()
        if parent.exists() and not parent.is_dir():
            raise Refusal(f"{dest} is there and is no folder")
        if not parent.parent.is_dir():
            raise Refusal(f"there is no folder {parent.parent} to make {parent.name} in")
    except (OSError, RuntimeError) as error:
        reason = why(error) if isinstance(error, OSError) else "its links lead in a circle"
        raise Refusal(f"{dest} cannot be used: {reason}") from None
    target = parent / name
    if isinstance(origin.package, Path):
        running = origin.package.resolve()
        if running == target or running in target.parents or target in running.parents:
            raise Refusal(f"{target} would replace, hold or be in the package that is running")
    return target


def unlike_record(tree: Path) -> list[str]:
    """Why a tree must not be overwritten, a line for each reason; none where there is no tree."""
    if tree.is_symlink():
        return ["it is a link"]
    if not tree.exists():
        return []
    if not tree.is_dir():
        return ["it is no folder"]
    try:
        record, _ = read_record(tree)
    except FileNotFoundError:
        return [f"it has no {RECORD}, so it is no tree that vendor has made"]
    except Malformed as error:
        return [f"its {RECORD} is malformed: {error}"]
    listing = listed(tree)
    listing.files.pop(RECORD, None)
    return [str(difference) for difference in differences(record.files, listing)]


def put(tree: Tree, target: Path, *, force: bool = False) -> Optional[Path]:
    """Writes a tree and gives it its place.

    At every moment the place holds the old tree or the new one; where the system cannot let two
    folders change places it is empty between two renamings, and the old tree is whole beside it.

    Args:
        tree: the new one.
        target: its place.
        force: whether to replace what differs from its record, and keep it.

    Returns:
        Where what stood there is kept; None if there was nothing, or a tree as its record says.

    Raises:
        Refusal: something cannot be read or written, or another run is at work.
        Differs: what is there must not be overwritten.
    """
    made = False
    try:
        made = not target.parent.exists()
        target.parent.mkdir(exist_ok=True)
        with _workshop(target) as workshop:
            if (reasons := unlike_record(target)) and not force:
                raise Differs(target, reasons)
            draft = workshop / target.name
            for path, contents in tree.files.items():
                (draft / path).parent.mkdir(parents=True, exist_ok=True)
                (draft / path).write_bytes(contents)
            old = _put_in_place(draft, target)
            return old if old is None or reasons else _cleared_away(old, target)
    except OSError as error:
        where = error.filename or target
        raise Refusal(f"cannot write {where}: {why(error)}; {target} is as it was") from None
    finally:
        if made:
            with contextlib.suppress(OSError):
                target.parent.rmdir()  # unless there is something in it


def _cleared_away(old: Path, target: Path) -> Optional[Path]:
    """Removes an old tree and returns None, or returns it if it was changed in the last moment."""
    try:
        if unlike_record(old):
            return old
        shutil.rmtree(old)
    except OSError as error:
        raise Refusal(f"{target} is new, but its old tree is left in {old}: {why(error)}") from None
    return None


@contextlib.contextmanager
def _workshop(target: Path) -> Iterator[Path]:
    """A hidden folder for drafts only; that it exists keeps other runs out."""
    folder = target.with_name(f".{target.name}.vendoring")
    try:
        folder.mkdir()
    except FileExistsError:
        raise Refusal(
            f"another run of vendor is at work on {target}; if there is none, one was killed: "
            f"remove {folder}, which holds only its unfinished copy"
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(draft: Path, target: Path) -> Optional[Path]:
    """Renames a draft; what was in its place is renamed too, and its new path returned."""
    if not os.path.lexists(target):
        draft.rename(target)
        return None
    old = _free_name(target)
    draft.rename(old)
    if _change_places(old, target):
        return old
    old.rename(draft)
    try:
        target.rename(old)
        draft.rename(target)
    except BaseException:
        if not os.path.lexists(target):
            old.rename(target)
        raise
    return old


def _free_name(target: Path) -> Path:
    """``NAME.replaced``, which cannot be imported; with a number if there is one already."""
    old, number = target.with_name(f"{target.name}.replaced"), 1
    while os.path.lexists(old):
        number += 1
        old = target.with_name(f"{target.name}.replaced-{number}")
    return old


def _change_places(one: Path, other: Path) -> bool:
    """Lets two folders change places in one step, where the system can (Linux)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, which absolute paths do without, and RENAME_EXCHANGE
    path = ctypes.c_char_p
    renameat2.argtypes = (ctypes.c_int, path, ctypes.c_int, path, ctypes.c_uint)
    failed: int = renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange)
    return failed == 0
