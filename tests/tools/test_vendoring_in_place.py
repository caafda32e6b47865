"""A tree is installed atomically: nothing is lost, and each obstacle is reported."""

import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import vendoring
from vendoring import ROOT, contents, is_of, posix, small_tree, without_privileges

from optax_ls._tools import CommandError
from optax_ls._tools.vendor import commands, replace
from optax_ls._tools.vendor.origin import VENDORED, Differs, Origin, find_origin
from optax_ls._tools.vendor.replace import put, target_of
from optax_ls._tools.vendor.selection import compose
from optax_ls._tools.vendor.verify import SUMS

run, target = vendoring.run, vendoring.target  # fixtures


# Places that cannot be used.


def test_dest_is_made_if_its_parent_is_there(tmp_path):
    put(small_tree(), target_of(str(tmp_path / "new"), "lib", find_origin()))
    assert is_of(tmp_path / "new" / "lib", small_tree())


def test_dest_far_from_any_folder_is_refused(tmp_path):
    with pytest.raises(CommandError, match="there is no folder"):
        target_of(str(tmp_path / "no" / "where"), "lib", find_origin())


def test_empty_dest_is_refused():
    with pytest.raises(CommandError, match="DEST is empty"):
        target_of("", "lib", find_origin())


def test_dest_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match="exists and is not a folder"):
        target_of(str(tmp_path / "file"), "lib", find_origin())


@posix
def test_dest_whose_links_lead_in_a_circle_is_refused(tmp_path):
    (tmp_path / "one").symlink_to("other")
    (tmp_path / "other").symlink_to("one")
    with pytest.raises(CommandError):
        put(small_tree(), target_of(str(tmp_path / "one"), "lib", find_origin()))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("dest", "name"), [("..", "optax_ls"), (".", "inside"), ("../..", "around"), ("sub", "deep")]
)
def test_running_package_is_not_overwritten(tmp_path, dest, name):
    package = tmp_path / "around" / "optax_ls"
    (package / "sub").mkdir(parents=True)
    origin = Origin(VENDORED, package)
    with pytest.raises(CommandError, match="the package that is running"):
        target_of(str(package / dest), name, origin)


@posix
def test_unwritable_dest_is_told(tmp_path):
    with (
        without_privileges(),
        pytest.raises(CommandError, match=r"cannot write .*: Permission denied"),
    ):
        put(small_tree(), Path("/") / "optax_ls_of_nobody")
    assert not Path("/optax_ls_of_nobody").exists()


@posix
@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_dest_that_cannot_be_entered_is_told(run, options, monkeypatch):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        # From a copy that all may read: the checkout may be in a folder of its owner alone.
        copy = Path(folder) / "copy"
        put(compose(find_origin())["everything"], copy)
        monkeypatch.setattr(commands, "find_origin", lambda: Origin(VENDORED, copy))
        lib = Path(folder) / "lib"
        lib.mkdir()
        lib.chmod(0)
        with without_privileges():
            status, printed, complaint = run("vendor", lib, *options)
        lib.chmod(0o755)
        assert not any(lib.iterdir())
    assert (status, printed) == (2, "")
    assert "Permission denied" in complaint


# The old tree.


def test_tree_as_recorded_is_replaced(target):
    (target / "__pycache__").mkdir()
    (target / "__pycache__" / "bytecode.pyc").touch()
    assert put(small_tree("2"), target) is None
    assert is_of(target, small_tree("2"))
    assert list(target.parent.iterdir()) == [target]


def test_what_a_new_tree_lacks_is_gone(target):
    put(small_tree("2", more=""), target)
    put(small_tree("3"), target)
    assert is_of(target, small_tree("3"))


def change(target):
    (target / "__init__.py").write_text("mine")


def add_link(target):
    (target / "extra.py").symlink_to("/etc/passwd")


def lose_sums(target):
    (target / SUMS).unlink()


def spoil_sums(target):
    (target / SUMS).write_text("[]")


def become_file(target):
    shutil.rmtree(target)
    target.write_text("mine")


def become_link(target):
    target.rename(target.with_name("elsewhere"))
    target.symlink_to("elsewhere")


def become_dangling_link(target):
    shutil.rmtree(target)
    target.symlink_to("nowhere")


