"""Vendoring: what is copied, from where, and what is said of it."""

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
import vendoring
from vendoring import DATE, ROOT, contents, copy_checkout, git, make_older, posix

import optax_ls
from optax_ls._tools import CommandError
from optax_ls._tools.vendor.changes import new_entries
from optax_ls._tools.vendor.origin import (
    CHECKOUT,
    INSTALLED,
    RECORD,
    UNKNOWN,
    VENDORED,
    Differs,
    Origin,
    source_of,
)
from optax_ls._tools.vendor.replace import put
from optax_ls._tools.vendor.selection import NOTE, SELECTIONS, compose
from optax_ls._tools.vendor.verify import SUMS, digest

run, target = vendoring.run, vendoring.target  # fixtures

ZOOM = "_core/linesearch/zoom.py"
GENERATED = {SUMS, RECORD, NOTE, ".editorconfig", ".gitattributes", "ruff.toml"}
BUILD = "from setuptools import build_meta; print(build_meta.build_{}('dist'))"
each_selection = pytest.mark.parametrize("parts", SELECTIONS)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The origin of a package in a checkout under git, without changes."""
    if not shutil.which("git"):
        pytest.skip("there is no git")
    folder = tmp_path_factory.mktemp("checkout")
    origin = copy_checkout(folder)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "All")
    return origin


@pytest.fixture(scope="module")
def revision(checkout):
    return git(checkout.package.parent, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def trees(checkout):
    return compose(checkout)


@pytest.fixture(scope="module")
def tree(trees):
    return trees["everything"]


def build(folder, kind):
    """Builds as pip does, by a call of the build backend; returns the path of what it built."""
    command = [sys.executable, "-c", BUILD.format(kind)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "dist" / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(checkout, tmp_path_factory):
    """The origin of a package in an unpacked source distribution."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build(checkout.package.parent, "sdist")) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    return Origin(CHECKOUT, source / "optax_ls")


@pytest.fixture(scope="module")
def installed(checkout, tmp_path_factory):
    """The origin of a package that was installed from a checkout."""
    site = tmp_path_factory.mktemp("site")
    old = checkout.package.parent / "build" / "lib" / "optax_ls" / "of_an_earlier_build.py"
    old.parent.mkdir(parents=True)
    old.touch()
    with zipfile.ZipFile(build(checkout.package.parent, "wheel")) as wheel:
        wheel.extractall(site)
    distribution = importlib.metadata.PathDistribution(next(site.glob("*.dist-info")))
    return Origin(INSTALLED, site / "optax_ls", distribution)


# What is copied.


