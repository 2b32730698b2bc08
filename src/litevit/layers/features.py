"""What every backbone says about its maps."""

from typing import NamedTuple


class FeatureSpec(NamedTuple):
    """One map of a backbone: its channels, and its stride in pixels of the image."""

    channels: int
    stride: int
