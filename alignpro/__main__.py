"""`python -m alignpro` runs the command line."""

import sys

from alignpro.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
