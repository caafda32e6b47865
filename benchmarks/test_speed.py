"""The parts of the page of results. Run with ``python -m pytest benchmarks``."""

import math
import platform
from collections import Counter

import jax.numpy as jnp
import pytest

from .counting import Tally, counted
from .speed import derive, machine, sections, targets
from .speed.__main__ import main
from .speed.collectives import tally
from .speed.hlo import Collective, collectives, numbers
from .speed.loops import LENGTHS, LOOPS, prepare, quadratic, start
from .speed.page import page
from .speed.plan import NAMES, measurement
from .speed.programs import Network

PROGRAM = """\
ENTRY %main (x: f32[8]) -> f32[] {
  %x = f32[8]{0} parameter(0)
  %all-reduce.2 = f32[3,7]{1,0} all-reduce(%x), channel_id=1, to_apply=%add
  %all-reduce.5 = (f32[], f32[10]{0}, /*index=2*/f32[3,7]{1,0}) all-reduce(%a, %b, %c)
  %gte = f32[] get-tuple-element(%all-reduce.5), index=0
  all-reduce-start.1 = f32[] all-reduce-start(%gte), channel_id=3
  all-reduce-done.1 = f32[] all-reduce-done(%all-reduce-start.1)
  %g = f32[8]{0} all-gather(f32[1]{0} %x), dimensions={0}
  ROOT %p = f32[8]{0} collective-permute(%g), metadata={op_name="all-to-all(x)"}
}
"""


def record(seconds, iterations=(15, 35), evaluations=(15, 35), **facts):
    """Of solvers whose two loops always take the same time, beside an objective of 1 ms."""
    solvers = {
        name: {
            "iterations": list(iterations),
            "evaluations": list(evaluations),
            "seconds": [[0.5] * 3, [0.5 + 20 * each] * 3],
        }
        for name, each in {"objective": 0.001, **seconds}.items()
    }
    facts = {"n": 1_000_000, "memory": 10, "sweep": [0.002] * 3, **facts}
    return {"lengths": [15, 35], "solvers": solvers, **facts}


TIMES = {"minimize": 0.007, "lbfgs": 0.009, "optax": 0.02, "jaxopt": 0.03, "optimistix": 0.025}


def records():
    """All measurements, made up."""
    program = {"trace": [1.0], "compile": [2.0], "copies": 1, "traces": 2}
    solved = {"seconds": [1.0], "converged": 1000, "evaluations": 5, "compilation": 1.0}
    devices = {
        "in_program": numbers([]),
        "iterations": 20,
        "evaluations": 20,
        "own": 1.0,
        "beyond": 2.0,
    }
    solvers = list(TIMES)
    data = {
        "large": [record(TIMES)],
        "small": [record({**TIMES, "scipy": 0.1}, n=10, sweep=None)],
        "small_flag": [record({**TIMES, "scipy": 0.1}, n=10, sweep=None)],
        "growth": {
            "n": [
                record({name: times * t for name, t in TIMES.items()}, n=times * 1_000_000)
                for times in (1, 4, 10)
            ],
            "m": [record(TIMES, memory=5), record(TIMES, memory=50)],
        },
        "first": {"n": 5, "solvers": dict.fromkeys(solvers, solved)},
        "compilation": {"layers": 20, "leaves": 40, "solvers": dict.fromkeys(solvers, program)},
        "memory": {"n": 1_000_000, "memory": 10, "words": dict.fromkeys(solvers, 28.0)},
        "batch": [
            {
                "size": 1000,
                "dimension": 10,
                "solvers": dict.fromkeys([*solvers, "minimize-map"], solved),
            }
        ],
        "collectives": [
            {
                "leaves": 1,
                "memory": 10,
                "solvers": dict.fromkeys(("minimize", "lbfgs", "optax"), devices),
            }
        ],
    }
    facts = {"versions": {"jax": "1"}, "machine": {"CPU": "one", "cores": 2}}
    return {name: {**facts, "data": data[name]} for name in NAMES}


def rows(name, data, jax="0.10.2"):
    found = targets.ROWS[name](data=data, versions={"jax": jax})
    return [dict(zip(COLUMNS, row, strict=True)) for row in found]


