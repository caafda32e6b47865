"""Vendored copies at work: without an installation, under any name, zipped, several at once."""

import json
import os
import subprocess
import sys
import zipfile

import pytest
from vendoring import build_wheel, copy_checkout

import optax_ls
from optax_ls import _drop_in
from optax_ls._tools.vendor.replace import put
from optax_ls._tools.vendor.selection import compose

# Copies in one process where no optax_ls is installed: in a project, under names of their own, and
# in a zip file. From the first import of a copy on, everything is noted that reaches out.
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
    facts[name]["vendor"] = commanded(name, "vendor", os.path.join(root, "onward"), "--name", "x",
                                      "--parts", "everything")
    facts[name]["self"] = commanded(name, "vendor", os.path.dirname(os.path.dirname(copy.__file__)),
                                    "--name", name.rpartition(".")[2])
facts["in all"] = list(noted)
attentive = False

parts = {name: importlib.import_module(name) for name in ("slim", "zipped.slim", "middle")}


def minimised(solver):
    def fun(x):
        return jnp.sum((x - 1.0) ** 2 + (x - 1.0) ** 4)

    @jax.jit
    def step(x, state):
        value, grad = jax.value_and_grad(fun)(x)
        updates, state = solver.update(grad, state, x, value=value, grad=grad, value_fn=fun)
        return x + updates, state

    x, state = jnp.zeros(2), solver.init(jnp.zeros(2))
    for _ in range(8):
        x, state = step(x, state)
    return float(fun(x))


for name, copy in parts.items():
    public = sorted(word for word in dir(copy) if word == "__version__" or word[0] != "_")
    facts[name] = {"all": sorted(copy.__all__), "public": public, "tree": sorted(dir(copy.tree))}
    facts[name]["loaded"] = [x for x in sys.modules if x.startswith(f"{name}.")]
    facts[name]["places"] = [copy.lbfgs.__module__, copy.tree.get.__module__]
facts["minima"] = {name: minimised(parts[name].lbfgs()) for name in ("slim", "middle")}
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
    """A folder with copies of every selection."""
    root = tmp_path_factory.mktemp("copies")
    (root / "checkout").mkdir()
    trees = compose(copy_checkout(root / "checkout"))
    (root / "project" / "_vendor").mkdir(parents=True)
    put(trees["everything"], root / "project" / "_vendor" / "optax_ls")
    put(trees["everything"], root / "searches")
    put(trees["library"], root / "middle")
    put(trees["core"], root / "slim")
    with zipfile.ZipFile(root / "lib.zip", "w") as archive:
        for name, parts in (("inside", "everything"), ("slim", "core")):
            for path, contents in trees[parts].files.items():
                archive.writestr(f"zipped/{name}/{path}", contents)
        archive.writestr("zipped/__init__.py", "")
    return root


@pytest.fixture(scope="module")
def facts(root):
    return python(COPIES, root, folder=root)


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
    assert printed.splitlines()[1] == facts["searches"]["vendor"][1].splitlines()[1]


@each_copy
def test_copy_does_not_replace_itself(facts, name):
    status, printed, complaint = facts[name]["self"]
    assert (status, printed) == (2, "")
    assert ("no folder" if name == "zipped.inside" else "is running") in complaint


LEAN = {"slim": _drop_in, "zipped.slim": _drop_in, "middle": optax_ls}


@pytest.mark.parametrize("name", LEAN)
def test_selection_has_the_public_names_that_it_can_serve(facts, name):
    expected = sorted(LEAN[name].__all__)
    assert facts[name]["all"] == expected
    assert facts[name]["public"] == expected
    assert set(optax_ls.tree.__all__) <= set(facts[name]["tree"])
    assert facts[name]["places"] == [name, f"{name}.tree"]


@pytest.mark.parametrize("name", ["slim", "zipped.slim"])
def test_core_has_only_names_of_optax(facts, name):
    optax = pytest.importorskip("optax")
    assert [x for x in facts[name]["all"] if not hasattr(optax, x)] == []


def test_core_loads_every_module_that_it_has(facts, root):
    modules = (path.relative_to(root).with_suffix("").parts for path in root.glob("slim/**/*.py"))
    names = {".".join(part for part in parts if part != "__init__") for parts in modules}
    assert names - set(facts["slim"]["loaded"]) == {"slim", "slim.verify"}


@pytest.mark.parametrize("name", ["slim", "middle"])
def test_every_selection_minimises(facts, name):
    assert facts["minima"][name] < 1e-8


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
from optax_ls._tools.vendor.origin import compare
from optax_ls._tools.vendor.selection import compose
origin = find_origin()
print(json.dumps([origin.kind, compare(origin)[1], sorted(compose(origin)["everything"].files)]))
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
    kind, differences, files = python(INSTALLED, site, folder=root)
    assert (kind, differences) == ("installed", [])
    tree = root / "searches"
    expected = (path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file())
    assert files == sorted(path for path in expected if "__pycache__" not in path)
