"""The licence texts that wheels carry, and what their metadata say of them."""

import email.parser
import zipfile
from pathlib import PurePosixPath

from packaging.utils import parse_wheel_filename

TEXTS = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "AUTHORS")
CLASSIFIERS = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: BSD License": "BSD, see the text for which",
}
HEADING = """# Licences of the wheels

The texts are those that the wheels carry, word for word. The SPDX id is what the bill of materials
says, or the metadata of a wheel that is not in it.

| Package | Version | SPDX id | Texts |
| --- | --- | --- | --- |
"""


def collect(wheels, folder, known):
    """Writes the licence texts of wheels, and a table of them, into a new folder.

    Args:
        wheels: their paths.
        folder: must not be there yet.
        known: SPDX ids by name, which count more than the metadata of a wheel.
    """
    folder.mkdir()
    rows = []
    for wheel in wheels:
        name, version, *_ = parse_wheel_filename(wheel.name)
        with zipfile.ZipFile(wheel) as archive:
            written = list(copy_texts(archive, folder / name))
            spdx = known.get(name) or spdx_of(archive)
        texts = str(len(written)) if written else "**none in the wheel**"
        rows.append(f"| {name} | {version} | {spdx} | {texts} |\n")
    (folder / "README.md").write_text(HEADING + "".join(rows))


def copy_texts(archive, folder):
    """Writes the texts of a wheel under the paths that they have in it; yields where."""
    for entry in archive.namelist():
        path = PurePosixPath(entry)
        in_metadata = path.parts[0].endswith(".dist-info") and not entry.endswith("/")
        if in_metadata and (path.parts[1] == "licenses" or path.name.upper().startswith(TEXTS)):
            target = folder.joinpath(*path.parts[2 if path.parts[1] == "licenses" else 1 :])
            if ".." in path.parts:
                raise ValueError(f"{entry!r} in {archive.filename} leads out of its folder")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(entry))
            yield target


def spdx_of(archive):
    """The licence in the metadata: newer wheels have an expression, older ones a word or class."""
    (path,) = (p for p in archive.namelist() if p.endswith(".dist-info/METADATA"))
    metadata = email.parser.Parser().parsestr(archive.read(path).decode())
    stated = metadata["License-Expression"] or metadata["License"] or ""
    if stated and "\n" not in stated and len(stated) < 80:
        return stated
    known = (CLASSIFIERS.get(line) for line in metadata.get_all("Classifier", []))
    return next(filter(None, known), "not stated")
