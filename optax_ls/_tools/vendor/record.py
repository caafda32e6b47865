"""The records that a package is compared with.

``VENDORED.json`` names every file of a vendored tree but itself, with its SHA-256. ``RECORD`` is
the table of paths, hashes and sizes that an installer writes. A package is compared by listing it
and looking up each file in the record. So no path of a record is ever opened, and nothing outside
the package is read.
"""

import base64
import csv
import json
import re
from collections.abc import Mapping
from importlib.metadata import Distribution
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple, Optional

from ..._version import PROJECT
from .. import CommandError
from .files import Traversable, digest, printable, read, reason

RECORD = "VENDORED.json"
_FORMAT = 1
_TYPES: dict[str, Any] = {"revision": (str, type(None)), "requires": dict, "files": dict}


class MalformedRecord(Exception):
    """A record that cannot be used, and why."""

    def __str__(self) -> str:
        return f"the record is malformed: {self.args[0]}"


class NoRecord(CommandError):
    """There is no record to compare a package with."""


class Record(NamedTuple):
    """The record of a vendored tree."""

    version: str  # of the package
    revision: Optional[str]  # of its source; None if unknown
    date: str  # of the tree, ISO 8601 in UTC
    python: str  # the versions of Python that it runs on
    requires: Mapping[str, str]  # the versions of packages that it needs, by names
    files: Mapping[str, str]  # SHA-256 of every file, by paths with slashes


def dump(record: Record) -> bytes:
    """The record as a file: the same bytes for the same record."""
    fields = {"format": _FORMAT, "project": PROJECT, **record._asdict()}
    fields["files"] = dict(sorted(record.files.items()))
    return (json.dumps(fields, indent=2) + "\n").encode()


def parse(contents: bytes) -> Record:
    """The record in a file, which must not name files outside the tree."""
    try:
        fields = json.loads(contents, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise MalformedRecord(f"it is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise MalformedRecord("it is not a JSON object")
    if fields.get("project") != PROJECT or fields.get("format") != _FORMAT:
        raise MalformedRecord(f"it is not a record of format {_FORMAT} of {PROJECT}")
    for name in Record._fields:
        if not isinstance(fields.get(name, ...), _TYPES.get(name, str)):
            raise MalformedRecord(f"its field {name} is missing or of a wrong type")
    if unknown := sorted(fields.keys() - {"format", "project", *Record._fields}):
        raise MalformedRecord(f"it has unknown fields: {printable(unknown)}")
    if not fields["files"]:
        raise MalformedRecord("it names no file")
    for path, sha256 in fields["files"].items():
        check_path(path)
        if not (isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256)):
            raise MalformedRecord(f"the SHA-256 of {printable(path)} is not 64 hexadecimal digits")
    return Record(*(fields[name] for name in Record._fields))


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name occurs twice in one object")
    return dict(pairs)


def check_path(path: str) -> None:
    """Refuses a path that leads out of the tree on any system, or that has a shorter spelling."""
    pure, windows = PurePosixPath(path), PureWindowsPath(path)
    if pure.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise MalformedRecord(f"the path {printable(path)} leads out of the tree")
    if str(pure) != path or "\\" in path or "\0" in path or path in (".", RECORD):
        raise MalformedRecord(f"{printable(path)} is not a path of a file of the tree")


def read_record(folder: Traversable) -> tuple[Record, str]:
    """The record of a vendored tree, and the SHA-256 of its file."""
    try:
        contents = read(folder / RECORD)
    except FileNotFoundError:
        raise NoRecord(f"there is no {RECORD} in {folder}: it is not a vendored tree") from None
    except OSError as error:
        raise MalformedRecord(f"it cannot be read: {reason(error)}") from None
    return parse(contents), digest(contents)


def installed_record(distribution: Distribution) -> dict[str, str]:
    """SHA-256 of the files of our package and of its metadata, by paths from where both are."""
    try:
        text = distribution.read_text("RECORD") or ""
        rows = [row for row in csv.reader(text.splitlines(), strict=True) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise MalformedRecord(f"it cannot be read: {error}") from None
    if not rows:
        raise MalformedRecord("it is missing or empty")
    recorded = {}
    for row in rows:
        if len(row) != 3:
            raise MalformedRecord(f"a line has {len(row)} fields instead of 3")
        path, hashed, _ = row
        first, *rest = path.split("/")
        if not rest or (first != PROJECT and not first.endswith(".dist-info")) or ".." in rest:
            raise MalformedRecord(
                f"the path {printable(path)} is neither in {PROJECT} nor in its metadata"
            )
        found = re.fullmatch("sha256=([A-Za-z0-9_-]{43})", hashed)
        if found:
            recorded[path] = base64.urlsafe_b64decode(f"{found[1]}=").hex()
        elif hashed:  # RECORD itself has no hash, nor has bytecode
            raise MalformedRecord(f"the hash of {printable(path)} is not a SHA-256")
    return recorded
