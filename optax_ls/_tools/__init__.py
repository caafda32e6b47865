"""The command line, and the tools that copy the package and check copies."""

PACKAGE = __name__.rpartition(".")[0]
"""The name of the running package, which is another one in a vendored copy."""

SUCCESS, NO_SUCCESS, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses; the last is that of a process that SIGINT ends."""


class CommandError(Exception):
    """A mistake of the user, or a file that cannot be used, and the exit status that it gives."""

    status = WRONG_USAGE
