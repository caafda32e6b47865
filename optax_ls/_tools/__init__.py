"""The command line, and the tools that copy the package and check copies."""

PACKAGE = __name__.rpartition(".")[0]
"""The name of the running package, which is another one in a vendored copy."""

SUCCESS, NO_SUCCESS, WRONG_USAGE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141
"""Exit statuses. The last two are those of a process that SIGINT or SIGPIPE ends."""


class CommandError(Exception):
    """A mistake of the user, or a file that cannot be used, and the exit status that it gives."""

    status = WRONG_USAGE
