"""Writes a bill of materials, CycloneDX 1.6: ``python -m distribution.bill``.

A bill lists optax_ls and the packages that it runs on, with versions, licences and dependencies. It
is made of an installation, of a vendored copy, or of the wheels of a wheelhouse. Only wheels get a
hash: the archive that an installed package came from is no longer there to be hashed.
"""

import argparse
import contextlib
import importlib.metadata
import os
import platform
import re
import sys
import time
import uuid
import zipfile
from collections import defaultdict
from datetime import datetime, timezone
from pathlib import Path

from cyclonedx.contrib.license.exceptions import InvalidSpdxLicenseException
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.contrib.this.builders import this_component
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component
from cyclonedx.model.license import LicenseAcknowledgement
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from optax_ls._tools.vendor.origin import INSTALLED, Origin, find_origin, read_record, source_of
from optax_ls._tools.vendor.verify import SUMS, verify
from optax_ls._version import LICENCE, PROJECT

from .build import in_words, sha256

OURS = canonicalize_name(PROJECT)
PLUGINS = "jax_plugins"
DECLARED, CONCLUDED = LicenseAcknowledgement.DECLARED, LicenseAcknowledgement.CONCLUDED
APACHE, BSD, MIT, PSF = "Apache-2.0", "BSD-3-Clause", "MIT", "PSF-2.0"
# Found by reading the licence texts of versions that declare no SPDX identifier.
LICENCES_FOUND = {
    "absl-py": APACHE,
    "chex": APACHE,
    "importlib-metadata": APACHE,
    "jax": APACHE,
    "jaxlib": APACHE,
    "ml-dtypes": APACHE,
    "numpy": BSD,
    "opt-einsum": MIT,
    "scipy": BSD,
    "setuptools": MIT,
    "toolz": BSD,
    "typing-extensions": PSF,
    "zipp": MIT,
}


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m distribution.bill",
        description="Writes a bill of materials (CycloneDX 1.6, JSON) of optax_ls and the packages "
        "that it runs on. The date is SOURCE_DATE_EPOCH if that is set, otherwise now.",
    )
    parser.add_argument("--copy", type=Path, metavar="DIR", help="list a vendored copy")
    parser.add_argument(
        "--packages",
        type=Path,
        metavar="DIR",
        help="the site-packages folder to look for installed packages in; by default that of the "
        "running Python",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: standard output")
    options = parser.parse_args(argv)
    try:
        text = as_json(make(options.copy, options.packages, epoch_now()))
        if options.output is None:
            sys.stdout.write(text)
        else:
            options.output.write_text(text)
    except OSError as error:
        sys.exit(f"no bill of materials was written: {in_words(error)}")


def make(copy, folder, epoch):
    """The bill of a copy, or of the installation if there is no copy."""
    packages = installed(folder)
    ours, requirements = of_copy(copy) if copy else of_installation(packages, folder)
    return bill(ours, requirements, packages, epoch)


def epoch_now():
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or str(int(time.time()))
    if not re.fullmatch(r"\d{1,11}", epoch):
        sys.exit(f"SOURCE_DATE_EPOCH must be whole seconds since 1970, got {epoch!r}")
    return int(epoch)


# The subject of a bill: a component, and what it requires.


def of_copy(folder):
    """A vendored copy, which must be as its record says."""
    try:
        _, differences = verify(folder)
        record = read_record(folder)
    except ValueError as error:
        sys.exit(f"{folder}: {error}")
    if differences:
        sys.exit(f"{folder} is not as recorded: its verify.py lists the changes")
    component = Component(
        name=PROJECT,
        version=record.version,
        bom_ref=f"{PROJECT}@{record.version}",
        licenses=[LicenseFactory().make_with_id(LICENCE, acknowledgement=DECLARED)],
        properties=[
            fact("selection", record.parts),
            fact("revision", record.revision or "unknown"),
            fact(f"SHA-256 of {SUMS}", sha256(folder / SUMS)),
        ],
    )
    return component, [name + versions for name, versions in record.requires.items()]


def of_installation(packages, folder):
    """The optax_ls that is installed in a folder, or that is running if there is no folder."""
    if OURS not in packages:
        sys.exit(f"{PROJECT} is not installed: install it, or name a vendored copy with --copy")
    found = packages[OURS]
    origin = Origin(INSTALLED, found.locate_file(PROJECT), found) if folder else find_origin()
    component = component_of(found)
    component.properties.add(fact("revision", source_of(origin)[0] or "unknown"))
    return component, found.requires


def of_wheels(ours, runtime, epoch):
    """The bill of a wheelhouse: our wheel, and the wheels that it runs on."""
    found = in_wheel(ours)
    packages, hashes = {}, {}
    for wheel in runtime:
        distribution = in_wheel(wheel)
        name = canonicalize_name(distribution.metadata["Name"])
        packages[name], hashes[name] = distribution, sha256(wheel)
    return bill(component_of(found, sha256(ours)), found.requires, packages, epoch, hashes)


# Packages and their dependencies.


def installed(folder=None):
    """The distributions in a folder, or on the path of the running Python, by canonical names."""
    path = sys.path if folder is None else [str(folder)]
    found = {}
    for distribution in importlib.metadata.distributions(path=path):
        if distribution.metadata["Name"]:  # an uninstallation may leave an empty folder
            found.setdefault(canonicalize_name(distribution.metadata["Name"]), distribution)
    return found


def in_wheel(wheel):
    """The distribution in a wheel."""
    (info,) = (x for x in zipfile.Path(wheel).iterdir() if x.name.endswith(".dist-info"))
    return importlib.metadata.PathDistribution(info)


def dependencies(requirements, packages):
    """The packages that requirements lead to, each with the names of those that it needs.

    Requirements of requirements are followed where their markers hold on the running Python and the
    package is there. JAX loads every package that registers as its plugin, so it needs those too,
    with all their extras.
    """
    plugins = [
        (name, ["", *(distribution.metadata.get_all("Provides-Extra") or ())])
        for name, distribution in packages.items()
        if distribution.entry_points.select(group=PLUGINS)
    ]
    needs, seen = defaultdict(set), set()
    waiting = list(needed(requirements))
    for name, extras in waiting:  # the list grows
        for extra in {extra for extra in extras if (name, extra) not in seen and name in packages}:
            seen.add((name, extra))
            found = [*needed(packages[name].requires, extra), *(plugins if name == "jax" else ())]
            needs[name] |= {need for need, _ in found if need in packages}
            waiting += found
    return needs


def needed(requirements, extra=""):
    """The names that requirements ask for on the running Python, each with its extras."""
    for requirement in map(Requirement, requirements or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield canonicalize_name(requirement.name), ["", *requirement.extras]


# The bill.


def bill(ours, requirements, packages, epoch, hashes=()):
    """The bill of a component and of the packages that it requires.

    Args:
        ours: the component that the bill is about.
        requirements: what it requires, each of which must be among the packages.
        packages: distributions by canonical names.
        epoch: the date, in seconds.
        hashes: SHA-256 of the archives of packages, by the same names.
    """
    direct = {name for name, _ in needed(requirements)}
    for name in sorted(direct - packages.keys()):
        sys.exit(f"{name} is not installed as a package with metadata, so it cannot be listed")
    needs = dependencies(requirements, packages)
    components = {name: component_of(packages[name], dict(hashes).get(name)) for name in needs}
    metadata = BomMetaData(
        timestamp=datetime.fromtimestamp(epoch, timezone.utc),
        tools=ToolRepository(components=[this_component()]),
        component=ours,
        properties=[
            fact("python", f"{platform.python_implementation()} {platform.python_version()}"),
            fact("platform", f"{platform.system()} {platform.machine()}"),
        ],
    )
    bom = Bom(components=components.values(), metadata=metadata, serial_number=uuid.UUID(int=0))
    bom.register_dependency(ours, [components[name] for name in direct])
    for name, others in needs.items():
        bom.register_dependency(components[name], [components[other] for other in others])
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_OID, as_json(bom))
    return bom


def as_json(bom):
    """The same text for the same bill."""
    outputter = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6)
    return outputter.output_as_string(indent=2) + "\n"


