"""Sizes of the kernels' tiles: a program holds 2048 values of each operand, 16 for each of its 128 threads."""

TILE = 2048


def next_power_of_2(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()


def rows_and_channels(C: int) -> tuple[int, int]:
    """Rows and channels of a tile of a (rows, C) table.

    Channels are the largest power of two up to 128 that divides C, so that no lane idles at the published widths (96,
    192, 384), and at least 32 or all of C.
    """
    channels = min(128, C & -C)
    if channels < 32:
        channels = min(128, next_power_of_2(C))
    return TILE // channels, channels
