"""Builds the source distribution and the wheel: the same bytes for the same commit, anywhere.

``python -m distribution.build`` takes the last commit of a clone, or an unpacked source
distribution. The wheel is built from the source distribution. It needs setuptools at the version of
``requirements/build.txt``, and no network.
"""

import argparse
import contextlib
import hashlib
import importlib.metadata
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from . import archives

ROOT = Path(__file__).parents[1]
REVISION = Path("optax_ls", "_revision.txt")
HOOK = (
    "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
)


class Source(NamedTuple):
    """The input of a build: files under a folder, their commit, and its date."""

    folder: Path
    revision: str
    epoch: int


class Built(NamedTuple):
    """The archives that were built, and the date of all files in them."""

    sdist: Path
    wheel: Path
    epoch: int


def main():
    parser = argparse.ArgumentParser(prog="python -m distribution.build", description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="default: dist")
    output = parser.parse_args().output
    try:
        built = build(output)
    except OSError as error:
        sys.exit(f"nothing was built: {in_words(error)}; {output} is as it was")
    for path in (built.sdist, built.wheel):
        print(f"{sha256(path)}  {path.name}")


def in_words(error):
    """The error of the system, and the path that it names; for a copy, the target."""
    reason, where = error.strerror or str(error), error.filename2 or error.filename
    return f"{where}: {reason}" if where else reason


def build(output):
    """Builds both distributions into a folder, whole or not at all."""
    check_backend()
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        source = exported(scratch / "source")
        (source.folder / REVISION).write_text(f"{source.revision} {source.epoch}\n")
        made = run_hook("build_sdist", source, scratch / "sdist")
        sdist = scratch / made.name
        archives.normalise_sdist(made, sdist, source.epoch)

        unpacked = source._replace(folder=unpack(sdist, scratch / "unpacked"))
        made = run_hook("build_wheel", unpacked, scratch / "wheel")
        wheel = scratch / made.name
        archives.normalise_wheel(made, wheel, source.epoch)
        with tempfile.TemporaryDirectory(dir=output) as drafts:
            copies = [Path(shutil.copy(path, drafts)) for path in (sdist, wheel)]
            return Built(*(copy.replace(output / copy.name) for copy in copies), source.epoch)


def check_backend():
    """Refuses to build with another setuptools than the one that is locked."""
    lock = (ROOT / "requirements" / "build.txt").read_text()
    wanted = re.search(r"^setuptools==(\S+)", lock, re.MULTILINE)[1]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found = importlib.metadata.version("setuptools")
        if found == wanted:
            return
        sys.exit(
            f"setuptools is {found}; requirements/build.txt wants {wanted}, for the same bytes"
        )
    sys.exit(
        f"setuptools {wanted} is needed: pip install --require-hashes -r requirements/build.txt"
    )


def exported(folder):
    """A copy of what is to be built, without anything that is not part of it."""
    if (ROOT / ".git").exists():
        if git("status", "--porcelain"):
            print("Uncommitted changes are not in what is built: it is the last commit.")
        with tarfile.open(fileobj=io.BytesIO(git("archive", "HEAD"))) as tar:
            tar.extractall(folder, filter="data")
        revision, date = git("log", "-1", "--format=%H %ct").decode().split()
    elif (ROOT / REVISION).exists():
        ignored = shutil.ignore_patterns("dist", "build", ".venv*", "*.egg-info", "__pycache__")
        shutil.copytree(ROOT, folder, ignore=ignored)
        revision, date = (ROOT / REVISION).read_text().split()
    else:
        sys.exit(f"{ROOT} is neither a clone with its .git nor an unpacked source distribution")
    return Source(folder, revision, int(os.environ.get("SOURCE_DATE_EPOCH", date)))


def git(*arguments):
    return subprocess.run(["git", "-C", ROOT, *arguments], check=True, capture_output=True).stdout


def run_hook(hook, source, output):
    """Runs a hook of the build backend in a process of its own, and returns what it built."""
    output.mkdir()
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(source.epoch), "TZ": "UTC", "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, "-c", HOOK, hook, output],
        cwd=source.folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{hook} failed:\n{done.stdout}{done.stderr}")
    (made,) = output.iterdir()
    return made


def unpack(sdist, folder):
    with tarfile.open(sdist) as tar:
        tar.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    return root


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
