"""The table of modes in docs/many-devices.md says from which JAX on the tests run."""

import re
from pathlib import Path

import pytest
from promises import FIRST_JAX

TESTS = Path(__file__).parent
PAGE = (TESTS.parents[1] / "docs" / "many-devices.md").read_text(encoding="utf-8")


def table():
    """The cells of the rows of the table, by the first of them; "" stands for the head."""
    lines = PAGE.partition("| tested in `tests/devices` |")
    head, *rows = (lines[0].splitlines()[-1] + lines[1] + lines[2]).split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in (head, *rows[1:])]
    return {mode: rest for mode, *rest in cells}


def test_table_has_the_modes_of_the_tests():
    assert list(table()) == ["", *FIRST_JAX]


@pytest.mark.parametrize("mode", FIRST_JAX)
def test_row_says_from_which_jax_on_the_tests_of_a_mode_run(mode):
    *columns, _ = table()[""]
    oldest = [tuple(map(int, re.match(r"[\d.]+", column)[0].split("."))) for column in columns]
    assert oldest[0] == (0, 4, 30)
    *cells, files = table()[mode]
    assert cells == ["yes" if version >= FIRST_JAX[mode] else "no" for version in oldest]
    # A column stands for all its versions: no mode begins inside one.
    assert FIRST_JAX[mode] <= (0, 5) or FIRST_JAX[mode] in oldest
    for file in re.findall(r"`(\w+\.py)`", files):
        assert f'("{mode}")' in (TESTS / file).read_text(encoding="utf-8"), file
