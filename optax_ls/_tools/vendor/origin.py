"""The origin of the running package, a vendored copy, a checkout or an installation; its files."""

import base64
import importlib.metadata
import importlib.resources
import json
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Optional
from zipfile import BadZipFile

from ..._version import PROJECT
from .. import NO_SUCCESS, PACKAGE, CommandError
from . import revision, verify

VENDORED, CHECKOUT, INSTALLED, UNKNOWN = "vendored", "checkout", "installed", "unknown"
RECORD = "VENDORED.json"
FORMAT = 2
# A build adds this file, with what `revision.of_checkout` returns.
REVISION = "_revision.txt"
CHANGELOG = "CHANGELOG.md"


class Differs(CommandError):
    """A package or copy is not as recorded, so it is neither copied nor replaced."""

    status = NO_SUCCESS

    def __init__(self, place: object, reasons: Iterable[str], hint: str = "") -> None:
        self.reasons = list(reasons)
        super().__init__("\n  ".join((f"{place} is not as its record says{hint}:", *self.reasons)))


class Origin(NamedTuple):
    """The place of a package, and how it came there."""

    kind: str  # one of the four above
    package: Any  # its folder: a pathlib.Path, or a zipfile.Path
    distribution: Optional[importlib.metadata.Distribution] = None  # if it is installed


class Record(NamedTuple):
    """The contents of ``VENDORED.json``."""

    parts: str  # the selection
    version: str
    revision: Optional[str]  # the commit; "-dirty" is added if files differ from it
    date: Optional[str]  # of the commit, ISO 8601 in UTC; None if files differ from it
    python: str  # the versions of Python that the copy runs on
    requires: dict[str, str]  # the versions of packages that it needs, by names

    def __str__(self) -> str:
        known = f"revision {self.revision or 'unknown'}" + (f", {self.date}" if self.date else "")
        return verify.printable(f"{PROJECT} {self.version} ({self.parts}; {known})")


_KINDS: dict[str, Any] = dict.fromkeys(Record._fields, str)
_KINDS.update(requires=dict, revision=(str, type(None)), date=(str, type(None)))


def find_origin() -> Origin:
    """The origin of the running package."""
    package: Any = importlib.resources.files(PACKAGE)
    if (package / RECORD).is_file():
        return Origin(VENDORED, package)
    if isinstance(package, Path) and _is_checkout(package.parent):
        return Origin(CHECKOUT, package)
    for distribution in importlib.metadata.distributions(name=PROJECT):
        found = str(distribution.locate_file(f"{PROJECT}/__init__.py"))
        if os.path.realpath(found) == os.path.realpath(str(package / "__init__.py")):
            return Origin(INSTALLED, package, distribution)
    return Origin(UNKNOWN, package)


def _is_checkout(folder: Path) -> bool:
    try:
        lines = (folder / "setup.cfg").read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    return f"name = {PROJECT}" in lines


# Revision and record.


def read_record(folder: Any) -> Record:
    """The record of a vendored copy; ValueError if it is malformed, OSError if it is unreadable."""
    fields = json.loads((folder / RECORD).read_bytes())
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise ValueError(f"{RECORD} is not a record of format {FORMAT}")
    for name, kinds in _KINDS.items():
        if not isinstance(fields.get(name), kinds):
            raise ValueError(f"{RECORD} has no {name}, or one of a wrong type")
    return Record(*(fields[name] for name in Record._fields))


def source_of(origin: Origin) -> tuple[Optional[str], Optional[str]]:
    """The commit that a package was made from, and its date; None if unknown.

    The commit ends in ``-dirty`` if files differ from it. Then there is no date.
    """
    if origin.kind == VENDORED:
        record = read_record(origin.package)
        return record.revision, record.date
    line = revision.of_checkout(origin.package.parent) if origin.kind == CHECKOUT else None
    file = origin.package / REVISION
    if line is None and file.is_file():
        line = file.read_text("ascii", "replace").strip()
    found = re.fullmatch(r"([0-9a-f]{7,64}(?:-dirty)?)(?: (\d{1,11}))?", line or "")
    if not found:
        return None, None
    date = found[2] and time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(found[2])))
    return found[1], date


# Files.


def compare(origin: Origin) -> tuple[dict[str, str], list[str]]:
    """The recorded SHA-256 of the files of a package by path, and the differences from them.

    Raises:
        CommandError: there is no record.
        OSError, ValueError: the record cannot be read, or is malformed.
    """
    if origin.kind == VENDORED:
        return verify.verify(origin.package)
    if origin.distribution is None:
        checkout = "a checkout: git status lists its changes"
        kind = checkout if origin.kind == CHECKOUT else "neither installed nor vendored"
        raise CommandError(f"this {PROJECT} has no record, since it is {kind}")
    sums = _installed_sums(origin.distribution)
    files = verify.files_in(origin.package, f"{PROJECT}/")
    for folder in {path.partition("/")[0] for path in sums} - {PROJECT}:
        place: Any = origin.distribution.locate_file(folder)
        inside = verify.files_in(place, f"{folder}/")
        files.update({path: file for path, file in inside.items() if path in sums})
    return sums, verify.differences(sums, files)


def _installed_sums(distribution: importlib.metadata.Distribution) -> dict[str, str]:
    """The SHA-256 of files by path, from the RECORD of an installation."""
    sums = {}
    for line in (distribution.read_text("RECORD") or "").splitlines():
        found = re.fullmatch(r"([^\",]+),sha256=([A-Za-z0-9_-]{43}),\d*", line)
        if found and (found[1].startswith(f"{PROJECT}/") or ".dist-info/" in found[1]):
            sums[found[1]] = base64.urlsafe_b64decode(f"{found[2]}=").hex()
    if not sums:
        raise ValueError("RECORD is missing, or has no SHA-256 of a file")
    return sums


def files_of(origin: Origin) -> dict[str, bytes]:
    """The contents of all files of a package by path, as they are in a copy of everything.

    Raises:
        CommandError: a file cannot be read, or is not as recorded.
    """
    try:
        places = _in_checkout(origin.package) if origin.kind == CHECKOUT else _recorded(origin)
        return {path: file.read_bytes() for path, file in places.items()}
    except (OSError, ValueError, BadZipFile) as error:
        raise CommandError(f"cannot read {origin.package}: {error}") from None


def _in_checkout(package: Path) -> dict[str, Any]:
    root = package.parent
    places: dict[str, Any] = {name: root / name for name in ("LICENSE", CHANGELOG)}
    places.update(verify.files_in(root / "third_party_licenses", "third_party_licenses/"))
    for path, file in verify.files_in(package).items():
        if path.endswith(".py") or path == "py.typed":
            places[path] = file
    for path, file in places.items():
        if isinstance(file, str):
            raise CommandError(f"{path} {file}")
    return places


def _recorded(origin: Origin) -> dict[str, Any]:
    sums, found = compare(origin)
    if found:
        raise Differs(origin.package, found)
    if origin.kind == VENDORED:
        return {path: origin.package / path for path in sums}
    inside = (path.removeprefix(f"{PROJECT}/") for path in sums if path.startswith(f"{PROJECT}/"))
    return {path: origin.package / path for path in inside if path != REVISION}


def is_verified(origin: Origin) -> Optional[bool]:
    """True if a package is as its record says; None if it has no record."""
    try:
        return not compare(origin)[1]
    except CommandError:
        return None
    except (OSError, ValueError):
        return False
