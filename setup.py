"""Builds what setup.cfg says, with the files that a vendored copy of an installation needs."""

import runpy
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent
OF_CHECKOUT = runpy.run_path(str(ROOT / "optax_ls/_tools/vendor/revision.py"))["of_checkout"]


def record_commit(package):
    """Writes the commit into a package, if git knows it."""
    commit = OF_CHECKOUT(ROOT)
    if commit is not None:
        file = package / "_revision.txt"
        file.unlink(missing_ok=True)  # it may be a hard link to that of the source
        file.write_text(f"{commit}\n", "ascii")


class BuildPy(build_py):
    def run(self):
        if getattr(self, "editable_mode", False):
            return super().run()
        package = Path(self.build_lib, "optax_ls")
        shutil.rmtree(package, ignore_errors=True)  # it may hold modules of an earlier build
        super().run()
        # Versions of setuptools differ in where they put licences, so the package has its own.
        shutil.copytree(ROOT / "third_party_licenses", package / "third_party_licenses")
        for name in ("LICENSE", "CHANGELOG.md"):
            shutil.copy(ROOT / name, package)
        record_commit(package)


class SDist(sdist):
    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        record_commit(Path(base_dir, "optax_ls"))


setup(cmdclass={"build_py": BuildPy, "sdist": SDist})
