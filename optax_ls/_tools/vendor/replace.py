"""Putting a copy in its place atomically.

A copy is written to a hidden folder beside its place, and renamed into it. A copy that was changed
is not replaced, or is kept beside the new one.
"""

import contextlib
import ctypes
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from .. import CommandError
from . import verify
from .origin import Differs, Origin
from .selection import Copy


def target_of(dest: str, name: str, origin: Origin) -> Path:
    """The folder of a new copy."""
    if not dest:
        raise CommandError("DEST is empty: give a folder, or . for the current one")
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
    """The reasons to keep the copy in a place; without ``force`` there must be none."""
    if (reasons := reasons_to_keep(target)) and not force:
        raise Differs(target, reasons, "; --force replaces it, and keeps it beside")
    return reasons


def reasons_to_keep(target: Path) -> list[str]:
    """The reasons not to remove an old copy, a line each; none where there is nothing."""
    if target.is_symlink():
        return ["it is a link"]
    if not target.exists():
        return []
    if not target.is_dir():
        return ["it is not a folder"]
    try:
        return verify.verify(target)[1]
    except ValueError as error:
        return [str(error)]


def put(copy: Copy, target: Path, *, force: bool = False) -> Optional[Path]:
    """Writes a copy and puts it in its place atomically.

    At every moment the place holds the old copy or the new one. Where the system cannot exchange
    two folders, the place is empty between two renamings, and the old copy is whole beside it.
    ``force`` replaces a copy that differs from its record, and keeps it beside. Returns the folder
    that keeps it; None if there was no copy, or one as its record says.
    """
    made = not os.path.lexists(target.parent)
    try:
        target.parent.mkdir(exist_ok=True)
        with _draft_folder(target) as drafts:
            reasons = check_replaceable(target, force)
            draft = drafts / target.name
            for path, contents in copy.files.items():
                (draft / path).parent.mkdir(parents=True, exist_ok=True)
                (draft / path).write_bytes(contents)
            old = _replace(target, draft)
            return old if old is None or reasons else _removed(old, target)
    except OSError as error:
        what = f"cannot write {error.filename or target}: {error.strerror or error}"
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
    """Removes an old copy and returns None; returns it if it was changed in the last moment."""
    try:
        if reasons_to_keep(old):
            return old
        shutil.rmtree(old)
    except OSError as error:
        raise CommandError(
            f"{target} is new, but its old tree is left in {old}: {error.strerror or error}"
        ) from None
    return None
