"""The commit of a checkout, from git.

``setup.py`` runs this file by itself, to record the commit in what it builds. So it imports nothing
of the package.
"""

import os
import subprocess  # nosec B404  # to ask git, and for nothing else
from pathlib import Path
from typing import Optional

SHIPPED = ("optax_ls", "LICENSE", "CHANGELOG.md", "third_party_licenses")
"""The files and folders of a checkout that copies and wheels are made of."""


def of_checkout(root: Path) -> Optional[str]:
    """The commit and its time in seconds, ``COMMIT SECONDS``; None if git does not know them.

    ``COMMIT-dirty`` alone if files that are shipped differ from the commit.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    if not top or os.path.realpath(top) != os.path.realpath(root):
        return None  # not a repository, or that of a project around this one
    commit = _git(root, "log", "-1", "--format=%H %ct")
    changes = _git(root, "status", "--porcelain", "--untracked-files=all", "--", *SHIPPED)
    return f"{commit.split()[0]}-dirty" if commit and changes != "" else commit or None


def _git(root: Path, *words: str) -> Optional[str]:
    """The output of git about this checkout and no other; None if git is absent or fails."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    command = ["git", "-C", str(root), "-c", "core.fsmonitor=false", *words]
    try:
        done = subprocess.run(  # nosec B603  # no shell; the words are ours, but for the path of -C
            command, capture_output=True, text=True, timeout=20, env=environment
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return None if done.returncode else done.stdout.strip()
