"""Where the running package comes from: a vendored tree, a checkout, an installation.

Of each it is asked which files are the package, which are its licences, and what revision of the
source they are. Nothing is taken on trust where there is a record: files are compared with it.
"""

import base64
import binascii
import configparser
import csv
import importlib.metadata
import importlib.resources
import os
import re
import subprocess  # nosec B404  # to ask git, and for nothing else
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Optional

from ..._version import PROJECT
from .. import PACKAGE
from ..common import Refusal
from .files import Listing, listed, read, shown
from .record import RECORD, Malformed, read_record

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

VENDORED, CHECKOUT, INSTALLED, UNKNOWN = "vendored", "checkout", "installed", "unknown"
# A distribution may carry this file: a revision, and the time of its commit in seconds. It is made
# when the distribution is built, and no part of a checkout or of a vendored tree.
REVISION = "_revision.txt"


class Origin(NamedTuple):
    """Where the package is, and what it is part of.

    Attributes:
        kind: one of the four above.
        package: its folder, which may be in a zip file.
        distribution: what it was installed from, if it was.
    """

    kind: str
    package: "Traversable"
    distribution: Optional[importlib.metadata.Distribution] = None


class Source(NamedTuple):
    """What the files of a package were made from.

    Attributes:
        revision: the commit, with ``-dirty`` if files differ from it; None if nobody knows.
        date: of the commit or of the record, ISO 8601 in UTC; None if nobody knows.
    """

    revision: Optional[str] = None
    date: Optional[str] = None


def find_origin() -> Origin:
    """The origin of the running package."""
    package = importlib.resources.files(PACKAGE)
    if any(entry.name == RECORD for entry in package.iterdir()):
        return Origin(VENDORED, package)
    if isinstance(package, Path) and _is_checkout(package.parent):
        return Origin(CHECKOUT, package)
    for distribution in importlib.metadata.distributions(name=PROJECT):
        found = str(distribution.locate_file(f"{PROJECT}/__init__.py"))
        if os.path.realpath(found) == os.path.realpath(str(package / "__init__.py")):
            return Origin(INSTALLED, package, distribution)
    return Origin(UNKNOWN, package)


def _is_checkout(folder: Path) -> bool:
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read(folder / "setup.cfg", encoding="utf-8")
    except (OSError, ValueError, configparser.Error):
        return False
    return config.get("metadata", "name", fallback=None) == PROJECT


def find_source(origin: Origin) -> Source:
    """The revision of the package.

    Raises:
        Malformed: a record is there and cannot be used.
    """
    if origin.kind == VENDORED:
        record, _ = read_record(origin.package)
        return Source(record.revision, record.date)
    if origin.kind == CHECKOUT and isinstance(origin.package, Path):
        source = _ask_git(origin.package.parent)
        if source.revision:
            return source
    try:
        line = read(origin.package / REVISION).decode("ascii", "replace")
    except OSError:
        return Source()
    found = re.fullmatch(r"([0-9a-f]{7,64}(?:-dirty)?) (\d{1,11})\s*", line)
    return Source(found[1], as_date(int(found[2]))) if found else Source()


def _ask_git(root: Path) -> Source:
    top = _git(root, "rev-parse", "--show-toplevel")
    if not top or os.path.realpath(top) != os.path.realpath(root):
        return Source()
    revision, _, seconds = (_git(root, "log", "-1", "--format=%H %ct") or "").partition(" ")
    if not seconds:
        return Source()
    shipped = (PROJECT, "LICENSE", "third_party_licenses", "tests")
    if _git(root, "status", "--porcelain", "--untracked-files=all", "--", *shipped) != "":
        return Source(f"{revision}-dirty")
    return Source(revision, as_date(int(seconds)))


def _git(root: Path, *words: str) -> Optional[str]:
    """What git prints of this checkout and no other; None if git is absent or fails."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    command = ["git", "-C", str(root), "-c", "core.fsmonitor=false", *words]
    try:
        done = subprocess.run(  # nosec B603  # no shell; the words are ours, but for the path of -C
            command, capture_output=True, text=True, timeout=20, env=environment
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return None if done.returncode else done.stdout.strip()


def as_date(seconds: int) -> str:
    """ISO 8601 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def dated(otherwise: Optional[str] = None) -> str:
    """The date of ``SOURCE_DATE_EPOCH``; without that the one given, or now."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if not epoch:
        return otherwise or as_date(int(time.time()))
    if not re.fullmatch(r"\d{1,11}", epoch):
        raise Refusal(f"SOURCE_DATE_EPOCH must be whole seconds since 1970, got {epoch!r}")
    return as_date(int(epoch))


# What installers write: RECORD, a table of paths, hashes and sizes.


def record_rows(distribution: importlib.metadata.Distribution) -> list[list[str]]:
    """The rows of the table. ``distribution.files`` leaves out files that are gone.

    Raises:
        Malformed: the record is missing or no such table.
    """
    try:
        text = distribution.read_text("RECORD")
        rows = [row for row in csv.reader((text or "").splitlines(), strict=True) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise Malformed(f"it cannot be read: {error}") from None
    if not rows:
        raise Malformed("it is missing or empty")
    for row in rows:
        if len(row) != 3:
            raise Malformed(f"a line has {len(row)} fields instead of 3")
    return rows


def installed_record(distribution: importlib.metadata.Distribution) -> dict[str, str]:
    """SHA-256 of the files of our package and of its metadata, by paths from where both are.

    Raises:
        Malformed: the record is missing or no such table, or names files elsewhere.
    """
    recorded = {}
    for path, hashed, _ in record_rows(distribution):
        first, *rest = path.split("/")
        if not rest or (first != PROJECT and not first.endswith(".dist-info")) or ".." in rest:
            raise Malformed(f"the path {shown(path)} is neither in {PROJECT} nor in its metadata")
        if hashed:  # RECORD itself has none, nor has bytecode
            recorded[path] = _from_base64(path, hashed)
    return recorded


def _from_base64(path: str, hashed: str) -> str:
    kind, _, digits = hashed.partition("=")
    try:
        sha256 = base64.b64decode(digits + "=", altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        sha256 = b""
    if kind != "sha256" or len(sha256) != 32:
        raise Malformed(f"the hash of {shown(path)} is no SHA-256")
    return sha256.hex()


def installed_listing(
    distribution: importlib.metadata.Distribution, recorded: dict[str, str]
) -> Listing:
    """Lists what is in the package, and which of the recorded metadata are there."""
    listing = Listing({}, {})
    for folder in sorted({path.split("/")[0] for path in recorded} | {PROJECT}):
        place: Traversable = distribution.locate_file(folder)  # type: ignore[assignment]
        found = listed(place)
        wanted = {
            path: f"{folder}/{path}"
            for path in (*found.files, *found.others)
            if folder == PROJECT or f"{folder}/{path}" in recorded
        }
        listing.files.update({wanted[x]: found.files[x] for x in found.files if x in wanted})
        listing.others.update({wanted[x]: found.others[x] for x in found.others if x in wanted})
    return listing
