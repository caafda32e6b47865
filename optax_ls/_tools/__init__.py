"""The command line, and the tools that copy the package and check copies."""

PACKAGE = __name__.rpartition(".")[0]
"""The name that the package has where it runs, which is another one in a vendored copy."""
