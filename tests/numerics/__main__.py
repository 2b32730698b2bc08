"""`python -m tests.numerics`: see `command.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from numerics.command import main

sys.exit(main())
