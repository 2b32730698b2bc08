"""The chain of sampling points against the published script's."""

import numpy as np
import pytest
import torch

import golden
import litevit
from litevit.explain.offsets import chain_pixels, merging_offsets, sampling_chain

NAME = "lit_ti_offset_chain_224"
CASE = golden.cases("lit")[NAME]


def stored() -> dict[str, np.ndarray]:
    with np.load(golden.DATA / "lit" / CASE["file"]) as arrays:
        return {key.removeprefix(NAME + "/"): arrays[key] for key in arrays}


def test_points_and_pixels_from_the_stored_offsets() -> None:
    """From the stored offsets, because rounding would turn float noise into other cells."""
    arrays = stored()
    offsets = [torch.from_numpy(arrays[f"offset_stage{i}"]).permute(0, 2, 3, 1) for i in (2, 3, 4)]
    total = 0
    for row in range(7):
        for column in range(7):
            points = sampling_chain(offsets, row=row, column=column)
            expected = arrays["points_yx_in_56x56"][row, column]
            expected = expected[expected[:, 0] != -999]
            np.testing.assert_allclose(points, expected, atol=1e-4)
            pixels = arrays["pixels_xy"][row, column]
            marked = chain_pixels(points, image_size=(224, 224))
            np.testing.assert_array_equal(marked, pixels[pixels[:, 0] != -1])
            total += len(points)
    assert 0 < total <= 49 * 64


@torch.no_grad()
def test_offsets_of_lit_ti() -> None:
    model = litevit.create_model("lit_ti").eval()
    litevit.load_weights(model, golden.official_state("lit/lit_ti"))
    images = golden.golden_input(CASE["n"], CASE["h"], CASE["w"], CASE["seed"])
    for i, offset in enumerate(merging_offsets(model.backbone, images), start=2):
        array = f"offset_stage{i}"
        deviation = golden.worst_deviation(offset.permute(0, 3, 1, 2), stored()[array], CASE["arrays"][array])
        golden.note("LIT, LITv2, PVT", f"{NAME} {array}", deviation)
        assert deviation <= 1


def test_without_offsets_a_cell_is_its_square() -> None:
    offsets = [torch.zeros(size, size, 8) for size in (28, 14, 7)]
    points = sampling_chain(offsets, row=3, column=4)
    expected = {(y, x) for y in range(24, 32) for x in range(32, 40)}
    assert {tuple(p) for p in points.astype(int)} == expected


def test_a_model_without_merging_is_refused() -> None:
    with pytest.raises(ValueError, match="no deformable token merging"):
        merging_offsets(litevit.create_backbone("pvt_s", depths=(1, 1, 1, 1)), torch.zeros(1, 3, 32, 32))
