"""What a report of a bug or a section on methods has to say of the software that ran."""

import importlib.metadata
import platform
import sys
from typing import Any, Optional

import chex
import jax
import numpy as np

from .._version import __version__
from .vendor.origin import Origin, find_source
from .vendor.record import Malformed
from .vendor.verify import is_verified


def describe(origin: Origin) -> dict[str, Any]:
    """The versions that are running, where they run, and whether the package is as recorded."""
    try:
        revision = find_source(origin).revision
    except Malformed:
        revision = None
    return {
        "version": __version__,
        "revision": revision,
        "origin": origin.kind,
        "verified": is_verified(origin),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "jax": jax.__version__,
        "jaxlib": _jaxlib(),
        "numpy": np.__version__,
        "chex": chex.__version__,
        "platform": _platform(),
        "byteorder": sys.byteorder,
        "x64": jax.dtypes.canonicalize_dtype(float) == np.float64,
        "devices": _devices(),
    }


def _jaxlib() -> Optional[str]:
    """The version by its metadata, since only JAX itself imports jaxlib; None without them."""
    try:
        return importlib.metadata.version("jaxlib")
    except importlib.metadata.PackageNotFoundError:
        return None


def _platform() -> str:
    """The system, by what Python knows of it; ``platform.platform`` would start a program."""
    libc = " ".join(platform.libc_ver())
    parts = (platform.system(), platform.release(), platform.machine(), libc)
    return " ".join(part for part in parts if part.strip())


def _devices() -> Any:
    """Backend, kind and number of the devices; in words if JAX cannot start its backend."""
    try:
        devices = jax.devices()
    except RuntimeError as error:
        return f"none: {' '.join(str(error).split())}"
    kinds = [(device.platform, device.device_kind) for device in devices]
    return [
        {"platform": platform, "kind": kind, "number": kinds.count((platform, kind))}
        for platform, kind in sorted(set(kinds))
    ]
