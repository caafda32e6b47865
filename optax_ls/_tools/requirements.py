"""What is installed of what the package needs, as far as the metadata of distributions tell.

The needs of needs are followed where their conditions hold on this Python. JAX's plugins are
followed too, since JAX loads whatever registers as one: they drive the GPUs, and bring libraries
that only an extra names.
"""

import ast
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution
from typing import NamedTuple, Optional

from .._version import REQUIRES

_REQUIREMENT = re.compile(r"([A-Za-z0-9][\w.-]*)\s*(?:\[([^\]]*)\])?[^;]*(?:;(.*))?$", re.DOTALL)
_PLUGINS = "jax_plugins"


class Installed(NamedTuple):
    """A distribution, and those of its needs that are installed, by normalised names."""

    distribution: Distribution
    needs: frozenset[str]


def normalised(name: str) -> str:
    """A name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> dict[str, Installed]:
    """The run-time dependencies, direct and indirect, by normalised names in their order."""
    plugins = [
        (
            point.dist.metadata["Name"],
            frozenset(point.dist.metadata.get_all("Provides-Extra") or ()),
        )
        for point in importlib.metadata.entry_points(group=_PLUGINS)
        if point.dist is not None
    ]
    extras: dict[str, frozenset[str]] = {}
    distributions: dict[str, Distribution] = {}
    waiting = [*((name, frozenset[str]()) for name in REQUIRES), *plugins]
    for name, wanted in waiting:  # which grows
        key = normalised(name)
        if key in extras and wanted <= extras[key]:
            continue
        found = distributions.get(key) or _distribution(name)
        if found is not None:
            distributions[key] = found
            extras[key] = extras.get(key, frozenset()) | wanted
            waiting += needs(found, extras[key])
    return {
        key: Installed(
            distributions[key],
            frozenset(normalised(n) for n, _ in needs(distributions[key], extras[key]))
            & distributions.keys(),
        )
        for key in sorted(distributions)
    }


def _distribution(name: str) -> Optional[Distribution]:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def needs(
    distribution: Distribution, extras: frozenset[str]
) -> Iterator[tuple[str, frozenset[str]]]:
    """What a distribution needs on this Python, each with the extras it asks for."""
    for requirement in distribution.requires or ():
        found = _REQUIREMENT.match(requirement.strip())
        if found and any(_holds(found[3], extra) for extra in ("", *sorted(extras))):
            asked = (extra.strip() for extra in (found[2] or "").split(","))
            yield found[1], frozenset(extra for extra in asked if extra)


def _holds(marker: Optional[str], extra: str) -> bool:
    """Whether the condition of a requirement holds; one that is not understood does."""
    if not (marker and marker.strip()):
        return True
    try:
        return _truth(ast.parse(marker.strip(), mode="eval").body, _values(extra))
    except (SyntaxError, ValueError):
        return True


def _values(extra: str) -> dict[str, str]:
    return {
        "extra": extra,
        "python_version": "{}.{}".format(*sys.version_info),
        "python_full_version": platform.python_version(),
        "sys_platform": sys.platform,
        "os_name": os.name,
        "platform_system": platform.system(),
        "platform_machine": platform.machine(),
        "platform_python_implementation": platform.python_implementation(),
        "implementation_name": sys.implementation.name,
    }


def _truth(node: ast.expr, values: Mapping[str, str]) -> bool:
    """The truth of a comparison, or of several joined by ``and`` and ``or``: no other code runs."""
    if isinstance(node, ast.BoolOp):
        truths = [_truth(part, values) for part in node.values]
        return all(truths) if isinstance(node.op, ast.And) else any(truths)
    if not (isinstance(node, ast.Compare) and len(node.ops) == 1):
        raise ValueError("no comparison")
    sides = (node.left, node.comparators[0])
    left, right = (_text(side, values) for side in sides)
    is_version = any(isinstance(side, ast.Name) and "version" in side.id for side in sides)
    one, other = (_parts(x) if is_version else x for x in (left, right))
    match node.ops[0]:
        case ast.Eq():
            return one == other
        case ast.NotEq():
            return one != other
        case ast.Lt():
            return one < other  # type: ignore[operator]
        case ast.LtE():
            return one <= other  # type: ignore[operator]
        case ast.Gt():
            return one > other  # type: ignore[operator]
        case ast.GtE():
            return one >= other  # type: ignore[operator]
        case ast.In():
            return left in right
        case ast.NotIn():
            return left not in right
    raise ValueError("an unknown comparison")


def _text(node: ast.expr, values: Mapping[str, str]) -> str:
    if isinstance(node, ast.Name) and node.id in values:
        return values[node.id]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise ValueError("neither a known name nor a text")


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
