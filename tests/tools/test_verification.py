"""Verifying: every file that is not as recorded is named, by the command and by the script."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
from vendoring import posix, small_tree, without_privileges

from optax_ls._tools import CommandError
from optax_ls._tools.cli import main
from optax_ls._tools.vendor import verify
from optax_ls._tools.vendor.origin import (
    CHECKOUT,
    INSTALLED,
    UNKNOWN,
    Origin,
    compare,
    find_origin,
    is_verified,
)
from optax_ls._tools.vendor.replace import put
from optax_ls._tools.vendor.verify import SUMS, digest, parse

SCRIPT = Path(verify.__file__)
HASH = "0" * 64


@pytest.fixture
def tree(tmp_path):
    put(small_tree(**{"verify.py": SCRIPT.read_text()}), tmp_path / "lib")
    return tmp_path / "lib"


@pytest.fixture
def run(capsys):
    """Runs ``verify``; returns status, stdout and stderr."""

    def execute(*words):
        status = main(["verify", *map(str, words)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return execute


def script(tree, *words, options=()):
    """Runs the script of a copy from another folder; returns status, stdout and stderr."""
    command = [sys.executable, *options, str(tree / "verify.py"), *map(str, words)]
    done = subprocess.run(command, cwd=tree.parent, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def found(tree):
    return verify.verify(tree)[1]


# A copy and its sums.


def keep(tree):
    pass


def damage(tree):
    (tree / "__init__.py").write_text("mine")
    (tree / "LICENSE").unlink()
    (tree / "sub" / "mine.py").touch()


def lose_sums(tree):
    (tree / SUMS).unlink()


def lose_a_module(tree):
    (tree / "sub" / "module.py").unlink()


CASES = {
    keep: (0, ["5 files as in SHA256SUMS, whose SHA-256 is {}"]),
    damage: (
        1,
        [
            "missing  LICENSE",
            "changed  __init__.py",
            "extra    sub/mine.py",
            "{tree}: 3 files are not as SHA256SUMS says",
        ],
    ),
    lose_a_module: (1, ["missing  sub/module.py", "{tree}: 1 file is not as SHA256SUMS says"]),
    lose_sums: (2, ["{tree} cannot be compared: SHA256SUMS is missing"]),
}


@pytest.mark.parametrize("change", CASES, ids=lambda change: change.__name__)
def test_script_and_command_say_the_same(run, tree, change):
    sha256 = digest((tree / SUMS).read_bytes())
    change(tree)
    status, lines = CASES[change]
    said = "".join(f"{line.format(sha256, tree=tree)}\n" for line in lines)
    result = (status, "", said) if status == 2 else (status, said, "")
    assert run(tree) == script(tree) == result


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="there is no sha256sum")
@pytest.mark.parametrize(("change", "status"), [(keep, 0), (damage, 1)])
def test_sha256sum_reads_the_sums(tree, change, status):
    change(tree)
    command = ["sha256sum", "--check", "--quiet", SUMS]
    assert subprocess.run(command, cwd=tree, capture_output=True).returncode == status


def test_script_imports_the_standard_library_alone(tree):
    status, _, modules = script(tree, options=["-S", "-X", "importtime"])
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in modules.splitlines()}
    assert status == 0
    assert imported - {"imported package"} <= sys.stdlib_module_names | {"encodings", "zipimport"}


def test_file_of_the_copy_does_not_replace_a_standard_module(tree):
    (tree / "hashlib.py").write_text("raise SystemExit(0)")
    status, printed, _ = script(tree)
    assert (status, printed.splitlines()[0]) == (1, "extra    hashlib.py")


@pytest.mark.parametrize("words", [["."], ["lib"]])
def test_script_compares_the_folder_that_it_is_given(tree, words):
    (status, _, _), at = script(tree, *words), tree.parent / words[0]
    assert status == (0 if (at / SUMS).exists() else 2)


def test_script_refuses_more_folders_than_one(tree):
    assert script(tree, "lib", "lib") == (2, "", "usage: python verify.py [FOLDER]\n")


@posix
def test_broken_pipe_ends_the_script_quietly(tree):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, tree / "verify.py"], stdout=writing, stderr=-1)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_bytecode_of_python_is_not_extra(tree):
    for folder in (tree, tree / "sub"):
        (folder / "__pycache__").mkdir()
        (folder / "__pycache__" / "module.cpython-311.pyc").touch()
    assert not found(tree)


def test_bytecode_elsewhere_is_extra(tree):
    (tree / "module.pyc").touch()
    assert found(tree) == ["extra    module.pyc"]


def test_file_named_like_the_folder_of_bytecode_is_extra(tree):
    (tree / "__pycache__").touch()
    assert found(tree) == ["extra    __pycache__"]


def test_folder_in_place_of_a_file(tree):
    (tree / "LICENSE").unlink()
    (tree / "LICENSE").mkdir()
    (tree / "LICENSE" / "inside").touch()
    assert found(tree) == ["missing  LICENSE", "extra    LICENSE/inside"]


@posix
def test_link_to_the_same_contents_is_a_change(tree, tmp_path):
    (tree / "LICENSE").rename(tmp_path / "LICENSE")
    (tree / "LICENSE").symlink_to(tmp_path / "LICENSE")
    assert found(tree) == ["changed  LICENSE (is a link)"]


@posix
def test_linked_folder_is_not_entered(tree, tmp_path):
    (tree / "sub").rename(tmp_path / "sub")
    (tree / "sub").symlink_to(tmp_path / "sub")
    assert found(tree) == ["extra    sub (is a link)", "missing  sub/module.py"]


@posix
def test_linked_folder_of_bytecode_is_extra(tree, tmp_path):
    (tree / "__pycache__").symlink_to(tmp_path)
    assert found(tree) == ["extra    __pycache__ (is a link)"]


@posix
def test_pipe_is_not_waited_for(tree):
    (tree / "LICENSE").unlink()
    os.mkfifo(tree / "LICENSE")
    assert found(tree) == ["changed  LICENSE (is not a regular file)"]


@posix
def test_sums_that_are_a_link_are_not_read(run, tree, tmp_path):
    (tree / SUMS).rename(tmp_path / "sums")
    (tree / SUMS).symlink_to(tmp_path / "sums")
    assert run(tree) == (2, "", f"{tree} cannot be compared: {SUMS} is a link\n")


@posix
def test_file_that_cannot_be_read_is_told():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        put(small_tree(), Path(folder) / "lib")
        (Path(folder) / "lib" / "LICENSE").chmod(0)
        (Path(folder) / "lib" / "sub").chmod(0)
        with without_privileges():
            differences = found(Path(folder) / "lib")
        (Path(folder) / "lib" / "sub").chmod(0o755)
    assert differences == [
        "changed  LICENSE (cannot be read: Permission denied)",
        "extra    sub/ (cannot be read: Permission denied)",
        "missing  sub/module.py",
    ]


@posix
@pytest.mark.parametrize("inside", ["lib", "lib/inner"])
def test_copy_out_of_reach_cannot_be_compared(run, inside):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        place = Path(folder) / inside
        place.mkdir(parents=True)
        (Path(folder) / "lib").chmod(0)
        with without_privileges():
            status, printed, complaint = run(place)
        (Path(folder) / "lib").chmod(0o755)
    assert (status, printed) == (2, "")
    assert "cannot be compared" in complaint


@posix
def test_names_are_printed_so_that_no_terminal_obeys_them(run, tree):
    (tree / "new\nline\x1b[2J.py").touch()
    (tree / os.fsdecode(b"\xff.py")).touch()
    _, printed, _ = run(tree)
    assert printed.splitlines()[:2] == [r"extra    'new\nline\x1b[2J.py'", r"extra    '\udcff.py'"]


def test_copy_in_a_zip_file_is_compared(tmp_path):
    tree = small_tree()
    with zipfile.ZipFile(tmp_path / "lib.zip", "w") as archive:
        for path, contents in {**tree.files, "LICENSE": b"others", "mine.py": b""}.items():
            archive.writestr(f"lib/{path}", contents)
    inside = zipfile.Path(tmp_path / "lib.zip", "lib/")
    assert found(inside) == ["changed  LICENSE", "extra    mine.py"]


def test_damaged_zip_file_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "lib.zip", "w") as archive:
        for path, contents in small_tree("some contents").files.items():
            archive.writestr(f"lib/{path}", contents)
    damaged = (tmp_path / "lib.zip").read_bytes().replace(b"some contents", b"same contents")
    (tmp_path / "lib.zip").write_bytes(damaged)
    (difference,) = found(zipfile.Path(tmp_path / "lib.zip", "lib/"))
    assert re.match(r"changed  __init__\.py \(cannot be read: Bad CRC-32", difference)


# No sums, or bad ones.


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("nowhere", "there is no such folder"),
        ("file", "there is no such folder"),
        ("empty", f"{SUMS} is missing"),
    ],
)
def test_what_is_no_copy_is_refused(run, tmp_path, where, said):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    complaint = f"{tmp_path / where} cannot be compared: {said}\n"
    assert run(tmp_path / where) == (2, "", complaint)


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (b"", "is empty"),
        (b"{}", "line 1 of SHA256SUMS is malformed"),
        (f"{HASH}  a\n{HASH[1:]}  b\n".encode(), "line 2 of"),
        (f"{HASH}  a\n{HASH}  a\n".encode(), "line 2 of"),
        (f"{HASH}  \n".encode(), "line 1 of"),
        (f"{HASH} a\n".encode(), "line 1 of"),
        (b"\xff" * 70, "line 1 of"),
    ],
)
def test_malformed_sums_are_refused(run, tree, contents, said):
    (tree / SUMS).write_bytes(contents)
    status, printed, complaint = run(tree)
    assert (status, printed) == (2, "")
    assert said in complaint


@pytest.mark.parametrize("path", ["../secret", "/etc/hostname", "sub/../../secret", "C:\\secret"])
def test_path_outside_of_the_copy_is_missing_and_not_read(tree, tmp_path, path):
    (tmp_path / "secret").write_text("secret")
    with (tree / SUMS).open("a") as sums:
        sums.write(f"{digest(b'secret')}  {path}\n")
    assert [line.split()[0] for line in found(tree)] == ["missing"]


def test_sums_are_read_as_they_are_written():
    tree = small_tree(**{"a file.py": "x"})
    assert parse(tree.files[SUMS]) == tree.sums


def test_checkout_has_no_record_and_says_so(run):
    assert find_origin().kind == CHECKOUT
    status, printed, complaint = run()
    assert (status, printed) == (2, "")
    assert "has no record, since it is a checkout: git status" in complaint


def test_copy_by_hand_has_no_record_and_says_so(tmp_path):
    with pytest.raises(CommandError, match="neither installed nor vendored"):
        compare(Origin(UNKNOWN, tmp_path))


# What an installer recorded.


class Distribution(importlib.metadata.Distribution):
    """A distribution in a folder, with a RECORD of the test's choice."""

    def __init__(self, folder, record):
        self.folder, self.record = folder, record

    def read_text(self, filename):
        return self.record

    def locate_file(self, path):
        return self.folder / path


