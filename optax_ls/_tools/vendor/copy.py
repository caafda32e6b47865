"""Copying the package into another project, with a record of what it is.

A tree is composed in memory, written to a hidden folder beside its place, and renamed into it. Its
bytes depend only on the source, its date and whether tests are included: a checkout, a wheel built
from it and a vendored tree give the same tree, under any name.
"""

import contextlib
import ctypes
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Optional

from ..._version import LICENCE, PROJECT, REQUIRES, REQUIRES_PYTHON, __version__
from .. import NO_SUCCESS, CommandError
from .files import digest, list_folder, read, reason
from .origin import CHECKOUT, REVISION, VENDORED, Origin, date_of_copy, find_source
from .record import RECORD, MalformedRecord, NoRecord, Record, dump
from .tests import TESTS, WITH_TESTS, runtime_tests
from .verify import verify_package, verify_tree

NOTE = "VENDORED.md"
LICENCES = ("LICENSE", "third_party_licenses")


class TreeDiffers(CommandError):
    """A tree is not as its record says, so it is neither copied nor replaced."""

    status = NO_SUCCESS

    def __init__(self, tree: object, reasons: Iterable[object], hint: str = "") -> None:
        self.reasons = [str(x) for x in reasons]
        lines = (f"{tree} is not as its record says{hint}:", *self.reasons)
        super().__init__("\n  ".join(lines))


class Tree(NamedTuple):
    """A tree to be written: the contents of its files, and the record, which is one of them."""

    files: Mapping[str, bytes]
    record: Record


def compose(origin: Origin, *, with_tests: bool = False) -> Tree:
    """The tree that the running package makes, which must be as its own record says."""
    try:
        files = _checkout(origin.root) if origin.kind == CHECKOUT else _recorded(origin)
        source = find_source(origin)
    except MalformedRecord as error:
        raise TreeDiffers(origin.package, [error]) from None
    except OSError as error:
        where = error.filename or origin.package
        raise CommandError(f"cannot read {where}: {reason(error)}") from None
    if not all(any(path.startswith(licence) for path in files) for licence in LICENCES):
        raise CommandError(f"{origin.package} has no licences, which must be part of every copy")
    tests = {path: files.pop(path) for path in [*files] if path.startswith(f"{TESTS}/")}
    if with_tests and origin.kind == CHECKOUT:
        tests = runtime_tests(origin.root / TESTS)
    if with_tests and not tests:
        kind = "tree was vendored without" if origin.kind == VENDORED else "installation has no"
        raise CommandError(f"--with-tests: this {kind} tests; vendor from {WITH_TESTS}")
    files.update(tests if with_tests else {})
    date = date_of_copy(source)
    files[NOTE] = _note(source.revision, date).encode()
    hashes = {path: digest(files[path]) for path in sorted(files)}
    record = Record(__version__, source.revision, date, REQUIRES_PYTHON, REQUIRES, hashes)
    return Tree({**files, RECORD: dump(record)}, record)


def _checkout(root: Path) -> dict[str, bytes]:
    """The files of a checkout that a wheel would hold: sources, type marker, licences."""
    licence, others = LICENCES
    files = {}
    for folder, prefix in ((root / PROJECT, ""), (root / others, f"{others}/")):
        listing = list_folder(folder)
        for path, what in listing.others.items():
            raise CommandError(f"{folder / path} {what}")
        for path, file in listing.files.items():
            if prefix or path.endswith(".py") or file.name == "py.typed":
                files[prefix + path] = read(file)
    return {**files, licence: read(root / licence)}


def _recorded(origin: Origin) -> dict[str, bytes]:
    """The files of a vendored tree or an installation, which must be as recorded."""
    comparison = verify_package(origin)
    if comparison.differences:
        raise TreeDiffers(origin.package, comparison.differences)
    files = {}
    for path in comparison.recorded:
        name = path if origin.kind == VENDORED else _name_in_tree(path)
        if name not in (None, NOTE):
            files[name] = read(comparison.files[path])
    return files


def _name_in_tree(installed: str) -> Optional[str]:
    """The path of an installed file in a vendored tree; None if it is left out."""
    folder, _, inner = installed.partition("/")
    if folder == PROJECT:
        return None if inner == REVISION else inner
    return inner.removeprefix("licenses/") if inner.startswith("licenses/") else None


