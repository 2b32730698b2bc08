"""Anchors against positions worked out by hand."""

import torch

from litevit.ops.anchors import base_anchors, cells_inside, grid_anchors


def test_base_anchors_by_hand() -> None:
    base = base_anchors(16, scales=(2.0, 4.0), ratios=(0.25, 1.0))
    # ratio 1/4: twice as wide, half as high. Ratios outside, scales inside. Nothing is rounded.
    wanted = [
        [-32.0, -8.0, 32.0, 8.0],
        [-64.0, -16.0, 64.0, 16.0],
        [-16.0, -16.0, 16.0, 16.0],
        [-32.0, -32.0, 32.0, 32.0],
    ]
    torch.testing.assert_close(base, torch.tensor(wanted))


def test_area_does_not_depend_on_the_ratio() -> None:
    base = base_anchors(8, scales=(4.0,), ratios=(0.5, 1.0, 2.0))
    sides = base[:, 2:] - base[:, :2]
    torch.testing.assert_close(sides.prod(dim=1), torch.full((3,), 32.0**2))
    torch.testing.assert_close(sides[:, 1] / sides[:, 0], torch.tensor([0.5, 1.0, 2.0]))


def test_grid_is_rows_then_columns_then_anchors() -> None:
    base = torch.tensor([[-1.0, -1.0, 1.0, 1.0], [-2.0, -2.0, 2.0, 2.0]])
    grid = grid_anchors(base, (2, 3), 8).view(2, 3, 2, 4)
    for y in range(2):
        for x in range(3):
            shift = torch.tensor([8.0 * x, 8.0 * y, 8.0 * x, 8.0 * y])
            torch.testing.assert_close(grid[y, x], base + shift)


def test_cells_beyond_the_image() -> None:
    inside = cells_inside((4, 5), 8, (17, 32), 3).view(4, 5, 3)
    assert inside[:3, :4].all()  # ceil(17 / 8) rows, 32 / 8 columns
    assert not inside[3:].any()
    assert not inside[:, 4:].any()
