"""The origin of the running package: a vendored tree, a checkout, or an installation."""

import importlib.metadata
import importlib.resources
import os
import re
import subprocess  # nosec B404  # to ask git, and for nothing else
import time
from pathlib import Path
from typing import NamedTuple, Optional

from ..._version import PROJECT
from .. import PACKAGE, CommandError
from .files import Traversable, read
from .record import RECORD, read_record

VENDORED, CHECKOUT, INSTALLED, UNKNOWN = "vendored", "checkout", "installed", "unknown"
# A distribution may carry this file: a revision, and the time of its commit in seconds. A build
# adds it; neither a checkout nor a vendored tree has it.
REVISION = "_revision.txt"


class Origin(NamedTuple):
    """The place of the package, and how it came there."""

    kind: str  # one of the four above
    package: Traversable  # its folder, which may be in a zip file
    distribution: Optional[importlib.metadata.Distribution] = None  # if it is installed

    @property
    def root(self) -> Path:
        """The folder of a checkout."""
        return Path(str(self.package)).parent


class Source(NamedTuple):
    """The source that a package was made from, as far as it is known."""

    revision: Optional[str] = None  # the commit, with "-dirty" if files differ from it
    date: Optional[str] = None  # of the commit or of the record, ISO 8601 in UTC


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
    try:
        lines = (folder / "setup.cfg").read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    return f"name = {PROJECT}" in lines


def find_source(origin: Origin) -> Source:
    """The source of the package, which the record of a vendored tree names."""
    if origin.kind == VENDORED:
        record, _ = read_record(origin.package)
        return Source(record.revision, record.date)
    if origin.kind == CHECKOUT and (source := _ask_git(origin.root)).revision:
        return source
    try:
        line = read(origin.package / REVISION).decode("ascii", "replace")
    except OSError:
        return Source()
    found = re.fullmatch(r"([0-9a-f]{7,64}(?:-dirty)?) (\d{1,11})\s*", line)
    return Source(found[1], iso_date(int(found[2]))) if found else Source()


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
    return Source(revision, iso_date(int(seconds)))


def _git(root: Path, *words: str) -> Optional[str]:
    """The output of git about this checkout and no other; None if git is absent or fails."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    command = ["git", "-C", str(root), "-c", "core.fsmonitor=false", *words]
    try:
        done = subprocess.run(  # nosec B603  # no shell; the words are ours, but for the path of -C
            command, capture_output=True, text=True, timeout=20, env=environment
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return None if done.returncode else done.stdout.strip()


def iso_date(seconds: int) -> str:
    """ISO 8601 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def date_of_copy(source: Source) -> str:
    """The date of ``SOURCE_DATE_EPOCH``; without it that of the source, or now."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if not epoch:
        return source.date or iso_date(int(time.time()))
    if not re.fullmatch(r"\d{1,11}", epoch):
        raise CommandError(f"SOURCE_DATE_EPOCH must be whole seconds since 1970, got {epoch!r}")
    return iso_date(int(epoch))
