"""Two sets from a folder of CIFAR-10 (`train` and `test`, a folder per class), to show what a start from weights gains.

    python benchmarks/finetune_cifar10.py CIFAR10 OUT

OUT/seven: seven classes, all images. OUT/three: cat, dog and ship, the first 100 training images of each, all test
images. The commands that train on them stand beside the figures in benchmarks/results.
"""

import shutil
import sys
from pathlib import Path

THREE = ("cat", "dog", "ship")


def main(source: Path, out: Path) -> None:
    for split in ("train", "test"):
        for folder in sorted((source / split).iterdir()):
            few = folder.name in THREE
            files = sorted(folder.iterdir())[: 100 if few and split == "train" else None]
            target = out / ("three" if few else "seven") / split / folder.name
            target.mkdir(parents=True)
            for file in files:
                shutil.copyfile(file, target / file.name)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