def fact(name, value):
    return Property(name=f"{PROJECT}:{name}", value=value)


def component_of(distribution, archive=None):
    """The component of a distribution; ``archive`` is the SHA-256 of its archive, if known."""
    name, version = distribution.metadata["Name"], distribution.version
    ours = canonicalize_name(name) == OURS  # may have come another way than from an index
    purl = None if ours else PackageURL("pypi", name=canonicalize_name(name), version=version)
    return Component(
        name=PROJECT if ours else name,
        version=version,
        bom_ref=f"{PROJECT}@{version}" if ours else str(purl),
        purl=purl,
        licenses=licences_of(distribution.metadata),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=archive)] if archive else [],
    )


def licences_of(metadata):
    """The licences that metadata declare, or those that we found; none if nothing is known."""
    factory = LicenseFactory()
    field = (metadata.get("License") or "").strip()
    if declared := metadata.get("License-Expression"):
        return [factory.make_from_string(declared, license_acknowledgement=DECLARED)]
    with contextlib.suppress(InvalidSpdxLicenseException):
        return [factory.make_with_id(field, acknowledgement=DECLARED)]
    if found := LICENCES_FOUND.get(canonicalize_name(metadata["Name"])):
        return [factory.make_with_id(found, acknowledgement=CONCLUDED)]
    classifiers = metadata.get_all("Classifier") or []
    names = [re.split(r"\s*::\s*", x)[-1] for x in classifiers if x.startswith("License ::")]
    names = names or field.splitlines()[:1]
    return [factory.make_with_name(name, acknowledgement=DECLARED) for name in names]


def spdx_ids(bom):
    """The SPDX ids or expressions in a bill by canonical names, for packages that have any."""
    for component in bom.components:
        ids = (getattr(x, "id", None) or getattr(x, "value", None) for x in component.licenses)
        if text := " AND ".join(filter(None, ids)):
            yield canonicalize_name(component.name), text


if __name__ == "__main__":
    main()
