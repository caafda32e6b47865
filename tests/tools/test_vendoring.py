"""Vendoring: what is copied, from where, and what is said of it."""

import errno
import importlib.metadata
import shutil
import zipfile

import pytest
import vendoring
from vendoring import DATE, ROOT, SECONDS, build_wheel, contents, copy_checkout, git, posix

import optax_ls
from optax_ls._tools import CommandError
from optax_ls._tools.vendor.copy import NOTE, TreeDiffers, compose, put
from optax_ls._tools.vendor.files import digest
from optax_ls._tools.vendor.origin import INSTALLED, UNKNOWN, VENDORED, Origin, find_source
from optax_ls._tools.vendor.record import RECORD, parse
from optax_ls._tools.vendor.verify import verify_tree

run, target = vendoring.run, vendoring.target  # fixtures

ZOOM = "_core/linesearch/zoom.py"


@pytest.fixture(autouse=True)
def no_epoch(monkeypatch):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)


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
def tree(checkout):
    return compose(checkout)


@pytest.fixture(scope="module")
def installed(checkout, revision, tmp_path_factory):
    """The origin of a package installed from a wheel that knows its revision."""
    folder = tmp_path_factory.mktemp("installed")
    (folder / "source").mkdir()
    copied = copy_checkout(folder / "source")
    (copied.package / "_revision.txt").write_text(f"{revision} {SECONDS}\n")
    config = folder / "source" / "setup.cfg"
    config.write_text(config.read_text().replace("py.typed", "py.typed, _revision.txt"))
    site = folder / "site"
    with zipfile.ZipFile(build_wheel(folder / "source")) as wheel:
        wheel.extractall(site)
    distribution = importlib.metadata.PathDistribution(next(site.glob("*.dist-info")))
    return Origin(INSTALLED, site / "optax_ls", distribution)


# What is copied.