DAMAGES = {
    change: "changed  __init__.py",
    add_link: r"extra    extra.py \(is a link\)",
    lose_sums: "SHA256SUMS is missing",
    spoil_sums: "line 1 of SHA256SUMS is malformed",
    become_file: "it is not a folder",
    become_link: "it is a link",
    become_dangling_link: "it is a link",
}
each_damage = pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)


@posix
@each_damage
def test_tree_that_is_not_as_recorded_is_left_alone(target, damage):
    damage(target)
    before = contents(target.parent)
    with pytest.raises(Differs) as refused:
        put(small_tree("2"), target)
    assert re.search(DAMAGES[damage], refused.value.reasons[0])
    assert contents(target.parent) == before


@posix
@each_damage
@pytest.mark.parametrize("exchange", [True, False])
def test_force_keeps_the_old_tree_beside(target, damage, exchange, monkeypatch):
    if not exchange:
        monkeypatch.setattr(replace, "_exchange", lambda one, other: False)
    damage(target)
    before = contents(target.parent)
    kept = put(small_tree("2"), target, force=True)
    assert kept == target.with_name("optax_ls.replaced")
    assert is_of(target, small_tree("2"))
    kept.rename(target.with_name("aside"))
    shutil.rmtree(target)
    target.with_name("aside").rename(target)
    assert contents(target.parent) == before


def test_every_forced_run_keeps_its_own(target):
    for number in ("2", "3"):
        change(target)
        put(small_tree(number), target, force=True)
    names = {path.name for path in target.parent.iterdir()}
    assert names == {"optax_ls", "optax_ls.replaced", "optax_ls.replaced-2"}


def test_force_keeps_nothing_of_a_tree_as_recorded(target):
    assert put(small_tree("2"), target, force=True) is None
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("exchange", [True, False])
def test_change_in_the_last_moment_is_kept(target, monkeypatch, exchange):
    exchange_folders = replace._exchange

    def meanwhile(one, other):
        change(other)
        return exchange and exchange_folders(one, other)

    monkeypatch.setattr(replace, "_exchange", meanwhile)
    kept = put(small_tree("2"), target)
    assert (kept / "__init__.py").read_text() == "mine"


# Runs that end early.


class Breaking:
    """A function that works a number of times, and then raises."""

    def __init__(self, function, times, error):
        self.function, self.left, self.error = function, times, error

    def __call__(self, *args, **kwargs):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return self.function(*args, **kwargs)


FULL = OSError(errno.ENOSPC, "No space left on device", "file")


@pytest.mark.parametrize("files", [0, 2])
@pytest.mark.parametrize("function", ["write_bytes", "mkdir"])
def test_full_disk_is_told_and_leaves_the_old_tree(target, monkeypatch, function, files):
    broken = Breaking(getattr(Path, function), files, FULL)
    monkeypatch.setattr(Path, function, lambda *args, **kwargs: broken(*args, **kwargs))
    with pytest.raises(
        CommandError, match=r"cannot write .*: No space left on device; .* is as it was"
    ):
        put(small_tree("2"), target)
    assert is_of(target, small_tree("1"))
    assert list(target.parent.iterdir()) == [target]


@posix
def test_limit_of_the_system_on_files_is_told_and_leaves_the_old_tree(target):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(CommandError, match="too large"):
            put(small_tree("2" * 10000), target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert is_of(target, small_tree("1"))
    assert list(target.parent.iterdir()) == [target]


def test_failure_takes_back_the_folder_that_it_made(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", Breaking(Path.write_bytes, 0, FULL))
    with pytest.raises(CommandError):
        put(small_tree(), tmp_path / "new" / "optax_ls")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EACCES, "Denied", "file")])
@pytest.mark.parametrize("renames", range(4))
def test_renaming_that_fails_or_is_interrupted_leaves_the_old_tree(
    target, monkeypatch, renames, error
):
    monkeypatch.setattr(replace, "_exchange", lambda one, other: False)
    rename, broken = Path.rename, Breaking(lambda: None, renames, error)

    def breaking_once(self, to):
        if broken.left >= 0:
            broken()
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", breaking_once)
    with pytest.raises((KeyboardInterrupt, CommandError)):
        put(small_tree("2"), target)
    assert is_of(target, small_tree("1"))
    assert not target.with_name(".optax_ls.vendoring").exists()


def test_interrupted_command_leaves_the_old_tree(run, target, monkeypatch):
    broken = Breaking(Path.write_bytes, 5, KeyboardInterrupt())
    monkeypatch.setattr(Path, "write_bytes", lambda *args: broken(*args))
    status, _, complaint = run("vendor", target.parent)
    assert status == 130
    assert "interrupted" in complaint
    assert is_of(target, small_tree("1"))
    assert list(target.parent.iterdir()) == [target]


