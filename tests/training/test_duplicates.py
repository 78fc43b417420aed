from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from training.duplicates import find_duplicates, nearest_copies
from training.image_set import thumbnail

Pixels = npt.NDArray[np.uint8]


def pictures(count: int, *, side: int = 64) -> Pixels:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    big = [Image.fromarray(c).resize((side, side), Image.Resampling.BICUBIC) for c in coarse]
    return np.stack([np.asarray(image) for image in big])


def thumbnails(images: list[Pixels]) -> Pixels:
    return np.stack([thumbnail(image) for image in images])


def names(count: int) -> list[str]:
    return [f"id{index}" for index in range(count)]


def test_different_pictures_are_not_near_duplicates() -> None:
    found = find_duplicates(names(300), thumbnails(list(pictures(300))))
    assert len(found.pairs) == 0
    assert len(np.unique(found.cluster)) == 300


def test_recompressed_rescaled_and_relit_copies_are_near_duplicates() -> None:
    images = list(pictures(50))
    buffer = BytesIO()
    Image.fromarray(images[3]).save(buffer, format="JPEG", quality=40)
    small = Image.fromarray(images[3]).resize((40, 48), Image.Resampling.BILINEAR)
    darker = (images[3] * 0.7).astype(np.uint8)
    copies = [np.asarray(Image.open(buffer)), np.asarray(small), darker]
    found = find_duplicates(names(53), thumbnails([*images, *copies]))
    assert len({found.cluster[index] for index in (3, 50, 51, 52)}) == 1
    assert len(np.unique(found.cluster)) == 50
    assert (found.distance > 0).all()


def test_exact_copies_have_distance_zero_and_stay_together_even_when_flat() -> None:
    flat = [np.full((16, 16, 3), value, np.uint8) for value in (10, 10, 200, 11)]
    found = find_duplicates(["a", "a", "b", "c"], thumbnails(flat))
    assert found.pairs.tolist() == [[0, 1]]
    assert found.distance.tolist() == [0]
    assert found.cluster[0] == found.cluster[1]
    assert len(np.unique(found.cluster)) == 3


def test_a_chain_of_similar_images_cannot_swallow_a_class() -> None:
    # A slow dissolve between pictures: each frame is like its neighbours, the ends are not.
    ends = pictures(11).astype(np.float64)
    steps = np.linspace(0, 1, 40, endpoint=False)
    frames = [
        ((1 - t) * ends[number] + t * ends[number + 1]).astype(np.uint8)
        for number in range(10)
        for t in steps
    ]
    found = find_duplicates(names(len(frames)), thumbnails(frames))
    assert np.bincount(found.cluster).max() <= max(10, len(frames) // 50)
    assert found.loosened > 0


def test_sets_of_one_or_no_image_have_no_duplicates() -> None:
    assert len(find_duplicates([], np.empty((0, 16, 16, 3), np.uint8)).pairs) == 0
    assert find_duplicates(["a"], thumbnails(list(pictures(1)))).cluster.tolist() == [0]


def test_the_nearest_copy_among_others_is_found() -> None:
    others = list(pictures(40))
    images = [(others[3] * 0.7).astype(np.uint8), pictures(41)[40], others[7]]
    positions, distances = nearest_copies(thumbnails(images), thumbnails(others))
    assert positions.tolist() == [3, -1, 7]
    assert distances[2] == 0
    assert np.isinf(distances[1])


def test_a_copy_is_found_however_many_others_are_near_too() -> None:
    rng = np.random.default_rng(0)
    base = pictures(1)[0]
    near = [np.clip(base + rng.integers(-4, 5, base.shape), 0, 255) for _ in range(60)]
    others = [image.astype(np.uint8) for image in near] + [base]
    positions, distances = nearest_copies(thumbnails([base]), thumbnails(others))
    assert positions.tolist() == [60]
    assert distances.tolist() == [0]


def test_nothing_is_near_nothing() -> None:
    none = np.empty((0, 16, 16, 3), np.uint8)
    some = thumbnails(list(pictures(2)))
    assert nearest_copies(none, some)[0].shape == (0,)
    assert nearest_copies(some, none)[0].tolist() == [-1, -1]
