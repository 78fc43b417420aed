"""Views of the latent space: directions are orthonormal, and the rank-2 map is a mixture's."""

import numpy as np
import pytest
import torch

from ibinn.errors import ConfigError, DataError
from ibinn.explain.latent_layout import fit_decision_map, latent_layout
from ibinn.latent import GaussianMixture

CLASSES, DIMS = 5, 40


@pytest.fixture
def means():
    return np.random.default_rng(0).standard_normal((CLASSES, DIMS)) * 0.6


def test_directions_are_orthonormal_and_show_the_largest_spread_of_the_means(means):
    layout = latent_layout(means @ means.T)
    directions = layout.coefficients @ means
    np.testing.assert_allclose(directions @ directions.T, np.eye(2), atol=1e-9)
    centred = means - means.mean(axis=0)
    sizes = np.linalg.svd(centred, compute_uv=False) ** 2
    np.testing.assert_allclose((layout.means**2).sum(axis=0), sizes[:2])
    np.testing.assert_allclose(layout.shares, sizes[:2] / sizes.sum())
    np.testing.assert_allclose(layout.means.mean(axis=0), 0.0, atol=1e-9)


def test_codes_are_placed_by_their_projection(means):
    layout = latent_layout(means @ means.T)
    z = np.random.default_rng(1).standard_normal((6, DIMS))
    expected = (z - means.mean(axis=0)) @ (layout.coefficients @ means).T
    np.testing.assert_allclose(layout.places(z @ means.T), expected, atol=1e-9)


def test_two_classes_have_no_plane(means):
    with pytest.raises(DataError, match="at least 3"):
        latent_layout(means[:2] @ means[:2].T)


def codes(means, count, seed):
    generator = np.random.default_rng(seed)
    labels = generator.integers(len(means), size=count)
    return means[labels] + generator.standard_normal((count, means.shape[1])), labels


@pytest.fixture
def fitted(means):
    z, labels = codes(3 * means, 1_500, seed=2)
    means = 3 * means
    return fit_decision_map(
        z @ means.T,
        labels,
        gram=means @ means.T,
        log_weights=np.log(np.full(CLASSES, 1 / CLASSES)),
        classes=[0, 2, 3],
    )


def test_the_map_is_the_posterior_of_a_mixture_with_means_of_rank_two(fitted, means):
    basis = fitted.coefficients @ (3 * means)
    np.testing.assert_allclose(basis @ basis.T, np.eye(2), atol=1e-8)
    mixture = GaussianMixture(3, DIMS)
    refitted = torch.from_numpy(fitted.means @ basis)
    assert torch.linalg.matrix_rank(refitted) == 2
    with torch.no_grad():
        mixture.double().means.copy_(refitted)
        z = torch.randn(7, DIMS, dtype=torch.float64)
        expected = torch.log_softmax(mixture.logits(z), 1).numpy()
    logits = fitted.logits(fitted.places(z.numpy() @ (3 * means).T))
    found = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_the_map_tells_the_chosen_classes_apart_on_fresh_codes(fitted, means):
    z, labels = codes(3 * means, 2_000, seed=5)
    kept = np.isin(labels, fitted.classes)
    decided = fitted.decisions(fitted.places(z[kept] @ (3 * means).T))
    assert (decided == labels[kept]).mean() > 0.97


def test_fitting_finds_no_worse_a_map_than_it_starts_from(means):
    z, labels = codes(means, 1_000, seed=3)
    arguments = {
        "gram": means @ means.T,
        "log_weights": np.zeros(CLASSES),
        "classes": range(CLASSES),
    }

    def loss(found):
        logits = found.logits(found.places(z @ means.T))
        log_q = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        return -log_q[np.arange(len(labels)), labels].mean()

    start = fit_decision_map(z @ means.T, labels, steps=0, **arguments)
    assert loss(fit_decision_map(z @ means.T, labels, **arguments)) < loss(start)


@pytest.mark.parametrize("classes", [[1], [1, 1]])
def test_a_map_needs_two_different_classes(means, classes):
    with pytest.raises(ConfigError, match="two or more"):
        fit_decision_map(
            means @ means.T,
            np.arange(CLASSES),
            gram=means @ means.T,
            log_weights=np.zeros(CLASSES),
            classes=classes,
        )


def test_a_chosen_class_without_images_is_an_error(means):
    with pytest.raises(DataError, match="expected some of each"):
        fit_decision_map(
            means @ means.T,
            np.zeros(CLASSES, dtype=int),
            gram=means @ means.T,
            log_weights=np.zeros(CLASSES),
            classes=[0, 1],
        )
