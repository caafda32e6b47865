"""Vendored copies at work: without an installation, under any name, zipped, several at once."""

import json
import os
import subprocess
import sys
import zipfile

import pytest
from vendoring import SECONDS, build_wheel, copy_checkout

from optax_ls._tools.vendor.copy import compose, put

# Three copies in one process where no optax_ls is installed: in a project, under a name of its own,
# and in a zip file. From the first import of a copy on, everything is noted that reaches out.
COPIES = """
import contextlib, importlib, io, json, os, sys

import chex
import jax
import jax.numpy as jnp
import numpy

sys.modules["optax_ls"] = None
root = sys.argv[1]
sys.path[:0] = [root, os.path.join(root, "lib.zip")]
noted, attentive = [], True


def folder_of(event, args):
    "The folder that a name is in, where a function takes names in an open folder."
    fd = args[-1] if event in ("os.remove", "os.rmdir") else -1
    return os.readlink(f"/proc/self/fd/{fd}") if fd >= 0 else ""


def note(event, args):
    if not attentive:
        return
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
    changes = event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir")
    if writes or changes:
        noted.append(["write", os.path.join(folder_of(event, args), str(args[0]))])
    elif event.startswith(("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "webbrowser.")):
        noted.append(["network", event])
    elif event.startswith(("subprocess.", "os.system", "os.exec", "os.spawn", "os.posix_spawn")):
        noted.append(["process", str(args[0])])


def commanded(name, *words):
    printed, complaints = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complaints):
        main = importlib.import_module(f"{name}._tools.cli").main
        status = main(words)
    return [status, printed.getvalue(), complaints.getvalue()]


sys.addaudithook(note)
names = "project._vendor.optax_ls", "searches", "zipped.inside"
facts = {name: {} for name in names}
copies = {name: importlib.import_module(name) for name in names}
facts["at import"] = list(noted)
for name, copy in copies.items():
    facts[name]["verify"] = commanded(name, "verify")
    facts[name]["info"] = commanded(name, "info", "--json")
    facts[name]["vendor"] = commanded(name, "vendor", os.path.join(root, "onward"), "--name", "x")
    facts[name]["self"] = commanded(name, "vendor", os.path.dirname(os.path.dirname(copy.__file__)),
                                    "--name", name.rpartition(".")[2])
facts["in all"] = list(noted)
attentive = False

one, other = copies["project._vendor.optax_ls"], copies["zipped.inside"]
solvers = [copy.scale_by_lbfgs() for copy in (one, other)]
states = [solver.init(jnp.zeros(2)) for solver in solvers]
facts["files"] = [copy.__file__ for copy in (one, other)]
facts["same structure"] = jax.tree.structure(states[0]) == jax.tree.structure(states[1])
facts["same class"] = isinstance(states[0], type(states[1]))
params = jnp.arange(2.0)
updates = [jax.jit(solver.update)(params, state, params) for solver, state in zip(solvers, states)]
facts["updates"] = [update.tolist() for update, _ in updates]
facts["own class"] = [isinstance(after, type(state)) for (_, after), state in zip(updates, states)]
try:
    solvers[1].update(params, states[0], params)
except TypeError as error:
    facts["mixed"] = str(error)
facts["absolute"] = [name for name, x in sys.modules.items() if name.startswith("optax_ls") and x]
print(json.dumps(facts))
"""
NAMES = ["project._vendor.optax_ls", "searches", "zipped.inside"]
each_copy = pytest.mark.parametrize("name", NAMES)


def python(code, *words, folder, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with the three copies."""
    root = tmp_path_factory.mktemp("copies")
    (root / "checkout").mkdir()
    tree = compose(copy_checkout(root / "checkout"))
    (root / "project" / "_vendor").mkdir(parents=True)
    put(tree, root / "project" / "_vendor" / "optax_ls")
    put(tree, root / "searches")
    with zipfile.ZipFile(root / "lib.zip", "w") as archive:
        for path, contents in tree.files.items():
            archive.writestr(f"zipped/inside/{path}", contents)
        archive.writestr("zipped/__init__.py", "")
    return root


@pytest.fixture(scope="module")
def facts(root):
    return python(COPIES, root, folder=root, SOURCE_DATE_EPOCH=str(SECONDS))


def test_copies_know_no_other_package(facts):
    assert facts["absolute"] == []


def test_one_copy_is_in_a_zip_file(facts, root):
    assert facts["files"] == [
        str(root / "project" / "_vendor" / "optax_ls" / "__init__.py"),
        str(root / "lib.zip" / "zipped" / "inside" / "__init__.py"),
    ]


def test_import_writes_nothing_and_asks_no_network(facts):
    assert facts["at import"] == []


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="paths come from /proc, which only Linux has"
)
def test_commands_write_into_dest_only_and_ask_no_network(facts, root):
    dest = str(root / "onward")
    assert {kind for kind, _ in facts["in all"]} == {"write"}
    assert [path for _, path in facts["in all"] if not path.startswith(dest)] == []


@each_copy
def test_copy_verifies(facts, name):
    status, printed, complaints = facts[name]["verify"]
    assert (status, complaints, printed.count("\n")) == (0, "", 1)


@each_copy
def test_copy_tells_what_it_is(facts, name):
    status, printed, _ = facts[name]["info"]
    info = json.loads(printed)
    assert (status, info["origin"], info["verified"]) == (0, "vendored", True)


@each_copy
def test_copy_is_vendored_onwards(facts, name):
    status, printed, complaints = facts[name]["vendor"]
    assert (status, complaints) == (0, "")
    assert printed.splitlines()[1:] == facts["searches"]["vendor"][1].splitlines()[1:]


@each_copy
def test_copy_does_not_replace_itself(facts, name):
    status, printed, complaint = facts[name]["self"]
    assert (status, printed) == (2, "")
    assert ("no folder" if name == "zipped.inside" else "is running") in complaint


def test_two_copies_in_one_process_do_the_same(facts):
    one, other = facts["updates"]
    assert one == other != [0, 0]


def test_states_of_two_copies_are_of_two_types(facts):
    assert (facts["same structure"], facts["same class"]) == (False, False)


def test_updates_keep_to_the_type_of_their_copy(facts):
    assert facts["own class"] == [True, True]


def test_state_of_another_copy_is_refused(facts):
    assert "of zipped.inside, got one of project._vendor.optax_ls;" in facts["mixed"]


INSTALLED = """
import json, sys
sys.path.insert(0, sys.argv[1])
from optax_ls._tools.vendor.origin import find_origin
from optax_ls._tools.vendor.copy import compose
from optax_ls._tools.vendor.verify import verify_package
origin = find_origin()
comparison = verify_package(origin)
print(json.dumps([origin.kind, comparison.record is not None, len(comparison.differences),
                  sorted(compose(origin).files)]))
"""


@pytest.fixture(scope="module")
def wheel(root):
    return build_wheel(root / "checkout")


@pytest.mark.parametrize("zipped", [False, True])
def test_installed_wheel_is_found_verified_and_vendored(root, wheel, zipped):
    site = wheel if zipped else root / "site"
    if not zipped:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    kind, is_vendored, differences, files = python(INSTALLED, site, folder=root)
    assert (kind, is_vendored, differences) == ("installed", False, 0)
    tree = root / "searches"
    expected = (path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file())
    assert files == sorted(path for path in expected if "__pycache__" not in path)
