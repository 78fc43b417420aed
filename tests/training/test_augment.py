from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ibinn.errors import ConfigError
from training.augment import AugmentConfig, Box, augment, cut, draw_box, reduction


def picture(side: int = 16) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (side, side, 3), dtype=np.uint8)


EVERY = [
    AugmentConfig(crop_padding=4),
    AugmentConfig(flip=True),
    AugmentConfig(color_jitter=0.3),
    AugmentConfig(rotation_degrees=15),
    AugmentConfig(random_resized_crop_min=0.5),
    AugmentConfig(
        crop_padding=2,
        flip=True,
        color_jitter=0.2,
        rotation_degrees=45,
        random_resized_crop_min=0.7,
    ),
]


@pytest.mark.parametrize("config", EVERY)
def test_the_generator_alone_decides_and_the_input_is_not_changed(config: AugmentConfig) -> None:
    original = picture()
    before = original.copy()
    first, again, other = (
        augment(original, config, np.random.default_rng(seed)) for seed in (5, 5, 6)
    )
    assert (original == before).all()
    assert first.shape == original.shape
    assert first.dtype == np.uint8
    assert (first == again).all()
    many = [augment(original, config, np.random.default_rng(seed)) for seed in range(8)]
    assert any((image != other).any() for image in many)


def test_nothing_switched_on_is_the_identity_and_draws_nothing(rng: np.random.Generator) -> None:
    state = rng.bit_generator.state
    original = picture()
    assert (augment(original, AugmentConfig(), rng) == original).all()
    assert rng.bit_generator.state == state


def test_flip_mirrors_half_of_the_images(rng: np.random.Generator) -> None:
    original = picture()
    config = AugmentConfig(flip=True)
    mirrored = 0
    for _ in range(400):
        image = augment(original, config, rng)
        is_mirrored = (image == original[:, ::-1]).all()
        assert is_mirrored or (image == original).all()
        mirrored += int(is_mirrored)
    assert 150 < mirrored < 250


def test_crop_padding_shifts_uniformly_and_fills_by_reflection(rng: np.random.Generator) -> None:
    original = picture()
    padded = np.pad(original, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    shifts = {
        (top, left): padded[top : top + 16, left : left + 16].tobytes()
        for top in range(5)
        for left in range(5)
    }
    config = AugmentConfig(crop_padding=2)
    seen = {augment(original, config, rng).tobytes() for _ in range(400)}
    assert seen == set(shifts.values())


@pytest.mark.parametrize(
    "values",
    [
        {"crop_padding": -1},
        {"color_jitter": 1.5},
        {"rotation_degrees": 181},
        {"random_resized_crop_min": 0},
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        AugmentConfig(**values)  # type: ignore[arg-type]


def test_boxes_lie_in_the_image_with_the_asked_for_area_and_ratio(
    rng: np.random.Generator,
) -> None:
    for size in ((60, 200), (200, 60), (100, 100)):
        shares = []
        for _ in range(200):
            box = draw_box(size, 0.25, rng)
            assert box.left >= 0
            assert box.top >= 0
            assert box.left + box.width <= size[1] + 1e-9
            assert box.top + box.height <= size[0] + 1e-9
            assert 0.7499 <= box.width / box.height <= 1.3334
            shares.append(box.width * box.height / (size[0] * size[1]))
        assert max(shares) > 0.37
        if size == (100, 100):
            assert min(shares) < 0.35
            assert max(shares) > 0.85


def test_an_image_in_which_no_box_fits_gives_its_largest_centred_one(
    rng: np.random.Generator,
) -> None:
    box = draw_box((10, 100), 0.9, rng)
    assert (box.height, box.top) == (10, 0)
    assert box.width == pytest.approx(10 * 4 / 3)
    assert box.left == pytest.approx((100 - box.width) / 2)


@pytest.mark.parametrize(("width", "factor"), [(100, 1), (127, 1), (128, 2), (300, 4), (900, 8)])
def test_an_original_is_reduced_only_as_far_as_the_cut_stays_twice_the_side(
    width: int, factor: int
) -> None:
    box = Box(left=0, top=0, width=width, height=1000)
    assert reduction(box, 32) == factor


def test_a_cut_of_a_reduced_image_shows_the_same() -> None:
    rng = np.random.default_rng(3)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    whole = np.asarray(coarse.resize((401, 301), Image.Resampling.BICUBIC))
    half = np.asarray(coarse.resize((401, 301), Image.Resampling.BICUBIC).reduce(2))
    box = Box(left=33, top=20, width=250, height=222)
    one, two = (cut(pixels, box, 32, size=(301, 401)) for pixels in (whole, half))
    assert np.abs(one.astype(int) - two).max() <= 3
