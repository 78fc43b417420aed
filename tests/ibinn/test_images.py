"""The preprocessing: what the network sees, its log-determinant, its record of losses."""

from __future__ import annotations

import json
import math
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ibinn.errors import ConfigError
from ibinn.images import (
    JpegStep,
    Limits,
    Preprocessing,
    PreprocessingConfig,
    open_image,
    png_size,
)

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


def preprocessing(side: int = 8, **changes: Any) -> Preprocessing:
    return Preprocessing(PreprocessingConfig(side=side, mean=MEAN, std=STD, **changes))


def random_pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


# ------------------------------------------------------------------------------------ geometry


@pytest.mark.parametrize("interpolation", ["bilinear", "box", "bicubic", "lanczos"])
@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize("shape", [(8, 8), (5, 40), (40, 5), (1, 1), (97, 64)])
def test_every_size_becomes_the_square(interpolation: Any, fit: Any, shape: Any) -> None:
    fitted = preprocessing(interpolation=interpolation, fit=fit).fit_size(random_pixels(*shape))
    assert fitted.shape == (8, 8, 3)
    assert fitted.dtype == np.uint8


def test_image_of_the_right_size_is_left_alone() -> None:
    pixels = random_pixels(8, 8)
    np.testing.assert_array_equal(preprocessing().fit_size(pixels), pixels)


def test_crop_takes_the_centre_and_squash_the_whole() -> None:
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = 200
    assert (preprocessing(fit="crop").fit_size(pixels) == 200).all()
    squashed = preprocessing(fit="squash", interpolation="box").fit_size(pixels)
    assert squashed[:, 0].max() == 0
    assert squashed[:, 4].min() == 200


@pytest.mark.parametrize("interpolation", ["bilinear", "box", "bicubic", "lanczos"])
def test_shrinking_averages_so_that_checkerboards_turn_grey(interpolation: Any) -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    pixels = np.repeat(board[..., None].astype(np.uint8), 3, axis=2)
    fitted = preprocessing(interpolation=interpolation).fit_size(pixels)
    assert np.abs(fitted[1:-1, 1:-1].astype(int) - 127).max() <= 2


