"""The page on the air gap: its commands print what it shows, with the numbers of today's files."""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import outputs
import pytest
from vendoring import make_older

import optax_ls
from optax_ls._tools.cli import main
from optax_ls._tools.vendor.origin import find_origin
from optax_ls._tools.vendor.selection import compose

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "air-gap.md").read_text()
TOLERANCE = 0.02  # of lines and bytes, which change a little with every commit


def walk_through():
    """Pairs of a command of the section on copies and the lines that it prints."""
    section = PAGE.split("\n## A vendored copy\n")[1].split("\n## ")[0]
    lines = (line[4:] for line in section.splitlines() if line.startswith("    "))
    pairs = []
    for line in lines:
        if line.startswith("$ "):
            pairs.append((line[2:], []))
        else:
            pairs[-1][1].append(line)
    return pairs


def execute(command, last_status):
    """The status of a command, and what it prints; our own commands run in this process."""
    if command == "echo $?":
        return 0, f"{last_status}\n"
    if command.startswith("python -m optax_ls "):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            return main(shlex.split(command)[3:]), printed.getvalue()
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        ["sh", "-c", command],
        env={**os.environ, "PATH": path, "LC_ALL": "C"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def number(word):
    return int(word.replace(",", ""))


def is_as_shown(printed, shown):
    """Whether a line is as shown: dots stand for any text, numbers with commas are approximate."""
    shown = re.sub(r"\b[0-9a-f]{8}\.\.\.", "...", shown)  # a commit or a SHA-256
    shown = re.sub(r"optax_ls \d+\.\d+\.\d+", f"optax_ls {optax_ls.__version__}", shown)
    pattern = re.escape(shown).replace(r"\.\.\.", ".*")
    pattern = re.sub(r"\d+,\d{3}", r"(\\d+,\\d{3})", re.sub(r"(\\ )+", " +", pattern))
    found = re.fullmatch(pattern, printed)
    numbers = map(number, re.findall(r"\d+,\d{3}", shown))
    return found is not None and all(
        abs(number(word) - expected) <= TOLERANCE * expected
        for word, expected in zip(found.groups(), numbers, strict=True)
    )


def are_as_shown(printed, shown):
    """Whether lines are as shown; a line of dots stands for any number of lines."""
    if not shown:
        return not printed
    if shown[0].strip() == "...":
        return any(are_as_shown(printed[n:], shown[1:]) for n in range(len(printed) + 1))
    return (
        bool(printed) and is_as_shown(printed[0], shown[0]) and are_as_shown(printed[1:], shown[1:])
    )


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="there is no sha256sum")
def test_commands_print_what_the_page_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pairs, status = walk_through(), 0
    for command, shown in pairs:
        if command.endswith("--check") and len(shown) > 1:
            make_older(tmp_path / "myproject" / "_vendor" / "optax_ls")
        status, printed = execute(command, status)
        assert are_as_shown(printed.splitlines(), shown), f"$ {command}\n{printed}"
    assert len(pairs) > 10


@pytest.mark.parametrize(
    ("printed", "shown", "same"),
    [
        ("core   41   3,723", "core 41 3,700", True),
        ("core   41   3,723", "core 42 3,723", False),
        ("core   41   3,723", "core 41 3,600", False),
        ("made x in /a", "made ... in /a", True),
        ("made x in /b", "made ... in /a", False),
    ],
)
def test_numbers_and_words_are_compared(printed, shown, same):
    assert is_as_shown(printed, shown) is same


def test_table_of_selections_has_their_sizes():
    page = (ROOT / "docs" / "vendoring.md").read_text()
    rows = re.findall(r"^\| `(\w+)`.*\| (\d+) \| ([\d,]+) \| ([\d,]+) \|$", page, re.MULTILINE)
    sizes = {parts: tree.size for parts, tree in compose(find_origin()).items()}
    assert [row[0] for row in rows] == list(sizes)
    for parts, files, *shown in rows:
        assert int(files) == sizes[parts][0]
        for size, word in zip(sizes[parts][1:], shown, strict=True):
            assert abs(size - number(word)) <= TOLERANCE * size


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md"])
def test_page_says_below_how_many_lines_core_is(page):
    text = " ".join((ROOT / page).read_text().split())
    limit = number(re.search(r"in fewer than ([\d,]+) lines", text)[1])
    assert compose(find_origin())["core"].size[1] < limit


@pytest.mark.slow
def test_page_shows_what_the_example_prints(tmp_path):
    shown = PAGE.split("venv/bin/python logistic.py\n")[1].split("    $ ")[0].splitlines()
    script = ROOT / "examples" / "logistic.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, check=True
    )
    assert len(shown) > 10
    assert outputs.differences(shown, done.stdout.decode().splitlines()) == []


def test_table_of_licences_has_the_versions_of_the_lock():
    rows = re.findall(r"^\| ([\w-]+) \| ([\d.]+) \| [^|]+ \|$", PAGE, re.MULTILINE)
    lock = (ROOT / "requirements" / "offline.txt").read_text()
    assert len(rows) > 10
    assert [
        name for name, version in rows if name != "optax-ls" and f"{name}=={version} " not in lock
    ] == []
