"""A type checker knows the types of what users call."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import optax_ls

pytest.importorskip("mypy")
pytestmark = pytest.mark.slow

SCRIPT = """
import jax
import jax.numpy as jnp
import optax_ls
from optax_ls import tree

params = {"w": jnp.ones(3), "b": jnp.ones(())}
updates = {"w": jnp.ones(3), "b": jnp.ones(())}

def fn(params: dict[str, jax.Array]) -> jax.Array:
    return jnp.sum(params["w"] ** 2) + params["b"] ** 2

"""
# An installed package is checked like an imported one here: its own errors are not reported.
OPTIONS = ["--strict", "--config-file=", "--follow-imports=silent"]
ARRAY = "Array"
PARAMS = "dict[str, Array]"

REVEALED = {
    "optax_ls.scale_by_zoom_linesearch(30)": (
        "GradientTransformationExtraArgs[ScaleByZoomLinesearchState]"
    ),
    "optax_ls.scale(2.0)": "GradientTransformation[EmptyState]",
    "optax_ls.lbfgs().init(params)": "tuple[ScaleByLBFGSState, Any, Any]",
    "optax_ls.lbfgs().init(params)[0].weights_memory": ARRAY,
    "optax_ls.lbfgs().init(params)[0].num_pairs": ARRAY,
    "optax_ls.lbfgs().update(updates, optax_ls.lbfgs().init(params), params)[0]": PARAMS,
    "optax_ls.scale_by_zoom_linesearch(30).init(params).value": ARRAY,
    "optax_ls.scale_by_zoom_linesearch(30).init(params).info.num_linesearch_steps": ARRAY,
    "optax_ls.scale_by_more_thuente_linesearch(30).init(params).info.decrease_error": ARRAY,
    "optax_ls.scale_by_backtracking_linesearch(30).init(params).learning_rate": ARRAY,
    "optax_ls.scale_by_linesearch(optax_ls.Zoom(30)).init(params).info.failed": ARRAY,
    "optax_ls.scale(2.0).update(updates, optax_ls.EmptyState())[0]": PARAMS,
    "optax_ls.sgd(0.1).init(params)": "tuple[Any, ...]",
    "optax_ls.minimize(fn, params)": "MinimizeResult[dict[str, Array]]",
    "optax_ls.minimize(fn, params).params": PARAMS,
    "optax_ls.minimize(fn, params).grad": PARAMS,
    "optax_ls.minimize(fn, params).value": ARRAY,
    "optax_ls.minimize(fn, params).success": ARRAY,
    "optax_ls.minimize(fn, params).state.num_evals": ARRAY,
    "optax_ls.minimize(fn, params, linesearch=optax_ls.Zoom(30)).message": "str",
    "optax_ls.apply_updates(params, updates)": PARAMS,
    "tree.add(params, updates)": PARAMS,
    "tree.add_scale(params, 2.0, updates)": PARAMS,
    "tree.cast_like(params, updates)": PARAMS,
    "tree.conj(params)": PARAMS,
    "tree.real(params)": PARAMS,
    "tree.scale(2.0, params)": PARAMS,
    "tree.sub(params, updates)": PARAMS,
    "tree.where(True, params, updates)": PARAMS,
    "tree.zeros_like(params)": PARAMS,
    "tree.norm(params)": ARRAY,
    "tree.sum(params)": ARRAY,
    "tree.vdot(params, updates)": ARRAY,
}


@pytest.fixture(scope="module")
def mypy(tmp_path_factory):
    """Runs ``mypy --strict``, without settings of this project, on a script of a user."""
    folder = tmp_path_factory.mktemp("user")

    def run(script):
        (folder / "script.py").write_text(script)
        done = subprocess.run(
            [sys.executable, "-m", "mypy", *OPTIONS, "script.py"],
            cwd=folder,
            env={"MYPYPATH": str(Path(optax_ls.__file__).parents[1]), "PYTHONPATH": ""},
            capture_output=True,
            text=True,
        )
        assert done.returncode in (0, 1), done.stderr
        return done.stdout.splitlines()

    return run


def shortened(revealed):
    """A type without the names of modules, and with named tuples by their names."""
    text, count = re.sub(r"(\w+\.)+", "", revealed), 1
    while count:
        text, count = re.subn(r"tuple\[[^][]*, fallback=(\w+(\[.*?\]?\])?)\]", r"\1", text)
    return text


@pytest.fixture(scope="module")
def revealed(mypy):
    """The type of each expression."""
    script = SCRIPT + "\n".join(f"reveal_type({expression})" for expression in REVEALED)
    lines = mypy(script)
    assert [line for line in lines if ": error: " in line] == []
    found = [re.search('Revealed type is "(.*)"', line)[1] for line in lines if "Revealed" in line]
    return dict(zip(REVEALED, map(shortened, found), strict=True))


@pytest.mark.parametrize("expression", REVEALED)
def test_type_of(revealed, expression):
    assert revealed[expression] == REVEALED[expression]


def test_misspelled_line_search_is_an_error(mypy):
    lines = mypy(SCRIPT + 'optax_ls.minimize(fn, params, linesearch="zom")')
    assert [line for line in lines if "error" in line and "linesearch" in line]


def test_annotations_need_no_type_parameters(mypy):
    names = "MinimizeResult", "GradientTransformation", "GradientTransformationExtraArgs"
    functions = [f"def f{name}(x: optax_ls.{name}) -> None: ..." for name in names]
    assert not [line for line in mypy(SCRIPT + "\n".join(functions)) if ": error: " in line]


def test_package_is_marked_as_typed():
    assert (Path(optax_ls.__file__).parent / "py.typed").exists()
