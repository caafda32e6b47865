"""The selections that can be vendored, and the files of a copy.

The bytes of a copy depend only on its source and the selection. A checkout, a distribution built
from it and a copy of everything give the same bytes, under any name.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple

from ..._version import LICENCE, PROJECT, REQUIRES, REQUIRES_PYTHON, __version__
from .. import CommandError
from .origin import CHANGELOG, FORMAT, RECORD, Origin, Record, files_of, source_of
from .verify import SUMS, digest

SELECTIONS = {
    "core": "the names of Optax alone",
    "library": "everything that can be imported, minimize included",
    "everything": "the library, the command line, and what makes copies",
}
LIBRARY = "library"
NOTE = "VENDORED.md"
# What a drop-in for Optax does not need of the folder _core.
_NOT_IN_CORE = {
    "_core/lbfgs/inverse_hessian.py",
    "_core/linesearch/extensions.py",
    "_core/linesearch/more_thuente.py",
}
_TOP_OF_CORE = {"_version.py", "py.typed", "tree.py", "LICENSE", CHANGELOG}
# These files keep the bytes of a copy as they are: git must not change its line endings, and ruff
# and editors must not apply the settings of the project around it. Ruff formats an excluded file
# that is named on its command line, so it is told the style of these files. It must not keep its
# cache in the copy, where that would count as extra files.
_SETTINGS = {
    ".editorconfig": b"root = true\n",
    ".gitattributes": b"* -text -ident -filter -working-tree-encoding\n",
    "ruff.toml": b"""\
exclude = ["*"]
cache-dir = "../.ruff_cache"
line-length = 100
lint.select = []
format.docstring-code-format = true
""",
}


class Copy(NamedTuple):
    """The files of a copy, by path, and its record, which is one of them."""

    files: Mapping[str, bytes]
    record: Record

    @property
    def sums(self) -> dict[str, str]:
        """The SHA-256 of every file but that of the sums."""
        return {path: digest(x) for path, x in sorted(self.files.items()) if path != SUMS}

    @property
    def size(self) -> tuple[int, int, int]:
        """The number of files, of lines of Python, and of bytes."""
        lines = sum(x.count(b"\n") for path, x in self.files.items() if path.endswith(".py"))
        return len(self.files), lines, sum(map(len, self.files.values()))


def compose(origin: Origin) -> dict[str, Copy]:
    """The copies that a package can make of itself, by selection.

    Raises:
        CommandError: a file cannot be read, is not as recorded, or is missing.
    """
    files, (revision, date) = files_of(origin), source_of(origin)
    for name in ("LICENSE", CHANGELOG, "third_party_licenses/README.md"):
        if name not in files:
            raise CommandError(f"{origin.package} has no {name}, which is part of every copy")
    copies = {}
    for parts in SELECTIONS:
        record = Record(parts, __version__, revision, date, REQUIRES_PYTHON, REQUIRES)
        fields = {"format": FORMAT, "project": PROJECT, **record._asdict()}
        made = {
            **_selected(files, parts),
            **_SETTINGS,
            NOTE: _note(record).encode(),
            RECORD: (json.dumps(fields, indent=2) + "\n").encode(),
        }
        sums = Copy(made, record).sums.items()
        made[SUMS] = "".join(f"{sha256}  {path}\n" for path, sha256 in sums).encode()
        copies[parts] = Copy(made, record)
    return copies


def _selected(files: Mapping[str, bytes], parts: str) -> dict[str, bytes]:
    """The files of a selection, without those that every copy gets anew."""
    chosen = {path: x for path, x in files.items() if _is_selected(path, parts)}
    if parts == "core":
        chosen["__init__.py"] = files["_drop_in.py"]
    return {**chosen, "verify.py": files["_tools/vendor/verify.py"]}


def _is_selected(path: str, parts: str) -> bool:
    if path in {RECORD, NOTE, SUMS}:
        return False
    if parts == "core":
        in_folder = path.startswith(("_core/", "third_party_licenses/"))
        return path in _TOP_OF_CORE or (in_folder and path not in _NOT_IN_CORE)
    return parts == "everything" or not path.startswith(("_tools/", "__main__.py"))


def _note(record: Record) -> str:
    needs = ", ".join(f"{name}{versions}" for name, versions in record.requires.items())
    return f"""\
# {PROJECT} {record.version}, a vendored copy

This folder is a copy of `{PROJECT}`, line searches and L-BFGS for JAX. `python -m {PROJECT} vendor`
made it. The code is maintained in the project {PROJECT}, not here.

- Selection: `{record.parts}`, {SELECTIONS[record.parts]}
- Revision: {record.revision or "unknown"}{f" of {record.date}" if record.date else ""}
- Needs: Python{record.python}, {needs}
- Licence: {LICENCE}, see [LICENSE](LICENSE) and [third_party_licenses](third_party_licenses)

**Do not change this folder.** Fixes belong upstream: report the problem to the project {PROJECT},
or correct it there, and then make the copy again. `vendor` refuses to replace a changed copy.

To check that no file has changed, run one of these in this folder. Both need neither JAX nor an
installed {PROJECT}:

    python verify.py
    sha256sum --check --quiet {SUMS}

`verify.py` lists each file that is changed, missing or extra. Its exit status is 0 if there is no
such file, 1 if there is one, and 2 if it cannot compare. Hashes do not show who made this copy:
compare the SHA-256 of `{SUMS}` with one that you stored elsewhere.

To see whether a newer {PROJECT} would change this copy, and to renew it, run with that {PROJECT}:

    python -m {PROJECT} vendor FOLDER_AROUND_THIS_ONE --name NAME_OF_THIS_FOLDER --check
    python -m {PROJECT} vendor FOLDER_AROUND_THIS_ONE --name NAME_OF_THIS_FOLDER
"""