def _note(revision: Optional[str], date: str) -> str:
    needs = ", ".join(f"{name}{versions}" for name, versions in REQUIRES.items())
    return f"""\
# {PROJECT} {__version__}, vendored

- Revision: {revision or "unknown"}, {date}
- Needs: Python{REQUIRES_PYTHON}, {needs}
- Licence: {LICENCE}, see [LICENSE](LICENSE) and [third_party_licenses](third_party_licenses)

Do not change this folder by hand: correct the source, and make the copy again. `{RECORD}` has the
SHA-256 of every file. To see whether a file was changed, and to renew the copy:

    python -m NAME.OF.THIS.PACKAGE verify
    python -m {PROJECT} vendor FOLDER_AROUND_THIS_ONE --name NAME_OF_THIS_FOLDER
"""


# Putting it in place.


def target_of(dest: str, name: str, origin: Origin) -> Path:
    """The folder of a new tree."""
    try:
        parent = Path(dest).resolve()
        if parent.exists() and not parent.is_dir():
            raise CommandError(f"{dest} exists and is not a folder")
        if not parent.parent.is_dir():
            raise CommandError(f"there is no folder {parent.parent} to make {parent.name} in")
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead in a circle
        raise CommandError(f"{dest} cannot be used: {error}") from None
    target = parent / name
    if isinstance(origin.package, Path):
        running = origin.package.resolve()
        if target in (running, *running.parents) or running in target.parents:
            raise CommandError(f"{target} would replace, hold or be in the package that is running")
    return target


def check_replaceable(target: Path, force: bool) -> list[str]:
    """The reasons to keep the tree in a place; without ``force`` there must be none."""
    if (reasons := reasons_to_keep(target)) and not force:
        raise TreeDiffers(target, reasons, "; --force replaces it, and keeps it beside")
    return reasons


def reasons_to_keep(tree: Path) -> list[str]:
    """The reasons not to remove a tree, a line each; none where there is no tree."""
    if tree.is_symlink():
        return ["it is a link"]
    if not tree.exists():
        return []
    if not tree.is_dir():
        return ["it is not a folder"]
    try:
        return [str(difference) for difference in verify_tree(tree).differences]
    except (NoRecord, MalformedRecord) as error:
        return [str(error)]


def put(tree: Tree, target: Path, *, force: bool = False) -> Optional[Path]:
    """Writes a tree and puts it in its place atomically.

    At every moment the place holds the old tree or the new one. Where the system cannot exchange
    two folders, the place is empty between two renamings, and the old tree is whole beside it.
    ``force`` replaces a tree that differs from its record, and keeps it beside. Returns the folder
    that keeps it; None if there was no tree, or one as its record says.
    """
    made = not os.path.lexists(target.parent)
    try:
        target.parent.mkdir(exist_ok=True)
        with _draft_folder(target) as drafts:
            reasons = check_replaceable(target, force)
            draft = drafts / target.name
            for path, contents in tree.files.items():
                (draft / path).parent.mkdir(parents=True, exist_ok=True)
                (draft / path).write_bytes(contents)
            old = _replace(target, draft)
            return old if old is None or reasons else _removed(old, target)
    except OSError as error:
        what = f"cannot write {error.filename or target}: {reason(error)}"
        raise CommandError(f"{what}; {target} is as it was") from None
    finally:
        if made:
            with contextlib.suppress(OSError):
                target.parent.rmdir()  # fails if there is something in it


@contextlib.contextmanager
def _draft_folder(target: Path) -> Iterator[Path]:
    """A hidden folder for drafts only; while it exists, other runs stop."""
    folder = target.with_name(f".{target.name}.vendoring")
    try:
        folder.mkdir()
    except FileExistsError:
        raise CommandError(
            f"another run of vendor is at work on {target}; if there is none, one was killed: "
            f"remove {folder}, which holds only its unfinished copy"
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _replace(target: Path, draft: Path) -> Optional[Path]:
    """Renames a draft to its target; returns the new path of the old target, if there was one."""
    if not os.path.lexists(target):
        draft.rename(target)
        return None
    old = _free_name(target)
    draft.rename(old)
    if _exchange(old, target):
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
    """``NAME.replaced``, which cannot be imported; with a number if that exists."""
    old, number = target.with_name(f"{target.name}.replaced"), 1
    while os.path.lexists(old):
        number += 1
        old = target.with_name(f"{target.name}.replaced-{number}")
    return old


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges two folders in one step, where the system can (Linux)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    at_fdcwd, rename_exchange = -100, 2
    paths = at_fdcwd, os.fsencode(one), at_fdcwd, os.fsencode(other)
    return bool(renameat2(*paths, rename_exchange) == 0)


def _removed(old: Path, target: Path) -> Optional[Path]:
    """Removes an old tree and returns None; returns it if it was changed in the last moment."""
    try:
        if reasons_to_keep(old):
            return old
        shutil.rmtree(old)
    except OSError as error:
        raise CommandError(
            f"{target} is new, but its old tree is left in {old}: {reason(error)}"
        ) from None
    return None
