"""Frequencies and features: against what they are by definition."""

import numpy as np
import pytest
import torch

import litevit
from litevit.explain import cosine_similarity, feature_maps, frequency_magnitude, principal_components
from litevit.explain.frequency import block_amplitudes, log_magnitude, relative_log_amplitude


def litv2() -> torch.nn.Module:
    torch.manual_seed(0)
    return litevit.create_model("litv2_s", embed_dim=16, num_heads=(1, 2, 4, 4), alpha=0.5, depths=(1, 1, 2, 1)).eval()


def test_log_magnitude_is_numpys() -> None:
    x = torch.randn(5, 7, 9)
    spectrum = np.abs(np.fft.fftshift(np.fft.fft2(x.double().numpy()), (1, 2))) / np.sqrt(63)
    np.testing.assert_allclose(log_magnitude(x).numpy(), np.log(spectrum + 1e-8).mean(0), atol=1e-4)


def test_branches_of_hilo_are_its_output() -> None:
    model, image = litv2(), torch.randn(3, 65, 97)
    found = frequency_magnitude(model, image, stage=3, block=1)
    assert list(found) == ["hi", "lo", "full"]
    seen = {}
    attn = model.backbone.stages[2].blocks[1].attn
    handle = attn.register_forward_hook(lambda m, a, out: seen.__setitem__("out", out[0].permute(2, 0, 1)))
    with torch.no_grad():
        model(image[None])
    handle.remove()
    half = seen["out"].shape[0] // 2
    torch.testing.assert_close(found["hi"], log_magnitude(seen["out"][:half]))
    torch.testing.assert_close(found["lo"], log_magnitude(seen["out"][half:]))
    torch.testing.assert_close(found["full"], log_magnitude(seen["out"]))


@pytest.mark.parametrize("name", ["lit_ti", "lvt", "swin_ti_dtm", "lit_s"])
def test_every_family_has_frequencies(name: str) -> None:
    model = litevit.create_backbone(name).eval()
    found = frequency_magnitude(model, torch.randn(3, 75, 101), stage=4, block=1)
    assert list(found) == ["full"]
    assert found["full"].shape == feature_maps(model, torch.randn(3, 75, 101))[3].shape[2:]
    curves = block_amplitudes(model, torch.randn(3, 75, 101))
    assert len(curves) == sum(len(stage.blocks) for stage in model.stages)
    assert all(values[0] == 0 and torch.isfinite(values).all() for _, _, values in curves)


@pytest.mark.parametrize("size", [(56, 112), (75, 101)])  # windows fill the maps of stage 2, and do not
def test_windows_are_put_together_before_their_frequencies_are_taken(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    options = {"embed_dim": 8, "num_heads": (1, 2, 4, 8), "depths": (2, 2, 1, 1), "window_size": 7}
    model, image = litevit.create_backbone("swin_ti_dtm", **options).eval(), torch.randn(3, *size)
    for block in (0, 1):  # the second one's windows are shifted
        seen: list[torch.Tensor] = []
        module = model.stages[1].blocks[block]
        handle = module.drop_path1.register_forward_pre_hook(lambda m, args, seen=seen: seen.append(args[0]))
        with torch.no_grad():
            model(image[None])
        handle.remove()
        found = frequency_magnitude(model, image, stage=2, block=block)["full"]
        torch.testing.assert_close(found, log_magnitude(seen[0][0].permute(2, 0, 1)))


def test_relative_amplitude_tells_smooth_from_rough() -> None:
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    smooth = torch.exp(-((y - 8) ** 2 + (x - 8) ** 2) / 20)[None]
    rough = torch.zeros(1, 16, 16)
    rough[0, 3, 4] = 1
    _, low = relative_log_amplitude(log_magnitude(smooth))
    frequencies, flat = relative_log_amplitude(log_magnitude(rough))
    assert low[-1] < -5
    torch.testing.assert_close(flat, torch.zeros_like(flat), atol=1e-5, rtol=0)
    assert frequencies[0] == 0
    assert (frequencies.diff() > 0).all()


def test_principal_components_against_the_covariance() -> None:
    x = torch.randn(6, 5, 7)
    scores = principal_components(x)
    cells = x.flatten(1).T - x.flatten(1).T.mean(0)
    _, vectors = torch.linalg.eigh(cells.T @ cells)
    for k in range(3):
        axis = vectors[:, -1 - k]
        projected = cells @ axis * axis[axis.abs().argmax()].sign()
        stretched = (projected - projected.min()) / (projected.max() - projected.min())
        torch.testing.assert_close(scores[..., k].flatten(), stretched, atol=1e-4, rtol=0)
    assert principal_components(torch.randn(2, 1, 1)).shape == (1, 1, 3)


def test_similarity_and_maps() -> None:
    model, image = litv2(), torch.randn(3, 64, 96)
    maps = feature_maps(model, image)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(maps, model.backbone(image[None])))
    likeness = cosine_similarity(maps[2], 1, 3)
    assert likeness.shape == (4, 6)
    assert likeness[1, 3] == pytest.approx(1)
    a, b = maps[2][0, :, 1, 3], maps[2][0, :, 0, 0]
    assert likeness[0, 0] == pytest.approx(float(a @ b / a.norm() / b.norm()), abs=1e-5)
    with pytest.raises(ValueError, match="4 x 6 map"):
        cosine_similarity(maps[2], 4, 0)


def test_no_attention_no_frequency() -> None:
    with pytest.raises(ValueError, match="no attention"):
        frequency_magnitude(litv2(), torch.randn(3, 64, 64), stage=1, block=0)
