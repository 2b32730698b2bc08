"""`python -m litevit.adapters SCRIPT [ARGUMENTS]` runs a script that uses timm, with litevit's models known to timm.

Such as timm's own: `python -m litevit.adapters validate.py --model litv2_s --checkpoint litv2_s.pth --data-dir DATA`,
`torchrun --nproc-per-node 8 -m litevit.adapters train.py --model litv2_s ...`.
"""

import runpy
import sys
from pathlib import Path

import litevit.adapters.timm  # noqa: F401  (makes the names known)


def main() -> None:
    """Runs the script that the command line names; its arguments follow its name."""
    if len(sys.argv) < 2 or not Path(sys.argv[1]).is_file():
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)  # as `python SCRIPT` has it
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
