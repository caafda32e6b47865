"""The tests that a vendored tree can run, and how they find the package around them.

A test file comes along if its ``pytestmark`` says ``pytest.mark.runtime``: such files import
nothing but the package, its run-time dependencies, pytest, and their neighbours. In a checkout they
import the package by its name, which is not its name in a vendored tree, and may there be the name
of another copy. So imports are rewritten to relative ones, and the folder becomes a package.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from ..._version import PROJECT
from ..common import Refusal
from .files import listed, read

TESTS = "tests"
WITH_TESTS = "a checkout or a source distribution"
_MARK = "runtime"
_ALWAYS = "conftest"
_INIT = f'''"""The tests of the package around this folder, which they call {PROJECT}."""

from importlib import import_module

{PROJECT} = import_module("..", __name__)
'''


def runtime_tests(folder: Path) -> dict[str, bytes]:
    """The test files, and what they import, by paths in a vendored tree.

    Raises:
        Refusal: the folder is missing or holds none, or an import cannot be made relative.
    """
    files = {path: file for path, file in listed(folder).files.items() if path.endswith(".py")}
    sources = {path[:-3]: read(file).decode() for path, file in files.items() if "/" not in path}
    chosen = {name for name, source in sources.items() if _is_marked(source)}
    if not chosen or _ALWAYS not in sources:
        raise Refusal(f"--with-tests: there are no tests in {folder}; vendor from {WITH_TESTS}")
    wanted = [_ALWAYS, *sorted(chosen)]
    for name in wanted:  # which grows
        wanted += sorted(_neighbours(sources[name], set(sources)) - set(wanted))
    rewritten = {name: _rewritten(sources[name], set(sources)) for name in wanted}
    rewritten["__init__"] = _INIT
    return {f"{TESTS}/{name}.py": source.encode() for name, source in rewritten.items()}


def _is_marked(source: str) -> bool:
    return PROJECT in source and any(
        isinstance(node, ast.Assign)
        and any(
            isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets
        )
        and any(isinstance(x, ast.Attribute) and x.attr == _MARK for x in ast.walk(node.value))
        for node in ast.parse(source).body
    )


def _imports(source: str) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    """Every absolute import, with the module that it names; statements of several are not ours."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node, node.module
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name


def _neighbours(source: str, names: set[str]) -> set[str]:
    return {module for _, module in _imports(source)} & names


def _rewritten(source: str, neighbours: set[str]) -> str:
    """The source with imports of the package and of neighbours made relative."""
    lines = source.splitlines(keepends=True)
    for node, module in _imports(source):
        first, _, rest = module.partition(".")
        if first != PROJECT and module not in neighbours:
            continue
        line = lines[node.lineno - 1]
        if isinstance(node, ast.ImportFrom):
            relative = f"from ..{rest} " if first == PROJECT else f"from .{module} "
            old = f"from {module} "
        elif len(node.names) == 1 and not rest:
            relative, old = f"from . import {module}", f"import {module}"
        else:
            raise Refusal(f"--with-tests: cannot make relative: {line.strip()}")
        lines[node.lineno - 1] = line.replace(old, relative, 1)
    return "".join(lines)
