"""Beyond the objective's own, devices exchange a few sums in an iteration, and nothing else.

Counts are read off compiled programs with ``examples/collectives.py``, for an ordinary iteration:
one trial of the search, no restart, no square that overflows.
"""

import importlib.util
import re
import sys
from pathlib import Path

import jax
import numpy as np
import outputs
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "collectives.py"
PAGE = (ROOT / "docs" / "many-devices.md").read_text()

MANY = pytest.param(50, 1, marks=pytest.mark.slow)
LEAVES_AND_MEMORY = [(1, 2), (1, 20), MANY]
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


combining = pytest.mark.skipif(
    jax.__version_info__ < (0, 5), reason="this JAX joins no all-reduces on CPU"
)


@combining
@pytest.mark.parametrize(("leaves", "memory_size"), LEAVES_AND_MEMORY)
def test_step_of_lbfgs_takes_two_all_reduces(example, compiled, leaves, memory_size):
    args = compiled, example.of_lbfgs, "lbfgs", leaves, memory_size
    assert beyond_the_objective(*args) <= 2


@combining
@pytest.mark.parametrize(("leaves", "memory_size"), LEAVES_AND_MEMORY)
def test_iteration_of_minimize_takes_three_all_reduces(example, compiled, leaves, memory_size):
    args = compiled, example.of_minimize, "minimize", leaves, memory_size
    assert beyond_the_objective(*args) <= 3


@combining
def test_bounds_take_one_more_all_reduce_and_another_where_free_entries_change(example, compiled):
    found = compiled("bounds", 2, 5)
    assert {exchange.kind for exchange in found} == {"all-reduce"}
    assert len(example.of_minimize(found)) - len(compiled("objective", 2, None)) <= 4
    assert max(exchange.numbers for exchange in found) == 3 * 5**2 + 5


@combining
@pytest.mark.parametrize(
    ("name", "others"), [("lbfgs", [2]), ("minimize", [2, 2]), ("bounds", [3, 2, 4])]
)
def test_exchanges_have_the_numbers_of_the_page(example, compiled, name, others):
    m = 20
    ordinary = example.of_lbfgs if name == "lbfgs" else example.of_minimize
    numbers = [exchange.numbers for exchange in ordinary(compiled(name, 1, m))]
    assert sum(numbers) == 2 * m + 4 + sum(others) + 1  # of the objective
    assert "2m + 4 |" in PAGE


@combining
def test_page_shows_what_the_example_prints(example, monkeypatch, capsys):
    command, shown = re.search(r"\$ python examples/(collec.*)\n((?: {4}.*\n|\n)+)", PAGE).groups()
    words = command.split()
    assert words[1:3] == ["--host-devices", "8"]  # as in the tests
    monkeypatch.setattr(sys, "argv", [words[0], *words[3:]])
    if jax.device_count() < 8:
        pytest.skip("needs eight devices")
    example.main()
    printed = capsys.readouterr().out.splitlines()
    assert outputs.differences(shown.splitlines(), printed) == []
    assert len(printed) > 10


@pytest.mark.parametrize("name", ["lbfgs", "minimize"])
@pytest.mark.parametrize(("leaves", "memory_size"), LEAVES_AND_MEMORY)
def test_devices_exchange_sums_and_nothing_else(compiled, name, leaves, memory_size):
    assert {exchange.kind for exchange in compiled(name, leaves, memory_size)} == {"all-reduce"}


@pytest.mark.skipif(jax.__version_info__ < (0, 7), reason="needs explicit axes")
@pytest.mark.parametrize(("name", "number"), [("lbfgs", 2), ("minimize", 3)])
def test_devices_exchange_no_more_on_explicit_axes(example, compiled, name, number):
    ordinary = {"lbfgs": example.of_lbfgs, "minimize": example.of_minimize}[name]
    objective, found = compiled("objective", 2, None), compiled(name, 2, 2, "Explicit")
    assert {exchange.kind for exchange in found} == {"all-reduce"}
    assert len(ordinary(found)) - len(objective) <= number
