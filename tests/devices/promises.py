"""The modes of JAX on many devices, and the first version of JAX that each of them needs.

Tests take their skips from here. ``docs/many-devices.md`` has the same as a table.
"""

import jax
import pytest

FIRST_JAX = {
    "mesh with automatic axes": (0, 4, 30),
    "automatic axes: 2 or 3 all-reduces": (0, 5),
    "mesh with explicit axes": (0, 7),
    "explicit axes: `vmap` over an unsharded axis": (0, 7),
    "explicit axes: `vmap` over a sharded axis": (0, 10),
    "`shard_map`, `check_vma=True`": (0, 7),
    "`shard_map`, `check_vma=False`": (0, 4, 30),
    "`pmap`": (0, 4, 30),
    "several processes, automatic axes": (0, 8),
    "several processes, explicit axes": (0, 8),
}


def works(mode):
    return jax.__version_info__ >= FIRST_JAX[mode]


def needs(mode):
    """Skips a test where JAX lacks the mode."""
    first = ".".join(map(str, FIRST_JAX[mode]))
    return pytest.mark.skipif(not works(mode), reason=f"needs JAX {first}: {mode}")


def fails_without(mode):
    """Expects a test to fail where JAX has the mode, but with faults."""
    return pytest.mark.xfail(not works(mode), strict=True, reason=f"fault of this JAX: {mode}")