def test_copy_holds_sources_licences_record_and_note(tree):
    sources = {
        path.relative_to(ROOT / "optax_ls").as_posix()
        for path in (ROOT / "optax_ls").rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    licences = {f"third_party_licenses/{x.name}" for x in (ROOT / "third_party_licenses").iterdir()}
    assert set(tree.files) == sources | licences | {"LICENSE", RECORD, NOTE}


def test_files_are_those_of_the_source(tree):
    for path, copied in tree.files.items():
        if path.endswith(".py"):
            assert copied == (ROOT / "optax_ls" / path).read_bytes()


def test_record_has_the_hash_of_every_other_file(tree):
    hashes = {path: digest(copied) for path, copied in tree.files.items() if path != RECORD}
    assert parse(tree.files[RECORD]).files == hashes


def test_record_says_what_the_tree_is(tree, revision):
    record = parse(tree.files[RECORD])
    assert (record.version, record.revision) == (optax_ls.__version__, revision)
    assert record.python == ">=3.10"
    assert record.requires["jax"] == ">=0.4.30"


def test_note_tells_its_reader_version_revision_and_how_to_verify(tree, revision):
    note = tree.files[NOTE].decode()
    assert all(x in note for x in (optax_ls.__version__, revision, DATE, "verify", "LICENSE"))
    assert len(note.splitlines()) < 40


def test_date_is_that_of_the_commit(tree):
    assert tree.record.date == DATE


def test_source_date_epoch_comes_before_the_commit(checkout, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert compose(checkout).record.date == "1970-01-02T00:00:00Z"


@pytest.mark.parametrize("epoch", ["now", "-1", "1.5", "9" * 30])
def test_source_date_epoch_that_is_no_number_is_refused(checkout, monkeypatch, epoch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    with pytest.raises(CommandError, match="SOURCE_DATE_EPOCH must be whole seconds"):
        compose(checkout)


@pytest.mark.parametrize("new", ["optax_ls/_core/lbfgs/new.py", "third_party_licenses/new.txt"])
def test_changed_checkout_is_told_apart(checkout, revision, new):
    file = checkout.package.parent / new
    file.touch()
    try:
        record = compose(checkout).record
    finally:
        file.unlink()
    assert record.revision == f"{revision}-dirty"
    assert record.date > DATE


def test_checkout_without_git_has_no_revision(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert find_source(checkout) == (None, None)


def test_git_of_a_project_around_is_not_asked(checkout, tmp_path):
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "Another project")
    (tmp_path / "inner").mkdir()
    assert find_source(copy_checkout(tmp_path / "inner")) == (None, None)


def test_git_without_a_commit_knows_no_revision(tmp_path):
    origin = copy_checkout(tmp_path)
    git(tmp_path, "init", "--quiet")
    assert find_source(origin) == (None, None)


def test_distribution_knows_its_revision(installed, revision):
    assert find_source(installed) == (revision, DATE)


@pytest.mark.parametrize("text", ["", "unknown", "12345", "abcdefg 1", "0123abc now", "\xff"])
def test_revision_that_is_none_is_unknown(tmp_path, text):
    (tmp_path / "_revision.txt").write_text(text, encoding="latin-1")
    assert find_source(Origin(UNKNOWN, tmp_path)) == (None, None)


def test_installation_makes_the_same_tree(installed, tree):
    assert compose(installed).files == tree.files


def test_vendored_tree_makes_the_same_tree(tree, tmp_path):
    put(tree, tmp_path / "another_name")
    assert compose(Origin(VENDORED, tmp_path / "another_name")).files == tree.files


def test_tree_in_a_zip_file_makes_the_same_tree(tree, tmp_path):
    with zipfile.ZipFile(tmp_path / "lib.zip", "w") as archive:
        for path, copied in tree.files.items():
            archive.writestr(f"lib/optax_ls/{path}", copied)
    inside = zipfile.Path(tmp_path / "lib.zip", "lib/optax_ls/")
    assert compose(Origin(VENDORED, inside)).files == tree.files


def test_changed_tree_is_not_vendored_onwards(tree, tmp_path):
    put(tree, tmp_path / "lib")
    (tmp_path / "lib" / ZOOM).write_text("")
    with pytest.raises(TreeDiffers) as refused:
        compose(Origin(VENDORED, tmp_path / "lib"))
    assert refused.value.reasons == [f"changed  {ZOOM}"]


def test_changed_installation_is_not_vendored(installed, tmp_path):
    shutil.copytree(installed.package.parent, tmp_path / "site")
    (tmp_path / "site" / "optax_ls" / ZOOM).unlink()
    distribution = importlib.metadata.PathDistribution(next(tmp_path.glob("site/*.dist-info")))
    with pytest.raises(TreeDiffers) as refused:
        compose(Origin(INSTALLED, tmp_path / "site" / "optax_ls", distribution))
    assert refused.value.reasons == [f"missing  optax_ls/{ZOOM}"]


def test_malformed_record_of_the_running_copy_is_told(tmp_path):
    (tmp_path / RECORD).write_text("{")
    with pytest.raises(TreeDiffers) as refused:
        compose(Origin(VENDORED, tmp_path))
    assert "the record is malformed: it is not JSON" in refused.value.reasons[0]


def test_copy_by_hand_is_refused_since_licences_are_not_found(tmp_path):
    with pytest.raises(CommandError, match="neither installed nor vendored"):
        compose(Origin(UNKNOWN, tmp_path))


@pytest.mark.parametrize("lost", ["LICENSE", "third_party_licenses"])
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


@posix
def test_source_that_cannot_be_read_is_told(checkout, monkeypatch):
    def forbidden(path, flags):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr("optax_ls._tools.vendor.files._open", forbidden)
    with pytest.raises(CommandError, match=r"cannot read .*\.py: Permission denied"):
        compose(checkout)


def test_wheel_carries_no_tests(installed):
    with pytest.raises(CommandError, match="this installation has no tests; vendor from "):
        compose(installed, with_tests=True)


def test_tests_go_on_from_a_tree_that_has_them(checkout, tmp_path):
    with_tests = compose(checkout, with_tests=True)
    put(with_tests, tmp_path / "lib")
    assert compose(Origin(VENDORED, tmp_path / "lib"), with_tests=True).files == with_tests.files


def test_tests_stay_behind_unless_wanted(checkout, tree, tmp_path):
    put(compose(checkout, with_tests=True), tmp_path / "lib")
    assert compose(Origin(VENDORED, tmp_path / "lib")).files == tree.files


def test_tree_without_tests_has_none_to_give(tree, tmp_path):
    put(tree, tmp_path / "lib")
    with pytest.raises(CommandError, match="vendored without tests"):
        compose(Origin(VENDORED, tmp_path / "lib"), with_tests=True)


# The command.


def test_command_copies_and_says_what(run, tmp_path):
    status, printed, complaints = run("vendor", tmp_path / "lib", "--name", "searches")
    assert (status, complaints) == (0, "")
    assert f"vendored optax_ls {optax_ls.__version__} (" in printed
    comparison = verify_tree(tmp_path / "lib" / "searches")
    assert not comparison.differences
    assert f"{RECORD} has SHA-256 {comparison.sha256}" in printed


def test_dry_run_lists_the_files_and_writes_none(run, tmp_path):
    status, printed, complaints = run("vendor", tmp_path / "lib", "--dry-run")
    assert (status, complaints) == (0, "")
    assert "would vendor" in printed
    assert f"  {ZOOM}\n" in printed
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


def test_forced_dry_run_says_what_it_would_keep(run, target):
    (target / "__init__.py").write_text("mine")
    before = contents(target.parent)
    status, printed, _ = run("vendor", target.parent, "--dry-run", "--force")
    assert status == 0
    assert printed.endswith("and keep the old tree beside it\n")
    assert contents(target.parent) == before


def test_changed_tree_is_not_overwritten_and_every_file_is_named(run, target):
    (target / "__init__.py").write_text("mine")
    (target / "LICENSE").unlink()
    (target / "sub" / "mine.py").touch()
    before = contents(target.parent)
    status, printed, complaints = run("vendor", target.parent)
    assert (status, printed) == (1, "")
    for line in ("changed  __init__.py", "missing  LICENSE", "extra    sub/mine.py", "--force"):
        assert line in complaints
    assert contents(target.parent) == before


def test_forced_command_says_where_the_old_tree_is(run, target):
    (target / "__init__.py").write_text("mine")
    status, printed, _ = run("vendor", target.parent, "--force")
    assert status == 0
    assert f"the old tree is kept in {target}.replaced" in printed
