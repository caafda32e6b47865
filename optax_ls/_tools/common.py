"""What the commands share: exit statuses, refusals, and writing files."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Optional

SUCCESS, NO_SUCCESS, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


class Refusal(Exception):
    """What the user did wrong, in one line."""


def brief(error: Exception) -> str:
    """The first paragraph of an error in one line; with its kind, unless it stands by itself."""
    line = " ".join(str(error).strip().split("\n\n")[0].split())
    return line if type(error) in (TypeError, ValueError) else f"{type(error).__name__}: {line}"


@contextlib.contextmanager
def reserved(**paths: Optional[str]) -> Iterator[Callable[[str, bytes], str]]:
    """Makes sure that files can be written, before there is anything to lose.

    Each is written under another name beside it, and takes its own when it is complete.

    Args:
        paths: names of options, and the files that they name.

    Yields:
        A function of an option and the contents, which writes and says so.
    """
    targets = {option: Path(path).resolve() for option, path in paths.items() if path}
    drafts: dict[str, Path] = {}

    def write(option: str, contents: bytes) -> str:
        try:
            drafts[option].write_bytes(contents)
            drafts[option].replace(targets[option])
        except OSError as error:
            raise Refusal(f"--{option}: cannot write {paths[option]}: {error.strerror}") from None
        return f"  wrote {paths[option]}"

    try:
        if len(set(targets.values())) < len(targets):
            raise Refusal(f"{' and '.join(f'--{o}' for o in targets)} need files of their own")
        for option, target in targets.items():
            if target.exists() and not target.is_file():
                raise Refusal(f"--{option}: {paths[option]} is there and is no file")
            if target.exists() and not os.access(target, os.W_OK):
                raise Refusal(f"--{option}: {paths[option]} must not be written")
            draft = target.with_name(f".{target.name}.{os.getpid()}")
            try:
                draft.open("xb").close()
            except OSError as error:
                raise Refusal(
                    f"--{option}: cannot write {paths[option]}: {error.strerror}"
                ) from None
            drafts[option] = draft
        yield write
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)
