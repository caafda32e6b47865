"""Every public name has a place in the reference, and a docstring that says what it should."""

import inspect
import re
from pathlib import Path

import pytest

import optax_ls

PAGES = sorted((Path(__file__).parents[2] / "docs" / "api").glob("*.rst"))
FUNCTIONS = {
    name: value for name in optax_ls.__all__ if inspect.isfunction(value := getattr(optax_ls, name))
}


def documented():
    """The names after the directives of the reference."""
    pattern = r"^\.\. (?:auto\w+|py:data):: (?:optax_ls\.)?(\w+)"
    return [name for page in PAGES for name in re.findall(pattern, page.read_text(), re.MULTILINE)]


def test_each_public_name_stands_in_the_reference_once():
    assert sorted(documented()) == sorted(optax_ls.__all__)


def test_each_name_of_tree_has_a_docstring():
    assert [
        name for name in optax_ls.tree.__all__ if not getattr(optax_ls.tree, name).__doc__
    ] == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_has_an_example(name):
    assert "Example:" in FUNCTIONS[name].__doc__


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_describes_each_argument(name):
    for argument in inspect.signature(FUNCTIONS[name]).parameters:
        assert re.search(rf"^ +\**{argument}:", FUNCTIONS[name].__doc__, re.MULTILINE), argument
