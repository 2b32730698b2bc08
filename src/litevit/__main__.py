"""`python -m litevit`, where the command is not on the path."""

import sys

from litevit.cli import main

if __name__ == "__main__":
    sys.exit(main())