COLUMNS = "what", "target", "minimize", "lbfgs", "peer", "reached"


# Collectives.


def test_collectives_are_found_with_their_shapes():
    assert collectives(PROGRAM) == [
        Collective("all-reduce.2", "all-reduce", ("f32[3,7]",)),
        Collective("all-reduce.5", "all-reduce", ("f32[]", "f32[10]", "f32[3,7]")),
        Collective("all-reduce-start.1", "all-reduce", ("f32[]",)),
        Collective("g", "all-gather", ("f32[8]",)),
        Collective("p", "collective-permute", ("f32[8]",)),
    ]


def test_numbers_name_the_kinds_that_are_not_there_too():
    found = numbers(collectives(PROGRAM))
    assert found["all-reduce"] == 3
    assert found["all-to-all"] == found["reduce-scatter"] == 0


def test_all_reduce_of_every_evaluation_counts_once_and_one_in_a_loop_as_often_as_it_runs():
    instructions = collectives(PROGRAM)
    executed = Counter({"all-reduce.2": 26, "all-reduce.5": 26, "all-reduce-start.1": 200})
    assert tally(instructions, executed, 20, 26) == {"own": 2, "beyond": 10}


# Numbers.


def test_iteration_is_the_difference_of_both_loops_over_the_iterations_between():
    assert derive.per_iteration(record({"optax": 0.02}), "optax") == pytest.approx(0.02)


def test_objective_is_subtracted_once_for_each_evaluation():
    data = record({"optax": 0.02}, evaluations=(20, 60))
    assert derive.beyond_objective(data, "optax") == pytest.approx(0.018)
    assert derive.over_two_sweeps(data, "optax") == pytest.approx(0.018 / 0.004)


def test_slow_runs_of_the_objective_make_no_solver_look_fast():
    data = record({"optax": 0.02})
    seconds = data["solvers"]["objective"]["seconds"]
    data["solvers"]["objective"]["seconds"] = [[*s, *(10 * t for t in s)] for s in seconds]
    assert derive.beyond_objective(data, "optax") == derive.beyond_objective(
        record({"optax": 0.02}), "optax"
    )


def test_solver_that_stopped_before_the_shorter_limit_has_no_time():
    assert math.isnan(derive.per_iteration(record({"optax": 0.02}, (12, 12)), "optax"))


def test_time_within_the_noise_is_reported_as_none():
    data = record({**TIMES, "jaxopt": -0.001, "minimize": 0.01}, n=10)
    assert math.isnan(derive.per_iteration(data, "jaxopt"))
    (row,) = rows("small", [data])
    assert row["minimize"] == pytest.approx(0.5)
    assert (row["peer"], row["reached"]) == ("1.00 (optax)", "yes")


@pytest.mark.parametrize(("jax", "target"), [("0.10.2", "1.8"), ("0.12.0.1", "1.3")])
def test_target_of_small_problems_is_that_of_the_version_of_jax(jax, target):
    (row,) = rows("small", [record({**TIMES, "minimize": 0.02}, n=10)], jax)
    assert row["target"] == target


def test_best_is_the_least_of_the_peers_and_never_ours():
    values = {"minimize": 1.0, "optax": 3.0, "jaxopt": 2.0, "optimistix": math.nan}
    assert derive.best(values) == ("jaxopt", 2.0)


def test_growth_of_a_line_through_zero_is_one_and_off_no_line():
    lines = [record({"minimize": 0.001 + n * 1e-9}, n=n) for n in (1000, 3000, 10_000)]
    assert derive.growth_ratio(lines, "n", "minimize") == pytest.approx(1)
    assert derive.largest_deviation(lines, "n", "minimize") == pytest.approx(0, abs=1e-6)


def test_growth_of_a_square_is_reported():
    squares = [record({"minimize": 0.001 + n**2 * 1e-9}, n=n) for n in (1000, 3000, 10_000)]
    assert derive.growth_ratio(squares, "n", "minimize") == pytest.approx(10)
    assert derive.largest_deviation(squares, "n", "minimize") > 0.15


# The page.