# ----------------------------------------------------------------------------------- JPEG step


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_jpeg_step_is_pillows_round_trip(quality: int, subsampling: Any) -> None:
    pixels = random_pixels(8, 8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    expected = np.array(Image.open(buffer))
    step = JpegStep(quality=quality, subsampling=subsampling)
    finished = preprocessing(jpeg=step).finish(pixels)
    assert finished.dtype == np.uint8
    np.testing.assert_array_equal(finished, expected)
    assert (finished != pixels).any()


def test_without_jpeg_step_finish_changes_nothing() -> None:
    pixels = random_pixels(8, 8)
    np.testing.assert_array_equal(preprocessing().finish(pixels), pixels)


# --------------------------------------------------------------------------------- to a tensor


def test_tensor_holds_the_centre_of_each_level() -> None:
    pixels = torch.from_numpy(random_pixels(2, 8, 8))
    x = preprocessing().to_tensor(pixels)
    assert x.shape == (2, 3, 8, 8)
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    for channel in range(3):
        expected = ((pixels[..., channel] + 0.5) / 256 - MEAN[channel]) / STD[channel]
        torch.testing.assert_close(x[:, channel], expected)


def test_noise_moves_within_its_level() -> None:
    pixels = torch.from_numpy(random_pixels(2, 8, 8))
    noise = torch.rand(2, 3, 8, 8)
    x = preprocessing().to_tensor(pixels, noise)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    levels = 256 * (x * std + mean)
    torch.testing.assert_close(levels, pixels.permute(0, 3, 1, 2) + noise, atol=1e-3, rtol=0)
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_half_as_noise_is_the_centre() -> None:
    pixels = torch.from_numpy(random_pixels(1, 8, 8))
    with_half = preprocessing().to_tensor(pixels, torch.full((1, 3, 8, 8), 0.5))
    torch.testing.assert_close(with_half, preprocessing().to_tensor(pixels), rtol=0, atol=0)


def test_log_det_equals_autograd_jacobian() -> None:
    steps = preprocessing(side=2)
    pixels = torch.from_numpy(random_pixels(1, 2, 2))
    noise = torch.rand(1, 3, 2, 2, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda u: steps.to_tensor(pixels, u), noise)
    # v = (k + u)/256, so the determinant in units of v has 256 per dimension more
    log_det = torch.linalg.slogdet(jacobian.reshape(12, 12)).logabsdet + 12 * math.log(256)
    assert steps.dims == 12
    assert log_det.item() == pytest.approx(steps.log_det, abs=1e-9)


# ------------------------------------------------------------------------------------- prepare


def test_prepare_records_what_was_looked_at_and_lost() -> None:
    steps = preprocessing(jpeg=JpegStep())
    decoded = open_image(random_pixels(20, 31), Limits())
    prepared = steps.prepare(decoded)
    np.testing.assert_array_equal(prepared.pixels, steps.finish(steps.fit_size(decoded.pixels)))
    info = prepared.input
    assert (info.width, info.height, info.format) == (31, 20, "ARRAY")
    assert info.sha256_pixels == decoded.sha256_pixels
    region = info.region
    assert (region.left, region.top, region.width, region.height) == (5, 0, 20, 20)
    assert info.reductions == (
        "centre 20×20 of 31×20 px",
        "20×20 px resized to 8×8 px (bilinear)",
        "JPEG at quality 75, 4:2:0",
    )


def test_nothing_lost_is_nothing_recorded() -> None:
    prepared = preprocessing().prepare(open_image(random_pixels(8, 8), Limits()))
    assert prepared.input.reductions == ()
    assert prepared.input.region.width == prepared.input.region.height == 8


def test_encoded_bytes_tell_noise_from_flat() -> None:
    steps = preprocessing(side=32)
    noise = steps.prepare(open_image(random_pixels(32, 32), Limits()))
    flat = steps.prepare(open_image(np.full((32, 32), 90, np.uint8), Limits()))
    assert noise.encoded_bytes == png_size(noise.pixels) > 3 * 32 * 32
    assert flat.encoded_bytes < 200


# -------------------------------------------------------------------------------- shorter side


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (31, 97), (300, 300), (12, 12), (9, 200)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_shorter_side_is_resized_and_the_middle_kept(shape: Any, interpolation: Any) -> None:
    pixels = random_pixels(*shape)
    steps = preprocessing(side=8, shorter_side=10, interpolation=interpolation)
    height, width = shape
    size = (10 * width // min(shape), 10 * height // min(shape))
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    resized = np.array(Image.fromarray(pixels).resize(size, filters[interpolation]))
    top, left = round((size[1] - 8) / 2), round((size[0] - 8) / 2)
    expected = resized[top : top + 8, left : left + 8]
    found = steps.fit_size(pixels).astype(int)
    # The window's own resize rounds its coefficients once more: one level at most, and seldom.
    assert np.abs(found - expected).max() <= 1
    assert (found == expected).mean() > 0.8


def test_the_published_preprocessing_is_torchvisions() -> None:
    from torchvision.transforms.v2.functional import center_crop, resize

    pixels = random_pixels(375, 500)
    steps = preprocessing(side=224, shorter_side=256)
    image = Image.fromarray(pixels)
    expected = np.array(center_crop(resize(image, [256]), [224]))
    difference = np.abs(steps.fit_size(pixels).astype(int) - expected)
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.99


def test_a_long_strip_costs_no_more_than_a_square() -> None:
    fitted = preprocessing(side=224, shorter_side=256).fit_size(random_pixels(1, 4096))
    assert fitted.shape == (224, 224, 3)


def test_an_image_of_the_networks_size_is_left_alone_whatever_the_shorter_side() -> None:
    pixels = random_pixels(8, 8)
    steps = preprocessing(side=8, shorter_side=10)
    np.testing.assert_array_equal(steps.fit_size(steps.fit_size(pixels)), pixels)


def test_region_of_a_resized_shorter_side_is_the_part_of_the_original_that_is_seen() -> None:
    steps = preprocessing(side=224, shorter_side=256)
    prepared = steps.prepare(open_image(random_pixels(512, 1024), Limits()))
    region = prepared.input.region
    assert (region.left, region.top, region.width, region.height) == (288, 32, 448, 448)
    assert prepared.input.reductions == (
        "centre 448×448 of 1024×512 px",
        "448×448 px resized to 224×224 px (bilinear)",
    )
    assert any("resized to 256 px" in words for words in steps.erased())


@pytest.mark.parametrize("shape", [(1, 4096), (4096, 1), (257, 3), (100, 101), (7, 7), (224, 225)])
def test_region_lies_within_the_original(shape: Any) -> None:
    steps = preprocessing(side=224, shorter_side=256)
    region = steps.prepare(open_image(random_pixels(*shape), Limits())).input.region
    height, width = shape
    assert min(region.left, region.top) >= 0
    assert min(region.width, region.height) >= 1
    assert region.left + region.width <= width
    assert region.top + region.height <= height


def test_five_windows_need_a_shorter_side() -> None:
    with pytest.raises(ConfigError, match="has no shorter_side"):
        preprocessing().five_windows(random_pixels(9, 9))


# -------------------------------------------------------------------------------------- levels


def test_255_levels_divide_the_centre_by_255() -> None:
    pixels = torch.from_numpy(random_pixels(2, 4, 4))
    x = preprocessing(side=4, levels=255).to_tensor(pixels)
    for channel in range(3):
        expected = ((pixels[..., channel].double() + 0.5) / 255 - MEAN[channel]) / STD[channel]
        assert torch.allclose(x[:, channel].double(), expected, atol=1e-5)


def test_255_levels_come_back_as_the_same_pixels() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(-1, -1, -1, 3)
    steps = preprocessing(side=16, levels=255)
    np.testing.assert_array_equal(steps.to_pixels(steps.to_tensor(pixels)), pixels.numpy())


def test_log_det_of_255_levels_is_that_of_256_levels_stretched() -> None:
    # x is the same function of k, with 256/255 for 1 as the slope in v = (k + u)/256.
    plain, stretched = preprocessing(side=4), preprocessing(side=4, levels=255)
    assert stretched.log_det - plain.log_det == pytest.approx(48 * math.log(256 / 255))


# -------------------------------------------------------------------------------------- config


def test_config_without_shorter_side_and_levels_is_written_as_before() -> None:
    config = PreprocessingConfig(side=16, mean=MEAN, std=STD)
    assert set(config.to_dict()) == {"side", "mean", "std", "interpolation", "fit", "jpeg"}


def test_shorter_side_and_levels_survive_json() -> None:
    config = PreprocessingConfig(side=16, mean=MEAN, std=STD, shorter_side=18, levels=255)
    assert PreprocessingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("jpeg", [None, JpegStep(quality=80, subsampling="4:4:4")])
def test_config_survives_json(jpeg: JpegStep | None) -> None:
    config = PreprocessingConfig(
        side=16, mean=MEAN, std=STD, interpolation="box", fit="squash", jpeg=jpeg
    )
    assert PreprocessingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "unknown keys colour; known are side, mean"),
        ({"side": 0}, "side is 0; expected an integer 1 to 4096"),
        ({"side": True}, "side is True"),
        ({"side": "32"}, "side is '32'"),
        ({"mean": [0.5, 0.5]}, "mean is .*; expected three finite numbers"),
        ({"mean": [0.5, 0.5, float("nan")]}, "mean is .*; expected three finite numbers"),
        ({"std": [0.5, 0.0, 0.5]}, "std is .*; expected numbers above 0"),
        ({"std": 0.5}, "std is 0.5; expected three"),
        ({"interpolation": "nearest"}, "interpolation is 'nearest'; expected one of bilinear"),
        ({"fit": "pad"}, "fit is 'pad'; expected one of crop, squash"),
        ({"jpeg": 75}, "preprocessing.jpeg is 75; expected a mapping"),
        ({"jpeg": {"quality": 0}}, "jpeg.quality is 0; expected an integer 1 to 100"),
        ({"jpeg": {"subsampling": "4:1:1"}}, "jpeg.subsampling is '4:1:1'"),
        ({"jpeg": {"speed": 1}}, "preprocessing.jpeg has unknown keys speed"),
        ({"shorter_side": 31}, "shorter_side is 31; expected an integer 32 .* to 4096"),
        ({"shorter_side": True}, "shorter_side is True"),
        ({"shorter_side": 40, "fit": "squash"}, "shorter_side is 40 and fit squash"),
        ({"levels": 128}, "levels is 128; expected 256 or 255"),
        ({"levels": 256.0}, "levels is 256.0; expected 256 or 255"),
    ],
)
def test_invalid_config_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    values = {"side": 32, "mean": list(MEAN), "std": list(STD), **change}
    with pytest.raises(ConfigError, match=message):
        PreprocessingConfig.from_dict(values)


def test_missing_config_keys_are_named() -> None:
    with pytest.raises(ConfigError, match="preprocessing lacks mean, std"):
        PreprocessingConfig.from_dict({"side": 32})
    with pytest.raises(ConfigError, match="expected a mapping"):
        PreprocessingConfig.from_dict([])  # type: ignore[arg-type]
