"""The tests that go with a vendored copy: which they are, and that they test the copy."""

import ast
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
from vendoring import copy_checkout

from optax_ls._tools import CommandError
from optax_ls._tools.vendor.copy import compose, put
from optax_ls._tools.vendor.tests import runtime_tests
from optax_ls._version import REQUIRES

TESTS = Path(__file__).parents[1]
RUN = """
import sys
sys.modules["optax_ls"] = None  # as if it were not installed
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""

PROOF = """

def test_copy_is_what_is_tested():
    assert optax_ls.lbfgs.__module__ == "project._vendor.searches"
"""


@pytest.fixture(scope="module")
def copied():
    """The files, by their names without ``.py``."""
    files = runtime_tests(TESTS)
    return {
        path.removeprefix("tests/").removesuffix(".py"): source.decode()
        for path, source in files.items()
    }


def imports(source):
    """Pairs of level and module of every import."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module


def test_marked_files_come_along_with_what_they_import(copied):
    # Whole files: what is marked one by one may need files that do not come along.
    whole = re.compile(r"^pytestmark = .*mark\.runtime", re.MULTILINE)
    marked = {
        path.relative_to(TESTS).with_suffix("").as_posix()
        for path in TESTS.rglob("*.py")
        if path != Path(__file__) and whole.search(path.read_text())
    }
    folders = {name.rpartition("/")[0] for name in marked}
    assert len(marked) > 10
    assert len(folders) > 3
    packages = {"__init__", *(f"{folder}/__init__" for folder in folders)}
    assert set(copied) == marked | packages | {"conftest", "bestiary", "dense", "trees"}


def test_they_need_nothing_beyond_the_runtime_dependencies_and_pytest(copied):
    allowed = {*sys.stdlib_module_names, *REQUIRES, "pytest"}
    imported = {
        module.partition(".")[0]
        for name, source in copied.items()
        for level, module in imports(source)
        if level == 0
    }
    assert imported - allowed == {"hypothesis"}
    assert "with contextlib.suppress(ImportError):\n    import hypothesis" in copied["conftest"]


def test_they_skip_nothing_for_want_of_a_package(copied):
    assert not [name for name, source in copied.items() if "importorskip" in source]


def test_only_lines_of_imports_are_rewritten(copied):
    for name, source in copied.items():
        if PurePosixPath(name).name != "__init__":
            lines = zip(
                (TESTS / f"{name}.py").read_text().splitlines(), source.splitlines(), strict=True
            )
            changed = [(old.split()[0], new.split()[0]) for old, new in lines if old != new]
            assert set(changed) <= {("import", "from"), ("from", "from")}


@pytest.mark.parametrize(
    ("line", "rewritten"),
    [
        ("import optax_ls", "from . import optax_ls"),
        ("import optax_ls as ours", "from . import optax_ls as ours"),
        ("from optax_ls import tree", "from .. import tree"),
        ("from optax_ls._tools.cli import main", "from .._tools.cli import main"),
        ("from neighbour import f", "from .neighbour import f"),
        ("import neighbour", "from . import neighbour"),
        ("if True:\n    import optax_ls", "if True:\n    from . import optax_ls"),
        ("code = '''\nimport optax_ls\n'''", "code = '''\nimport optax_ls\n'''"),
        ("import optax_ls_other", "import optax_ls_other"),
        ("from . import optax_ls", "from . import optax_ls"),
    ],
)
def test_imports_become_relative(tmp_path, line, rewritten):
    (tmp_path / "conftest.py").touch()
    (tmp_path / "neighbour.py").touch()
    source = "pytestmark = [pytest.mark.runtime]  # of optax_ls\n{}\n"
    (tmp_path / "test_one.py").write_text(source.format(line))
    files = runtime_tests(tmp_path)
    assert files["tests/test_one.py"].decode() == source.format(rewritten)


