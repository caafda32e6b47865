"""The tests that a vendored tree can run, with imports that find the package around them.

A test file is copied if its ``pytestmark`` says ``pytest.mark.runtime``: such files import nothing
but the package, its run-time dependencies, pytest, and other files of the tests. The folders of the
tests are kept.

In a checkout, test files import the package as ``optax_ls``. A vendored tree may have another name,
and ``optax_ls`` may be another copy there. Absolute imports are therefore rewritten to relative
ones, and each folder of tests becomes a package.
"""

import ast
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Optional

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
    """The test files, and the files that they import, by paths in a vendored tree.

    Raises:
        CommandError: the folder or its tests are missing, or an import cannot be made relative.
    """
    files = {path: file for path, file in list_folder(folder).files.items() if path.endswith(".py")}
    sources = {path.removesuffix(".py"): read(file).decode() for path, file in files.items()}
    chosen = {name for name, source in sources.items() if _is_marked(source)}
    if not chosen or "conftest" not in sources:
        raise CommandError(
            f"--with-tests: there are no tests in {folder}; vendor from {WITH_TESTS}"
        )
    wanted = ["conftest", *sorted(chosen)]
    for name in wanted:  # which grows
        wanted += sorted(_neighbours(name, sources) - set(wanted))
    rewritten = {name: _rewritten(name, sources) for name in wanted}
    folders = {str(parent) for name in wanted for parent in PurePosixPath(name).parents} - {"."}
    rewritten.update({f"{inner}/__init__": "" for inner in folders})
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


def _neighbour(module: str, importer: str, names: Collection[str]) -> Optional[str]:
    """The test file that ``importer`` imports as ``module``: beside it, or at the top of the tests.

    These are the folders that pytest puts on ``sys.path``. None for all other modules.
    """
    beside = str(PurePosixPath(importer).with_name(module))
    return next((name for name in (beside, module) if name in names), None)


def _neighbours(importer: str, sources: dict[str, str]) -> set[str]:
    found = (_neighbour(module, importer, sources) for _, module in _imports(sources[importer]))
    return {name for name in found if name is not None}


def _rewritten(name: str, sources: dict[str, str]) -> str:
    """The source of a test file with imports of the package and of test files made relative."""
    folders = {path.partition("/")[0] for path in sources if "/" in path}
    lines = sources[name].splitlines(keepends=True)
    for node, module in _imports(sources[name]):
        first, _, rest = module.partition(".")
        neighbour = _neighbour(module, name, sources)
        if first not in {PROJECT, *folders} and neighbour is None:
            continue
        line = lines[node.lineno - 1]
        # From the folder of the importer up to that of its neighbour, by default the top.
        dots = "." * (1 + name.count("/") - (neighbour or "").count("/"))
        old, relative = f"from {module} ", f"from {dots}{module} "
        can_be_relative = first == PROJECT or neighbour is not None
        if isinstance(node, ast.Import):
            old, relative = f"import {module}", f"from {dots} import {module}"
            can_be_relative &= len(node.names) == 1 and not rest
        elif first == PROJECT:
            relative = f"from {dots}.{rest} "
        if not can_be_relative:
            raise CommandError(f"--with-tests: cannot make relative: {line.strip()}")
        lines[node.lineno - 1] = line.replace(old, relative, 1)
    return "".join(lines)
