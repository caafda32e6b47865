"""Copies in the projects of others: their git, formatters, type checkers and builds."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from vendoring import contents, git

from optax_ls._tools.vendor.origin import find_origin
from optax_ls._tools.vendor.replace import put
from optax_ls._tools.vendor.selection import compose

PAGE = Path(__file__).parents[2] / "docs" / "vendoring.md"
COPY = "myproject/_vendor/optax_ls"
UGLY = "import sys, os\nx = {  'a':1 }\n"


def lines_for(tool, language):
    """The blocks of a language in the section of a tool."""
    section = PAGE.read_text().split(f"\n### {tool}\n")[1].split("\n### ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


@pytest.fixture(scope="module")
def tree():
    return compose(find_origin())["core"]


@pytest.fixture
def host(tmp_path, tree):
    """A project with a copy, and a file that tools change."""
    folder = tmp_path / "host"
    (folder / "myproject" / "_vendor").mkdir(parents=True)
    for package in ("myproject", "myproject/_vendor"):
        (folder / package / "__init__.py").touch()
    put(tree, folder / COPY)
    (folder / "myproject" / "ugly.py").write_text(UGLY)
    return folder


def run(folder, *words, **environment):
    environment = {**os.environ, "PYTHONPATH": "", **environment}
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    return subprocess.run(
        [str(word) for word in words], cwd=folder, env=environment, capture_output=True, text=True
    )


def verified(copy):
    done = run(copy, sys.executable, "-I", "verify.py")
    return done.returncode, done.stdout


def is_verified(copy):
    status, printed = verified(copy)
    assert status == 0, printed
    return True


def commit(folder):
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "All")


# Git.


@pytest.mark.skipif(not shutil.which("git"), reason="there is no git")
@pytest.mark.parametrize("attributes", ["", "* text=auto eol=crlf\n", "*.py filter=mine ident\n"])
def test_clone_keeps_the_bytes(host, tmp_path, attributes):
    (host / ".gitattributes").write_text(attributes)
    commit(host)
    options = ["-c", "core.autocrlf=true", "-c", "filter.mine.smudge=sed s/a/b/"]
    git(tmp_path, *options, "clone", "--quiet", host, tmp_path / "clone")
    assert (tmp_path / "clone" / "myproject" / "ugly.py").read_bytes() != UGLY.encode()
    assert is_verified(tmp_path / "clone" / COPY)


# Formatters, linters and type checkers.

FORMATTERS = {
    "ruff": (["ruff", "format", "--force-exclude"], ["ruff", "check", "--fix", "--force-exclude"]),
    "black": (["black", "--quiet"],),
    "isort": (["isort", "--quiet"],),
}


def configure(host, tool):
    (host / "pyproject.toml").write_text("".join(lines_for(tool, "toml")))
    if tool == "ruff":
        (host / "ruff.toml").write_text("line-length = 40\nlint.select = ['ALL']\n")


@pytest.mark.parametrize("named", [False, True], ids=["folder", "files"])
@pytest.mark.parametrize("tool", FORMATTERS)
def test_formatter_leaves_the_copy_alone(host, tool, named):
    pytest.importorskip(tool)
    configure(host, tool)
    files = sorted(path.relative_to(host) for path in host.rglob("*.py")) if named else ["."]
    for command in FORMATTERS[tool]:
        run(host, sys.executable, "-m", *command, *files)
    assert (host / "myproject" / "ugly.py").read_text() != UGLY
    assert is_verified(host / COPY)


def test_ruff_without_force_exclude_does_not_format_named_files(host):
    pytest.importorskip("ruff")
    configure(host, "ruff")
    files = sorted((host / COPY).rglob("*.py"))
    for command in (["format"], ["check", "--fix"]):
        run(host, sys.executable, "-m", "ruff", *command, *files)
    assert is_verified(host / COPY)


def test_pre_commit_leaves_the_copy_alone(host):
    pytest.importorskip("pre_commit")
    hook = "{id: black, name: black, entry: black, language: system, types: [python]}"
    config = f"repos:\n  - repo: local\n    hooks:\n      - {hook}\n"
    (host / ".pre-commit-config.yaml").write_text(lines_for("pre-commit", "yaml")[0] + config)
    commit(host)
    run(host, "pre-commit", "run", "--all-files", PRE_COMMIT_HOME=str(host.parent / "home"))
    assert (host / "myproject" / "ugly.py").read_text() != UGLY
    assert is_verified(host / COPY)


@pytest.mark.slow
def test_mypy_knows_the_types_of_the_copy_and_reports_no_errors_of_it(host):
    pytest.importorskip("mypy")
    # Only to be quick: mypy need not read the packages that the copy runs on.
    others = '[[tool.mypy.overrides]]\nmodule = ["jax.*", "chex.*", "numpy.*"]\n'
    config = "".join(lines_for("mypy", "toml"))
    (host / "pyproject.toml").write_text(f"{config}\n{others}follow_imports = 'skip'\n")
    with (host / COPY / "_version.py").open("a") as file:
        file.write("mistake: int = 'text'\n")
    code = "from myproject._vendor import optax_ls\n\nreveal_type(optax_ls.chain)\nx: int = ''\n"
    (host / "myproject" / "ugly.py").write_text(code)
    done = run(host, sys.executable, "-m", "mypy", ".", "--no-incremental")
    errors = [line.partition(":")[0] for line in done.stdout.splitlines() if ": error:" in line]
    assert errors == ["myproject/ugly.py"], done.stdout
    assert "GradientTransformationExtraArgs[" in done.stdout


# Builds.

BUILD = "import {0} as backend; print(backend.build_wheel('dist'))"
PROJECT = '[project]\nname = "myproject"\nversion = "1"\n\n'
MESON = "project('myproject', version: '1')\npy = import('python').find_installation()\n"


def built(host, backend):
    """Builds the wheel of a project, and unpacks it; returns the folder."""
    (host / "dist").mkdir()
    done = run(host, sys.executable, "-c", BUILD.format(backend))
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (host / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(host.parent / "site")
    return host.parent / "site"


def is_whole(site, tree):
    return contents(site / COPY) == dict(tree.files) and is_verified(site / COPY)


def test_wheel_of_setuptools_holds_the_whole_copy(host, tree):
    (host / "pyproject.toml").write_text(PROJECT + "".join(lines_for("setuptools", "toml")))
    assert is_whole(built(host, "setuptools.build_meta"), tree)


def test_wheel_of_setuptools_and_setup_cfg_holds_the_whole_copy(host, tree):
    metadata = "[metadata]\nname = myproject\nversion = 1\n\n"
    (host / "setup.cfg").write_text(metadata + "".join(lines_for("setuptools", "ini")))
    assert is_whole(built(host, "setuptools.build_meta"), tree)


def test_wheel_of_setuptools_without_init_above_lacks_the_copy(host):
    (host / "myproject" / "_vendor" / "__init__.py").unlink()
    metadata = "[metadata]\nname = myproject\nversion = 1\n\n"
    (host / "setup.cfg").write_text(metadata + "".join(lines_for("setuptools", "ini")))
    assert not (built(host, "setuptools.build_meta") / COPY).exists()


@pytest.mark.parametrize("ignored", [False, True])
def test_wheel_of_hatch_holds_the_whole_copy(host, tree, ignored):
    pytest.importorskip("hatchling")
    lines = "".join(lines_for("hatch", "toml")) if ignored else ""
    (host / "pyproject.toml").write_text(PROJECT + lines)
    (host / ".gitignore").write_text("*.json\n_core/\nLICENSE*\n" if ignored else "")
    (host / COPY / "__pycache__").mkdir()
    (host / COPY / "__pycache__" / "x.pyc").touch()
    site = built(host, "hatchling.build")
    shutil.rmtree(site / COPY / "__pycache__", ignore_errors=True)
    assert is_whole(site, tree)


def test_wheel_of_meson_python_holds_the_whole_copy(host, tree):
    pytest.importorskip("mesonpy")
    (host / "pyproject.toml").write_text(PROJECT)
    (host / "meson.build").write_text(MESON + "".join(lines_for("meson-python", "meson")))
    commit(host)
    assert is_whole(built(host, "mesonpy"), tree)


def test_every_block_is_of_a_language_that_is_tested():
    languages = set(re.findall(r"^```(\w+)$", PAGE.read_text(), re.MULTILINE))
    assert languages == {"toml", "ini", "yaml", "meson"}
