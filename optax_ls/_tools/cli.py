"""The command line: ``python -m optax_ls COMMAND``.

Every command has a function that adds its parser and one that runs it and returns the exit status:
0 for success, 1 for a command that ended without success, 2 for wrong usage. A ``CommandError`` is
printed on stderr, and has a status of its own.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, Optional

from .._version import __version__
from . import BROKEN_PIPE, INTERRUPTED, PACKAGE, WRONG_USAGE, CommandError, info, minimize
from .vendor import commands

_PROGRAM = f"python -m {PACKAGE}"


class _Parser(argparse.ArgumentParser):
    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise CommandError(f"{message} (see --help)")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Runs the command in the arguments, or in those of this process; returns the exit status."""
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            sys.stdout.flush()
    except OSError as error:
        has_no_reader = isinstance(error, BrokenPipeError)  # as in `| head`
        if not has_no_reader:
            print(f"{_PROGRAM}: {error}", file=sys.stderr)
        # Python flushes its streams once more when it exits, which must not fail again.
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return BROKEN_PIPE if has_no_reader else WRONG_USAGE


def _run(argv: Sequence[str]) -> int:
    parser = _parser()
    try:
        options = parser.parse_args([_shielded(word) for word in argv])
        if options.command is None:
            parser.print_help()
            return WRONG_USAGE
        return int(options.run(options))
    except CommandError as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print(f"{_PROGRAM}: interrupted", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=_PROGRAM,
        description="Line searches and L-BFGS for JAX.",
        epilog="example:\n"
        f"  {_PROGRAM} minimize rosen.py:rosenbrock --x0 -1.2 1 --plot history.png\n"
        "where rosen.py defines rosenbrock(x) with jax.numpy\n\n"
        "Exit status of every command: that in its --help, 130 if interrupted by Ctrl-C, 141 if\n"
        "the program that reads its output has ended (a broken pipe).",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"optax_ls {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for add in (minimize.add, commands.add_vendor, commands.add_verify, info.add):
        add(subparsers)
    return parser


def _shielded(word: str) -> str:
    """The word, with a space before a negative number, which argparse takes for an option."""
    return re.sub(r"^-([\d.]|inf|nan)[\w.,+-]*$", r" \g<0>", word, flags=re.IGNORECASE)
