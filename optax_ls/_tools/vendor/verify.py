"""Compares a vendored copy with its SHA256SUMS: ``python verify.py [FOLDER]``.

This file needs only the standard library: it imports neither the package nor JAX. FOLDER is by
default the folder of this file. Every file that is changed, missing or extra is listed. Python's
bytecode (``__pycache__``) is ignored, and no link is followed. Exit status: 0 if all files are as
recorded, 1 if not, 2 if the folder cannot be compared.
"""

import sys

if __name__ == "__main__" and not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    del sys.path[0]  # the folder of this file, which must not replace standard modules

import hashlib
import os
import re
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

SUMS = "SHA256SUMS"


def digest(contents: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(contents).hexdigest()


def printable(text: object) -> str:
    """The text as a terminal may safely print it: unusual characters are escaped."""
    return str(text) if str(text).isascii() and str(text).isprintable() else ascii(str(text))


def parse(contents: bytes) -> dict[str, str]:
    """The SHA-256 of each path in the contents of SHA256SUMS; ValueError if they are malformed."""
    sums: dict[str, str] = {}
    for number, line in enumerate(contents.decode("utf-8", "replace").splitlines(), 1):
        found = re.fullmatch(r"([0-9a-f]{64})  (\S.*)", line)
        if not found or found[2] in sums:
            raise ValueError(f"line {number} of {SUMS} is malformed, or names a file again")
        sums[found[2]] = found[1]
    if not sums:
        raise ValueError(f"{SUMS} is empty")
    return sums


def files_in(folder: Any, prefix: str = "") -> dict[str, Any]:
    """The files below a ``pathlib.Path`` or ``zipfile.Path``, by paths with slashes.

    An entry that is neither a file nor a folder is listed with the reason, a string.
    """
    found: dict[str, Any] = {}
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: str(entry.name))
    except OSError as error:
        return {prefix or ".": f"cannot be read: {error.strerror}"}
    for entry in entries:
        path = prefix + entry.name
        if isinstance(entry, Path) and entry.is_symlink():
            found[path] = "is a link"
        elif entry.is_file():
            found[path] = entry
        elif not entry.is_dir():
            found[path] = "is not a regular file"
        elif entry.name != "__pycache__":
            found.update(files_in(entry, f"{path}/"))
    return found


def differences(sums: dict[str, str], files: dict[str, Any]) -> list[str]:
    """A line for each file that has another SHA-256, is missing, or is extra."""
    lines = []
    for path in sorted({*sums, *files}):
        kind = "extra" if path not in sums else "changed" if path in files else "missing"
        reason = files.get(path)
        if kind == "changed" and not isinstance(reason, str):
            try:
                if digest(files[path].read_bytes()) == sums[path]:
                    continue
            except (OSError, BadZipFile) as error:
                reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        because = f" ({reason})" if isinstance(reason, str) else ""
        lines.append(f"{kind:<8} {printable(path)}{because}")
    return lines


def verify(folder: Any) -> tuple[dict[str, str], list[str]]:
    """The sums of a folder, and its differences from them; OSError or ValueError without sums."""
    if not folder.is_dir():
        raise ValueError("there is no such folder")
    files = files_in(folder)
    sums_file = files.pop(SUMS, files.get(".", "is missing"))
    if isinstance(sums_file, str):
        raise ValueError(f"{SUMS} {sums_file}")
    sums = parse(sums_file.read_bytes())
    return sums, differences(sums, files)


def summary(place: object, found: list[str], record: str) -> str:
    """The differences of a place from its record, and their number, in lines."""
    number = f"{len(found)} files are" if len(found) > 1 else "1 file is"
    return "\n".join([*found, f"{printable(place)}: {number} not as {record} says"])


def main(folder: Any) -> int:
    """Prints how a folder compares with its sums; returns the exit status."""
    try:
        sums, found = verify(folder)
        sha256 = digest((folder / SUMS).read_bytes())
    except (OSError, ValueError, BadZipFile) as error:
        print(f"{printable(folder)} cannot be compared: {printable(error)}", file=sys.stderr)
        return 2
    if found:
        print(summary(folder, found, SUMS))
        return 1
    print(f"{len(sums)} files as in {SUMS}, whose SHA-256 is {sha256}")
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print("usage: python verify.py [FOLDER]", file=sys.stderr)
        sys.exit(2)
    try:
        status = main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).absolute().parent)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has gone, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    sys.exit(status)
