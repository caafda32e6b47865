"""Every Python block of the README and of the pages runs, and prints what the page says."""

import re
from pathlib import Path
from typing import NamedTuple

import jax
import outputs
import pytest

import optax_ls

ROOT = Path(__file__).parents[2]
PAGES = {path.name: path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
VERSIONS = {"optimistix": "0.0.11"}


class Block(NamedTuple):
    """A Python block, and the output shown after it, if that is too long for comments."""

    heading: str
    source: str
    output: str


def blocks_of(page):
    """The Python blocks of a page, each with the heading above it."""
    heading = "no heading"
    parts = r"^#+ ([^\n]+)\n|^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?|^```.*?^```\n"
    for found in re.finditer(parts, page.read_text(), re.DOTALL | re.MULTILINE):
        heading = found[1] or heading
        if found[2]:
            yield Block(heading, found[2], found[3] or "")


BLOCKS = {
    f"{name}: {block.heading} {number}": block
    for name, path in PAGES.items()
    for number, block in enumerate(blocks_of(path))
}
each_block = pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
each_block_to_run = pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, marks=() if name.startswith("README") else pytest.mark.slow)
        for name, block in BLOCKS.items()
    ],
    ids=BLOCKS,
)


def comments(source):
    """The output that the comments promise."""
    return re.findall(r"^ *print\(.*\)  # (.+)$", source, re.MULTILINE)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a block in a namespace and a folder of its own; returns the lines that it prints."""
    monkeypatch.chdir(tmp_path)
    before, printed = jax.config.jax_enable_x64, []

    def execute(source):
        names = {"print": lambda *words: printed.extend(" ".join(map(str, words)).splitlines())}
        exec(compile(source, "<block of a page>", "exec"), names)
        return printed

    yield execute
    jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_no_block_is_overlooked(page):
    assert page.read_text().count("```python") == sum(1 for _ in blocks_of(page))


@each_block
def test_every_block_prints_something_and_says_what(block):
    said = len(comments(block.source)) + bool(block.output)
    assert said == len(re.findall(r"^ *print\(", block.source, re.MULTILINE)) > 0


@each_block_to_run
def test_block_prints_what_the_page_says(block, run):
    imported = re.findall(r"^ *(?:import|from) (\w+)", block.source, re.MULTILINE)
    for name in imported:
        pytest.importorskip(name, minversion=VERSIONS.get(name))
    if oldest := re.match(r"# needs JAX ([\d.]+)\n", block.source):
        pytest.importorskip("jax", minversion=oldest[1])
    printed, said = run(block.source), comments(block.source)
    shown = block.output.splitlines()
    assert printed[: len(said)] == said
    assert len(printed[len(said) :]) == len(shown)
    assert outputs.differences(shown, printed[len(said) :]) == []


@pytest.mark.parametrize(
    ("page", "target"),
    [
        (path, link)
        for path in PAGES.values()
        for link in re.findall(r"\]\((.+?)\)", path.read_text())
        if "://" not in link and not link.startswith("#")
    ],
)
def test_link_leads_somewhere(page, target):
    assert (page.parent / target.partition("#")[0]).exists()


@pytest.mark.parametrize("page", ["tolerances.md", "coming-from.md"])
def test_default_of_gtol_is_that_of_the_docstring(page):
    default = re.search(r"[\d.e-]+ in float32, [\d.e-]+ in float64", optax_ls.minimize.__doc__)[0]
    assert default in PAGES[page].read_text()
