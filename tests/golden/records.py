"""The file of golden runs, what made it, and how far other runs may be from it.

A run is kept as values and steps in hexadecimal, so that nothing is lost. Where everything that
decides about bits is the same, bits are compared. Elsewhere rounding differs, and L-BFGS, whose
next direction depends on every digit of the last, carries differences on: they grow from iteration
to iteration, and shrink again at the minimum. So there values may drift apart, by
``allowed_drift``; steps may jump, and are not compared.
"""

import hashlib
import importlib.metadata
import json
import math
import platform
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).parent / "golden.json"
EPS = {"float32": 2.0**-23, "float64": 2.0**-52}
# The first of these has the minimum to 2e-7 after thirteen iterations; then a change of the start
# of 2e-16, on one machine with one JAX, becomes one of 4e-8 in the values. In the second, a change
# of one entry of the start by a unit in the last place becomes one of up to 6e-5, and in the third
# one of 0.03.
MAGNIFIES = {
    "stiff_quadratic; minimize; float64": 2.0**14,
    "wood; minimize; float64": 2.0**2,
    "network; minimize; float32": 2.0,
}
# What XLA compiles for; `flags` must not allow more than the first of them.
VECTOR_EXTENSIONS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "sve", "sve2", "asimd")
DECIDE_ABOUT_BITS = ("jax", "jaxlib", "machine", "extensions", "flags")


def flags():
    """The flags of XLA that golden runs are made with.

    The compiler is held to one instruction set, which all but old machines have. In jaxlib 0.10 the
    emitters of fused loops take half of the time of compiling, as tests/conftest.py says.
    """
    chosen = []
    jaxlib = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2]))
    if platform.machine().lower() in ("x86_64", "amd64") and jaxlib >= (0, 6):  # not in 0.4.30
        chosen.append("--xla_cpu_max_isa=AVX2")
    if jaxlib == (0, 10):
        chosen.append("--xla_cpu_use_fusion_emitters=false")
    return " ".join(chosen)


def made_by():
    """The versions and the processor that make the runs of this process."""
    made = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "numpy")}
    made["python"] = platform.python_version()
    made["machine"] = platform.machine()
    made["extensions"] = " ".join(name for name in VECTOR_EXTENSIONS if name in cpu_flags())
    made["flags"] = flags()
    return made


def cpu_flags():
    """The features of the processor, on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    found = (line for line in lines if line.startswith(("flags", "Features")))
    return set(next(found, "").split())


def bits_are_comparable(ours, theirs):
    """True if the same program gives the same bits in both places."""
    return bool(ours["extensions"]) and all(
        ours[name] == theirs[name] for name in DECIDE_ABOUT_BITS
    )


def encoded(made, runs):
    """The file: a line for the values of a run, and one for its steps."""
    lines = []
    for name, course in runs.items():
        values, steps = (json.dumps(" ".join(map(float.hex, numbers))) for numbers in course)
        lines.append(f"  {json.dumps(name)}: [\n   {values},\n   {steps}\n  ]")
    return f'{{\n "made_by": {json.dumps(made)},\n "runs": {{\n' + ",\n".join(lines) + "\n }\n}\n"


def decoded(text):
    """The versions and the processor that made the runs, and the runs."""
    contents = json.loads(text)
    runs = {
        name: tuple([float.fromhex(number) for number in numbers.split()] for numbers in course)
        for name, course in contents["runs"].items()
    }
    return contents["made_by"], runs


def short_digest(path=FILE):
    """Twelve digits that stand for the golden runs in the changelog."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def short_digest_of_bits(runs):
    """Twelve digits that are the same for the same bits, on every machine."""
    return hashlib.sha256(encoded({}, dict(sorted(runs.items()))).encode()).hexdigest()[:12]


def allowed_drift(name, iteration):
    """The largest allowed difference of a value from the golden one, over the first value.

    It doubles from iteration to iteration, to 2e-10 in float64 and 0.1 in float32, but for the runs
    of ``MAGNIFIES``.
    """
    dtype = name.rsplit("; ", 1)[1]
    return EPS[dtype] * min(32 * 2.0**iteration, 2.0**20) * MAGNIFIES.get(name, 1.0)


class Drift(NamedTuple):
    """The difference of a run from its golden one.

    Attributes:
        same_bits: whether values and steps are the same to the last bit.
        largest: the largest difference of values, over the value at the start.
        at: the iteration of it.
        excess: the largest difference over what is allowed there; above 1 it is too much.
    """

    same_bits: bool
    largest: float
    at: int
    excess: float


def drift(name, golden, run):
    """Compares a run, named "problem; solver; dtype", with its golden one."""
    start = abs(golden[0][0])
    pairs = zip(as_it_stands(golden[0]), as_it_stands(run[0]), strict=True)
    differences = [math.inf if math.isnan(a - b) else abs(a - b) / start for a, b in pairs]
    excess = [d / allowed_drift(name, k) for k, d in enumerate(differences)]
    largest = max(differences)
    return Drift(as_bits(golden) == as_bits(run), largest, differences.index(largest), max(excess))


def as_it_stands(values):
    """The values with those after the end of a run, which are NaN, replaced by its last one."""
    values = list(values)
    for k in range(1, len(values)):
        if math.isnan(values[k]):
            values[k] = values[k - 1]
    return values


def as_bits(run):
    return [[number.hex() for number in numbers] for numbers in run]
