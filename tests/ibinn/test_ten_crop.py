import dataclasses

import numpy as np
import pytest
from PIL import Image

from ibinn import bundle
from ibinn.errors import DataError
from ibinn.images import JpegStep, Preprocessing
from ibinn.ten_crop import VIEWS, ten_crop_probabilities, ten_crops
from ibinn.trusted import TrustedClassifier
from tests.ibinn.bundles import PREPROCESSING, SIDE, write_bundle


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> TrustedClassifier:
    folder = tmp_path_factory.mktemp("bundle")
    write_bundle(folder)
    return bundle.load(folder)


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)


def test_the_last_five_views_are_the_mirror_images_of_the_first_five():
    views = ten_crops(picture(), Preprocessing(PREPROCESSING))
    assert views.shape == (VIEWS, SIDE, SIDE, 3)
    np.testing.assert_array_equal(views[5:], views[:5, :, ::-1])


def test_views_are_the_corners_and_the_centre_enlarged():
    preprocessing = Preprocessing(PREPROCESSING)
    image = picture()
    views = ten_crops(image, preprocessing)
    np.testing.assert_array_equal(views[0], preprocessing.fit_size(image[:7, :7]))
    np.testing.assert_array_equal(views[3], preprocessing.fit_size(image[1:, 1:]))


def test_views_go_through_the_jpeg_step_last():
    config = dataclasses.replace(PREPROCESSING, jpeg=JpegStep())
    preprocessing = Preprocessing(config)
    bare = ten_crops(picture(), Preprocessing(PREPROCESSING))
    np.testing.assert_array_equal(
        ten_crops(picture(), preprocessing), [preprocessing.finish(view) for view in bare]
    )


def test_the_answer_is_the_mean_of_the_ten_posteriors(classifier):
    images = np.stack([picture(seed) for seed in range(12)])
    found = ten_crop_probabilities(classifier, images)
    views = ten_crops(images[11], classifier.preprocessing)
    expected = classifier.score(views).probabilities.mean(axis=0)
    np.testing.assert_allclose(found[11], expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    np.testing.assert_allclose(ten_crop_probabilities(classifier, images[11]), found[11])


def test_a_picture_and_its_mirror_image_have_the_same_answer(classifier):
    image = picture()
    mirrored = np.ascontiguousarray(image[:, ::-1])
    first, second = (ten_crop_probabilities(classifier, i) for i in (image, mirrored))
    # The central crop of an odd margin is one pixel off in the mirror image.
    np.testing.assert_allclose(first, second, atol=0.05)


def shorter_side_steps() -> Preprocessing:
    return Preprocessing(dataclasses.replace(PREPROCESSING, shorter_side=10))


def test_where_the_shorter_side_is_resized_views_are_windows_of_the_original():
    original = np.random.default_rng(0).integers(0, 255, (20, 33, 3), dtype=np.uint8)
    views = ten_crops(original, shorter_side_steps())
    resized = np.array(Image.fromarray(original).resize((16, 10), Image.Resampling.BILINEAR))
    places = [(0, 0), (0, 8), (2, 0), (2, 8), (1, 4)]
    for view, (top, left) in zip(views, places, strict=False):
        np.testing.assert_array_equal(view, resized[top : top + SIDE, left : left + SIDE])
    np.testing.assert_array_equal(views[5:], views[:5, :, ::-1])


def test_originals_of_different_sizes_are_averaged_in_one_call(tmp_path):
    steps = shorter_side_steps()
    write_bundle(tmp_path, preprocessing=steps.config.to_dict())
    classifier = bundle.load(tmp_path)
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 255, shape, dtype=np.uint8) for shape in ((9, 30, 3), (12, 11, 3))]
    found = ten_crop_probabilities(classifier, images)
    expected = classifier.score(ten_crops(images[1], steps)).probabilities.mean(axis=0)
    np.testing.assert_allclose(found[1], expected, atol=1e-6)


def test_images_of_another_size_are_refused(classifier):
    with pytest.raises(DataError, match=r"use `Preprocessing\.fit_size` first"):
        ten_crop_probabilities(classifier, np.zeros((2, 9, 8, 3), np.uint8))
