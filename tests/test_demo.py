"""The demo falls to scikit-learn's own optimum, and its counter keeps its type."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.5")

DEMO = Path(__file__).parents[1] / "examples" / "digits.py"


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("digits", DEMO)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run(demo, enable_x64):
    """The numbers of one run, and what it printed."""
    lines = []
    demo.print = lambda *words: lines.append(" ".join(map(str, words)))
    with enable_x64(True):
        return demo.main(), "\n".join(lines)


@pytest.fixture
def numbers(run):
    return run[0]


@pytest.fixture
def output(run):
    return run[1]


def test_optimum_is_that_of_scikit_learn(numbers):
    assert numbers["difference"] <= 1e-8


def test_loss_begins_at_the_logarithm_of_the_number_of_digits(numbers):
    np.testing.assert_allclose(numbers["losses"][0], np.log(10))


def test_loss_never_rises_but_by_rounding(numbers):
    assert np.all(np.diff(numbers["losses"]) <= 1e-6 * numbers["losses"][:-1])


def test_most_test_images_are_read(numbers):
    assert numbers["accuracy"] > 0.95


def test_scikit_learn_reads_as_many(numbers):
    assert numbers["accuracy"] == numbers["reference_accuracy"]


@pytest.mark.parametrize("when", ["dtype_before", "dtype_after"])
def test_counter_has_64_bits(numbers, when):
    assert numbers[when] == "int64"


@pytest.mark.parametrize(
    "said", ["iteration", "test accuracy", "relative difference", "int64 before the scan"]
)
def test_output_shows(output, said):
    assert said in output


def test_good_numbers_are_no_reason_to_complain(demo, numbers):
    assert demo.complaint(numbers) is None


@pytest.mark.parametrize("difference", [1e-7, float("nan")])
def test_different_optimum_is_a_reason_to_complain(demo, numbers, difference):
    assert "1e-08 is allowed" in demo.complaint({**numbers, "difference": difference})


def test_counter_of_another_type_is_a_reason_to_complain(demo, numbers):
    assert "became int32" in demo.complaint({**numbers, "dtype_after": "int32"})
