"""The golden runs come out as they did, to the bit where the same program makes them.

Only these need the marker by test rather than by file: a vendored tree has no golden runs.
"""

import math
from pathlib import Path

import pytest

from golden import processes, records

ROOT = Path(__file__).parents[2]
MADE, GOLDEN = records.decoded(records.FILE.read_text())
NAME = "rosenbrock; minimize; float64"
VALUES, STEPS = GOLDEN[NAME]


@pytest.mark.slow
@pytest.mark.runtime
@pytest.mark.parametrize("dtype", processes.DTYPES)
def test_runs_are_golden(dtype):
    made, runs = processes.run([dtype])
    drifts = {name: records.drift(name, GOLDEN[name], run) for name, run in runs.items()}
    if records.bits_are_comparable(MADE, made):
        assert {name: drift for name, drift in drifts.items() if not drift.same_bits} == {}
    else:
        assert {name: drift for name, drift in drifts.items() if drift.excess > 1} == {}


def test_there_are_thirteen_problems_for_each_solver_and_dtype():
    names = [name.split("; ") for name in GOLDEN]
    problems, solvers, dtypes = ({name[k] for name in names} for k in range(3))
    assert (len(problems), len(solvers), dtypes) == (13, 3, set(processes.DTYPES))
    assert len(GOLDEN) == len(problems) * len(solvers) * len(dtypes)


def test_runs_have_thirty_iterations():
    assert {(len(values), len(steps)) for values, steps in GOLDEN.values()} == {(31, 30)}


@pytest.mark.parametrize(
    ("problem", "value"),
    [
        ("rosenbrock", 6 * 24.2),
        ("powell_singular", 3 * 215),
        ("wood", 3 * 19192),
        ("beale", 6 * 14.203125),
        ("helical_valley", 4 * 2500),
        ("logistic_regression", math.log(2)),
    ],
)
def test_values_at_the_start_are_those_of_the_literature(problem, value):
    for solver in ("lbfgs, zoom", "lbfgs, backtracking", "minimize"):
        values, _ = GOLDEN[f"{problem}; {solver}; float64"]
        assert values[0] == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("name", GOLDEN)
def test_no_golden_run_ends_above_its_start(name):
    values = records.as_it_stands(GOLDEN[name][0])
    assert values[-1] < values[0]


def test_changelog_explains_these_golden_runs():
    assert f"golden runs {records.short_digest()}" in " ".join(
        (ROOT / "CHANGELOG.md").read_text().split()
    )


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "CHANGELOG.md", "docs/reproducibility.md"])
def test_pages_say_how_many_problems_there_are(page):
    assert "thirteen problems" in " ".join((ROOT / page).read_text().split())


def test_page_has_the_tolerances_and_the_number_of_runs():
    page = " ".join((ROOT / "docs" / "reproducibility.md").read_text().split())
    assert f"all {len(GOLDEN)} runs" in page
    largest = {dtype: records.allowed_drift(f"p; s; {dtype}", 30) for dtype in processes.DTYPES}
    assert f"{largest['float64']:.1e} in float64 and {largest['float32']:g} in float32" in page
    assert records.allowed_drift("p; s; float32", 3) == 32 * 2**3 * records.EPS["float32"]
    stiff, wood, network = (math.log2(factor) for factor in records.MAGNIFIES.values())
    assert (
        f"2^{stiff:.0f} times as large for a stiff quadratic, 2^{wood:.0f} times for Wood's" in page
    )
    assert f"and 2^{network:.0f} times for a network in float32" in page


# How runs are kept and compared.


def test_file_keeps_every_bit():
    numbers = [0.1, -0.0, 5e-324, math.inf, 1.7976931348623157e308]
    _, runs = records.decoded(records.encoded(MADE, {"a": (numbers, [math.nan])}))
    assert records.as_bits(runs["a"]) == records.as_bits((numbers, [math.nan]))


def changed(k, factor):
    values = list(VALUES)
    values[k] *= factor
    return values, STEPS


def test_run_has_the_bits_of_itself():
    assert records.drift(NAME, GOLDEN[NAME], GOLDEN[NAME]) == (True, 0.0, 0, 0.0)


@pytest.mark.parametrize("k", [0, 1, 7])
def test_one_bit_is_seen_and_tolerated(k):
    drift = records.drift(NAME, GOLDEN[NAME], changed(k, 1 + 2.0**-52))
    assert not drift.same_bits
    assert 0 < drift.excess <= 1
    assert drift.at == k


def test_another_step_is_seen():
    steps = [*STEPS[:5], STEPS[5] + 1, *STEPS[6:]]
    assert not records.drift(NAME, GOLDEN[NAME], (VALUES, steps)).same_bits


@pytest.mark.parametrize("k", [0, 5, 10])
def test_other_digits_are_too_far(k):
    assert records.drift(NAME, GOLDEN[NAME], changed(k, 1 + 1e-6)).excess > 1


@pytest.mark.parametrize("k", [0, 5, 10])
def test_run_that_ends_too_early_is_too_far(k):
    values = [*VALUES[:k], *[math.nan] * (31 - k)]
    assert records.drift(NAME, GOLDEN[NAME], (values, STEPS)).excess > 1


def test_run_that_ends_at_the_minimum_is_no_drift():
    finished = [1.0, 0.5, 0.0, math.nan], [1.0, 1.0, math.nan]
    went_on = [1.0, 0.5, 0.0, 0.0], [1.0, 1.0, 1.0]
    assert records.drift(NAME, went_on, finished).largest == 0


@pytest.mark.parametrize("name", records.DECIDE_ABOUT_BITS)
def test_bits_are_not_compared_with_another(name):
    assert records.bits_are_comparable(MADE, MADE)
    assert not records.bits_are_comparable(MADE, {**MADE, name: "another"})


def test_bits_are_not_compared_where_the_instruction_set_is_unknown():
    unknown = {**MADE, "extensions": ""}
    assert not records.bits_are_comparable(unknown, unknown)
