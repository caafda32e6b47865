"""The versions and the machine, described by its parts and not by its name."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

LIBRARIES = "jax", "jaxlib", "optax", "jaxopt", "optimistix", "scipy", "numpy"


def versions():
    import optax_ls

    others = {name: version(name) for name in LIBRARIES}
    return {"optax_ls": optax_ls.__version__, **others, "Python": platform.python_version()}


def machine():
    """CPU, cores, caches and memory, as far as the system reports them."""
    found = {"CPU": _model(), "cores": os.cpu_count()}
    found.update(_caches(Path("/sys/devices/system/cpu/cpu0/cache")))
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        found["memory"] = f"{size / 2**30:.0f} GiB"
    except (ValueError, OSError, AttributeError):
        pass
    return found


def _model():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    model = facts.get("model name", platform.machine())
    if "cpu family" in facts:
        model += f" (family {facts['cpu family']}, model {facts.get('model')})"
    return model


def _caches(folder):
    found = {}
    for index in sorted(folder.glob("index*")):
        try:
            level, kind, size = (
                (index / name).read_text().strip() for name in ("level", "type", "size")
            )
        except OSError:
            continue
        if kind != "Instruction":
            found[f"L{level} cache"] = size
    return found
