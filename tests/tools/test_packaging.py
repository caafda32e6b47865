"""The package as it is shipped: its metadata, licences and locks, and its life without Optax."""

import ast
import configparser
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import optax_ls
from optax_ls import _version

ROOT = Path(__file__).parents[2]
LICENCES = ROOT / "third_party_licenses"
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))

BUILD = """
from setuptools import build_meta
build_meta.build_sdist("dist")
build_meta.build_wheel("dist")
"""

ONE_STEP = """
from importlib.util import find_spec
import jax.numpy as jnp
import optax_ls

for stranger in ("optax", "tqdm", "matplotlib"):
    assert find_spec(stranger) is None, stranger

def fun(x):
    return jnp.sum((x - 1.0) ** 2)

solver = optax_ls.lbfgs()
params = jnp.zeros(3)
state = solver.init(params)
value, grad = optax_ls.value_and_grad_from_state(fun)(params, state=state)
updates, state = solver.update(grad, state, params, value=value, grad=grad, value_fn=fun)
assert fun(optax_ls.apply_updates(params, updates)) < value
"""


def run(*command, cwd):
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def setup_cfg():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def declared_packages():
    """Triples (package, versions, needed for) of ``setup.cfg``."""
    config = setup_cfg()
    wanted = {"run time": config["options"]["install_requires"]}
    wanted.update(config["options.extras_require"])
    for use, requirements in wanted.items():
        for requirement in requirements.split():
            name, versions = re.fullmatch(r"([\w.-]+)(?:\[.*\])?(.*)", requirement).groups()
            yield name, versions or "any", use


def inventory():
    """The cells of each row of the inventory, the package's name freed of its link."""
    for line in (LICENCES / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0] != "Package" and set(cells[0]) != {"-"}:
            yield re.sub(r"\[(.*)\]\(.*\)", r"\1", cells[0]), *cells[1:]


def locked(path):
    """The requirements of a lock file, each with its marker, mapped to their hashes."""
    blocks = re.split(r"\n(?=\w)", re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE))
    return {block.split(" \\")[0]: re.findall(r"--hash=(\S+)", block) for block in blocks}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A source distribution and a wheel, as (tarball, wheel)."""
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "setup.cfg", "README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("optax_ls", "third_party_licenses"):
        shutil.copytree(ROOT / name, source / name)
    run(sys.executable, "-c", BUILD, cwd=source)
    return next(source.glob("dist/*.tar.gz")), next(source.glob("dist/*.whl"))


def test_inventory_lists_what_setup_cfg_declares():
    listed = {
        (name, versions, use)
        for name, versions, _, uses, _ in inventory()
        for use in uses.split(", ")
    }
    assert listed == set(declared_packages())


def test_inventory_gives_every_package_a_licence_and_a_reason():
    assert all(all(row) for row in inventory())


def test_licence_texts_are_those_of_runtime_dependencies_and_optax():
    runtime = {name for name, _, use in declared_packages() if use == "run time"}
    texts = {path.name: path.read_text() for path in LICENCES.glob("LICENSE-*.txt")}
    assert set(texts) == {f"LICENSE-{name}.txt" for name in runtime | {"optax"}}
    for name, text in texts.items():
        assert f"({name})" in (LICENCES / "README.md").read_text()
        assert "LIABILITY" in text.upper()


def test_runtime_dependencies_are_jax_chex_and_numpy():
    runtime = {name for name, _, use in declared_packages() if use == "run time"}
    assert runtime == {"jax", "chex", "numpy"}


def imported(path):
    """The top-level names of what a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


def test_package_imports_its_dependencies_and_the_standard_library_alone():
    extras = setup_cfg()["options.extras_require"]
    allowed = {*sys.stdlib_module_names, *_version.REQUIRES}
    allowed |= {*extras["progress"].split(), *extras["plot"].split()}
    allowed.add("typing_extensions")  # only type checkers import it, as test_imports.py checks
    found = {name for path in (ROOT / "optax_ls").rglob("*.py") for name in imported(path)}
    assert found - allowed == set()


