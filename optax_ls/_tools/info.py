"""The command ``info``: versions, devices, and whether the package is as recorded."""

import argparse
import importlib.metadata
import json
import platform
import sys
from collections import Counter
from typing import Any

import chex
import jax
import numpy as np

from .._version import __version__
from . import SUCCESS
from .vendor.origin import Origin, find_origin, is_verified, source_of
from .vendor.verify import printable

_VERIFIED = {True: "yes", False: "NO: see verify", None: "there is no record"}


def add(commands: Any) -> None:
    """Adds the parser of ``info``."""
    parser = commands.add_parser(
        "info",
        help="print versions, devices, and whether this package is as recorded",
        description="Prints the facts that a bug report or a methods section needs.",
        epilog="Exit status: 0.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    facts = describe(find_origin())
    if options.json:
        print(json.dumps(facts))
        return SUCCESS
    facts["verified"] = _VERIFIED[facts["verified"]]
    if not isinstance(facts["devices"], str):
        kinds = ("{number} x {kind} ({platform})".format(**kind) for kind in facts["devices"])
        facts["devices"] = ", ".join(kinds)
    width = max(map(len, facts))
    for name, fact in facts.items():
        print(f"{name:<{width}}  {printable('unknown' if fact is None else fact)}")
    return SUCCESS


def describe(origin: Origin) -> dict[str, Any]:
    """The facts, as JSON holds them; None for those that are unknown."""
    try:
        revision, _ = source_of(origin)
    except ValueError:
        revision = None
    return {
        "version": __version__,
        "revision": revision,
        "origin": origin.kind,
        "verified": is_verified(origin),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "jax": jax.__version__,
        # By its metadata, since only JAX itself imports jaxlib.
        "jaxlib": next((x.version for x in importlib.metadata.distributions(name="jaxlib")), None),
        "numpy": np.__version__,
        "chex": chex.__version__,
        "platform": _platform(),
        "byteorder": sys.byteorder,
        "x64": jax.dtypes.canonicalize_dtype(float) == np.float64,
        "devices": _devices(),
    }


def _platform() -> str:
    """The system, as Python reports it; ``platform.platform`` would start a program."""
    libc = " ".join(platform.libc_ver())
    parts = (platform.system(), platform.release(), platform.machine(), libc)
    return " ".join(part for part in parts if part.strip())


def _devices() -> Any:
    """Backend, kind and number of the devices; a sentence if JAX cannot start its backend."""
    try:
        devices = jax.devices()
    except RuntimeError as error:
        return f"none: {' '.join(str(error).split())}"
    kinds = Counter((device.platform, device.device_kind) for device in devices)
    return [{"platform": p, "kind": k, "number": n} for (p, k), n in sorted(kinds.items())]
