"""The contents of a wheelhouse; its installer refuses every file that was changed."""

import errno
import os
import platform
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from vendoring import contents, without_privileges

wheelhouse = pytest.importorskip("distribution.wheelhouse")
archives = pytest.importorskip("distribution.archives")
licences = pytest.importorskip("distribution.licences")

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "distribution"
WHEEL = "wheels/tiny-1.0-py3-none-any.whl"
METADATA = "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"

pytestmark = pytest.mark.skipif(
    os.name != "posix" or shutil.which("sha256sum") is None, reason="needs a POSIX shell"
)


def write_wheel(path, **files):
    """A wheel of one module, with more files in its metadata."""
    info = "tiny-1.0.dist-info"
    contents = {
        "tiny.py": "VALUE = 1\n",
        f"{info}/METADATA": METADATA,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **{f"{info}/{name.replace('__', '/')}": text for name, text in files.items()},
    }
    contents[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*contents, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in contents.items():
            archive.writestr(name, text)


@pytest.fixture
def packed(tmp_path):
    """A wheelhouse of one tiny wheel."""
    folder = tmp_path / "wheelhouse"
    (folder / "wheels").mkdir(parents=True)
    write_wheel(folder / WHEEL)
    wheelhouse.write_requirements(folder / "requirements.txt", [folder / WHEEL])
    (folder / "requirements-test.txt").touch()
    version = "{}.{}".format(*sys.version_info[:2])
    (folder / "platform.txt").write_text(f"{version} {platform.system()} {platform.machine()}\n")
    shutil.copy(SCRIPTS / "install.sh", folder)
    wheelhouse.write_sums(folder)
    return folder


def install(folder, *words, **environment):
    return subprocess.run(
        ["sh", folder / "install.sh", *map(str, words)],
        cwd=folder.parent,
        env={**os.environ, "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
    )


def spoil_wheel(folder):
    (folder / WHEEL).write_bytes(b"another")


def lose_wheel(folder):
    (folder / WHEEL).unlink()


def lose_sums(folder):
    (folder / "SHA256SUMS").unlink()


def spoil_requirements(folder):
    (folder / "requirements.txt").write_text("tiny\n")


def name_no_requirements(folder):
    lines = (folder / "SHA256SUMS").read_text().splitlines(keepends=True)
    kept = [line for line in lines if "requirements.txt" not in line]
    (folder / "SHA256SUMS").write_text("".join(kept))


def name_another_folder(folder):
    with (folder / "SHA256SUMS").open("a") as sums:
        sums.write(f"{'0' * 64}  wheels/../../elsewhere\n")


def name_a_root(folder):
    with (folder / "SHA256SUMS").open("a") as sums:
        sums.write(f"{'0' * 64}  /etc/hostname\n")


def cut_sums(folder):
    (folder / "SHA256SUMS").write_text((folder / "SHA256SUMS").read_text()[:-20])


def lose_a_sum(folder):
    lines = (folder / "SHA256SUMS").read_text().splitlines(keepends=True)
    (folder / "SHA256SUMS").write_text("".join([*lines[:-1], lines[-1][64:]]))


def name_another_platform(folder):
    (folder / "platform.txt").write_text("3.1 Plan9 z80\n")
    wheelhouse.write_sums(folder)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_wheel, f"{WHEEL}: FAILED"),
        (lose_wheel, f"{WHEEL}: FAILED open or read"),
        (lose_sums, "SHA256SUMS is missing"),
        (spoil_requirements, "requirements.txt: FAILED"),
        (name_no_requirements, "does not name requirements.txt"),
        (name_another_folder, "no sum of a file of this folder"),
        (name_a_root, "no sum of a file of this folder"),
        (cut_sums, "FAILED open or read"),
        (lose_a_sum, "no sum of a file of this folder"),
        (name_another_platform, "the wheels are for Python 3.1 Plan9 z80"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_spoilt_wheelhouse_is_refused(packed, spoil, said):
    spoil(packed)
    done = install(packed, "env")
    assert done.returncode == 1
    assert said in done.stderr
    assert "nothing was installed" in done.stderr
    assert not (packed.parent / "env").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--with-toasts"], "there is no option --with-toasts"),
        (["one", "two"], "one VENV, please"),
        (["wheelhouse"], "is no virtual environment"),
    ],
)
def test_wrong_usage_is_refused(packed, words, said):
    done = install(packed, *words)
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr


