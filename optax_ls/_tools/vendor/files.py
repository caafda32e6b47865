"""Listing and reading the files of a folder, without ever leaving it.

No link is followed and no device is opened: an entry that is not a regular file is listed apart,
with the reason. The folder may also be in a zip file, as ``importlib.resources`` gives it.
"""

import contextlib
import hashlib
import os
import stat
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

if sys.version_info >= (3, 11):
    from importlib.resources.abc import Traversable as Traversable
else:
    from importlib.abc import Traversable as Traversable

# Python writes this folder while a package is used.
BYTECODE = "__pycache__"
# A link or a pipe may take the place of a file after it was listed: do not follow, do not wait.
_CAREFULLY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class Listing(NamedTuple):
    """The contents of a folder and of the folders in it, by paths with slashes."""

    files: dict[str, Traversable]  # the regular files
    others: dict[str, str]  # everything else, with the reason why it is not a file


def list_folder(folder: Traversable, prefix: str = "") -> Listing:
    """Lists a folder, except for Python's bytecode."""
    files, others = listing = Listing({}, {})
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        others[prefix or "."] = f"cannot be read: {reason(error)}"
        return listing
    for entry in entries:
        path = prefix + entry.name
        if isinstance(entry, Path) and entry.is_symlink():
            others[path] = "is a link"
        elif entry.is_file():
            files[path] = entry
        elif not entry.is_dir():
            others[path] = "is not a regular file"
        elif entry.name != BYTECODE:
            inner = list_folder(entry, f"{path}/")
            files.update(inner.files)
            others.update(inner.others)
    return listing


@contextlib.contextmanager
def _opened(file: Any) -> Iterator[Any]:
    """A regular file, to be read; every failure is an OSError with a reason."""
    try:
        on_disk = isinstance(file, Path)
        with open(file, "rb", opener=_open) if on_disk else file.open("rb") as stream:
            if on_disk and not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise OSError(None, "is not a regular file")
            yield stream
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise OSError(None, str(error)) from None


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | _CAREFULLY)


def read(file: Traversable) -> bytes:
    """The contents of a regular file; an OSError if it is a link or a device."""
    with _opened(file) as stream:
        return bytes(stream.read())


def digest(contents: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(contents).hexdigest()


def digest_of(file: Traversable) -> str:
    """SHA-256 of a regular file of any size; an OSError if it is a link or a device."""
    sha256 = hashlib.sha256()
    with _opened(file) as stream:
        while block := stream.read(1 << 20):
            sha256.update(block)
    return sha256.hexdigest()


def printable(text: object) -> str:
    """The text as a terminal may safely print it: control characters are escaped."""
    return str(text) if str(text).isprintable() else ascii(str(text))


def reason(error: OSError) -> str:
    """The reason that the system gives for an error, without the path."""
    return str(error.strerror or error)
