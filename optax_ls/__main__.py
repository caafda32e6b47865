"""``python -m optax_ls``: see the room of the command line."""

import sys

from ._tools.cli import main

if __name__ == "__main__":
    sys.exit(main())
