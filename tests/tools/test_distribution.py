"""A build has the same bytes in every folder, at every time and with every Python."""

import errno
import gzip
import importlib.metadata
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from vendoring import contents

archives = pytest.importorskip("distribution.archives")
build = pytest.importorskip("distribution.build")

ROOT = Path(__file__).parents[2]
PYTHONS = [(3, minor) for minor in range(10, 14)]
IDENTITY = ["-c", "user.name=Someone", "-c", "user.email=someone@localhost"]
ANOTHER_CLOCK = """
import time
real = time.time
time.time = lambda: real() + 500 * 86400
"""


# Archives.


@pytest.mark.parametrize("size", [0, 1, 0xFFFF, 0x10000, 200_001])
def test_gzip_of_our_own_is_read_by_others(size):
    contents, packed = os.urandom(size), io.BytesIO()
    archives.write_gzip(io.BytesIO(contents), packed)
    assert gzip.decompress(packed.getvalue()) == contents


def folder_of_files(folder, umask, mtime):
    folder.mkdir(parents=True)
    for name in sorted(("b.txt", "a.sh"), reverse=bool(umask)):
        path = folder / name
        path.write_text(name)
        path.chmod((0o777 if name == "a.sh" else 0o666) & ~umask)
        os.utime(path, (mtime, mtime))
    return folder


def test_archive_depends_on_names_and_contents_alone(tmp_path):
    for name, umask, mtime in (("here", 0o000, 1e9), ("there", 0o077, 1.5e9)):
        folder = folder_of_files(tmp_path / name / "files", umask, mtime)
        archives.tar_gz_of_folder(folder, tmp_path / f"{name}.tar.gz", 1234567890)
    here, there = ((tmp_path / f"{name}.tar.gz").read_bytes() for name in ("here", "there"))
    assert here == there
    with tarfile.open(tmp_path / "here.tar.gz") as tar:
        listed = [(entry.name, entry.mode, entry.mtime) for entry in tar]
    assert listed == [("files/a.sh", 0o755, 1234567890), ("files/b.txt", 0o644, 1234567890)]


