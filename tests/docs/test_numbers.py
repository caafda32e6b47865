"""Versions, dates and outputs in README.md and the files beside it are true."""

import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import outputs
import pytest

import optax_ls
from optax_ls._minimize import step, termination

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_changelog_ends_with_this_version_and_its_date():
    version, date = re.search(
        r"^## \[(\d.*)\] - (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    ).groups()
    citation = (ROOT / "CITATION.cff").read_text()
    assert version == optax_ls.__version__
    assert f"\nversion: {version}\ndate-released: {date}\n" in citation


SHOWING = "README.md", "docs/air-gap.md", "docs/reproducibility.md", "benchmarks/RESULTS.md"


@pytest.mark.parametrize("page", SHOWING)
def test_page_shows_files_and_outputs_of_this_version(page):
    versions = re.findall(r"optax_ls[- ](\d+\.\d+\.\d+)", (ROOT / page).read_text())
    assert set(versions) == {optax_ls.__version__}


def test_readme_names_the_requirements_of_the_package():
    oldest = {name: spec.removeprefix(">=") for name, spec in optax_ls._version.REQUIRES.items()}
    assert f"Python 3.10, JAX {oldest['jax']}, chex and NumPy" in " ".join(README.split())


@pytest.mark.parametrize("page", ["README.md", "docs/design.md"])
def test_page_names_the_optax_that_the_tests_use(page):
    locked = re.search(r"^optax==(\S+)", (ROOT / "requirements" / "dev.txt").read_text(), re.M)[1]
    assert set(re.findall(r"Optax (\d+\.\d+\.\d+)", (ROOT / page).read_text())) == {locked}


def test_readme_counts_the_compilations_of_optax_and_its_copies_of_the_objective():
    """Those of this package are counted in tests/core/test_program.py."""
    optax = pytest.importorskip("optax", minversion="0.2.8")
    solver, traces = optax.lbfgs(), []

    def fun(x):
        return jnp.sum(jnp.sinh(x) ** 2)

    value_and_grad = optax.value_and_grad_from_state(fun)

    def step(x, state):
        traces.append(None)
        value, grad = value_and_grad(x, state=state)
        updates, state = solver.update(grad, state, x, value=value, grad=grad, value_fn=fun)
        return optax.apply_updates(x, updates), state

    x, step = jnp.ones(3), jax.jit(step)
    state = solver.init(x)
    copies = step.lower(x, state).as_text().count("chlo.sinh")
    for _ in range(4):
        x, state = step(x, state)
    assert (copies, len(traces)) == (3, 2)
    assert "so `jit(step)` compiles twice |" in README
    assert "| 3 with zoom | 2: one in the line search, one for the start |" in README


@pytest.mark.parametrize(("column", "m"), [(2, 10), (3, 50)])
def test_estimate_for_many_devices_follows_from_its_formulas(column, m):
    gigabytes = 4 / 256  # of a vector, per device

    def traffic(vectors):
        return [vectors * gigabytes, vectors * gigabytes / 2000 * 1000]  # and milliseconds

    wanted = {
        "2m + 8 vectors": [(2 * m + 8) * gigabytes],
        "4m vectors, two passes": traffic(4 * m),
        "2m + 5": [4 * (2 * m + 5)],
        "3": [0.3],
        "1": [0.1],
        "3m^2 + m + 2": [4 * (3 * m**2 + m + 2) / 1000],
        "3m^2 vectors": traffic(3 * m**2),
        "2n numbers, once per evaluation": [2 * 4, 2 * 4 / 50 * 1000],
        "2m + 4 vectors": [4 * (2 * m + 4)],
    }
    page = (ROOT / "docs" / "many-devices.md").read_text()
    table = page.split("| per device |")[1].split("--- |\n")[1]
    rows = [line.split(" | ") for line in table.split("\n\n")[0].splitlines()]
    shown = {row[1]: [float(x) for x in re.findall(r"[\d.]+", row[column])] for row in rows}
    assert shown == {formula: pytest.approx(values, rel=0.05) for formula, values in wanted.items()}


CONSTANTS = {
    r"(\d+) trials in a row": termination._FALLS,
    r"doubled?s? (\d+) times": termination._DOUBLINGS,
    r"(\d+) iterations without a lower value": termination._PATIENCE,
    r"no decrease in (\d+) iterations": termination._PATIENCE,
    r"(\d+) evaluations in a row": termination._CRAWLS,
    r"steps below ([\d.]+)": termination._CRAWL,
    r"less than ([\d.]+) % of the decrease": 100 * step._LEAST_GAIN,
}


@pytest.mark.parametrize("sentence", CONSTANTS)
def test_pages_name_the_constants_of_the_algorithm(sentence):
    pages = " ".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    pages = " ".join(pages.split())  # lines end anywhere
    named = re.findall(sentence, pages)
    assert named
    assert {float(number) for number in named} == {CONSTANTS[sentence]}


def test_page_on_benchmarks_names_the_limits_of_the_runs():
    source = (ROOT / "benchmarks" / "solvers.py").read_text()
    evals, iters = (re.search(rf"^MAX_{x} = (\d+)", source, re.M)[1] for x in ("EVALS", "ITERS"))
    page = (ROOT / "benchmarks" / "README.md").read_text()
    assert f"{evals} evaluations and {iters} iterations" in page


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/design.md"])
def test_modules_that_a_page_names_exist(page):
    modules = {path.name for path in (ROOT / "optax_ls").rglob("*.py")}
    named = set(re.findall(r"[`/ ](\w+\.py)\b", (ROOT / page).read_text()))
    assert len(named) > 5
    tests = {path.name for path in (ROOT / "tests").rglob("*.py")}
    assert named - modules - tests == set()


def test_readme_shows_what_the_command_prints(tmp_path):
    source = next(b for b in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "rosen" in b)
    (tmp_path / "rosen.py").write_text(source.partition("result =")[0])
    call = re.search(r"\$ python -m optax_ls (minimize .*)\n((?: {4}.*\n)+)", README)
    done = subprocess.run(
        [sys.executable, "-m", "optax_ls", *call[1].split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    printed = done.stdout.splitlines()
    assert outputs.differences([line[4:] for line in call[2].splitlines()], printed) == []


@pytest.mark.parametrize(
    ("shown", "printed", "agree"),
    [
        ("evaluations  47", "evaluations  50", True),
        ("evaluations  47", "evaluations  90", False),
        ("value 0.0697", "value 0.069703", True),
        ("value 0.5", "value 0.6", False),
        ("value 0", "value 1.2e-14", True),
        ("|gradient| 8.4e-06", "|gradient| 2.1e-06", True),
        ("|gradient| 8.4e-06", "|gradient| 2.1e-04", False),
        ("success True", "success False", False),
    ],
)
def test_outputs_agree_if_their_numbers_are_close(shown, printed, agree):
    assert outputs.lines_agree(shown, printed) == agree
