"""The measurements by name, and the process that each runs in."""

import json
import os
import subprocess
import sys

from .machine import machine, versions

# What a measurement needs before JAX starts.
SMALL_LOOP_FLAG = "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=1000000"
ENVIRONMENT = {
    "small_flag": {"XLA_FLAGS": SMALL_LOOP_FLAG},
    "batch": {"JAX_ENABLE_X64": "1"},
    "collectives": {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
}
ALWAYS = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "0"}


def measurement(name):
    """The function that measures: it takes ``quick`` and ``log``, and returns plain data."""
    from . import batch, collectives, first, iterations, programs

    return {
        "first": first.first,
        "large": iterations.large,
        "small": iterations.small,
        "small_flag": iterations.small_flag,
        "growth": iterations.growth,
        "compilation": programs.compilation,
        "memory": programs.memory,
        "batch": batch.batch,
        "collectives": collectives.collectives,
    }[name]


NAMES = (
    *("first", "collectives", "memory", "compilation", "batch"),
    *("small", "small_flag", "large", "growth"),
)


def run(name, quick, path):
    """Runs one measurement in a process of its own, which writes ``path``."""
    # Nothing that the caller has set for JAX is to change what is measured.
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
    inherited.pop("XLA_FLAGS", None)
    environment = {**inherited, **ALWAYS, **ENVIRONMENT.get(name, {})}
    command = [sys.executable, "-m", "benchmarks.speed.plan", name, str(int(quick)), str(path)]
    return subprocess.run(command, env=environment, check=False).returncode == 0


def main(name, quick, path):
    def log(message):
        print(f"{name}: {message}", file=sys.stderr, flush=True)

    data = measurement(name)(bool(int(quick)), log)
    record = {"versions": versions(), "machine": machine(), "data": data}
    draft = f"{path}.draft"
    with open(draft, "w") as file:
        json.dump(record, file)
    os.replace(draft, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
