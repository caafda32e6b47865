"""The record of a vendored tree, ``VENDORED.json``, and what differs from it.

The record names every file but itself with its SHA-256. A tree is compared by listing it and
looking up each file in the record, so a path in the record is never opened: whatever it says,
nothing outside the tree is read.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from ..._version import PROJECT
from .files import Listing, digest, digest_of, read, shown, why

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

RECORD = "VENDORED.json"
_FORMAT = 1
_FIELDS: dict[str, Any] = {
    "format": int,
    "project": str,
    "version": str,
    "revision": (str, type(None)),
    "date": str,
    "python": str,
    "requires": dict,
    "files": dict,
}


class Malformed(Exception):
    """What is wrong with a record, in a line."""


class Record(NamedTuple):
    """What a vendored tree says of itself.

    Attributes:
        version: of the package.
        revision: of its source; None where nobody knows.
        date: of the tree, ISO 8601 in UTC.
        python: the versions of Python that it runs on.
        requires: the packages that it needs, and their versions.
        files: SHA-256 of every file, by paths with slashes.
    """

    version: str
    revision: Optional[str]
    date: str
    python: str
    requires: Mapping[str, str]
    files: Mapping[str, str]


class Difference(NamedTuple):
    """A file that is not as its record says.

    Attributes:
        kind: ``changed``, ``missing``, ``extra`` or ``unread``.
        path: with slashes, from the root of the tree.
        reason: why, if that is not obvious.
    """

    kind: str
    path: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.kind:<8} {shown(self.path)}" + (f" ({self.reason})" if self.reason else "")


def written(record: Record) -> bytes:
    """The record as a file: the same bytes for the same record."""
    fields = {"format": _FORMAT, "project": PROJECT, **record._asdict()}
    fields["files"] = dict(sorted(record.files.items()))
    return (json.dumps(fields, indent=2) + "\n").encode()


def parsed(contents: bytes) -> Record:
    """The record in a file.

    Raises:
        Malformed: it is none that this version can read, or names files outside the tree.
    """
    try:
        fields = json.loads(contents, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"it is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise Malformed("it is no JSON object")
    if fields.get("project") != PROJECT or fields.get("format") != _FORMAT:
        raise Malformed(f"it is no record of format {_FORMAT} of {PROJECT}")
    for name, kind in _FIELDS.items():
        if not isinstance(fields.get(name, ...), kind):
            raise Malformed(f"its field {name} is missing or of a wrong type")
    if set(fields) != set(_FIELDS):
        raise Malformed(f"it has unknown fields: {shown(sorted(set(fields) - set(_FIELDS)))}")
    if not fields["files"]:
        raise Malformed("it names no file")
    for path, sha256 in fields["files"].items():
        check_path(path)
        if not (isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256)):
            raise Malformed(f"the SHA-256 of {shown(path)} is not 64 hexadecimal digits")
    return Record(*(fields[name] for name in Record._fields))


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return names


def check_path(path: str) -> None:
    """Refuses a path that leads out of the tree, on any system, or is not written in the one way.

    Raises:
        Malformed: it is such a path.
    """
    pure, windows = PurePosixPath(path), PureWindowsPath(path)
    if pure.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise Malformed(f"the path {shown(path)} leads out of the tree")
    if str(pure) != path or "\\" in path or "\0" in path or path in (".", RECORD):
        raise Malformed(f"{shown(path)} is no path of a file of the tree")


def read_record(folder: "Traversable") -> tuple[Record, str]:
    """The record of a tree, and the SHA-256 of its file.

    Raises:
        Malformed: it is there and cannot be used.
        FileNotFoundError: it is not there.
    """
    file = folder / RECORD
    try:
        contents = read(file)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Malformed(f"it cannot be read: {why(error)}") from None
    return parsed(contents), digest(contents)


def differences(recorded: Mapping[str, str], listing: Listing) -> Iterator[Difference]:
    """Every file that is not as recorded, in the order of the paths."""
    for path in sorted({*recorded, *listing.files, *listing.others}):
        if path in listing.others:
            kind = "changed" if path in recorded else "extra"
            yield Difference(kind, path, listing.others[path])
        elif path not in recorded:
            yield Difference("extra", path)
        elif path not in listing.files:
            yield Difference("missing", path)
        else:
            try:
                if digest_of(listing.files[path]) != recorded[path]:
                    yield Difference("changed", path)
            except OSError as error:
                yield Difference("unread", path, why(error))
