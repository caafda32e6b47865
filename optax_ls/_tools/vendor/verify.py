"""Comparing a package with its record."""

from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution
from typing import Any, NamedTuple, Optional

from ..._version import PROJECT
from .files import Listing, Traversable, digest_of, list_folder, printable, reason
from .origin import CHECKOUT, VENDORED, Origin
from .record import RECORD, MalformedRecord, NoRecord, Record, installed_record, read_record


class Difference(NamedTuple):
    """A file that is not as its record says."""

    kind: str  # changed, missing, extra or unread
    path: str  # with slashes, from the root of the tree
    reason: str = ""  # if it is not obvious

    def __str__(self) -> str:
        because = f" ({self.reason})" if self.reason else ""
        return f"{self.kind:<8} {printable(self.path)}{because}"


class Comparison(NamedTuple):
    """A package and its record."""

    recorded: Mapping[str, str]  # SHA-256 of every recorded file, by paths
    files: Mapping[str, Traversable]  # the regular files that are there, by the same paths
    differences: tuple[Difference, ...]  # every file that is not as recorded
    # Of a vendored tree only, since the record of an installation depends on the installer.
    record: Optional[Record] = None
    sha256: Optional[str] = None  # of the file of the record


def verify_package(origin: Origin) -> Comparison:
    """Compares the running package with its record, or that of its installation."""
    if origin.kind == VENDORED:
        return verify_tree(origin.package)
    if origin.distribution is not None:
        return _verify_installation(origin.distribution)
    checkout = "a checkout: git status lists its changes"
    what = checkout if origin.kind == CHECKOUT else "neither installed nor vendored"
    raise NoRecord(f"this {PROJECT} has no record, since it is {what}")


def verify_tree(folder: Traversable) -> Comparison:
    """Compares a vendored tree with its record."""
    record, sha256 = read_record(folder)
    listing = list_folder(folder)
    listing.files.pop(RECORD, None)
    found = tuple(_differences(record.files, listing))
    return Comparison(record.files, listing.files, found, record, sha256)


def _verify_installation(distribution: Distribution) -> Comparison:
    """Compares the package, and those of its metadata that are recorded."""
    recorded = installed_record(distribution)
    listing = Listing({}, {})
    for folder in {PROJECT, *(path.split("/")[0] for path in recorded)}:
        place: Any = distribution.locate_file(folder)
        inside = list_folder(place, f"{folder}/")
        known = recorded.keys() if folder != PROJECT else inside.files.keys() | inside.others
        listing.files.update({p: x for p, x in inside.files.items() if p in known})
        listing.others.update({p: x for p, x in inside.others.items() if p in known})
    return Comparison(recorded, listing.files, tuple(_differences(recorded, listing)))


def _differences(recorded: Mapping[str, str], listing: Listing) -> Iterator[Difference]:
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
                yield Difference("unread", path, reason(error))


def is_verified(origin: Origin) -> Optional[bool]:
    """True if the running package is as its record says; None if it has no record."""
    try:
        return not verify_package(origin).differences
    except NoRecord:
        return None
    except MalformedRecord:
        return False
