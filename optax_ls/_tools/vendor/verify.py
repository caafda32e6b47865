"""Whether a tree is what its record says."""

from typing import TYPE_CHECKING, NamedTuple, Optional

from ..._version import PROJECT, __version__
from ..common import Refusal
from .files import listed
from .origin import (
    CHECKOUT,
    INSTALLED,
    VENDORED,
    Origin,
    installed_listing,
    installed_record,
)
from .record import RECORD, Difference, Malformed, differences, read_record

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable


class NoRecord(Refusal):
    """There is nothing to compare a tree with."""


class Verdict(NamedTuple):
    """The outcome of a comparison.

    Attributes:
        version: of the package, as the record has it.
        revision: likewise; None if the record does not tell.
        num_files: how many files are recorded.
        record: the name of the record.
        sha256: of the record of a vendored tree. That of an installation depends on the installer.
        differences: every file that is not as recorded.
    """

    version: str
    revision: Optional[str]
    num_files: int
    record: str
    sha256: Optional[str]
    differences: tuple[Difference, ...]


def verify_tree(folder: "Traversable") -> Verdict:
    """Compares a vendored tree with its record.

    Raises:
        NoRecord: it has none.
        Malformed: it has one that cannot be used.
    """
    try:
        record, sha256 = read_record(folder)
    except FileNotFoundError:
        raise NoRecord(f"there is no {RECORD} in {folder}: it is no vendored tree") from None
    listing = listed(folder)
    listing.files.pop(RECORD, None)
    found = tuple(differences(record.files, listing))
    return Verdict(record.version, record.revision, len(record.files), RECORD, sha256, found)


def verify_package(origin: Origin) -> Verdict:
    """Compares the running package with its record: its own, or that of its installation.

    Raises:
        NoRecord: it has none.
        Malformed: it has one that cannot be used.
    """
    if origin.kind == VENDORED:
        return verify_tree(origin.package)
    if origin.kind == INSTALLED and origin.distribution is not None:
        recorded = installed_record(origin.distribution)
        listing = installed_listing(origin.distribution, recorded)
        found = tuple(differences(recorded, listing))
        return Verdict(__version__, None, len(recorded), "RECORD", None, found)
    if origin.kind == CHECKOUT:
        raise NoRecord(
            f"this {PROJECT} is a checkout, which has no record: git status says what was changed"
        )
    raise NoRecord(
        f"this {PROJECT} has no record: it was neither installed nor copied by its command vendor"
    )


def is_verified(origin: Origin) -> Optional[bool]:
    """Whether the running package is what its record says; None if it has no record."""
    try:
        return not verify_package(origin).differences
    except NoRecord:
        return None
    except Malformed:
        return False
