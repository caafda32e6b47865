"""The package runs only its own code, and each finding of an audit that is ignored has a reason."""

import ast
import re
from pathlib import Path

import pytest

import optax_ls

audit = pytest.importorskip("distribution.audit")

PACKAGE = Path(optax_ls.__file__).parent
LOADS_USERS_CODE = "_tools/minimize.py", "_import"
MODULES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
RUNS_TEXT = {"eval", "exec", "compile", "__import__"}
IMPORTS = {"import_module", "exec_module", "load_module", "spec_from_file_location", "reload"}
UNSAFE_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "runpy", "code", "imp"}


def forbidden(tree):
    """The calls that run code from outside the file, as (name, line)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            plain = isinstance(node.func, ast.Name)
            name = getattr(node.func, "id" if plain else "attr", None)
            if name in IMPORTS or (plain and name in RUNS_TEXT):
                yield name, node.lineno
            yield from (
                ("allow_pickle", node.lineno)
                for keyword in node.keywords
                if keyword.arg == "allow_pickle"
                and getattr(keyword.value, "value", None) is not False
            )
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found = {module.split(".")[0] for module in modules} & UNSAFE_MODULES
            yield from ((name, node.lineno) for name in found)


def without_function(tree, name):
    tree.body = [node for node in tree.body if getattr(node, "name", None) != name]
    return tree


@pytest.mark.parametrize("name", MODULES)
def test_module_runs_no_code_but_its_own(name):
    tree = ast.parse(MODULES[name].read_text())
    if name == LOADS_USERS_CODE[0]:
        tree = without_function(tree, LOADS_USERS_CODE[1])
    assert list(forbidden(tree)) == []


def test_one_function_imports_what_the_user_names():
    file, function = LOADS_USERS_CODE
    (node,) = (
        node
        for node in ast.parse(MODULES[file].read_text()).body
        if getattr(node, "name", None) == function
    )
    assert {name for name, _ in forbidden(node)} <= IMPORTS
    assert list(forbidden(node))


@pytest.mark.parametrize(
    "code",
    [
        "eval('1')",
        "exec(text)",
        "compile(text, 'f', 'exec')",
        "__import__(name)",
        "importlib.import_module(name)",
        "import pickle",
        "from marshal import loads",
        "import os.path, shelve",
        "numpy.load(path, allow_pickle=True)",
    ],
)
def test_check_finds(code):
    assert list(forbidden(ast.parse(code)))


@pytest.mark.parametrize("code", ["re.compile('a')", "numpy.load(path, allow_pickle=False)"])
def test_check_lets_pass(code):
    assert not list(forbidden(ast.parse(code)))


def test_bandit_ignores_only_named_findings_each_with_a_reason():
    lines = [line for path in PACKAGE.rglob("*.py") for line in path.read_text().splitlines()]
    reasons = [line.split("nosec", 1)[1] for line in lines if "# nosec" in line]
    assert [words for words in reasons if not re.match(r" B\d{3}  # \w", words)] == []


# What pip-audit answers, and what becomes of it.

LOCK = """# a lock
jax==1.0 ; python_full_version < '3.11' \\
    --hash=sha256:00
jax==2.0 ; python_full_version >= '3.11' \\
    --hash=sha256:00
Typing_Extensions==4.0 \\
    --hash=sha256:00
"""
PINS = [("jax", "1.0"), ("jax", "2.0"), ("typing-extensions", "4.0")]


def clean(name, version):
    return {"name": name, "version": version, "vulns": []}


def vulnerable(name, version):
    return {"name": name, "version": version, "vulns": [{"id": "XYZ-1"}]}


def unknown(name, _):
    return {"name": name, "skip_reason": "not found"}


def test_every_pin_of_a_lock_is_wanted_whatever_its_marker():
    assert list(audit.pins(LOCK)) == PINS


def test_every_pin_is_asked_for_once_and_no_name_twice_in_a_round():
    rounds = list(audit.rounds(PINS))
    assert sorted(pin for some in rounds for pin in some) == PINS
    assert all(len({name for name, _ in some}) == len(some) for some in rounds)


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (clean, audit.CLEAN, "3 audited, 0 vulnerable, 0 not audited"),
        (vulnerable, audit.VULNERABLE, "vulnerable: jax 1.0: XYZ-1"),
        (unknown, audit.NOT_AUDITED, "no clean audit"),
    ],
)
def test_answer_of_the_service_decides(monkeypatch, capsys, answer, status, said):
    monkeypatch.setattr(audit, "ask", lambda pins, service: ([answer(*pin) for pin in pins], ""))
    assert audit.report(PINS, *audit.audit(PINS, "pypi")) == status
    assert said in capsys.readouterr().out


def test_service_that_cannot_be_reached_is_no_clean_audit(monkeypatch, capsys):
    monkeypatch.setattr(audit, "ask", lambda pins, service: ([], "ConnectionError: no such host"))
    assert audit.report(PINS, *audit.audit(PINS, "osv")) == audit.NOT_AUDITED
    assert "ConnectionError" in capsys.readouterr().out
