"""Copies to make, to change and to compare, for the tests of vendoring.

Test files name the fixtures that they use, since conftest.py also goes where this file does not.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from optax_ls._tools.cli import main
from optax_ls._tools.vendor.origin import CHECKOUT, RECORD, Origin, Record
from optax_ls._tools.vendor.replace import put
from optax_ls._tools.vendor.selection import Copy
from optax_ls._tools.vendor.verify import SUMS, digest

ROOT = Path(__file__).parents[1]
SECONDS, DATE = 1_700_000_000, "2023-11-14T22:13:20Z"
posix = pytest.mark.skipif(os.name != "posix", reason="permissions and links of POSIX")
BUILD = 'from setuptools import build_meta; build_meta.build_wheel("dist")'


def small_tree(text="1", **more):
    """A copy of a few small files, as quick to write as to verify."""
    files = {"__init__.py": text.encode(), "sub/module.py": b"", "LICENSE": b"terms"}
    files.update({name: contents.encode() for name, contents in more.items()})
    record = Record("library", "0.1.0", None, None, ">=3.10", {"jax": ">=0.4.30"})
    files[RECORD] = json.dumps({"format": 2, "project": "optax_ls", **record._asdict()}).encode()
    sums = Copy(files, record).sums.items()
    files[SUMS] = "".join(f"{sha256}  {path}\n" for path, sha256 in sums).encode()
    return Copy(files, record)


def contents(folder):
    """Every file below a folder, by its path, links as where they lead."""
    return {
        path.relative_to(folder).as_posix(): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def make_older(copy):
    """Makes a copy one of an older source; returns the entry that its changelog then lacks."""
    changelog = (copy / "CHANGELOG.md").read_text()
    command = re.escape("`python -m optax_ls vendor DEST`")
    entry = re.search(rf"^- .*{command}.*\n(?: .*\n)*", changelog, re.MULTILINE)[0]
    (copy / "CHANGELOG.md").write_text(changelog.replace(entry, "", 1))
    record = json.loads((copy / RECORD).read_text())
    record.update(revision="0123abc", date="2020-02-02T02:02:02Z")
    (copy / RECORD).write_text(json.dumps(record))
    files = {path: x for path, x in contents(copy).items() if path != SUMS}
    (copy / SUMS).write_text("".join(f"{digest(x)}  {path}\n" for path, x in files.items()))
    return entry


def is_of(target, tree):
    return contents(target) == dict(tree.files)


@pytest.fixture
def run(capsys):
    """Runs a command line; returns status, stdout and stderr."""

    def execute(*words):
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return execute


@pytest.fixture
def target(tmp_path):
    """The folder of a small copy, version 1."""
    put(small_tree("1"), tmp_path / "lib" / "optax_ls")
    return tmp_path / "lib" / "optax_ls"


def git(folder, *words):
    """Runs git as a made-up author, at a certain time."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        **{f"GIT_{who}_DATE": f"{SECONDS} +0000" for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_NAME": "someone" for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": "someone@example.org" for who in ("AUTHOR", "COMMITTER")},
    }
    done = subprocess.run(
        ["git", "-C", folder, *words], env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def copy_checkout(folder):
    """Copies what is needed of this checkout; returns the origin of the package in the copy."""
    for name in ("setup.py", "setup.cfg", "MANIFEST.in", "LICENSE", "README.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder)
    (folder / ".gitignore").write_text("build/\ndist/\n*.egg-info/\n__pycache__/\n")
    for name in ("optax_ls", "third_party_licenses"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return Origin(CHECKOUT, folder / "optax_ls")


def build_wheel(folder):
    """Builds the wheel of a checkout; returns its path."""
    subprocess.run([sys.executable, "-c", BUILD], cwd=folder, check=True, capture_output=True)
    return next(folder.glob("dist/*.whl"))


@contextlib.contextmanager
def without_privileges():
    """Lets permissions count, which root is above."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
