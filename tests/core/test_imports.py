"""Imports go one way, and public names live in the root package.

A folder of the package may import the folders below it: ``_core`` is at the bottom, then
``_minimize``, then ``_tools``.
"""

import ast
import pickle
import pickletools
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

import optax_ls
from optax_ls._version import REQUIRES

PACKAGE = Path(optax_ls.__file__).parent
MODULES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
TOP = {name.partition("/")[0].removesuffix(".py") for name in MODULES}
# The modules and folders at the top of the package that each of them may import.
MAY_IMPORT = {
    "_version": set(),
    "_core": {"_core"},
    "_minimize": {"_core", "_minimize", "_version"},
    "_tools": TOP,
    "tree": {"_core"},
    "testing": {"_core"},
    "_drop_in": {"_core", "_version", "tree"},
    "__init__": TOP - {"_tools"},
    "__main__": {"_tools"},
}
# Packages that may be absent: extras are imported in functions, types only by type checkers.
DEFERRED = {"tqdm", "matplotlib", "typing_extensions"}
TYPE_ALIASES = {"OptState", "Params", "ScalarOrSchedule", "Schedule", "Updates"}
CLASSES_AND_FUNCTIONS = [
    name
    for name in optax_ls.__all__
    if callable(getattr(optax_ls, name)) and name not in TYPE_ALIASES
]
NAMED_TUPLES = [
    name for name in CLASSES_AND_FUNCTIONS if hasattr(getattr(optax_ls, name), "_fields")
]


# The direction of imports.


def imports(node, deferred=False):
    """Every import statement below a node, and whether importing the module does not run it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child, deferred
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            yield from imports(ast.Module(child.body), True)
            yield from imports(ast.Module(child.orelse), deferred)
        else:
            is_function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
            yield from imports(child, deferred or is_function)


def inside(name, source):
    """The modules and folders at the top of the package that a module of it imports."""
    for node, _ in imports(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            *folders, _ = name.split("/")
            path = folders[: len(folders) + 1 - node.level]
            path += node.module.split(".") if node.module else []
            yield from path[:1] or (alias.name for alias in node.names)


def outside(source):
    """The packages that absolute imports name, and whether each import is deferred."""
    for node, deferred in imports(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], deferred) for alias in node.names)
        elif not node.level:
            yield node.module.partition(".")[0], deferred


def test_every_module_at_the_top_has_a_rule():
    assert set(MAY_IMPORT) == TOP


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_one_way(name):
    top = name.partition("/")[0].removesuffix(".py")
    found = {x if x in TOP else "__init__" for x in inside(name, MODULES[name].read_text())}
    assert found - MAY_IMPORT[top] == set()


@pytest.mark.parametrize("name", MODULES)
def test_absolute_imports_are_of_dependencies_and_the_standard_library(name):
    found = set(outside(MODULES[name].read_text()))
    allowed = {*sys.stdlib_module_names, *REQUIRES}
    assert {x for x, deferred in found if not deferred} - allowed == set()
    assert {x for x, deferred in found if deferred} - allowed - DEFERRED == set()


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("from . import memory", "_core"),
        ("from .. import tree", "_core"),
        ("from ..linesearch import zoom", "_core"),
        ("from ... import _minimize", "_minimize"),
        ("from ..._minimize.api import minimize", "_minimize"),
        ("def f():\n    from ..._tools import cli", "_tools"),
        ("if TYPE_CHECKING:\n    from ..._version import PROJECT", "_version"),
    ],
)
def test_check_resolves_relative_imports(statement, found):
    assert list(inside("_core/lbfgs/direction.py", statement)) == [found]


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("import optax_ls._core", ("optax_ls", False)),
        ("from jax.sharding import Mesh", ("jax", False)),
        ("class A:\n    import tqdm", ("tqdm", False)),
        ("def f():\n    import tqdm", ("tqdm", True)),
        ("if TYPE_CHECKING:\n    import tqdm", ("tqdm", True)),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import tqdm", ("tqdm", False)),
    ],
)
def test_check_recognises_deferred_imports(statement, found):
    assert list(outside(statement)) == [found]


# Public names.


def test_public_names_of_the_package_are_those_in_all():
    assert {name for name in dir(optax_ls) if not name.startswith("_")} == {
        name for name in optax_ls.__all__ if not name.startswith("_")
    }


def test_module_tree_shows_only_its_public_names():
    shown = [name for name in dir(optax_ls.tree) if not name.startswith("__")]
    assert shown == sorted(optax_ls.tree.__all__)


@pytest.mark.parametrize("name", CLASSES_AND_FUNCTIONS)
def test_public_class_or_function_is_of_the_root_package(name):
    assert getattr(optax_ls, name).__module__ == "optax_ls"


@pytest.mark.parametrize("name", optax_ls.tree.__all__)
def test_function_on_trees_is_of_the_module_tree(name):
    assert getattr(optax_ls.tree, name).__module__ == "optax_ls.tree"


def modules_in_pickle(x):
    """The modules of this package that a pickle names."""
    words = (word for _, word, _ in pickletools.genops(pickle.dumps(x)) if isinstance(word, str))
    return {word for word in words if word.partition(".")[0] == "optax_ls"}


def test_there_are_public_named_tuples():
    assert {"ScaleByLBFGSState", "MinimizeState", "GradientTransformation"} <= set(NAMED_TUPLES)


@pytest.mark.parametrize("name", NAMED_TUPLES)
def test_pickle_of_a_public_named_tuple_names_the_root_package(name):
    named_tuple = getattr(optax_ls, name)
    instance = named_tuple(*range(len(named_tuple._fields)))
    assert modules_in_pickle(instance) == {"optax_ls"}
    restored = pickle.loads(pickle.dumps(instance))
    assert type(restored) is named_tuple
    assert restored == instance


@pytest.mark.parametrize(
    "solver",
    [
        optax_ls.lbfgs(),
        optax_ls.lbfgs(linesearch=optax_ls.scale_by_more_thuente_linesearch(20)),
        optax_ls.lbfgs(linesearch=optax_ls.scale_by_backtracking_linesearch(20, store_grad=True)),
        optax_ls.sgd(lambda count: 1 / (1 + count), momentum=0.9),
    ],
    ids=["zoom", "more_thuente", "backtracking", "sgd"],
)
def test_pickled_state_of_a_solver_names_only_the_root_package(solver):
    assert modules_in_pickle(solver.init(jnp.zeros(3))) == {"optax_ls"}


def fourth_power(x):
    return jnp.sum((x - jnp.arange(3)) ** 4)


@pytest.mark.slow
@pytest.mark.parametrize("search", ["more_thuente", "zoom", "backtracking"])
def test_pickled_result_of_minimize_names_only_the_root_package(search):
    result = optax_ls.minimize(fourth_power, jnp.zeros(3), linesearch=search, history=True)
    assert modules_in_pickle(result) == {"optax_ls"}


@pytest.mark.slow
@pytest.mark.parametrize("search", ["more_thuente", "zoom", "backtracking"])
def test_minimize_resumes_from_a_pickled_state(search):
    start = jnp.zeros(3)
    first = optax_ls.minimize(fourth_power, start, linesearch=search, max_iters=3)
    restored = pickle.loads(pickle.dumps(first.state))
    resumed = optax_ls.minimize(fourth_power, start, linesearch=search, state=restored)
    whole = optax_ls.minimize(fourth_power, start, linesearch=search)
    assert resumed.num_evals == whole.num_evals
    assert (resumed.params == whole.params).all()
