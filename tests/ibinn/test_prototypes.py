"""Samples, interpolations and trajectories: they start and end where they say."""

import numpy as np
import pytest
import torch

from ibinn.errors import ConfigError
from ibinn.explain import trajectory as paths
from ibinn.explain.prototypes import class_sheet, codes_of, decode, interpolate
from ibinn.images import Preprocessing
from tests.ibinn.bundles import CLASSES, PREPROCESSING, SIDE, make_model, write_bundle


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)


def test_tensors_go_back_to_the_pixels_that_they_came_from(pixels):
    steps = Preprocessing(PREPROCESSING)
    assert np.array_equal(steps.to_pixels(steps.to_tensor(torch.from_numpy(pixels))), pixels)


def test_images_survive_the_way_to_their_codes_and_back(model, pixels):
    steps = Preprocessing(PREPROCESSING)
    assert np.array_equal(decode(model, steps, codes_of(model, steps, pixels)), pixels)


def test_the_ends_of_an_interpolation_are_both_images(model, pixels):
    steps = Preprocessing(PREPROCESSING)
    codes = codes_of(model, steps, pixels[:2])
    line = interpolate(codes[0], codes[1], 5)
    assert line.shape == (5, codes.shape[1])
    torch.testing.assert_close(line[2], codes.mean(0))
    images = decode(model, steps, line)
    assert np.array_equal(images[0], pixels[0])
    assert np.array_equal(images[-1], pixels[1])


def test_an_interpolation_needs_both_ends():
    with pytest.raises(ConfigError, match="at least 2"):
        interpolate(torch.zeros(3), torch.ones(3), 1)


def test_at_temperature_zero_all_samples_show_the_mean_and_seeds_repeat(model):
    steps = Preprocessing(PREPROCESSING)
    sheet = class_sheet(model, steps, 3, temperatures=(0.0, 1.0), count=3, seed=4)
    assert sheet.shape == (2, 3, SIDE, SIDE, 3)
    mean = decode(model, steps, model.mixture.dense_means()[3:4])[0]
    assert all(np.array_equal(image, mean) for image in sheet[0])
    assert not np.array_equal(sheet[1, 0], sheet[1, 1])
    again = class_sheet(model, steps, 3, temperatures=(0.0, 1.0), count=3, seed=4)
    assert np.array_equal(sheet, again)


def test_negative_temperatures_are_refused(model):
    with pytest.raises(ConfigError, match="at least 0"):
        class_sheet(model, Preprocessing(PREPROCESSING), 0, temperatures=(-1.0,), count=1)


def test_codes_that_cannot_be_inverted_give_black_pixels(model):
    code = torch.full((1, model.mixture.dims), float("nan"))
    assert not decode(model, Preprocessing(PREPROCESSING), code).any()


@pytest.mark.parametrize("name", paths.CORRUPTIONS)
def test_corruptions_start_at_the_image_and_move_away(name, pixels):
    corrupt = paths.CORRUPTIONS[name]
    strengths = (0.0, 0.3, 0.9) if name in ("noise", "contrast") else (0.0, 1.0, 3.0)
    made = [corrupt(pixels[0], strength) for strength in strengths]
    assert np.array_equal(made[0], pixels[0])
    assert all(image.shape == pixels[0].shape and image.dtype == np.uint8 for image in made)
    away = [np.abs(image.astype(float) - pixels[0]).mean() for image in made]
    assert away[0] < away[1] < away[2]
    assert np.array_equal(corrupt(pixels[0], 0.9), corrupt(pixels[0], 0.9))


def test_a_trajectory_tells_what_scoring_each_step_alone_tells(tmp_path, pixels):
    from ibinn import bundle

    write_bundle(tmp_path / "bundle")
    classifier = bundle.load(tmp_path / "bundle")
    found = paths.trajectory(classifier, pixels[0], paths.add_noise, (0.0, 0.1, 0.5))
    assert found.strengths.tolist() == [0.0, 0.1, 0.5]
    last = classifier.score(paths.add_noise(pixels[0], 0.5)[None])
    assert found.combined_p[2] == last.combined_p[0]
    assert found.bits_per_dim[2] == pytest.approx(last.bits_per_dim[0], abs=1e-6)
    assert found.confidence[0] == found.first_class_probability[0]
    assert (found.entropy <= np.log(len(CLASSES)) + 1e-9).all()