def test_package_says_what_setup_cfg_says():
    config = setup_cfg()
    runtime = {name: versions for name, versions, use in declared_packages() if use == "run time"}
    assert runtime == _version.REQUIRES
    assert config["options"]["python_requires"] == _version.REQUIRES_PYTHON
    assert config["metadata"]["name"] == _version.PROJECT
    assert config["metadata"]["license"] == _version.LICENCE


def test_version_is_written_once():
    assert setup_cfg()["metadata"]["version"] == "attr: optax_ls._version.__version__"
    sources = (path.read_text() for path in (ROOT / "optax_ls").rglob("*.py"))
    assert sum(source.count(f'"{optax_ls.__version__}"') for source in sources) == 1


def test_wheel_carries_the_version_of_the_package(built):
    _, wheel = built
    assert wheel.name.startswith(f"optax_ls-{optax_ls.__version__}-")


@pytest.mark.parametrize("kind", ["sdist", "wheel"])
def test_distribution_holds_sources_type_marker_and_licences(built, kind):
    tarball, wheel = built
    with tarfile.open(tarball) as sdist, zipfile.ZipFile(wheel) as archive:
        held = sdist.getnames() if kind == "sdist" else archive.namelist()
    wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / "optax_ls").rglob("*.py")}
    wanted |= {f"third_party_licenses/{path.name}" for path in LICENCES.iterdir()}
    wanted |= {"optax_ls/py.typed", "LICENSE"}
    assert {w for w in wanted if not any(f"/{h}".endswith(f"/{w}") for h in held)} == set()


def test_page_on_the_air_gap_has_the_number_of_installed_files(built):
    with zipfile.ZipFile(built[1]) as archive:
        (record,) = (name for name in archive.namelist() if name.endswith("/RECORD"))
        hashed = archive.read(record).decode().count(",sha256=")
    number = hashed + len(("_revision.txt of a clone", "INSTALLER of pip", "REQUESTED of pip"))
    page = (ROOT / "docs" / "air-gap.md").read_text()
    assert set(re.findall(r"(\d+) files as in RECORD", page)) == {str(number)}


@pytest.mark.slow
def test_package_lives_on_jax_chex_and_numpy_alone(built, tmp_path):
    _, wheel = built
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / Path(sys.executable).parent.name / "python"
    lock = ROOT / "requirements" / "runtime.txt"
    run(python, "-m", "pip", "install", "--require-hashes", "-r", lock, cwd=tmp_path)
    run(python, "-m", "pip", "install", "--no-index", "--no-deps", wheel, cwd=tmp_path)
    run(python, "-m", "pip", "check", cwd=tmp_path)
    run(python, "-I", "-c", ONE_STEP, cwd=tmp_path)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_locks_pin_by_hash_and_name_no_host(lock):
    assert all(locked(lock).values())
    assert "://" not in lock.read_text()


def test_runtime_lock_is_part_of_the_development_lock():
    runtime, dev = (locked(ROOT / "requirements" / name) for name in ("runtime.txt", "dev.txt"))
    assert runtime.items() <= dev.items()


def test_oldest_lock_holds_the_oldest_jax_that_is_allowed():
    oldest = {name: versions for name, versions, use in declared_packages() if use == "run time"}
    assert f"jax{oldest['jax'].replace('>', '=')}" in locked(ROOT / "requirements" / "oldest.txt")


def test_readme_names_only_targets_that_the_makefile_explains():
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    readme = (ROOT / "README.md").read_text()
    code = re.findall(r"```\w*\n(.*?)```|`([^`\n]+)`", readme, re.DOTALL)
    lines = "\n".join(fenced or inline for fenced, inline in code)
    calls = re.findall(r"^(?:\$ )?make ([a-z -]+)", lines, re.MULTILINE)
    assert {"demo", "test"} <= set(" ".join(calls).split()) <= targets