KILLED = """
import os, pathlib, shutil, sys
sys.path[:0] = sys.argv[1:3]
from vendoring import contents, small_tree
from optax_ls._tools.vendor import replace

EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "os.listdir",
          "ctypes.dlsym", "shutil.rmtree")
root = pathlib.Path(sys.argv[3])
if sys.argv[4] == "two renames":
    replace._exchange = lambda one, other: False
old, new = small_tree("1"), small_tree("2")


def killed_at(event_number):
    seen = 0
    def count(event, args):
        nonlocal seen
        if event in EVENTS:
            seen += 1
            if seen > event_number:
                os._exit(9)
    sys.addaudithook(count)


number, status, outcomes = 0, None, set()
while status != 0:
    place = root / str(number) / "optax_ls"
    place.parent.mkdir()
    replace.put(old, place)
    child = os.fork()
    if child == 0:
        killed_at(number)
        replace.put(new, place)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9), status
    found = contents(place)
    outcome = "old" if found == old.files else "new" if found == new.files else "half"
    if not place.exists():
        kept = contents(place.with_name("optax_ls.replaced"))
        outcome = "beside" if kept == old.files else "lost"
    outcomes.add(outcome)
    shutil.rmtree(place.with_name(".optax_ls.vendoring"), ignore_errors=True)
    if place.exists():
        replace.put(new, place)
        assert contents(place) == new.files
    number += 1
print(number, *sorted(outcomes))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="exchanges folders as Linux does")
@pytest.mark.parametrize(
    ("way", "outcomes"),
    [("one exchange", ["new", "old"]), ("two renames", ["beside", "new", "old"])],
)
def test_run_killed_anywhere_leaves_the_old_tree_or_the_new(tmp_path, way, outcomes):
    words = [sys.executable, "-c", KILLED, ROOT / "tests", ROOT, tmp_path, way]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    number, *found = done.stdout.split()
    assert found == outcomes
    assert int(number) > 20


def test_old_tree_that_cannot_be_removed_is_told(target, monkeypatch):
    rmtree = shutil.rmtree

    def failing(path, ignore_errors=False):
        if not ignore_errors:
            raise OSError(errno.EBUSY, "Device or resource busy", str(path))
        rmtree(path, ignore_errors=True)

    monkeypatch.setattr(shutil, "rmtree", failing)
    with pytest.raises(
        CommandError, match=r"is new, but its old tree is left in .*replaced: Device"
    ):
        put(small_tree("2"), target)
    assert is_of(target, small_tree("2"))


# Two runs at once.


def test_second_run_is_told_of_the_first(target, monkeypatch):
    def second(folder):
        with pytest.raises(CommandError, match="another run of vendor is at work on "):
            put(small_tree("3"), target)
        return []

    monkeypatch.setattr(replace, "reasons_to_keep", second)
    put(small_tree("2"), target)
    assert is_of(target, small_tree("2"))


def test_what_a_killed_run_left_is_told_and_may_be_removed(target):
    left = target.with_name(".optax_ls.vendoring")
    left.mkdir()
    with pytest.raises(CommandError, match=f"if there is none, one was killed: remove {left}"):
        put(small_tree("2"), target)
    left.rmdir()
    put(small_tree("2"), target)
    assert is_of(target, small_tree("2"))


def test_runs_at_once_end_with_one_whole_tree(target):
    trees = [small_tree(str(number)) for number in range(2, 6)]
    outcomes, barrier = [], threading.Barrier(len(trees))

    def vendor(tree):
        barrier.wait()
        for _ in range(10):
            try:
                outcomes.append(put(tree, target))
            except CommandError as refusal:
                outcomes.append(str(refusal))
            time.sleep(0.001)

    threads = [threading.Thread(target=vendor, args=(tree,)) for tree in trees]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert None in outcomes
    assert all(outcome is None or "another run" in outcome for outcome in outcomes)
    assert any(is_of(target, tree) for tree in trees)
    assert list(target.parent.iterdir()) == [target]


def test_runs_for_other_names_do_not_wait(target):
    target.with_name(".optax_ls.vendoring").mkdir()
    put(small_tree(), target.with_name("other"))
    assert is_of(target.with_name("other"), small_tree())