def test_wheel_is_written_again_with_its_record_last(tmp_path):
    old, new = tmp_path / "old.whl", tmp_path / "new.whl"
    with zipfile.ZipFile(old, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name in ("a-1.dist-info/RECORD", "a-1.dist-info/WHEEL", "z.py", "a.py"):
            wheel.writestr(name, name)
    archives.normalise_wheel(old, new, 0)
    with zipfile.ZipFile(new) as wheel:
        assert wheel.namelist() == ["a.py", "z.py", "a-1.dist-info/WHEEL", "a-1.dist-info/RECORD"]
        assert {entry.date_time for entry in wheel.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert wheel.read("a.py") == b"a.py"


# Builds.


def interpreter(version):
    """The interpreter of a version: the running one, one that pyenv holds, or one on the PATH."""
    if version == sys.version_info[:2]:
        return sys.executable
    name = "python{}.{}".format(*version)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    folders = [str(folder.parent) for folder in sorted(pyenv.glob(f"*/bin/{name}"))]
    return shutil.which(name, path=os.pathsep.join([*folders, os.environ["PATH"]]))


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A repository whose one commit is the project as it stands."""
    folder = tmp_path_factory.mktemp("repository")
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("this is no clone")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    date = {"GIT_AUTHOR_DATE": "1700000000 +0000", "GIT_COMMITTER_DATE": "1700000000 +0000"}
    for command in (["init"], ["add", "--all", "--force"], ["commit", "--message", "all"]):
        subprocess.run(
            ["git", "-C", folder, *IDENTITY, *command],
            env={**os.environ, **date},
            check=True,
            capture_output=True,
        )
    return folder


@pytest.fixture(scope="module")
def backend(tmp_path_factory):
    """A folder with the locked setuptools and nothing else, for any interpreter to import from."""
    folder = tmp_path_factory.mktemp("backend")
    files = importlib.metadata.files("setuptools")
    for top in {file.parts[0] for file in files} - {".."}:
        (folder / top).symlink_to(files[0].locate().parents[len(files[0].parts) - 1] / top)
    return folder


def built(source, backend, python=sys.executable, umask=0o022, clock=""):
    """Builds what is in a folder, and returns the digests of wheel and source distribution."""
    output = source.parent / "built"
    sitecustomize = source.parent / "clock"
    sitecustomize.mkdir()
    (sitecustomize / "sitecustomize.py").write_text(clock)
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (sitecustomize, backend)))
    done = subprocess.run(
        [python, "-s", "-m", "distribution.build", "--output", output],
        cwd=source,
        env=environment,
        umask=umask,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.suffix: build.sha256(path) for path in output.iterdir()}


def clone(repository, folder, umask=0o022):
    """A clone in a folder, its files from about now."""
    subprocess.run(
        ["git", "clone", "--quiet", "--no-hardlinks", repository, folder], check=True, umask=umask
    )
    return folder


@pytest.fixture(scope="module")
def reference(repository, backend, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    return folder / "built", built(clone(repository, folder / "clone"), backend)


@pytest.mark.slow
@pytest.mark.parametrize("version", PYTHONS, ids=lambda version: "python{}.{}".format(*version))
def test_other_place_python_umask_and_clock_give_the_same_bytes(
    version, repository, backend, reference, tmp_path
):
    python = interpreter(version)
    if python is None:
        pytest.skip("there is no Python {}.{} here".format(*version))
    source = clone(repository, tmp_path / "quite another" / "place", umask=0o077)
    assert built(source, backend, python, 0o077, ANOTHER_CLOCK) == reference[1]


@pytest.mark.slow
def test_source_distribution_builds_the_same_bytes(backend, reference, tmp_path):
    (sdist,) = reference[0].glob("*.tar.gz")
    source = build.unpack(sdist, tmp_path / "unpacked")
    assert built(source, backend) == reference[1]


@pytest.mark.slow
def test_distributions_carry_commit_and_date(repository, reference):
    (wheel,) = reference[0].glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        line = archive.read(build.REVISION.as_posix()).decode()
    head = subprocess.run(
        ["git", "-C", repository, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    assert line == f"{head.stdout.strip()} 1700000000\n"


@pytest.fixture
def output(tmp_path, monkeypatch):
    """A folder with older distributions, where the next are made of one file."""
    output = tmp_path / "dist"
    output.mkdir()
    for name in ("tiny.whl", "tiny.tar.gz"):
        (output / name).write_text("old")

    def run_hook(hook, source, folder):
        folder.mkdir()
        made = folder / {"build_sdist": "tiny.tar.gz", "build_wheel": "tiny.whl"}[hook]
        made.write_text("new")
        return made

    (tmp_path / "source" / "optax_ls").mkdir(parents=True)
    source = build.Source(tmp_path / "source", "0" * 40, 0)
    monkeypatch.setattr(build, "check_backend", lambda: None)
    monkeypatch.setattr(build, "exported", lambda folder: source)
    monkeypatch.setattr(build, "run_hook", run_hook)
    monkeypatch.setattr(build, "unpack", lambda sdist, folder: tmp_path / "source")
    for name in ("normalise_sdist", "normalise_wheel"):
        monkeypatch.setattr(archives, name, lambda old, new, epoch: new.write_text("new"))
    monkeypatch.setattr(sys, "argv", ["build", "--output", str(output)])
    return output


def test_new_distributions_take_the_places_of_the_old(output):
    build.main()
    assert contents(output) == {"tiny.whl": b"new", "tiny.tar.gz": b"new"}


@pytest.mark.parametrize("copied", [0, 1])
def test_full_disk_is_told_and_leaves_the_old_distributions(output, monkeypatch, copied):
    copy, left = shutil.copy, iter([True] * copied)

    def limited(source, target):
        path = copy(source, target)
        if next(left, False):
            return path
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copy", limited)
    with pytest.raises(SystemExit, match=r"nothing was built: No space left .* is as it was"):
        build.main()
    assert contents(output) == {"tiny.whl": b"old", "tiny.tar.gz": b"old"}
    assert len(list(output.iterdir())) == 2


def test_another_setuptools_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0")
    with pytest.raises(SystemExit, match=r"setuptools is 1\.0; requirements/build\.txt wants"):
        build.check_backend()


def test_without_setuptools_the_way_to_it_is_told(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(SystemExit, match="pip install --require-hashes"):
        build.check_backend()


def test_folder_that_is_no_source_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match="neither a clone"):
        build.exported(tmp_path / "copy")
