"""Beyond the objective's own, devices exchange a few sums in an iteration, and nothing else.

Counts are read off compiled programs with ``examples/collectives.py``, for an ordinary iteration:
one trial of the search, no restart, no square that overflows.
"""

import importlib.util
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from promises import needs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "collectives.py"

LEAVES_AND_MEMORY = [(1, 10), (12, 1)]
# The compiler chooses the collectives before it makes machine code.
NEVER_RUN = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

PROGRAM = """\
HloModule jit_step, entry_computation_layout={()->f32[]}

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%rare (p: f32[8]) -> f32[] {
  ROOT %all-reduce.3 = f32[] all-reduce(%r), replica_groups={{0,1}}, to_apply=%add
}

%usual (p: f32[8]) -> f32[] {
  ROOT %c = f32[] constant(0)
}

%body.1 (t: (f32[8])) -> (f32[8]) {
  %gather = f32[16]{0} all-gather(%x), channel_id=2, replica_groups={{0,1}}, dimensions={0}
  %cond.2 = f32[] conditional(%i, %p, %p), branch_computations={%usual, %rare}
  ROOT %next = (f32[8]{0}) tuple(%y)
}

%condition.1 (t: (f32[8])) -> pred[] {
  ROOT %go = pred[] constant(false)
}

%called (p: f32[8]) -> f32[] {
  %start = bf16[3]{0} all-reduce-start(%v), replica_groups={{0,1}}, to_apply=%add
  ROOT %done = bf16[3]{0} all-reduce-done(%start)
}

ENTRY %main (p: f32[8]) -> f32[] {
  %all-reduce.1 = (f64[2,5]{1,0}, f32[]) all-reduce(%a, %b), replica_groups={{0,1}}, to_apply=%add
  %call.1 = f32[] call(%p), to_apply=%called
  %loop.1 = (f32[8]{0}) while(%init), condition=%condition.1, body=%body.1
  ROOT %all-reduce.2 = f32[] fusion(%all-reduce.1), kind=kLoop, calls=%add
}
"""


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("collectives", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def mesh(kind):
    if kind == "Auto":
        return Mesh(np.array(jax.devices()[:8]), ("i",))
    return jax.make_mesh((8,), ("i",), axis_types=(getattr(jax.sharding.AxisType, kind),))


@pytest.fixture(scope="module")
def compiled(example):
    """The collectives of the objective, and of an ordinary iteration of each solver."""
    if jax.device_count() < 8:
        pytest.skip("needs eight devices")
    found = {}

    def compiled(name, leaves, memory_size, kind="Auto"):
        key = name, leaves, memory_size, kind
        if key not in found:
            params = example.make_params(leaves, 64, NamedSharding(mesh(kind), PartitionSpec("i")))
            lowered = {
                "objective": lambda: example.lower_objective(params),
                "lbfgs": lambda: example.lower_step(params, memory_size),
                "minimize": lambda: example.lower_minimize(params, memory_size),
                "bounds": lambda: example.lower_minimize(params, memory_size, bounds=(-1.0, 0.5)),
            }[name]()
            found[key] = example.exchanges(lowered.compile(NEVER_RUN).as_text())
        return found[key]

    return compiled


def test_every_collective_of_a_program_is_found_where_it_stands(example):
    found = [(e.where, e.kind) for e in example.exchanges(PROGRAM)]
    assert found == [
        ((), "all-reduce"),
        ((), "all-reduce"),
        (("loop",), "all-gather"),
        (("loop", "branch 1"), "all-reduce"),
    ]


def test_numbers_and_bytes_of_a_collective_are_those_of_its_result(example):
    found = [(e.numbers, e.bytes) for e in example.exchanges(PROGRAM)]
    assert found == [(11, 84), (3, 6), (16, 64), (1, 4)]


def beyond_the_objective(compiled, ordinary, name, leaves, memory_size):
    """The number of all-reduces of an ordinary iteration, without those of the objective."""
    counts = [
        sum(exchange.kind == "all-reduce" for exchange in found)
        for found in (
            compiled("objective", leaves, None),
            ordinary(compiled(name, leaves, memory_size)),
        )
    ]
    assert counts[0] > 0, "the program does not run on several devices"
    return counts[1] - counts[0]


combining = needs("automatic axes: 2 or 3 all-reduces")


@combining
@pytest.mark.parametrize(("leaves", "memory_size"), LEAVES_AND_MEMORY)
@pytest.mark.parametrize(("name", "number"), [("lbfgs", 2), ("minimize", 3)])
def test_iteration_takes_two_or_three_all_reduces(
    example, compiled, name, number, leaves, memory_size
):
    ordinary = getattr(example, f"of_{name}")
    assert beyond_the_objective(compiled, ordinary, name, leaves, memory_size) <= number


@pytest.mark.parametrize("name", ["lbfgs", "minimize"])
@pytest.mark.parametrize(("leaves", "memory_size"), LEAVES_AND_MEMORY)
def test_devices_exchange_sums_and_nothing_else(compiled, name, leaves, memory_size):
    assert {exchange.kind for exchange in compiled(name, leaves, memory_size)} == {"all-reduce"}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("Auto", marks=combining),
        pytest.param("Explicit", marks=needs("mesh with explicit axes")),
    ],
)
@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        # Inner products, and the slopes at both ends.
        ("lbfgs", lambda m: 2 * m + 5 + 2),
        # The largest entries too, and the slope along the params.
        ("minimize", lambda m: 2 * m + 5 + 2 + 2 + 1),
        # A third slope, and the changes of the free entries.
        ("bounds", lambda m: 2 * m + 5 + 3 + 2 + 4 + 1),
    ],
    ids=["lbfgs", "minimize", "bounds"],
)
def test_numbers_in_the_all_reduces_of_an_iteration(example, compiled, name, numbers, kind):
    m = 5
    objective, found = compiled("objective", 2, None, kind), compiled(name, 2, m, kind)
    ordinary = (example.of_lbfgs if name == "lbfgs" else example.of_minimize)(found)
    assert {exchange.kind for exchange in found} == {"all-reduce"}
    assert all(exchange.bytes == 4 * exchange.numbers for exchange in found)
    assert len(ordinary) - len(objective) <= {"lbfgs": 2, "minimize": 3, "bounds": 4}[name]
    exchanged = sum(e.numbers for e in ordinary) - sum(e.numbers for e in objective)
    assert exchanged == numbers(m)
    # In branches: products with a short y, and where the free entries change all coefficients and
    # the scaling of the whole pair.
    largest = 3 * m**2 + m + 2 if name == "bounds" else 2 * m + 5
    assert max(exchange.numbers for exchange in found) == largest


@pytest.mark.skipif(jax.__version_info__ < (0, 7), reason="this JAX joins fewer all-reduces")
@pytest.mark.parametrize("name", ["lbfgs", "minimize"])
def test_page_shows_the_exchanges_of_the_example(example, compiled, name):
    page = (ROOT / "docs" / "many-devices.md").read_text(encoding="utf-8")
    shown = re.search(rf"    An iteration of {name}\b.*\n((    .*\n)+)", page)[1]
    found = compiled(name, 1, 10)
    ordinary = getattr(example, f"of_{name}")(found)
    others = f"  {len(found) - len(ordinary)} more in branches for other cases"
    assert [line[4:] for line in shown.splitlines()] == [*example.table(ordinary), others]