def test_missing_interpreter_is_told(packed):
    done = install(packed, "env", PYTHON="python0.1")
    assert (done.returncode, "there is no python0.1" in done.stderr) == (1, True), done.stderr


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("environment") / "env"
    venv.create(folder, with_pip=True)
    return folder


def has_tiny(environment):
    return subprocess.run([environment / "bin" / "python", "-c", "import tiny"]).returncode == 0


@pytest.mark.slow
def test_wheel_with_another_hash_than_required_is_refused(packed, environment):
    write_wheel(packed / WHEEL, NOTICE="another")
    wheelhouse.write_sums(packed)
    done = install(packed, environment)
    assert done.returncode == 1
    assert "hash" in done.stderr.lower()
    assert "pip gave up" in done.stderr
    assert not has_tiny(environment)


@pytest.mark.slow
def test_good_wheelhouse_is_installed_from_a_folder_that_must_not_be_written(packed, environment):
    packed.chmod(0o555)
    done = install(packed, environment)
    assert done.returncode == 0, done.stderr
    assert has_tiny(environment)


def test_offline_test_without_namespaces_says_so(tmp_path):
    unshare = tmp_path / "unshare"
    unshare.write_text("#!/bin/sh\nexit 1\n")
    unshare.chmod(0o755)
    done = subprocess.run(
        ["sh", SCRIPTS / "offline_test.sh", "archive.tar.gz", sys.executable],
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "nothing was tested" in done.stderr


# Licences.


@pytest.fixture
def collected(tmp_path):
    """Collects the licences of the tiny wheel with files of metadata; returns folder and table."""

    def collect(metadata="", known=(), **files):
        wheel = tmp_path / Path(WHEEL).name
        write_wheel(wheel, METADATA=METADATA + metadata, **files)
        licences.collect([wheel], tmp_path / "licences", dict(known))
        return tmp_path / "licences", (tmp_path / "licences" / "README.md").read_text()

    return collect


def test_licence_texts_are_copied_from_old_and_new_places(collected):
    folder, table = collected(LICENSE="old", licenses__LICENSE_TOO="new", licenses__a__COPYING="x")
    assert (folder / "tiny" / "LICENSE").read_text() == "old"
    assert (folder / "tiny" / "LICENSE_TOO").read_text() == "new"
    assert (folder / "tiny" / "a" / "COPYING").read_text() == "x"
    assert "| tiny | 1.0 | not stated | 3 |" in table


def test_wheel_without_a_licence_text_is_named(collected):
    _, table = collected("License-Expression: MIT\n")
    assert "| tiny | 1.0 | MIT | **none in the wheel** |" in table


@pytest.mark.parametrize(
    ("metadata", "spdx"),
    [
        ("License-Expression: MIT OR Apache-2.0\nLicense: other\n", "MIT OR Apache-2.0"),
        ("License: Apache-2.0\n", "Apache-2.0"),
        ("Classifier: License :: OSI Approved :: Apache Software License\n", "Apache-2.0"),
        (
            "License: Copyright\n  all of it\nClassifier: License :: OSI Approved :: BSD License\n",
            "BSD, see the text for which",
        ),
    ],
)
def test_licence_is_the_one_that_the_metadata_state(collected, metadata, spdx):
    assert f"| {spdx} |" in collected(metadata)[1]


def test_bill_of_materials_knows_better_than_metadata(collected):
    assert "| BSD-3-Clause |" in collected("License: BSD\n", {"tiny": "BSD-3-Clause"})[1]


def test_licence_text_cannot_leave_its_folder(collected, tmp_path):
    with pytest.raises(ValueError, match="leads out"):
        collected(**{"licenses__..__..__..__LICENSE": "x"})
    assert not (tmp_path / "LICENSE").exists()


# What was there before.

OLD = "optax_ls-0.0-wheelhouse-py31-plan9.tar.gz"


@pytest.fixture
def dist(tmp_path, monkeypatch):
    """A folder with an older wheelhouse and its archive, where the next is of the tiny wheel."""
    for folder in ("dist/wheelhouse/wheels", "tests/golden"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("setup.cfg", "tests/conftest.py", "tests/golden/golden.json", f"dist/{OLD}"):
        (tmp_path / name).write_text("a file")
    (tmp_path / "dist" / "wheelhouse" / "wheels" / "old.whl").write_text("a file")
    wheel = tmp_path / Path(WHEEL).name
    write_wheel(wheel, LICENSE="terms")

    monkeypatch.setattr(wheelhouse, "ROOT", tmp_path)
    monkeypatch.setattr(wheelhouse, "build", lambda dist: (None, wheel, 0))
    monkeypatch.setattr(wheelhouse, "download", lambda lock, wheels: [wheel])
    return tmp_path / "dist"


class Disk:
    """Refuses one of the steps that need room: files are half there then, and folders not."""

    STEPS = (
        (shutil, "copy"),
        (Path, "write_text"),
        (Path, "write_bytes"),
        (archives, "write_gzip"),
        (Path, "mkdir"),
        (Path, "rename"),
    )

    def __init__(self, monkeypatch, steps, number=errno.ENOSPC):
        self.left, self.error = steps, OSError(number, os.strerror(number))
        for owner, name in self.STEPS:
            monkeypatch.setattr(owner, name, self.limited(getattr(owner, name), name))

    def limited(self, function, name):
        def execute(*args, **kwargs):
            self.left -= 1
            if self.left == -1 and name in ("mkdir", "rename"):
                raise self.error
            result = function(*args, **kwargs)
            if self.left == -1:
                raise self.error
            return result

        return execute


def complaint_of_full_disk(monkeypatch, steps):
    """The message if the disk is full after ``steps`` steps; None if there are no more steps."""
    with monkeypatch.context() as patch:
        disk = Disk(patch, steps)
        try:
            wheelhouse.main()
        except SystemExit as error:
            return error.code
    assert disk.left >= 0
    return None


def test_full_disk_is_told_whenever_it_is_and_leaves_the_old_wheelhouse(dist, monkeypatch, capsys):
    before, steps = contents(dist), 0
    said = "no wheelhouse was made: .*No space left on device; .*dist/wheelhouse is as it was"
    while complaint := complaint_of_full_disk(monkeypatch, steps):
        assert re.fullmatch(said, complaint)
        assert contents(dist) == before
        assert {path.name for path in dist.iterdir()} == {"wheelhouse", OLD}
        steps += 1
    assert steps > 20
    assert capsys.readouterr().out.count("\n") == 1


def test_new_wheelhouse_takes_the_places_of_the_old(dist):
    wheelhouse.main()
    (archive,) = (path for path in dist.iterdir() if path.name != "wheelhouse")
    assert archive.name == f"tiny-1.0-wheelhouse-{wheelhouse.platform_tag()}.tar.gz"
    assert {path.name for path in (dist / "wheelhouse" / "wheels").iterdir()} == {Path(WHEEL).name}


def test_place_that_is_no_folder_is_told(dist):
    shutil.rmtree(dist)
    dist.touch()
    with pytest.raises(SystemExit, match=r"no wheelhouse was made: .*dist.*: Not a directory"):
        wheelhouse.main()


def test_place_that_must_not_be_written_is_told(dist):
    before = contents(dist)
    dist.chmod(0o555)
    said = r"no wheelhouse was made: .*dist.*: Permission denied"
    with without_privileges(), pytest.raises(SystemExit, match=said):
        wheelhouse.main()
    dist.chmod(0o755)
    assert contents(dist) == before


def test_source_that_must_not_be_read_is_told(dist, monkeypatch):
    before = contents(dist)
    Disk(monkeypatch, 5, errno.EACCES)
    with pytest.raises(SystemExit, match=r"no wheelhouse was made: .*Permission denied"):
        wheelhouse.main()
    assert contents(dist) == before


# What goes in.


def test_checks_are_those_that_need_no_more_than_run_time(tmp_path):
    wheelhouse.copy_checks(tmp_path / "check")
    held = set(contents(tmp_path / "check" / "tests"))
    assert {"conftest.py", "dense.py", "core/test_errors.py", "golden/test_golden.py"} <= held
    assert {"golden/__init__.py", "golden/golden.json"} <= held
    without_folders = {path.rpartition("/")[2] for path in held}
    assert not {"test_packaging.py", "test_wheelhouse.py", "test_demo.py"} & without_folders
    assert (tmp_path / "check" / "logistic.py").exists()