def test_page_has_a_row_for_every_target():
    text = page(records(), "picture.png")
    for what in (
        "minimize: one iteration beyond",
        "lbfgs: one iteration beyond",
        "first answer over Optax's, n = 5",
        "time of an evaluation over Optax's, n = 10",
        "growth of time over that of n, n = 1,000,000 to 10,000,000",
        "growth of time over that of n, n = 4,000,000 to 10,000,000",
        "growth of time over that of m, m = 5 to 50",
        "trace and compilation over Optax's, network of 20 layers",
        "copies of the objective",
        "traces of the objective",
        "temporary memory, words per parameter",
        "1,000 Rosenbrock problems, minimize, over Optax's vmap",
        "all-reduces per iteration beyond the objective's, 1 leaf",
        "other collectives in the program, 1 leaf",
    ):
        assert f"| {what}" in text
    assert "![Time per iteration against n](picture.png)" in text
    assert "nan" not in text


def test_page_says_what_was_not_measured():
    text = page({"memory": records()["memory"]}, None)
    assert text.count("Not measured yet") == len(NAMES) - 1
    assert text.count("not measured") == len(NAMES) - 1


def test_quick_page_says_that_its_numbers_mean_nothing():
    assert "mean nothing" in page(records(), None, quick=True)
    assert "mean nothing" not in page(records(), None)


def test_page_names_the_machine_of_each_measurement_if_they_differ():
    mixed = records()
    assert page(mixed, None).count("CPU one") == 1
    mixed["batch"]["machine"] = {"CPU": "other", "cores": 2}
    text = page(mixed, None)
    assert "\nbatch: CPU other, cores 2, jax 1." in text


def test_sections_are_those_that_are_measured():
    assert set(targets.ROWS) == set(NAMES)
    assert all(callable(getattr(sections, name)) and measurement(name) for name in NAMES)


@pytest.mark.parametrize(("seconds", "reached"), [(0.0077, "yes"), (0.0079, "no")])
def test_iteration_must_be_below_the_limit(seconds, reached):
    first, _ = rows("large", [record({**TIMES, "minimize": seconds})])
    assert first["reached"] == reached


def test_batch_that_does_not_converge_misses_the_target():
    solved = {"seconds": [1.0], "converged": 10}
    missed = {"seconds": [0.1], "converged": 9}
    solvers = {"minimize": missed, "minimize-map": {**missed, "converged": 10}, "optax": solved}
    in_vmap, in_map = rows("batch", [{"size": 10, "solvers": solvers}])
    assert (in_vmap["minimize"], in_vmap["reached"]) == (0.1, "no")
    assert (in_map["minimize"], in_map["reached"]) == (0.1, "yes")


def test_only_without_names_writes_the_page_from_what_there_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["--quick", "--only"])
    text = (tmp_path / "build" / "bench-quick" / "RESULTS.md").read_text()
    assert text.count("Not measured yet") == len(NAMES)


def test_machine_is_described_by_its_parts_and_not_by_its_name():
    text = str({**machine.machine(), **machine.versions()})
    assert "CPU" in text
    assert platform.node() not in text


# The loops.


@pytest.mark.parametrize("name", ["minimize", "lbfgs", "optax", "optimistix"])
def test_solvers_count_the_evaluations_that_are_made(name):
    seen = Tally()
    params, data = start(20)
    fun = counted(lambda x: quadratic(x, data), seen)
    _, evals = prepare(name, lambda x, _: fun(x), params, jnp.zeros(()), 15, 10)()
    assert evals == seen.evals


@pytest.mark.parametrize("name", [*LOOPS, "scipy"])
def test_loops_make_the_iterations_that_are_measured(name):
    params, data = start(1000)
    counts = [prepare(name, quadratic, params, data, length, 10)() for length in LENGTHS]
    iterations = [iterations for iterations, _ in counts]
    assert 0.9 * 20 <= iterations[1] - iterations[0] <= 20


def test_copies_of_the_objective_are_counted_in_the_lowered_program():
    assert Network.copies("%1 = chlo.sinh %0\n%2 = chlo.sinh %1\n%3 = chlo.asinh %2") == 2
