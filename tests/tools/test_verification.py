"""Verifying: every file that is not as recorded is named, and nothing outside the tree is read."""

import errno
import importlib.metadata
import json
import os
import re
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vendoring import DATE, posix, small_tree, without_privileges

from optax_ls._tools.cli import main
from optax_ls._tools.vendor import files
from optax_ls._tools.vendor.copy import put
from optax_ls._tools.vendor.origin import (
    CHECKOUT,
    INSTALLED,
    UNKNOWN,
    Origin,
    find_origin,
)
from optax_ls._tools.vendor.record import (
    RECORD,
    MalformedRecord,
    NoRecord,
    check_path,
    dump,
    installed_record,
    parse,
)
from optax_ls._tools.vendor.verify import is_verified, verify_package, verify_tree

HASH = "0" * 64


@pytest.fixture
def tree(tmp_path):
    put(small_tree(), tmp_path / "lib")
    return tmp_path / "lib"


@pytest.fixture
def run(capsys):
    """Runs ``verify``; returns status, stdout and stderr."""

    def execute(*words):
        status = main(["verify", *map(str, words)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return execute


def found(tree):
    return [str(difference) for difference in verify_tree(tree).differences]


# A tree and its record.


def test_tree_as_recorded_is_told_in_one_line(run, tree):
    status, printed, complaints = run(tree)
    assert (status, complaints, printed.count("\n")) == (0, "", 1)
    sha256 = files.digest((tree / RECORD).read_bytes())
    assert printed == (
        "optax_ls 0.1.0, revision unknown, 3 files as in VENDORED.json, "
        f"whose SHA-256 is {sha256}\n"
    )


def test_every_difference_is_told(run, tree):
    (tree / "__init__.py").write_text("mine")
    (tree / "LICENSE").unlink()
    (tree / "sub" / "mine.py").touch()
    status, printed, complaints = run(tree)
    assert (status, complaints) == (1, "")
    assert printed.splitlines() == [
        "missing  LICENSE",
        "changed  __init__.py",
        "extra    sub/mine.py",
        f"{tree}: 3 files are not as VENDORED.json says",
    ]


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
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/etc/hostname")])
def test_what_takes_the_place_of_a_file_after_listing_is_not_read(tree, make):
    file = files.list_folder(tree).files["LICENSE"]
    file.unlink()
    make(file)
    with pytest.raises(OSError, match=r"regular file|symbolic links"):
        files.read(file)


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
        "unread   LICENSE (Permission denied)",
        "extra    sub/ (cannot be read: Permission denied)",
        "missing  sub/module.py",
    ]


@posix
def test_tree_that_cannot_be_entered_is_told(run):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        put(small_tree(), Path(folder) / "lib")
        (Path(folder) / "lib").chmod(0)
        with without_privileges():
            status, printed, _ = run(Path(folder) / "lib")
        (Path(folder) / "lib").chmod(0o755)
    assert status == 1
    assert "Permission denied" in printed


@posix
def test_tree_out_of_reach_is_told(run):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        put(small_tree(), Path(folder) / "lib" / "tree")
        (Path(folder) / "lib").chmod(0)
        with without_privileges():
            status, printed, complaint = run(Path(folder) / "lib" / "tree")
        (Path(folder) / "lib").chmod(0o755)
    assert (status, printed) == (2, "")
    assert "cannot read" in complaint or "there is no folder" in complaint


@posix
def test_names_are_printed_so_that_no_terminal_obeys_them(run, tree):
    (tree / "new\nline\x1b[2J.py").touch()
    (tree / os.fsdecode(b"\xff.py")).touch()
    _, printed, _ = run(tree)
    assert printed.splitlines()[:2] == [r"extra    'new\nline\x1b[2J.py'", r"extra    '\udcff.py'"]


def test_tree_in_a_zip_file_is_compared(tmp_path):
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
    assert re.match(r"unread   __init__\.py \(Bad CRC-32", difference)


# No record, or a bad one.


@pytest.mark.parametrize(
    ("where", "said"),
    [("nowhere", "there is no folder"), ("file", "no folder"), ("empty", f"there is no {RECORD}")],
)
def test_what_is_no_tree_is_refused(run, tmp_path, where, said):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    status, printed, complaint = run(tmp_path / where)
    assert (status, printed) == (2, "")
    assert said in complaint


def test_checkout_has_no_record_and_says_so(run):
    assert find_origin().kind == CHECKOUT
    status, printed, complaint = run()
    assert (status, printed) == (2, "")
    assert "has no record, since it is a checkout: git status" in complaint


def test_copy_by_hand_has_no_record_and_says_so(tmp_path):
    with pytest.raises(NoRecord, match="neither installed nor vendored"):
        verify_package(Origin(UNKNOWN, tmp_path))


def record_with(**changes):
    fields = json.loads(small_tree().files[RECORD])
    fields.update(changes)
    return json.dumps({name: x for name, x in fields.items() if x is not ...}).encode()


def record_of(path):
    return record_with(files={path: HASH})


MALFORMED = {
    "nothing": (b"", "not JSON"),
    "no JSON": (b"{", "not JSON"),
    "not UTF-8": (b'"\xff"', "not JSON"),
    "deep": (b"[" * 100_000, "not JSON"),
    "long number": (b"1" * 100_000, "not JSON"),
    "no object": (b"[]", "not a JSON object"),
    "repeated name": (b'{"files": {}, "files": {}}', "occurs twice"),
    "another project": (record_with(project="other"), "not a record of format 1 of optax_ls"),
    "a later format": (record_with(format=2), "not a record of format 1"),
    "field missing": (record_with(date=...), "field date is missing"),
    "field of a wrong type": (record_with(revision=7), "field revision is missing or of a wrong"),
    "unknown field": (record_with(more=1), "unknown fields: ['more']"),
    "no files": (record_with(files={}), "names no file"),
    "files in a list": (record_with(files=["LICENSE"]), "field files"),
    "short hash": (record_with(files={"LICENSE": "0"}), "SHA-256 of LICENSE is not 64"),
    "hash of a wrong type": (record_with(files={"LICENSE": 1}), "SHA-256 of LICENSE is not 64"),
    "parent": (record_of("../secret"), "the path ../secret leads out of the tree"),
    "parent of a folder": (record_of("sub/../../secret"), "leads out of the tree"),
    "absolute": (record_of("/etc/passwd"), "leads out of the tree"),
    "drive": (record_of("C:/secret"), "leads out of the tree"),
    "parent on Windows": (record_of("..\\secret"), "leads out of the tree"),
    "share on Windows": (record_of("\\\\host\\share"), "leads out of the tree"),
    "backslash": (record_of("sub\\file"), "is not a path of a file"),
    "empty": (record_of(""), "is not a path of a file"),
    "dot": (record_of("."), "is not a path of a file"),
    "roundabout": (record_of("sub/./file"), "is not a path of a file"),
    "folder": (record_of("sub/"), "is not a path of a file"),
    "null": (record_of("file\0"), "is not a path of a file"),
    "itself": (record_of(RECORD), "is not a path of a file"),
}


@pytest.mark.parametrize(("contents", "said"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_record_is_told_and_nothing_else_read(run, tree, monkeypatch, contents, said):
    (tree / RECORD).write_bytes(contents)
    opened, open_file = [], files._open

    def noted(path, flags):
        opened.append(Path(path))
        return open_file(path, flags)

    monkeypatch.setattr(files, "_open", noted)
    status, printed, complaints = run(tree)
    assert (status, complaints, printed.count("\n")) == (1, "", 1)
    assert f"{tree}: the record is malformed: " in printed
    assert said in printed
    assert opened == [tree / RECORD]


@posix
def test_record_that_is_a_link_is_not_read(tree, tmp_path):
    (tree / RECORD).rename(tmp_path / "record")
    (tree / RECORD).symlink_to(tmp_path / "record")
    with pytest.raises(MalformedRecord, match=r"cannot be read: .*symbolic links"):
        verify_tree(tree)


@given(st.text())
def test_path_that_passes_stays_in_the_tree(path):
    try:
        check_path(path)
    except MalformedRecord:
        return
    root = "/root/of/the/tree"
    assert os.path.normpath(os.path.join(root, path)) == f"{root}/{path}"


@given(st.dictionaries(st.text("ab/._-é", min_size=1), st.just(HASH), min_size=1))
def test_record_is_read_as_it_was_written(files):
    record = small_tree().record._replace(files=files)
    try:
        for path in files:
            check_path(path)
    except MalformedRecord:
        return
    assert parse(dump(record)) == record


def test_record_is_written_the_same_whatever_the_order():
    record = small_tree().record
    backwards = record._replace(files=dict(reversed(record.files.items())))
    assert dump(backwards) == dump(record)
    assert record.date == DATE


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
    origin = Origin(INSTALLED, tmp_path / "optax_ls", Distribution(tmp_path, record))
    assert [str(difference) for difference in verify_package(origin).differences] == [
        "changed  optax_ls-1.dist-info/WHEEL",
        "missing  optax_ls/gone.py",
        "extra    optax_ls/mine.py",
        "changed  optax_ls/there.py",
    ]
    assert is_verified(origin) is False


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (None, "missing or empty"),
        ("", "missing or empty"),
        ("optax_ls/a.py\n", "1 fields instead of 3"),
        ('"optax_ls/a.py', "cannot be read"),
        (rows("optax_ls/../../secret"), "neither in optax_ls nor in its metadata"),
        (rows("../optax_ls/secret"), "neither in optax_ls"),
        (rows("/etc/passwd"), "neither in optax_ls"),
        (rows("secret"), "neither in optax_ls"),
        ("optax_ls/a.py,md5=AAAA,0\n", "hash of optax_ls/a.py is not a SHA-256"),
        ("optax_ls/a.py,sha256=AAAA,0\n", "hash of optax_ls/a.py is not a SHA-256"),
        ("optax_ls/a.py,sha256=!,0\n", "hash of optax_ls/a.py is not a SHA-256"),
    ],
)
def test_malformed_record_of_an_installer_is_told(tmp_path, record, said):
    with pytest.raises(MalformedRecord, match=said):
        installed_record(Distribution(tmp_path, record))


def test_record_of_an_installer_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    def denied(self, filename):
        raise PermissionError(errno.EACCES, "Permission denied", filename)

    monkeypatch.setattr(Distribution, "read_text", denied)
    with pytest.raises(MalformedRecord, match=r"cannot be read: .*Permission denied"):
        installed_record(Distribution(tmp_path, ""))
