"""The bill of materials: the package and what it runs on, as CycloneDX 1.6.

**Hashes.** The archive that a dependency was installed from is gone, so its hash is not known. What
stands in the bill is the SHA-256 of a list, in the order of the paths: for each file of the
distribution a line of its SHA-256, two spaces, its path and a newline. Such a list is what
``sha256sum`` prints. It is taken of the files as they are on the disk now, without those that the
installer wrote and those outside of the folder of packages, so it is the same wherever the same
archive is installed. A property says so beside each.

**Licences** are those that a distribution declares, if they are SPDX identifiers; otherwise those
that we found when we read them ("concluded"); otherwise its own words.
"""

import json
import platform
import re
import urllib.parse
import uuid
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from .._version import LICENCE, PROJECT, REQUIRES, __version__
from .common import Refusal
from .requirements import Installed, normalised
from .vendor.files import BYTECODE, digest, digest_of, listed, why
from .vendor.origin import CHECKOUT, Origin, Source, dated, record_rows
from .vendor.record import RECORD, Malformed, check_path

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_BY_INSTALLERS = {"INSTALLER", "RECORD", "REQUESTED", "direct_url.json", "uv_cache.json"}
_HOW = "SHA-256 of the list of its files, as sha256sum prints it, in the order of their paths"
_APACHE, _BSD, _MIT, _PSF = "Apache-2.0", "BSD-3-Clause", "MIT", "PSF-2.0"
_SPDX = {_APACHE, _BSD, _MIT, _PSF, "0BSD", "BSD-2-Clause", "ISC", "MPL-2.0", "Zlib"}
# As we read them, for versions that declare no SPDX identifier.
_CONCLUDED = {
    "absl-py": _APACHE,
    "chex": _APACHE,
    "importlib-metadata": _APACHE,
    "jax": _APACHE,
    "jaxlib": _APACHE,
    "ml-dtypes": _APACHE,
    "numpy": _BSD,
    "opt-einsum": _MIT,
    "scipy": _BSD,
    "setuptools": _MIT,
    "toolz": _BSD,
    "typing-extensions": _PSF,
    "zipp": _MIT,
}


def bill(origin: Origin, source: Source, installed: dict[str, Installed]) -> bytes:
    """The bill of materials as JSON: the same bytes for the same installation and date.

    Args:
        origin: of the package.
        source: likewise.
        installed: its run-time dependencies.

    Raises:
        Refusal: one of those that it needs directly is not known as a distribution.
    """
    for name in REQUIRES:
        if name not in installed:
            raise Refusal(
                f"{name} is not installed as a distribution with metadata: nothing is known of it"
            )
    ours = _ours(origin, source)
    refs = {name: _purl(name, x.distribution.version) for name, x in installed.items()}
    needs = {ours["bom-ref"]: {refs[name] for name in REQUIRES}}
    needs |= {refs[name]: {refs[need] for need in x.needs} for name, x in installed.items()}
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": _metadata(ours),
        "components": [_component(refs[name], x.distribution) for name, x in installed.items()],
        "dependencies": [{"ref": ref, "dependsOn": sorted(needs[ref])} for ref in needs],
    }
    identity = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(document, sort_keys=True))
    document["serialNumber"] = identity.urn
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()


def _metadata(ours: dict[str, Any]) -> dict[str, Any]:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return {
        "timestamp": dated(),
        "tools": {"components": [{"type": "application", **_named(PROJECT, __version__)}]},
        "component": ours,
        "properties": [
            _property("python", python),
            _property("platform", f"{platform.system()} {platform.machine()}"),
        ],
    }


def _named(name: str, version: str) -> dict[str, str]:
    return {"name": name, "version": version}


def _property(name: str, value: str) -> dict[str, str]:
    return {"name": f"{PROJECT}:{name}", "value": value}


def _purl(name: str, version: str) -> str:
    return f"pkg:pypi/{name}@{urllib.parse.quote(version, safe='')}"


def _ours(origin: Origin, source: Source) -> dict[str, Any]:
    """The package itself. It has no address at a package index: it may have come another way."""
    files = {path: x for path, x in listed(origin.package).files.items() if path != RECORD}
    if origin.kind == CHECKOUT:
        files = {path: x for path, x in files.items() if path.endswith((".py", "py.typed"))}
    return {
        "type": "library",
        "bom-ref": f"{PROJECT}@{__version__}",
        **_named(PROJECT, __version__),
        "licenses": [{"license": {"id": LICENCE, "acknowledgement": "declared"}}],
        **_hashed(files.items(), ("revision", source.revision or "unknown")),
    }


def _component(ref: str, distribution: Distribution) -> dict[str, Any]:
    licences = _licences(distribution)
    return {
        "type": "library",
        "bom-ref": ref,
        "purl": ref,
        **_named(distribution.metadata["Name"], distribution.version),
        **({"licenses": licences} if licences else {}),
        **_hashed(_shipped(distribution)),
    }


def _shipped(distribution: Distribution) -> Iterator[tuple[str, "Traversable"]]:
    """The files that were in the archive, by their paths.

    Raises:
        Malformed: the installer left no record of them that can be used.
    """
    for path, _, _ in record_rows(distribution):
        try:
            check_path(path)
        except Malformed:  # a script, or data: outside of the folder of packages
            continue
        first, *rest = path.split("/")
        by_installer = first.endswith(".dist-info") and rest and rest[-1] in _BY_INSTALLERS
        if not by_installer and BYTECODE not in rest:
            yield path, distribution.locate_file(path)  # type: ignore[misc]


def _hashed(
    files: Iterable[tuple[str, "Traversable"]], *properties: tuple[str, str]
) -> dict[str, Any]:
    """The hash of so many files, and the property that says what it is, or why there is none."""
    hashes: list[dict[str, str]] = []
    try:
        lines = [f"{digest_of(file)}  {path}\n" for path, file in sorted(files, key=itemgetter(0))]
        hashes.append({"alg": "SHA-256", "content": digest("".join(lines).encode())})
        how = _HOW
    except Malformed as error:
        how = f"none: the installer's record of its files: {error}"
    except OSError as error:
        how = f"none: a file cannot be read: {why(error)}"
    told = [_property(name, value) for name, value in (*properties, ("hash", how))]
    return {**({"hashes": hashes} if hashes else {}), "properties": told}


def _licences(distribution: Distribution) -> list[dict[str, Any]]:
    """The licence in CycloneDX's words; none if nothing is known."""
    metadata: Any = distribution.metadata
    declared, field = metadata.get("License-Expression"), (metadata.get("License") or "").strip()
    if declared and declared not in _SPDX:
        return [{"expression": declared, "acknowledgement": "declared"}]
    if (declared or field) in _SPDX:
        return [{"license": {"id": declared or field, "acknowledgement": "declared"}}]
    if concluded := _CONCLUDED.get(normalised(metadata["Name"])):
        return [{"license": {"id": concluded, "acknowledgement": "concluded"}}]
    classifiers = metadata.get_all("Classifier") or []
    names = [re.split(r"\s*::\s*", x)[-1] for x in classifiers if x.startswith("License ::")]
    names = names or field.splitlines()[:1]
    return [{"license": {"name": name, "acknowledgement": "declared"}} for name in names]
