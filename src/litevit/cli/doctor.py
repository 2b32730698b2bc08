"""`litevit doctor`."""

from pathlib import Path

from tyro.conf import Positional


def doctor(path: Positional[Path], *, examples: int = 3) -> int:
    """Checks a data set before hours are spent on it; exit code 1 when something would break training.

    Args:
        path: COCO or ADE20K folder, a COCO-format JSON, or class folders.
        examples: how many places to name per finding.
    """
    from litevit.data.doctor import examine

    report = examine(path, examples=examples)
    print(report.render())
    return report.exit_code
