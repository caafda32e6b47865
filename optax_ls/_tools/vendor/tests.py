"""The tests that a vendored tree can run.

A test file is copied if its ``pytestmark`` has ``pytest.mark.runtime``: such files import only the
package, its run-time dependencies, pytest, and their neighbours. A vendored tree may have another
name, and its old name may be that of another copy. So imports of the package become relative, and
the folder of tests becomes a package.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from ..._version import PROJECT
from .. import CommandError
from .files import list_folder, read

TESTS = "tests"
WITH_TESTS = "a checkout or a source distribution"
_INIT = f'''"""The tests of the package around this folder, which they call {PROJECT}."""

from importlib import import_module

{PROJECT} = import_module("..", __name__)
'''


def runtime_tests(folder: Path) -> dict[str, bytes]:
    """The marked test files and the neighbours that they import, by paths in a vendored tree."""
    files = {path: file for path, file in list_folder(folder).files.items() if path.endswith(".py")}
    sources = {path[:-3]: read(file).decode() for path, file in files.items() if "/" not in path}
    chosen = {name for name, source in sources.items() if _is_marked(source)}
    if not chosen or "conftest" not in sources:
        raise CommandError(f"--with-tests: no tests in {folder}; vendor from {WITH_TESTS}")
    wanted = ["conftest", *sorted(chosen)]
    for name in wanted:  # the list grows
        imported = {module for _, module in _imports(sources[name])}
        wanted += sorted((imported & sources.keys()) - set(wanted))
    rewritten = {name: _rewritten(sources[name], set(sources)) for name in wanted}
    rewritten["__init__"] = _INIT
    return {f"{TESTS}/{name}.py": source.encode() for name, source in rewritten.items()}


def _is_marked(source: str) -> bool:
    assigned = (ast.unparse(x) for x in ast.parse(source).body if isinstance(x, ast.Assign))
    marks = (x for x in assigned if x.startswith("pytestmark = "))
    return PROJECT in source and any("mark.runtime" in x for x in marks)


def _imports(source: str) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    """Every absolute import, with the module that it names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node, node.module
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name


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
            raise CommandError(f"--with-tests: cannot make relative: {line.strip()}")
        lines[node.lineno - 1] = line.replace(old, relative, 1)
    return "".join(lines)