@pytest.mark.parametrize(
    ("line", "rewritten"),
    [
        ("import optax_ls", "from .. import optax_ls"),
        ("import optax_ls as ours", "from .. import optax_ls as ours"),
        ("from optax_ls import tree", "from ... import tree"),
        ("from optax_ls._core.lbfgs import memory", "from ..._core.lbfgs import memory"),
        ("from neighbour import f", "from ..neighbour import f"),
        ("import neighbour", "from .. import neighbour"),
        ("from beside import f", "from .beside import f"),
        ("import beside", "from . import beside"),
        ("from both import f", "from .both import f"),  # as pytest finds them
        ("import elsewhere", "import elsewhere"),
    ],
)
def test_imports_in_a_folder_become_relative(tmp_path, line, rewritten):
    for name in ("conftest", "neighbour", "both", "lbfgs/beside", "lbfgs/both", "golden/elsewhere"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").touch()
    source = "pytestmark = [pytest.mark.runtime]  # of optax_ls\n{}\n"
    (tmp_path / "lbfgs" / "test_one.py").write_text(source.format(line))
    files = runtime_tests(tmp_path)
    assert files["tests/lbfgs/test_one.py"].decode() == source.format(rewritten)
    assert files["tests/lbfgs/__init__.py"] == b""


def test_file_beside_a_test_comes_along_to_the_same_folder(tmp_path):
    (tmp_path / "lbfgs").mkdir()
    (tmp_path / "conftest.py").touch()
    (tmp_path / "pairs.py").write_text("from optax_ls import tree\n")
    (tmp_path / "lbfgs" / "beside.py").write_text("import pairs\n")
    (tmp_path / "lbfgs" / "unused.py").touch()
    (tmp_path / "lbfgs" / "test_one.py").write_text(
        "import beside  # of optax_ls\npytestmark = pytest.mark.runtime\n"
    )
    files = runtime_tests(tmp_path)
    assert set(files) == {
        f"tests/{name}.py"
        for name in (
            *("__init__", "conftest", "pairs"),
            *("lbfgs/__init__", "lbfgs/beside", "lbfgs/test_one"),
        )
    }
    assert files["tests/lbfgs/beside.py"] == b"from .. import pairs\n"
    assert files["tests/pairs.py"] == b"from .. import tree\n"


@pytest.mark.parametrize(
    "line",
    [
        "import optax_ls, math",
        "import optax_ls.tree",
        "from folder import file  # of optax_ls",
        "import folder.file  # of optax_ls",
    ],
)
def test_import_that_cannot_be_made_relative_is_refused(tmp_path, line):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file.py").touch()
    (tmp_path / "conftest.py").touch()
    (tmp_path / "test_one.py").write_text(f"pytestmark = pytest.mark.runtime\n{line}\n")
    with pytest.raises(CommandError, match=f"cannot make relative: {line}"):
        runtime_tests(tmp_path)


@pytest.mark.parametrize(
    ("name", "source"), [("conftest", ""), ("test_one", "pytestmark = pytest.mark.runtime")]
)
def test_folder_without_such_tests_is_refused(tmp_path, name, source):
    (tmp_path / f"{name}.py").write_text(source)
    with pytest.raises(CommandError, match=r"no tests in .*; vendor from a checkout or "):
        runtime_tests(tmp_path)


def test_they_run_in_a_project_and_test_its_copy(tmp_path):
    (tmp_path / "checkout").mkdir()
    vendored = tmp_path / "project" / "_vendor"
    vendored.mkdir(parents=True)
    (tmp_path / "project" / "__init__.py").touch()
    (vendored / "__init__.py").touch()
    put(compose(copy_checkout(tmp_path / "checkout"), with_tests=True), vendored / "searches")
    with (vendored / "searches" / "tests" / "core" / "test_errors.py").open("a") as file:
        file.write(PROOF)
    options = ["-q", "-p", "no:cacheprovider", "--strict-markers", "-k", "test_copy"]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *options, "project/_vendor/searches/tests"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