def test_copy_of_everything_holds_sources_licences_changelog_and_record(tree):
    sources = {
        path.relative_to(ROOT / "optax_ls").as_posix()
        for path in (ROOT / "optax_ls").rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    licences = {f"third_party_licenses/{x.name}" for x in (ROOT / "third_party_licenses").iterdir()}
    others = {"LICENSE", "CHANGELOG.md", "verify.py"}
    assert set(tree.files) == sources | licences | others | GENERATED


def test_library_lacks_the_tools_alone(trees):
    lacking = set(trees["everything"].files) - set(trees["library"].files)
    assert lacking == {x for x in trees["everything"].files if x.startswith(("_tools/", "__main"))}


def test_files_are_those_of_the_source(trees):
    for parts, tree in trees.items():
        for path, copied in tree.files.items():
            if path.endswith(".py"):
                moved = {"verify.py": "_tools/vendor/verify.py"}
                if parts == "core":
                    moved["__init__.py"] = "_drop_in.py"
                source = moved.get(path, path)
                assert copied == (ROOT / "optax_ls" / source).read_bytes()


@each_selection
def test_sums_are_those_of_all_other_files(trees, parts):
    lines = (f"{digest(x)}  {path}\n" for path, x in sorted(trees[parts].files.items()))
    assert trees[parts].files[SUMS].decode() == "".join(x for x in lines if SUMS not in x)


@each_selection
def test_record_says_what_the_copy_is(trees, parts, revision):
    record = json.loads(trees[parts].files[RECORD])
    assert record["parts"] == parts
    assert (record["version"], record["revision"]) == (optax_ls.__version__, revision)
    assert (record["date"], record["python"]) == (DATE, ">=3.10")
    assert record["requires"]["jax"] == ">=0.4.30"


@each_selection
def test_note_tells_its_reader_what_it_is_how_to_check_it_and_where_fixes_belong(
    trees, parts, revision
):
    note = trees[parts].files[NOTE].decode()
    wanted = optax_ls.__version__, revision, DATE, f"`{parts}`", "LICENSE", "upstream"
    commands = "python verify.py", f"sha256sum --check --quiet {SUMS}", "--check"
    assert [x for x in (*wanted, *commands) if x not in note] == []
    assert len(note.splitlines()) < 40


def test_core_has_at_most_4000_lines(trees):
    _, lines, _ = trees["core"].size
    assert lines <= 4000
    assert "verify.py" in trees["core"].files


# The same record from every source.


def same(origin, trees):
    return {parts: dict(tree.files) for parts, tree in compose(origin).items()} == {
        parts: dict(tree.files) for parts, tree in trees.items()
    }


@pytest.mark.parametrize("source", ["checkout", "sdist", "installed"])
def test_every_source_makes_the_same_copies(request, trees, source):
    assert same(request.getfixturevalue(source), trees)


def test_copy_of_everything_makes_the_same_copies(trees, tmp_path):
    put(trees["everything"], tmp_path / "another_name")
    assert same(Origin(VENDORED, tmp_path / "another_name"), trees)


def test_copy_in_a_zip_file_makes_the_same_copies(trees, tmp_path):
    with zipfile.ZipFile(tmp_path / "lib.zip", "w") as archive:
        for path, copied in trees["everything"].files.items():
            archive.writestr(f"lib/optax_ls/{path}", copied)
    assert same(Origin(VENDORED, zipfile.Path(tmp_path / "lib.zip", "lib/optax_ls/")), trees)


def test_environment_does_not_change_a_copy(checkout, trees, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert same(checkout, trees)


@pytest.mark.parametrize("new", ["optax_ls/_core/lbfgs/new.py", "third_party_licenses/new.txt"])
def test_changed_checkout_is_told_apart_and_has_no_date(checkout, revision, new):
    file = checkout.package.parent / new
    file.touch()
    try:
        first, second = (compose(checkout)["everything"] for _ in range(2))
    finally:
        file.unlink()
    assert first.record[1:4] == (optax_ls.__version__, f"{revision}-dirty", None)
    assert first == second


def test_build_of_a_changed_checkout_says_so(checkout, revision, tmp_path):
    folder = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", checkout.package.parent, folder)
    (folder / "optax_ls" / "new.py").touch()
    with zipfile.ZipFile(build(folder, "wheel")) as wheel:
        assert wheel.read("optax_ls/_revision.txt").decode() == f"{revision}-dirty\n"


def test_checkout_without_git_has_no_revision(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert source_of(checkout) == (None, None)


def test_git_of_a_project_around_is_not_asked(checkout, tmp_path):
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "Another project")
    (tmp_path / "inner").mkdir()
    assert source_of(copy_checkout(tmp_path / "inner")) == (None, None)


def test_git_without_a_commit_knows_no_revision(tmp_path):
    origin = copy_checkout(tmp_path)
    git(tmp_path, "init", "--quiet")
    assert source_of(origin) == (None, None)


@pytest.mark.parametrize("text", ["", "unknown", "12345", "abcdefg 1", "0123abc now", "\xff"])
def test_revision_that_is_none_is_unknown(tmp_path, text):
    (tmp_path / "_revision.txt").write_text(text, encoding="latin-1")
    assert source_of(Origin(UNKNOWN, tmp_path)) == (None, None)


# Sources that are refused.


def test_changed_copy_is_not_vendored_onwards(tree, tmp_path):
    put(tree, tmp_path / "lib")
    (tmp_path / "lib" / ZOOM).write_text("")
    with pytest.raises(Differs) as refused:
        compose(Origin(VENDORED, tmp_path / "lib"))
    assert refused.value.reasons == [f"changed  {ZOOM}"]


def test_changed_installation_is_not_vendored(installed, tmp_path):
    shutil.copytree(installed.package.parent, tmp_path / "site")
    (tmp_path / "site" / "optax_ls" / ZOOM).unlink()
    distribution = importlib.metadata.PathDistribution(next(tmp_path.glob("site/*.dist-info")))
    with pytest.raises(Differs) as refused:
        compose(Origin(INSTALLED, tmp_path / "site" / "optax_ls", distribution))
    assert refused.value.reasons == [f"missing  optax_ls/{ZOOM}"]


def test_malformed_sums_of_the_running_copy_are_told(tree, tmp_path):
    put(tree, tmp_path / "lib")
    (tmp_path / "lib" / SUMS).write_text("{")
    with pytest.raises(CommandError, match="line 1 of SHA256SUMS is malformed"):
        compose(Origin(VENDORED, tmp_path / "lib"))


def test_copy_by_hand_is_refused_since_licences_are_not_found(tmp_path):
    with pytest.raises(CommandError, match="neither installed nor vendored"):
        compose(Origin(UNKNOWN, tmp_path))


@pytest.mark.parametrize("lost", ["LICENSE", "CHANGELOG.md", "third_party_licenses"])
def test_checkout_without_licences_is_refused(tmp_path, lost):
    origin = copy_checkout(tmp_path)
    (tmp_path / lost).rename(tmp_path / "elsewhere")
    with pytest.raises(CommandError, match=lost):
        compose(origin)


@posix
def test_link_in_a_checkout_is_refused(tmp_path):
    origin = copy_checkout(tmp_path)
    (tmp_path / "optax_ls" / "_core" / "linked.py").symlink_to(tmp_path / "setup.py")
    with pytest.raises(CommandError, match=r"linked\.py is a link"):
        compose(origin)


# The command.


@pytest.fixture(autouse=True)
def quick(request, monkeypatch):
    """Commands copy the checkout of these tests, whose files do not change meanwhile."""
    if "run" in request.fixturenames:
        origin = request.getfixturevalue("checkout")
        monkeypatch.setattr("optax_ls._tools.vendor.commands.find_origin", lambda: origin)


@each_selection
def test_command_copies_and_says_what(run, tmp_path, trees, parts):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "__init__.py").touch()
    status, printed, complaints = run("vendor", tmp_path / "lib", "--name", "x", "--parts", parts)
    assert (status, complaints) == (0, "")
    record, sha256 = trees[parts].record, digest(trees[parts].files[SUMS])
    place = tmp_path / "lib" / "x"
    assert printed == f"vendored {record} to {place}\n{SUMS} has SHA-256 {sha256}\n"
    assert contents(place) == dict(trees[parts].files)


def test_folder_above_without_init_is_told(run, tmp_path):
    _, printed, _ = run("vendor", tmp_path / "lib")
    assert f"note: {tmp_path / 'lib'} has no __init__.py." in printed
    assert "find_packages of setuptools leaves out this folder and optax_ls in it" in printed


def test_dry_run_lists_files_and_sizes_and_writes_none(run, tmp_path, trees):
    status, printed, complaints = run("vendor", tmp_path / "lib", "--dry-run", "--parts", "core")
    assert (status, complaints) == (0, "")
    listed = re.findall(r"^  (\S+)$", printed, re.MULTILINE)
    assert listed == sorted(trees["core"].files)
    sizes = {
        name: tuple(int(x.replace(",", "")) for x in numbers.split())
        for name, numbers in re.findall(r"^(\w+)((?: +[\d,]+){3})$", printed, re.MULTILINE)
    }
    assert sizes == {parts: tree.size for parts, tree in trees.items()}
    assert not any(tmp_path.iterdir())


def test_dry_run_refuses_what_the_run_would(run, target):
    (target / "__init__.py").write_text("mine")
    status, printed, complaints = run("vendor", target.parent, "--dry-run")
    assert (status, printed) == (1, "")
    assert "changed  __init__.py" in complaints


@pytest.mark.parametrize(
    "name", ["", "a-b", "a.b", "1a", "class", "../a", "a/b", "/a", "..", "a b"]
)
def test_name_that_is_no_identifier_is_refused(run, tmp_path, name):
    status, printed, complaint = run("vendor", tmp_path / "lib", f"--name={name}")
    assert (status, printed) == (2, "")
    assert f"--name must be a name that Python can import, got {name!r}" in complaint
    assert not any(tmp_path.iterdir())


def test_unknown_selection_is_refused(run, tmp_path):
    status, _, complaint = run("vendor", tmp_path / "lib", "--parts", "half")
    assert (status, "'half'" in complaint) == (2, True)


def test_forced_dry_run_says_what_it_would_keep(run, target):
    (target / "__init__.py").write_text("mine")
    before = contents(target.parent)
    status, printed, _ = run("vendor", target.parent, "--dry-run", "--force")
    assert status == 0
    assert "the old copy is kept beside it\n" in printed
    assert contents(target.parent) == before


def test_changed_copy_is_not_overwritten_and_every_file_is_named(run, target):
    (target / "__init__.py").write_text("mine")
    (target / "LICENSE").unlink()
    (target / "sub" / "mine.py").touch()
    before = contents(target.parent)
    status, printed, complaints = run("vendor", target.parent)
    assert (status, printed) == (1, "")
    for line in ("changed  __init__.py", "missing  LICENSE", "extra    sub/mine.py", "--force"):
        assert line in complaints
    assert contents(target.parent) == before


def test_forced_command_says_where_the_old_copy_is(run, target):
    (target / "__init__.py").write_text("mine")
    status, printed, _ = run("vendor", target.parent, "--force")
    assert status == 0
    assert f"the old copy is kept in {target}.replaced" in printed


# Upgrading.

OLDER = """# Changelog

## [0.1.0]

### Added

- One.
"""
NEW = "## [0.2.0]\n\n### Changed\n\n- Two,\n  at length.\n\n"
NEWER = OLDER.replace("## [0.1.0]", f"{NEW}## [0.1.0]")


@pytest.fixture
def older(run, tmp_path):
    """An older copy, and what its changelog lacks."""
    run("vendor", tmp_path / "lib", "--parts", "core")
    place = tmp_path / "lib" / "optax_ls"
    return place, make_older(place)


def test_older_copy_is_replaced_by_the_same_selection_and_news_are_printed(run, older, trees):
    place, entry = older
    status, printed, complaints = run("vendor", place.parent)
    assert (status, complaints) == (0, "")
    assert contents(place) == dict(trees["core"].files)
    old = f"optax_ls {optax_ls.__version__} (core; revision 0123abc, 2020-02-02T02:02:02Z)"
    assert f"the old copy is {old}\n" in printed
    assert re.search(rf"^## .*\n### .*\n{re.escape(entry)}", printed, re.MULTILINE)


def test_check_tells_what_a_newer_source_would_change(run, older):
    place, entry = older
    before = contents(place)
    status, printed, complaints = run("vendor", place.parent, "--check")
    assert (status, complaints) == (1, "")
    assert printed.startswith(
        "changed  CHANGELOG.md\nchanged  VENDORED.json\nthe old copy is optax_ls "
    )
    assert entry in printed
    assert f"would change 2 files of {place}\n" in printed
    assert contents(place) == before


def test_check_of_a_copy_of_this_source_changes_nothing(run, older):
    place, _ = older
    run("vendor", place.parent)
    status, printed, _ = run("vendor", place.parent, "--check")
    assert (status, printed.count("\n")) == (0, 1)


def test_check_of_another_selection_lists_its_files(run, older):
    place, _ = older
    run("vendor", place.parent)
    status, printed, _ = run("vendor", place.parent, "--check", "--parts", "library")
    assert status == 1
    assert "missing  _minimize/api.py\n" in printed


def test_check_without_a_copy_is_refused(run, tmp_path):
    status, printed, complaint = run("vendor", tmp_path / "lib", "--check")
    assert (status, printed) == (2, "")
    assert f"there is no copy in {tmp_path / 'lib' / 'optax_ls'}" in complaint


@pytest.mark.parametrize(
    "text",
    ["[]", "{", '{"format": 1}', '{"format": 2}', '{"format": 2, "parts": []}', "1" * 10_000],
)
def test_copy_with_another_record_is_refused(run, older, text):
    place, _ = older
    (place / RECORD).write_text(text)
    status, _, complaint = run("vendor", place.parent)
    assert (status, f"changed  {RECORD}" in complaint) == (1, True)
    assert run("vendor", place.parent, "--check")[0] == 2


def test_news_are_the_entries_that_the_older_changelog_lacks():
    assert new_entries(OLDER, NEWER) == ["## [0.2.0]", "### Changed", "- Two,\n  at length."]
    assert new_entries(NEWER, NEWER) == []
    assert new_entries("", OLDER) == ["## [0.1.0]", "### Added", "- One."]


def test_entries_under_a_renamed_heading_are_not_new():
    assert new_entries(NEWER.replace("[0.2.0]", "[Unreleased]"), NEWER) == []
