from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ibinn.errors import ConfigError, DataError
from training.corruption_filters import disk_kernel, motion_blur, plasma, zoom
from training.corruptions import CORRUPTIONS, LARGE_SIDE_PX, SEVERITIES, Family, corrupt

TRADED_OFF = {"glass_blur", "frost", "elastic_transform"}
"""Published parameters of these weaken one effect while they strengthen another."""


def photograph(rng: np.random.Generator, side: int) -> np.ndarray:
    """Smooth shapes and detail, as photographs have."""
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float64)
    noisy = smooth + rng.normal(0, 8, smooth.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def distortion(images: list[np.ndarray], name: str, severity: int) -> float:
    return float(
        np.mean(
            [
                np.square(corrupt(image, name, severity, seed=3).astype(float) - image).mean()
                for image in images
            ]
        )
    )


def test_there_are_fifteen_of_four_families_with_five_severities_each() -> None:
    assert len(CORRUPTIONS) == 15
    assert {c.family for c in CORRUPTIONS.values()} == set(Family)
    for corruption in CORRUPTIONS.values():
        assert len(corruption.small) == len(corruption.large) == len(SEVERITIES)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corrupted_image_is_a_function_of_pixels_and_seed(
    name: str, rng: np.random.Generator
) -> None:
    image = photograph(rng, 32)
    before = image.copy()
    for severity in SEVERITIES:
        once = corrupt(image, name, severity, seed=1)
        assert once.dtype == np.uint8
        assert once.shape == image.shape
        np.testing.assert_array_equal(once, corrupt(image, name, severity, seed=1))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", sorted(CORRUPTIONS.keys() - TRADED_OFF))
def test_distortion_does_not_shrink_with_severity(name: str, rng: np.random.Generator) -> None:
    images = [photograph(rng, 32) for _ in range(12)]
    found = [distortion(images, name, severity) for severity in SEVERITIES]
    assert np.all(np.diff(found) >= -1e-9), found
    assert found[-1] > found[0] > 0


@pytest.mark.parametrize("name", sorted(TRADED_OFF))
def test_every_severity_distorts_where_parameters_are_traded_off(
    name: str, rng: np.random.Generator
) -> None:
    images = [photograph(rng, 32) for _ in range(6)]
    assert all(distortion(images, name, severity) > 0 for severity in SEVERITIES)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (8, 8), (20, 33), (LARGE_SIDE_PX, 120)])
def test_images_of_any_size_and_any_content_can_be_corrupted(
    name: str, shape: tuple[int, int], rng: np.random.Generator
) -> None:
    contents = (
        np.zeros((*shape, 3), np.uint8),
        np.full((*shape, 3), 255, np.uint8),
        rng.integers(0, 256, (*shape, 3), dtype=np.uint8),
    )
    for image in contents:
        for severity in (1, 5):
            assert corrupt(image, name, severity, seed=0).shape == image.shape


def test_images_that_share_a_seed_get_different_noise(rng: np.random.Generator) -> None:
    grey, other = np.full((16, 16, 3), 128, np.uint8), np.full((16, 16, 3), 129, np.uint8)
    first = corrupt(grey, "gaussian_noise", 1, seed=0).astype(int) - 128
    second = corrupt(other, "gaussian_noise", 1, seed=0).astype(int) - 129
    assert np.abs(first - second).max() > 1


def test_large_images_get_the_parameters_of_imagenet_c() -> None:
    noise = CORRUPTIONS["gaussian_noise"]
    assert noise.parameters(LARGE_SIDE_PX, LARGE_SIDE_PX, 5) == (0.38,)
    assert noise.parameters(LARGE_SIDE_PX - 1, 400, 5) == (0.10,)


def test_brightness_keeps_hue_and_saturation() -> None:
    image = np.full((4, 4, 3), (100, 50, 0), np.uint8)
    brighter = corrupt(image, "brightness", 2, seed=0)[0, 0].astype(float)
    np.testing.assert_allclose(brighter / brighter[0], [1.0, 0.5, 0.0], atol=0.01)
    assert brighter[0] == 126


def test_contrast_keeps_the_mean_of_each_channel(rng: np.random.Generator) -> None:
    image = photograph(rng, 32)
    flat = corrupt(image, "contrast", 5, seed=0)
    np.testing.assert_allclose(flat.mean((0, 1)), image.mean((0, 1)), atol=0.5)


def test_blurs_keep_a_flat_image() -> None:
    flat = np.full((24, 24, 3), (10, 120, 250), np.uint8)
    for name in ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "elastic_transform"):
        for severity in SEVERITIES:
            np.testing.assert_array_equal(corrupt(flat, name, severity, seed=0), flat)


def test_filters_are_what_their_formulas_say(rng: np.random.Generator) -> None:
    kernel = disk_kernel(3.0, 0.5)
    assert kernel.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(kernel, kernel.T)
    point = np.zeros((1, 9))
    point[0, 4] = 1.0
    smeared = motion_blur(point, radius_px=1, sigma_px=1.0, angle_deg=0.0)[0]
    weights = np.exp([0.0, -0.5, -2.0])
    np.testing.assert_allclose(smeared[[4, 3, 2]], weights / weights.sum())
    image = rng.random((7, 5, 3))
    np.testing.assert_allclose(zoom(image, 1.0), image)
    clouds = plasma(20, 33, 2.0, rng)
    assert clouds.shape == (20, 33)
    assert 0.0 <= clouds.min() < clouds.max() <= 1.0


def test_what_cannot_be_corrupted_is_refused_with_what_to_do() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ConfigError, match="expected one of gaussian_noise"):
        corrupt(image, "rain", 1, seed=0)
    with pytest.raises(ConfigError, match="expected an integer 1 to 5"):
        corrupt(image, "fog", 6, seed=0)
    with pytest.raises(DataError, match="expected uint8"):
        corrupt(image.astype(np.float64), "fog", 1, seed=0)  # type: ignore[arg-type]