def rows(*paths):
    return "".join(f"{path},sha256={'A' * 43},0\n" for path in paths)


def test_installation_is_compared_with_what_the_installer_recorded(tmp_path):
    (tmp_path / "optax_ls").mkdir()
    (tmp_path / "optax_ls" / "mine.py").touch()
    (tmp_path / "optax_ls" / "there.py").touch()
    (tmp_path / "optax_ls-1.dist-info").mkdir()
    (tmp_path / "optax_ls-1.dist-info" / "WHEEL").touch()
    (tmp_path / "optax_ls-1.dist-info" / "REQUESTED").touch()
    record = rows("optax_ls/there.py", "optax_ls/gone.py", "optax_ls-1.dist-info/WHEEL")
    record += "optax_ls/__pycache__/there.cpython-311.pyc,,\noptax_ls-1.dist-info/RECORD,,\n"
    record += rows("../../bin/other", "optax_ls/../../secret") + "\n,,\nno record\n"
    origin = Origin(INSTALLED, tmp_path / "optax_ls", Distribution(tmp_path, record))
    assert compare(origin)[1] == [
        "changed  optax_ls-1.dist-info/WHEEL",
        "missing  optax_ls/../../secret",
        "missing  optax_ls/gone.py",
        "extra    optax_ls/mine.py",
        "changed  optax_ls/there.py",
    ]
    assert is_verified(origin) is False


@pytest.mark.parametrize("record", [None, "", '"optax_ls/a.py', "optax_ls/a.py,md5=AAAA,0\n"])
def test_record_of_an_installer_without_a_hash_is_refused(tmp_path, record):
    with pytest.raises(ValueError, match="RECORD is missing, or has no SHA-256"):
        compare(Origin(INSTALLED, tmp_path, Distribution(tmp_path, record)))
