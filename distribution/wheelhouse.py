"""Collects everything that an isolated machine needs: ``python -m distribution.wheelhouse``.

Into ``dist/wheelhouse`` go our wheel, every run-time wheel of ``requirements/offline.txt`` for the
running platform, checked by hash, what runs the tests there, licences, a bill of materials, an
installer and the sums of all files; and all of it once more into one archive beside it. They take
the places of older ones when they are complete; until then those stay as they are.
"""

import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.utils import parse_wheel_filename

from . import archives, bill, licences
from .build import ROOT, build, in_words, sha256

HERE = Path(__file__).parent
NAME = "wheelhouse"
ARCHIVES = f"*-{NAME}-*.tar.gz"
RUNTIME_ONLY = "pytest.mark.runtime"
DEMO = ROOT / "examples" / "logistic.py"


def main():
    dist = ROOT / "dist"
    try:
        archive = make(dist)
    except OSError as error:
        sys.exit(f"no wheelhouse was made: {in_words(error)}; {dist / NAME} is as it was")
    print(f"{sha256(archive)}  {archive.name}")


def make(dist):
    """Makes the wheelhouse and its archive, and gives both their places; returns the archive's."""
    _, ours, epoch = build(dist)
    with tempfile.TemporaryDirectory(dir=dist, ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch, NAME)
        fill(folder, ours, epoch)
        archive = Path(scratch, f"{ours.name.split('-py3')[0]}-{NAME}-{platform_tag()}.tar.gz")
        archives.tar_gz_of_folder(folder, archive, epoch)
        old = Path(scratch, "old")
        old.mkdir()
        put_in_place([folder, archive], dist, old)
    return dist / archive.name


def put_in_place(new, dist, old):
    """Moves what is new into ``dist`` and older wheelhouses from there to ``old``: all or none."""
    moves = [(path, old / path.name) for path in [*dist.glob(NAME), *dist.glob(ARCHIVES)]]
    moves += [(path, dist / path.name) for path in new]
    done = []
    try:
        for source, target in moves:
            source.rename(target)
            done.append((source, target))
    except BaseException:
        for source, target in reversed(done):
            target.rename(source)
        raise


def platform_tag():
    return f"py{sys.version_info.major}{sys.version_info.minor}-{sys.platform}-{platform.machine()}"


def fill(folder, ours, epoch):
    """Makes the wheelhouse, whose folder must not be there yet."""
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    shutil.copy(ours, wheels)
    runtime = download(ROOT / "requirements" / "runtime.txt", wheels)
    every = download(ROOT / "requirements" / "offline.txt", wheels)
    write_requirements(folder / "requirements.txt", [wheels / ours.name, *runtime])
    write_requirements(folder / "requirements-test.txt", sorted(set(every) - set(runtime)))
    copy_checks(folder / "check")
    bom = bill.of_wheels(wheels / ours.name, runtime, epoch)
    (folder / "sbom.cdx.json").write_text(bill.as_json(bom))
    licences.collect(sorted(wheels.iterdir()), folder / "licences", dict(bill.spdx_ids(bom)))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    (folder / "platform.txt").write_text(f"{version} {platform.system()} {platform.machine()}\n")
    for name in ("INSTALL.md", "install.sh"):
        shutil.copy(HERE / name, folder)
    write_sums(folder)


def download(lock, wheels):
    """The wheels of a lock for this platform; pip refuses any whose hash is not in the lock."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--require-hashes", "--only-binary", ":all:", "--dest", scratch, "-r", lock]
        if subprocess.run(command).returncode:
            sys.exit(f"the wheels of {lock.name} could not be collected")
        return sorted(Path(shutil.copy(wheel, wheels)) for wheel in Path(scratch).iterdir())


def write_requirements(path, wheels):
    """Writes a requirements file that admits these wheels and no others."""
    lines = []
    for wheel in wheels:
        name, version, *_ = parse_wheel_filename(wheel.name)
        lines.append(f"{name}=={version} --hash=sha256:{sha256(wheel)}\n")
    path.write_text("".join(lines))


def copy_checks(folder):
    """Copies the tests that need only the run-time dependencies, what they share, and the demo."""
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "setup.cfg", folder)
    shutil.copy(DEMO, folder)
    for path in sorted((ROOT / "tests").rglob("*")):
        if path.is_dir() or "__pycache__" in path.parts:
            continue
        if not path.name.startswith("test_") or RUNTIME_ONLY in path.read_text():
            target = folder / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def write_sums(folder):
    """Writes the SHA-256 of every file, as ``sha256sum`` does."""
    sums = folder / "SHA256SUMS"
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != sums)
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths]
    sums.write_text("".join(lines))


if __name__ == "__main__":
    main()
