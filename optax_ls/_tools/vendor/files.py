"""Files of a folder, listed and read without ever leaving it.

No link is followed, no device opened: what is no regular file is listed apart, with the reason. The
folder may also be inside a zip file, as ``importlib.resources`` gives it.
"""

import contextlib
import hashlib
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

# What Python writes by itself while a package is used.
BYTECODE = "__pycache__"
# Neither the link that took the place of a file after it was listed, nor a pipe without a writer.
_CAREFULLY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class Listing(NamedTuple):
    """What is in a folder and in the folders in it, by paths with slashes.

    Attributes:
        files: the regular files.
        others: everything else, with the reason why it is not among the files.
    """

    files: dict[str, "Traversable"]
    others: dict[str, str]


def listed(folder: "Traversable") -> Listing:
    """Lists a folder, without the bytecode that Python keeps in it."""
    listing = Listing({}, {})
    for path, entry, reason in _walk(folder, ""):
        if reason:
            listing.others[path] = reason
        else:
            listing.files[path] = entry
    return listing


def _walk(folder: "Traversable", prefix: str) -> Iterator[tuple[str, "Traversable", str]]:
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        yield prefix or ".", folder, f"cannot be read: {why(error)}"
        return
    for entry in entries:
        path = prefix + entry.name
        if isinstance(entry, Path) and entry.is_symlink():
            yield path, entry, "is a link"
        elif entry.is_dir():
            if entry.name != BYTECODE:
                yield from _walk(entry, f"{path}/")
        else:
            yield path, entry, "" if entry.is_file() else "is no regular file"


@contextlib.contextmanager
def _opened(file: "Traversable") -> Iterator[Any]:
    """A regular file, to be read; whatever goes wrong is an OSError with a reason."""
    try:
        if not isinstance(file, Path):
            with file.open("rb") as stream:
                yield stream
            return
        with open(file, "rb", opener=_open) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise OSError(None, "is no regular file")
            yield stream
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise OSError(None, str(error)) from None


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | _CAREFULLY)


def read(file: "Traversable") -> bytes:
    """The contents of a regular file.

    Raises:
        OSError: it cannot be read, or it is a link or a device.
    """
    with _opened(file) as stream:
        contents: bytes = stream.read()
    return contents


def digest(contents: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(contents).hexdigest()


def digest_of(file: "Traversable") -> str:
    """SHA-256 of a regular file of any size.

    Raises:
        OSError: it cannot be read, or it is a link or a device.
    """
    sha256 = hashlib.sha256()
    with _opened(file) as stream:
        while block := stream.read(1 << 20):
            sha256.update(block)
    return sha256.hexdigest()


def shown(path: object) -> str:
    """A path as a terminal may safely show it: what does not print is escaped."""
    text = str(path)
    return text if text.isprintable() else ascii(text)


def why(error: OSError) -> str:
    """What the system says of an error, without the path."""
    return str(error.strerror or error)
