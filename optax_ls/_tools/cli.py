"""The command line: ``python -m optax_ls COMMAND``.

Every command has a room, with a function that adds its parser and one that runs it and returns the
exit status: 0 for success, 1 for a command that ended without it, 2 for wrong usage. What the user
did wrong is raised as ``Refusal`` and becomes one line on stderr.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, Optional

from .._version import __version__
from . import PACKAGE
from . import info as _cli_info
from . import minimize_command as _cli_minimize
from .common import INTERRUPTED, WRONG_USAGE, Refusal
from .vendor import vendor_command as _cli_vendor
from .vendor import verify_command as _cli_verify


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Refusal(f"{message} (see --help)")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Runs a command.

    Args:
        argv: the words after the program's name; None for those of this process.

    Returns:
        The exit status.

    Raises:
        SystemExit: after ``--help`` and ``--version``.
    """
    program = f"python -m {PACKAGE}"
    parser = _parser(program)
    try:
        options = parser.parse_args(_with_shielded_numbers(sys.argv[1:] if argv is None else argv))
        if options.command is None:
            parser.print_help()
            return WRONG_USAGE
        run: Callable[[argparse.Namespace], int] = options.run
        return run(options)
    except Refusal as refusal:
        print(f"{program}: {refusal}", file=sys.stderr)
        return WRONG_USAGE
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return INTERRUPTED


def _parser(program: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=program,
        description="Line searches and L-BFGS for JAX.",
        epilog="example:\n"
        f"  {program} minimize rosen.py:rosenbrock --x0 -1.2 1 --plot course.png\n"
        "where rosen.py defines rosenbrock(x) with jax.numpy",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"optax_ls {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for room in (_cli_minimize, _cli_vendor, _cli_verify, _cli_info):
        room.add(commands)
    return parser


# Words that are numbers, which argparse would take for options if they begin with a minus.
_NUMBERS = re.compile(r"-([\d.]|inf|nan)[\w.,+-]*$", re.IGNORECASE)


def _with_shielded_numbers(argv: Sequence[str]) -> list[str]:
    return [f" {word}" if _NUMBERS.match(word) else word for word in argv]
