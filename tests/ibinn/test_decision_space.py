"""The decision space: its coordinates are those of the projection, its circles hold 90 %."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chi

from ibinn.explain.decision_space import decision_spaces, radii_of_share
from ibinn.latent import MixtureConfig, wide_means
from tests.ibinn.networks import SIDE, evidence_of, random_classifier

CLASSES = 7
NAMES = tuple("abcdefg")


class Case:
    def __init__(self, config: MixtureConfig, *, classes: int = CLASSES) -> None:
        self.model = random_classifier(classes=classes, mixture=config)
        self.subspaces = self.model.mixture.subspaces()
        self.means = wide_means(self.model.mixture).detach().numpy()
        self.evidence = evidence_of(self.model, torch.randn(4, 3, SIDE, SIDE))
        self.names = NAMES[:classes]
        self.spaces = decision_spaces(
            self.evidence, subspaces=self.subspaces, class_names=self.names
        )


@pytest.fixture(
    params=[MixtureConfig(), MixtureConfig(learned_weights=True), MixtureConfig(rank=3)],
    ids=["full", "learned weights", "low rank"],
)
def case(request):
    torch.manual_seed(3)
    return Case(request.param)


def explicit_places(z, means):
    """(x, y) of a point by an orthonormal basis of the span of the means."""
    _, sizes, rows = np.linalg.svd(means, full_matrices=False)
    basis = rows[sizes > 1e-6 * sizes[0]]
    middle = (means[0] + means[1]) / 2
    line = (means[1] - means[0]) / np.linalg.norm(means[1] - means[0])
    inside = basis.T @ (basis @ z) - middle
    x = inside @ line
    return x, np.linalg.norm(inside - x * line)


def test_places_are_those_of_the_projection_onto_the_span_of_the_top_means(case):
    for z, space in zip(case.evidence.z.double().numpy(), case.spaces, strict=True):
        means = case.means[[NAMES.index(m.class_name) for m in space.means]]
        assert (space.x, space.y) == pytest.approx(explicit_places(z, means), abs=1e-5)
        assert space.dims == np.linalg.matrix_rank(means, rtol=1e-5)
        for mean, point in zip(means, space.means, strict=True):
            assert (point.x, point.y) == pytest.approx(explicit_places(mean, means), abs=1e-5)


def test_the_first_two_means_lie_on_the_line_at_equal_distances_from_its_middle(case):
    for space in case.spaces:
        first, second = space.means[:2]
        assert first.y == second.y == 0
        assert first.x == pytest.approx(-second.x)
        assert first.x < 0


def test_the_log_odds_of_the_first_two_follow_from_x_alone(case):
    for logits, space in zip(case.evidence.logits.numpy(), case.spaces, strict=True):
        first, second = (NAMES.index(m.class_name) for m in space.means[:2])
        distance = space.means[1].x - space.means[0].x
        expected = (space.boundary - space.x) * distance
        assert logits[first] - logits[second] == pytest.approx(expected, abs=1e-6)


def test_classes_are_the_most_probable_ones_with_the_tempered_posterior(case):
    tempered = decision_spaces(
        case.evidence, subspaces=case.subspaces, class_names=NAMES, temperature=2.5, count=3
    )
    posterior = case.evidence.log_posterior(temperature=2.5).exp().numpy()
    for p, space in zip(posterior, tempered, strict=True):
        order = np.argsort(-p)[:3]
        assert [m.class_name for m in space.means] == [NAMES[k] for k in order]
        assert [m.probability for m in space.means] == pytest.approx(p[order])


def test_a_decision_space_does_not_depend_on_the_batch(case):
    alone = evidence_slice(case.evidence, 2)
    (space,) = decision_spaces(alone, subspaces=case.subspaces, class_names=NAMES)
    assert space.x == pytest.approx(case.spaces[2].x)
    assert space.y == pytest.approx(case.spaces[2].y)


@pytest.mark.parametrize("classes", [2, 3])
def test_models_of_few_classes_show_them_all(classes):
    few = Case(MixtureConfig(), classes=classes)
    assert all(len(space.means) == classes for space in few.spaces)


def test_there_is_no_decision_space_without_a_line_or_without_finite_evidence():
    case = Case(MixtureConfig())
    assert set(decision_spaces(case.evidence, subspaces=case.subspaces, class_names=["a"])) == {
        None
    }
    products = case.evidence.mean_products.clone()
    products[1] = math.nan
    broken = replace(case.evidence, mean_products=products)
    spaces = decision_spaces(broken, subspaces=case.subspaces, class_names=NAMES)
    assert [space is None for space in spaces] == [False, True, False, False]
    with torch.no_grad():
        case.model.mixture.means.zero_()
    evidence = evidence_of(case.model, torch.randn(2, 3, SIDE, SIDE))
    same = case.model.mixture.subspaces()
    assert set(decision_spaces(evidence, subspaces=same, class_names=NAMES)) == {None}


@pytest.mark.parametrize("dims", [1, 2, 3, 5])
def test_a_circle_around_a_mean_on_the_line_has_the_chi_quantile_as_radius(dims):
    radius = radii_of_share(np.array([0.0]), np.array([dims]))
    assert radius == pytest.approx(chi.ppf(0.9, dims))


@pytest.mark.parametrize("dims", [2, 3, 5])
@pytest.mark.parametrize("y", [0.3, 1.5, 4.0, 12.0])
def test_circles_hold_ninety_percent_of_a_class(dims, y):
    (radius,) = radii_of_share(np.array([y]), np.array([dims]))
    codes = np.random.default_rng(0).standard_normal((200_000, dims))
    codes[:, 1] += y
    off_line = np.linalg.norm(codes[:, 1:], axis=1)
    inside = np.hypot(codes[:, 0], off_line - y) <= radius
    # Four standard errors of 200,000 draws.
    assert inside.mean() == pytest.approx(0.9, abs=0.003)


def test_radii_fall_from_the_full_dimension_to_two_with_the_distance_from_the_line():
    y = np.array([0.0, 0.5, 1.0, 2.0, 5.0, 50.0])
    radii = radii_of_share(y, np.full(len(y), 5))
    assert (np.diff(radii) < 0).all()
    assert radii[-1] == pytest.approx(chi.ppf(0.9, 2), abs=2e-3)


def evidence_slice(evidence, index):
    """Evidence of one image of a batch, as far as the decision space asks for it."""
    part = slice(index, index + 1)
    return replace(
        evidence,
        z=evidence.z[part],
        logits=evidence.logits[part],
        mean_products=evidence.mean_products[part],
    )
