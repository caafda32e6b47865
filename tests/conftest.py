"""Settings of all tests: eight host devices, 64-bit mode per test, no deadline of hypothesis."""

import atexit
import contextlib
import importlib.metadata
import os
import shutil
import tempfile

# Both must stand before JAX looks for devices.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    )

# JAX 0.10 spends half of its compile time, and so of ours, on how fused loops are emitted. The flag
# goes back to how it was done before; later versions are quick and know the flag no more.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"

# Many tests compile the same programs: all workers and processes of a run share them. Workers
# inherit the folder.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="optax_ls-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

# Eight devices on two busy cores may keep each other waiting for longer than the 40 seconds after
# which XLA ends the process. JAX before 0.8 knows no such flag, and does not start with one.
if importlib.metadata.version("jaxlib")[:4] not in ("0.4.", "0.5.", "0.6.", "0.7."):
    os.environ["XLA_FLAGS"] += " --xla_cpu_collective_call_terminate_timeout_seconds=600"

import jax
import pytest
from jax import experimental

with contextlib.suppress(ImportError):
    import hypothesis

    # Compilation makes the first example slow; that says nothing about the code.
    hypothesis.settings.register_profile("no deadline", deadline=None)
    hypothesis.settings.load_profile("no deadline")


def pytest_configure(config):
    """Declares the markers, because tests of a vendored copy may run without setup.cfg."""
    for marker in ("runtime", "slow"):
        config.addinivalue_line("markers", f"{marker}: see setup.cfg of the project")


# Linux allows a process 65,530 memory mappings and ends it beyond that. Each compiled program that
# JAX keeps takes about seven, and the whole suite in two processes comes near the limit.
MAX_MAPPINGS = 30_000


@pytest.fixture(scope="module", autouse=True)
def clear_compiled_programs():
    """Clears JAX's caches after a module if the process holds many compiled programs."""
    yield
    with contextlib.suppress(OSError), open("/proc/self/maps") as mappings:
        if sum(1 for _ in mappings) > MAX_MAPPINGS:
            jax.clear_caches()


@pytest.fixture(scope="session")
def enable_x64():
    """The context manager that switches 64-bit mode, from where this JAX keeps it."""
    return jax.enable_x64 if hasattr(jax, "enable_x64") else experimental.enable_x64


@pytest.fixture(params=[False, True], ids=["x32", "x64"])
def x64(request, enable_x64):
    """Runs a test in both modes, or in those that it names by indirect parametrisation."""
    with enable_x64(request.param):
        yield request.param
