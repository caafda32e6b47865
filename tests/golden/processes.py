"""Golden runs happen in processes of their own, where nothing but their own flags is set."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from . import records

DTYPES = ("float32", "float64")


def run(dtypes=DTYPES):
    """Makes all runs in some dtypes in parallel; returns what made them, and the runs."""
    started = [start(dtype) for dtype in dtypes]
    runs = {}
    for process in started:
        printed, complaint = process.communicate()
        if process.returncode:
            raise RuntimeError(f"the golden runs failed:\n{complaint}")
        made, some = records.decoded(printed)
        runs.update(some)
    return made, runs


def start(dtype):
    """Starts a process that prints its runs as the file of golden runs has them."""
    package = importlib.util.find_spec("optax_ls").origin
    folders = Path(__file__).parents[1], Path(package).parents[1]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    environment = {
        **kept,
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": str(int(dtype == "float64")),
        "XLA_FLAGS": records.flags(),
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", CODE, dtype], env=environment, **pipes)


CODE = """
import sys
from golden import records, runs

(dtype,) = sys.argv[1:]
named = {f"{name}; {dtype}": run for name, run in runs.all_runs(dtype).items()}
print(records.encoded(records.made_by(), named))
"""
