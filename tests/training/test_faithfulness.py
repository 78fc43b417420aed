"""Measures of what a map is worth, and the adapters of the methods that make maps."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from ibinn.errors import DataError, NotExplainableError
from ibinn.explain.heatmap import log_odds_heatmap
from tests.ibinn.networks import CIFAR, SIDE, random_classifier
from training import attributions, faithfulness, planted, randomisation
from training.attributions import Baseline, Options, Sign, Subject
from training.faithfulness import Perturbation

CLASSES = 4
OPTIONS = Options(pixels=Baseline.BLURRED, cells=Baseline.MEAN, gradcam=Sign.SIGNED)


@pytest.fixture(scope="module")
def subject() -> Subject:
    torch.manual_seed(0)
    return Subject(random_classifier(classes=CLASSES), temperature=1.7)


@pytest.fixture
def images(rng) -> np.ndarray:
    return rng.standard_normal((5, 3, SIDE, SIDE)).astype(np.float32)


def mean_of_corner(images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """A model that looks at the top left quadrant alone."""
    half = images.shape[-1] // 2
    return images[:, 0, :half, :half].mean(axis=(1, 2)).astype(np.float64)


def corner_images(count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Images bright in that quadrant, and the map that says so."""
    maps = np.zeros((count, SIDE, SIDE))
    maps[:, : SIDE // 2, : SIDE // 2] = 1.0
    return np.repeat(maps[:, None], 3, axis=1).astype(np.float32), maps


def test_a_curve_starts_and_ends_at_the_image_and_its_blur(rng, images):
    maps = rng.standard_normal((len(images), SIDE, SIDE))
    order, references = faithfulness.removal_order(maps), faithfulness.blurred(images)
    removed = faithfulness.perturbed(images, references, order, Perturbation.DELETION, steps=4)
    restored = faithfulness.perturbed(images, references, order, Perturbation.INSERTION, steps=4)
    np.testing.assert_array_equal(removed[:, 0], images)
    np.testing.assert_array_equal(removed[:, -1], references)
    np.testing.assert_array_equal(restored[:, 0], references)
    np.testing.assert_array_equal(restored[:, -1], images)
    # What one has removed, the other has restored: together they hold both pictures.
    both = np.broadcast_to((images + references)[:, None], removed.shape)
    np.testing.assert_array_equal(removed + restored, both)


def test_each_step_takes_its_share_of_the_most_relevant_pixels(rng, images):
    maps = rng.standard_normal((len(images), SIDE, SIDE))
    order = faithfulness.removal_order(maps)
    steps = faithfulness.perturbed(
        images, np.zeros_like(images), order, Perturbation.DELETION, steps=4
    )
    gone = (steps[:, 1, 0] == 0).reshape(len(images), -1)
    assert gone.sum(axis=1).tolist() == [SIDE * SIDE // 4] * len(images)
    flat = maps.reshape(len(images), -1)
    for values, removed in zip(flat, gone, strict=True):
        assert values[removed].min() > values[~removed].max()


def test_the_map_of_what_is_looked_at_beats_its_opposite():
    images, maps = corner_images()
    classes = np.zeros(len(images), np.int64)
    for kind, better in ((Perturbation.INSERTION, 1), (Perturbation.DELETION, -1)):
        right, wrong = (
            faithfulness.areas(
                faithfulness.curves(mean_of_corner, images, values, classes, kind, steps=8)
            )
            for values in (maps, -maps)
        )
        assert (better * (right - wrong) > 0.1).all()


def test_ties_are_broken_by_the_seed_and_not_by_position():
    flat = np.zeros((1, SIDE, SIDE))
    one, again, two = (faithfulness.removal_order(flat, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != two).any()
    assert (one != np.arange(SIDE * SIDE)).any()
    assert sorted(one[0].tolist()) == list(range(SIDE * SIDE))


def test_a_map_that_is_not_finite_has_no_order():
    with pytest.raises(DataError, match="1 of 2 maps are not finite"):
        faithfulness.removal_order(np.array([[[np.nan, 1.0]], [[0.0, 1.0]]]))


def test_areas_are_those_of_the_trapezoid_rule(rng):
    values = rng.random((6, 9))
    np.testing.assert_allclose(
        faithfulness.areas(values), np.trapezoid(values, dx=1 / 8, axis=1), rtol=1e-12
    )


def test_rank_correlations_are_spearmans(rng):
    one, two = rng.integers(0, 5, (2, 4, 3, 3)).astype(float)
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(one, two, strict=True)]
    np.testing.assert_allclose(faithfulness.rank_correlations(one, two), expected, atol=1e-12)
    assert faithfulness.rank_correlations(np.ones((1, 3, 3)), one[:1]).tolist() == [0.0]


def test_a_hit_has_every_largest_value_in_the_patch():
    patch = np.zeros((3, 2, 2), bool)
    patch[:, 0, 0] = True
    maps = np.array([[[2.0, 1.0], [0, 0]], [[2.0, 2.0], [0, 0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert faithfulness.hits(maps, patch).tolist() == [True, False, False]
    assert faithfulness.mass_inside(maps, patch).tolist() == pytest.approx([2 / 3, 0.5, 0.0])


def test_an_interval_holds_the_mean_and_narrows_with_more_images(rng):
    few, many = rng.standard_normal(20), rng.standard_normal(2000)
    short, wide = (faithfulness.mean_estimate(v, draws=200) for v in (many, few))
    assert short.low < short.value < short.high
    assert short.value == pytest.approx(many.mean())
    assert short.high - short.low < wide.high - wide.low


def test_what_captum_differentiates_is_the_posterior_that_answers_show(subject, images):
    with torch.no_grad():
        found = subject.log_posterior(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, subject.log_probabilities(images), atol=1e-4)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1.0, atol=1e-5)


def test_heatmaps_of_the_subject_sum_to_that_posterior(subject, images):
    sums = subject.heatmaps(images).sum(axis=(2, 3))
    np.testing.assert_allclose(sums, subject.log_probabilities(images), atol=1e-9)


def test_log_odds_maps_are_differences_of_heatmaps(subject, images):
    rows = subject.log_probabilities(images)
    order = rows.argsort(axis=1)
    top, second = order[:, -1], order[:, -2]
    maps = torch.from_numpy(subject.heatmaps(images))
    expected = np.stack(
        [
            log_odds_heatmap(maps[i : i + 1], int(top[i]), int(second[i]))[0].numpy()
            for i in range(len(images))
        ]
    )
    expected = attributions.enlarged(attributions.deviations(expected), SIDE)
    found = attributions.log_odds(subject, images, top)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_paths_of_integrated_gradients_close_with_more_steps(subject, images):
    classes = subject.log_probabilities(images).argmax(axis=1)
    coarse, fine = (
        attributions.integrated_gradients(subject, images, classes, Baseline.MEAN, steps=steps)[1]
        for steps in (2, 64)
    )
    assert np.abs(fine).mean() < np.abs(coarse).mean()
    assert np.abs(fine).max() < 0.05


def test_every_method_gives_a_map_of_the_input_for_every_image(subject, images):
    classes = np.arange(len(images)) % CLASSES
    maps = attributions.maps_of(subject, images, classes, OPTIONS, steps=4)
    assert tuple(maps) == tuple(attributions.LABELS)
    for values in maps.values():
        assert values.shape == (len(images), SIDE, SIDE)
        assert np.isfinite(values).all()
    alone = attributions.maps_of(subject, images[2:3], classes[2:3], OPTIONS, steps=4)
    for name in set(maps) - {"random"}:
        np.testing.assert_allclose(alone[name][0], maps[name][2], rtol=1e-3, atol=1e-5)


def test_summing_over_cells_keeps_the_largest_cell_and_the_scale(rng):
    maps = np.zeros((1, 8, 8))
    maps[0, 5, 6] = 3.0
    found = attributions.over_cells(maps, (4, 4))
    row, column = np.unravel_index(found[0].argmax(), (8, 8))
    assert (row // 2, column // 2) == (2, 3)


def test_a_network_that_mixes_all_positions_is_refused():
    with pytest.raises(NotExplainableError, match="DCT pooling"):
        Subject(random_classifier(CIFAR, classes=CLASSES), temperature=1.0)


@pytest.mark.parametrize("quadrant", range(4))
def test_a_composite_differs_from_its_host_in_the_patch_alone(rng, quadrant):
    host, guest = rng.integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    pixels, patch = planted.composite(host, guest, quadrant=quadrant)
    assert patch.mean() == planted.AREA
    np.testing.assert_array_equal(pixels[~patch], host[~patch])
    small = guest.reshape(4, 2, 4, 2, 3).mean(axis=(1, 3))
    assert np.abs(pixels[patch].reshape(4, 4, 3) - small).max() <= 1


def test_planting_keeps_only_images_in_which_the_patch_decided(rng):
    def brightest_is_one(pixels: np.ndarray) -> np.ndarray:
        bright = (pixels.reshape(len(pixels), -1).max(axis=1) > 200).astype(int)
        return np.log(0.9 * np.eye(2)[bright] + 0.05)

    hosts = np.full((5, 8, 8, 3), 20, np.uint8)
    hosts[0] = 255  # class 1 already: no patch can decide
    guests = np.stack([np.full((8, 8, 3), value, np.uint8) for value in (250, 30)])
    found = planted.plant(
        hosts,
        guests,
        np.array([1, 0]),
        log_probabilities=brightest_is_one,
        finish=lambda pixels: pixels,
        count=20,
        trials=600,
    )
    assert len(found.classes) == 20
    assert found.classes.tolist() == [1] * 20
    assert found.hosts.tolist() == [0] * 20
    for pixels, patch in zip(found.pixels, found.patches, strict=True):
        assert (pixels[patch] == 250).all()
        assert (pixels[~patch] == 20).all()


def test_a_network_forgets_from_the_answer_to_the_input(subject, images):
    model = subject.model
    kept = copy.deepcopy(model.state_dict())
    x = torch.from_numpy(images)
    found = list(randomisation.cascade(model, x, seed=3))
    assert [name for name, _ in found] == [
        randomisation.MEANS,
        *[name for name in reversed(model.network.stage_names) if name != "pooling"],
    ]
    for name, values in model.state_dict().items():
        assert torch.equal(values, kept[name]), f"{name} of the model itself has changed"
    first, last = found[0][1], found[-1][1]
    assert not torch.equal(first.mixture.means, model.mixture.means)
    torch.testing.assert_close(
        first.mixture.means.norm(dim=1), model.mixture.means.norm(dim=1), rtol=1e-5, atol=1e-5
    )
    z, again = model.network(x)[0], first.network(x)[0]
    torch.testing.assert_close(z, again)
    assert not torch.allclose(last.network(x)[0], z)
    for one, two in zip(model.network.parameters(), last.network.parameters(), strict=True):
        torch.testing.assert_close(one.flatten().sort().values, two.flatten().sort().values)


def test_heatmaps_stay_exact_while_the_network_forgets(subject, images):
    for _, model in randomisation.cascade(subject.model, torch.from_numpy(images), seed=1):
        forgetful = Subject(model, temperature=subject.temperature)
        sums = forgetful.heatmaps(images).sum(axis=(2, 3))
        np.testing.assert_allclose(sums, forgetful.log_probabilities(images), atol=1e-6)
