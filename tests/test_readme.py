"""Every Python block of the README runs, and prints what its comments say."""

import re
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RECIPES = re.findall(r"^### (.+?)\n(?:(?!^#).)*?```python\n(.*?)```", README, re.DOTALL | re.M)
SOURCES = dict(RECIPES)


each_recipe = pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)


@pytest.fixture
def run():
    """Runs a block in a namespace of its own and returns the lines that it prints."""
    before, printed = jax.config.jax_enable_x64, []

    def execute(source):
        names = {"print": lambda *words: printed.append(" ".join(map(str, words)))}
        exec(compile(source, "<block of the README>", "exec"), names)
        return printed

    yield execute
    jax.config.update("jax_enable_x64", before)


def test_every_block_belongs_to_a_recipe_of_its_own():
    assert README.count("```python") == len(SOURCES)


@each_recipe
def test_every_block_prints_something_and_says_what(source):
    comments = re.findall(r"^print\(.*\)  # .+$", source, re.MULTILINE)
    assert len(comments) == source.count("print(") > 0


@each_recipe
def test_block_prints_what_its_comments_say(source, run):
    if "import optimistix" in source:
        pytest.importorskip("optimistix", minversion="0.0.11")
    assert run(source) == re.findall(r"^print\(.*\)  # (.+)$", source, re.MULTILINE)


@pytest.mark.parametrize(
    "target", [link for link in re.findall(r"\]\((.+?)\)", README) if "://" not in link]
)
def test_link_leads_somewhere(target):
    assert (ROOT / target).exists()
