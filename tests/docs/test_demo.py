"""The demo falls to scikit-learn's own optimum, and its counter keeps its type."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import outputs
import pytest

pytest.importorskip("sklearn", minversion="1.5")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "digits.py"


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("digits", DEMO)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    return tmp_path_factory.mktemp("demo") / "build" / "digits.png"


@pytest.fixture(scope="module")
def run(demo, picture, enable_x64):
    """The numbers of one run, and what it printed."""
    demo.PICTURE = picture
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


def test_one_call_finds_the_same_optimum(numbers):
    assert numbers["difference_in_one_call"] <= 1e-8
    assert numbers["success"]


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
    "said",
    [
        "iteration",
        "test accuracy",
        "relative difference",
        "int64 before the scan",
        "MinimizeResult",
    ],
)
def test_output_shows(output, said):
    assert said in output


def test_readme_shows_this_output(output):
    pytest.importorskip("matplotlib")
    readme = (ROOT / "README.md").read_text()
    shown = re.search(r"`make demo` fits.*?\n\n((?: {4}[^\n]*\n|\n)+)", readme, re.DOTALL)[1]
    lines = [line for line in shown.splitlines() if line.strip() != "..."]
    assert len(lines) > 10
    assert outputs.differences(lines, output.splitlines()) == []


def test_picture_is_drawn(run, picture):
    pytest.importorskip("matplotlib")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "build/digits.png" in run[1]


def test_without_matplotlib_there_is_no_picture(demo, monkeypatch):
    def absent(result):
        raise ImportError("plot_history needs matplotlib")

    monkeypatch.setattr(demo.optax_ls, "plot_history", absent)
    assert demo.draw(None) == "No picture: plot_history needs matplotlib"


def test_good_numbers_are_no_reason_to_complain(demo, numbers):
    assert demo.complaint(numbers) is None


@pytest.mark.parametrize("which", ["difference", "difference_in_one_call"])
@pytest.mark.parametrize("difference", [1e-7, float("nan")])
def test_different_optimum_is_a_reason_to_complain(demo, numbers, which, difference):
    assert "1e-08 is allowed" in demo.complaint({**numbers, which: difference})


def test_no_success_is_a_reason_to_complain(demo, numbers):
    assert "without success" in demo.complaint({**numbers, "success": False})


def test_counter_of_another_type_is_a_reason_to_complain(demo, numbers):
    assert "became int32" in demo.complaint({**numbers, "dtype_after": "int32"})
