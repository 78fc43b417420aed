from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ibinn.client.payload import to_bytes
from ibinn.console.corruption import NAMES, SEVERITIES, Corruption, corrupted, reduced, strength
from ibinn.decoding import Limits
from ibinn.errors import ImageTooLargeError
from ibinn.types import Region
from tests.ibinn.answers import make_prediction

SEEN = make_prediction().input


def picture(height: int, width: int) -> np.ndarray:
    """A smooth picture in colour, with edges."""
    row, column = np.mgrid[0:height, 0:width]
    values = np.stack((255 * row / height, 255 * column / width, 40 + 150 * (row > height / 2)), 2)
    return values.astype(np.uint8)


@pytest.mark.parametrize("corruption", Corruption)
def test_damage_grows_with_the_severity_and_is_the_same_every_time(corruption: Corruption) -> None:
    image = picture(32, 32)
    before = image.copy()
    damage = []
    for severity in SEVERITIES:
        damaged = corrupted(image, corruption, severity)
        assert (damaged.shape, damaged.dtype) == ((32, 32, 3), np.uint8)
        np.testing.assert_array_equal(damaged, corrupted(image, corruption, severity))
        damage.append(float(np.abs(damaged.astype(float) - image).mean()))
    assert damage[0] == 0
    assert damage == sorted(damage)
    assert len(set(damage)) == len(SEVERITIES)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("corruption", Corruption)
def test_every_severity_is_said_in_words(corruption: Corruption) -> None:
    words = [strength(corruption, severity) for severity in SEVERITIES]
    assert words[0] == "as it is"
    assert len(set(words)) == len(SEVERITIES)
    assert NAMES[corruption]


def test_rotated_colours_keep_greys_and_brightness() -> None:
    grey = np.full((8, 8, 3), 90, np.uint8)
    np.testing.assert_array_equal(corrupted(grey, Corruption.COLOUR, 5), grey)
    # Half a turn about grey takes (x, y, z) to 2m - (x, y, z) with the same mean m.
    red = np.full((8, 8, 3), (120, 90, 60), np.uint8)
    np.testing.assert_array_equal(
        corrupted(red, Corruption.COLOUR, 5), np.full((8, 8, 3), (60, 90, 120), np.uint8)
    )


def test_an_image_is_reduced_to_the_region_that_the_network_looked_at() -> None:
    image = picture(48, 64)
    seen = dataclasses.replace(SEEN, region=Region(left=8, top=0, width=48, height=48))
    same = reduced(to_bytes(image), seen, 48, limits=Limits())
    np.testing.assert_array_equal(same, image[:, 8:56])
    small = reduced(to_bytes(image), seen, 16, limits=Limits())
    assert small.shape == (16, 16, 3)
    np.testing.assert_allclose(small.mean((0, 1)), image[:, 8:56].mean((0, 1)), atol=1)


def test_an_image_over_the_servers_limits_is_not_decoded() -> None:
    with pytest.raises(ImageTooLargeError):
        reduced(to_bytes(picture(48, 64)), SEEN, 32, limits=Limits(max_side=50))
