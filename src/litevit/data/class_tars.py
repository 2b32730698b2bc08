"""Class folders in a tar, one tar per class, or a tar of those (as ImageNet comes)."""

import os
import tarfile
from pathlib import Path

from timm.data.readers.reader_image_in_tar import ReaderImageInTar
from timm.utils.misc import natural_key


class ClassTarReader(ReaderImageInTar):
    """timm's reader with the order and the names of the unpacked folders: `<class>/<file>` below the path.

    timm takes several tars in the order the file system lists them, and names files without their class.

    Args:
        root: a `.tar`, or a folder with one `.tar` per class.
    """

    def __init__(self, root: Path):
        try:
            super().__init__(str(root))
        except (tarfile.TarError, EOFError) as error:
            raise ValueError(f"{root}: a tar cannot be read, it is damaged or truncated: {error}.") from error
        except ValueError as error:  # from an empty list
            raise ValueError(f"No images in {root}: it must hold one folder (or tar) of images per class.") from error
        order = sorted(range(len(self.samples)), key=lambda i: natural_key(self._filename(i)))
        self.samples = [self.samples[i] for i in order]
        self.targets = [int(self.targets[i]) for i in order]

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        file = os.path.basename(self.samples[index][0].name)
        if basename:
            return file
        path = os.path.join(self.class_idx_to_name[int(self.targets[index])], file)
        return os.path.join(self.root, path) if absolute else path
