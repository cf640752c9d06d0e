"""`python -m hush`: the command line, where the `hush` script is not on the path."""

import sys

from hush.parties.cli import main

if __name__ == "__main__":
    sys.exit(main())
