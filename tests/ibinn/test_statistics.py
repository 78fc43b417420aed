"""Every registered statistic: the laws that all obey, and what single ones are."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy.fft import idctn

from ibinn.classifier import Evidence, GenerativeClassifier
from ibinn.images import Preprocessing, PreprocessingConfig, png_size
from ibinn.ood import statistics
from ibinn.ood.registry import Statistic, statistics_of
from ibinn.ood.registry import test_name as name_of_test
from ibinn.ood.statistics import StatisticContext, class_coordinates, fit_statistics
from ibinn.types import Group
from ibinn.types import TestKind as Kind
from tests.ibinn.networks import CIFAR, CONFIGS, SIDE, SMALL, random_classifier

PREPROCESSING = Preprocessing(
    PreprocessingConfig(side=SIDE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
)
CLASSES = 4


def any_images() -> dict[str, np.ndarray]:
    """Images that are far from every photograph, uint8 (S, S, 3)."""
    rows, columns = np.indices((SIDE, SIDE))
    rng = np.random.default_rng(0)
    shape = (SIDE, SIDE, 3)
    return {
        "black": np.zeros(shape, np.uint8),
        "white": np.full(shape, 255, np.uint8),
        "grey": np.full(shape, 128, np.uint8),
        "checkerboard": np.repeat(255 * ((rows + columns) % 2)[:, :, None], 3, 2).astype(np.uint8),
        "noise": rng.integers(0, 256, shape, dtype=np.uint8),
        "red": np.broadcast_to(np.array([255, 0, 0], np.uint8), shape).copy(),
        "gradient": np.repeat((30 * columns)[:, :, None], 3, 2).astype(np.uint8),
    }


NAMES = tuple(any_images())


@dataclass(frozen=True, kw_only=True)
class World:
    """A model with fitted statistics, and the evidence of every image above."""

    model: GenerativeClassifier
    context: StatisticContext
    statistics: tuple[Statistic, ...]
    evidence: Evidence

    @classmethod
    def of(cls, architecture: str) -> "World":
        model = random_classifier(CONFIGS[architecture], classes=CLASSES)
        network = model.network
        context = StatisticContext.of(
            model.mixture, model.mixture.subspaces(), network.heatmap_shape
        )
        rng = np.random.default_rng(1)
        pixels = rng.integers(0, 256, (60, SIDE, SIDE, 3), dtype=np.uint8)
        fitting = evidence_for(model, pixels)
        fitted = fit_statistics(
            class_coordinates(fitting, context),
            fitting.activations,
            torch.arange(60) % CLASSES,
            CLASSES,
        )
        return cls(
            model=model,
            context=replace(context, fitted=fitted),
            statistics=statistics_of(network),
            evidence=evidence_for(model, np.stack(list(any_images().values()))),
        )

    def values(self, name: str) -> torch.Tensor:
        (statistic,) = (s for s in self.statistics if s.name == name)
        return statistic.compute(self.evidence, self.context)


def evidence_for(model: GenerativeClassifier, pixels: np.ndarray) -> Evidence:
    return model.evidence(
        PREPROCESSING.to_tensor(torch.from_numpy(pixels)),
        subspaces=model.mixture.subspaces(),
        preprocessing_log_det=PREPROCESSING.log_det,
        encoded_bytes=torch.tensor([png_size(image) for image in pixels]),
    )


WORLDS = {name: World.of(name) for name in CONFIGS}
REGISTERED = [(w, s) for w in WORLDS for s in WORLDS[w].statistics]


@pytest.fixture(params=REGISTERED, ids=lambda entry: f"{entry[0]} {entry[1].name}")
def registered(request) -> tuple[World, Statistic]:
    world, statistic = request.param
    return WORLDS[world], statistic


@pytest.fixture
def small() -> World:
    return WORLDS["small"]


def test_a_statistic_is_finite_on_any_image(registered):
    world, statistic = registered
    values = statistic.compute(world.evidence, world.context)
    assert values.shape == (len(NAMES),)
    assert values.dtype == torch.float64
    assert dict(zip(NAMES, values.isfinite().tolist(), strict=True)) == dict.fromkeys(NAMES, True)


def test_a_statistic_tells_images_apart(registered):
    world, statistic = registered
    assert len(set(statistic.compute(world.evidence, world.context).tolist())) > 1


def test_a_statistic_does_not_depend_on_the_batch(registered):
    world, statistic = registered
    together = statistic.compute(world.evidence, world.context)
    for i, pixels in enumerate(any_images().values()):
        alone = statistic.compute(evidence_for(world.model, pixels[None]), world.context)
        torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-4)


def test_a_statistic_says_what_it_responds_to(registered):
    _, statistic = registered
    assert statistic.group in (Group.PIXEL, Group.STYLE, Group.SEMANTIC)
    assert statistic.kinds
    assert len(set(statistic.kinds)) == len(statistic.kinds)
    assert all(isinstance(kind, Kind) for kind in statistic.kinds)
    assert statistic.phrase
    assert not statistic.phrase.endswith(".")


@pytest.mark.parametrize("world", WORLDS)
def test_names_are_unique(world):
    names = [s.name for s in WORLDS[world].statistics]
    tests = [name_of_test(s.name, kind) for s in WORLDS[world].statistics for kind in s.kinds]
    phrases = [s.phrase for s in WORLDS[world].statistics]
    assert len(set(names)) == len(names)
    assert len(set(tests)) == len(tests)
    assert len(set(phrases)) == len(phrases)
    assert all("." not in name for name in names)


@pytest.mark.parametrize("world", WORLDS)
def test_every_group_has_a_statistic(world):
    assert {s.group for s in WORLDS[world].statistics} == set(Group) - {Group.COMBINED}


def test_there_are_no_spatial_statistics_without_a_last_feature_map():
    def spatial(world: World) -> set[str]:
        return {s.name for s in world.statistics if "band" in s.name or "spatial" in s.name}

    assert spatial(WORLDS["cifar"]) == set()
    bands = SMALL.side // 4
    assert spatial(WORLDS["small"]) == {
        "spatial_autocorrelation",
        *(f"band_energy_{band}" for band in range(bands)),
    }


def test_every_stage_with_a_jacobian_has_a_statistic():
    for world, expected in (("small", ("4x4", "2x2")), ("cifar", ("8x8", "4x4", "2x2"))):
        named = {s.name for s in WORLDS[world].statistics if s.name.startswith("log_det")}
        assert named == {f"log_det_{stage}" for stage in expected}
    assert CIFAR.build().stage_names[-1] == "head"


def test_likelihoods_are_those_of_the_evidence(small):
    evidence = small.evidence
    assert torch.equal(small.values("log_q_x"), evidence.log_q_x)
    assert torch.equal(small.values("log_q_z"), evidence.log_q_z)
    torch.testing.assert_close(
        small.values("log_q_style") + small.values("log_q_class"), evidence.log_q_z
    )
    assert torch.equal(small.values("log_det_2x2"), evidence.stage_log_dets[:, 1])


def test_class_distance_is_to_the_nearest_mean_within_the_class_subspace(small):
    means = small.model.mixture.dense_means().double().detach()
    basis = torch.linalg.svd(means)[2][:CLASSES]
    distances = torch.cdist(small.evidence.z.double() @ basis.T, means @ basis.T).square()
    torch.testing.assert_close(small.values("class_distance"), distances.amin(1))


def test_class_coordinates_keep_the_geometry_of_the_class_subspace(small):
    u = class_coordinates(small.evidence, small.context)
    means = small.model.mixture.dense_means().double().detach()
    basis = torch.linalg.svd(means)[2][:CLASSES]
    projected = small.evidence.z.double() @ basis.T
    torch.testing.assert_close(torch.pdist(u), torch.pdist(projected))
    torch.testing.assert_close(u.norm(dim=1), projected.norm(dim=1))


def test_relative_mahalanobis_is_the_formula(small):
    u, fitted = class_coordinates(small.evidence, small.context), small.context.fitted
    expected = []
    for row in u:
        by_class = [
            (row - mean) @ fitted.class_precision @ (row - mean) for mean in fitted.class_means
        ]
        centred = row - fitted.background_mean
        expected.append(min(by_class) - centred @ fitted.background_precision @ centred)
    torch.testing.assert_close(small.values("relative_mahalanobis"), torch.stack(expected))


def test_relative_mahalanobis_is_low_at_a_class_and_high_away_from_all():
    generator = torch.Generator().manual_seed(0)
    centres = 10.0 * torch.eye(3, dtype=torch.float64)
    labels = torch.arange(300) % 3
    noise = torch.randn(300, 3, generator=generator, dtype=torch.float64)
    fitted = fit_statistics(centres[labels] + noise, torch.zeros(300, 0), labels, 3)
    torch.testing.assert_close(fitted.class_means, centres, rtol=0.0, atol=0.4)
    torch.testing.assert_close(
        fitted.class_precision, torch.eye(3, dtype=torch.float64), rtol=0.0, atol=0.2
    )


def test_a_class_without_calibration_images_does_not_break_the_fit():
    coordinates = torch.randn(20, 3, dtype=torch.float64)
    fitted = fit_statistics(coordinates, torch.zeros(20, 0), torch.arange(20) % 2, 3)
    assert torch.equal(fitted.class_means[2], fitted.background_mean)
    assert fitted.class_precision.isfinite().all()


def test_a_contexts_geometry_changes_no_distance(small):
    prepared = StatisticContext.of(
        small.model.mixture,
        small.model.mixture.subspaces(),
        small.model.network.heatmap_shape,
        small.context.fitted,
    )
    assert prepared.class_geometry is not None
    torch.testing.assert_close(
        statistics.relative_mahalanobis(small.evidence, prepared),
        small.values("relative_mahalanobis"),
    )


@pytest.mark.parametrize("per_class", [1, 2])
def test_fewer_images_than_classes_give_a_fit_in_which_new_images_lie_near(per_class):
    classes, generator = 60, torch.Generator().manual_seed(0)
    centres = 5.0 * torch.randn(classes, classes, generator=generator, dtype=torch.float64)
    labels = torch.arange(20 * per_class) % 20

    def drawn(of: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(len(of), classes, generator=generator, dtype=torch.float64)
        return centres[of] + noise

    fitted = fit_statistics(drawn(labels), torch.zeros(len(labels), 0), labels, classes)
    fresh = drawn(labels) - fitted.class_means[labels]
    distances = ((fresh @ fitted.class_precision) * fresh).sum(1)
    # Their expected value is the number of dimensions, were the covariance known.
    assert (distances > 0).all()
    assert (distances < 4 * classes).all()


def test_statistics_with_fitted_parameters_need_no_latent_code():
    for world in WORLDS.values():
        without = replace(world.evidence, z=world.evidence.z[:, :0])
        found = {s.name for s in world.statistics if s.fitted}
        assert "relative_mahalanobis" in found
        for statistic in world.statistics:
            if statistic.fitted:
                assert torch.equal(
                    statistic.compute(without, world.context),
                    statistic.compute(world.evidence, world.context),
                )
            else:
                statistic.compute(world.evidence, replace(world.context, fitted=None))


def test_relative_mahalanobis_cannot_be_had_before_its_fit(small):
    with pytest.raises(ValueError, match="calibration part A"):
        statistics.relative_mahalanobis(small.evidence, replace(small.context, fitted=None))


def test_entropy_lies_between_none_and_all_classes(small):
    entropy = small.values("posterior_entropy")
    assert (entropy >= 0).all()
    assert (entropy <= math.log(CLASSES) + 1e-12).all()


def test_detail_is_measured_in_bits_of_the_lossless_encoding(small):
    detail = small.values("encoded_bits_per_dim")
    expected = 8 * torch.tensor([png_size(image) for image in any_images().values()]) / 192
    torch.testing.assert_close(detail, expected.double())
    assert NAMES[int(detail.argmax())] == "noise"
    torch.testing.assert_close(small.values("complexity_gap"), small.evidence.bits_per_dim - detail)


def with_residual(world: World, residual: torch.Tensor) -> Evidence:
    """Evidence of codes that lie at the first class's mean plus a residual (B, D)."""
    logits = torch.zeros(len(residual), CLASSES, dtype=torch.float64)
    logits[:, 0] = 1.0
    return replace(world.evidence, z=world.context.means[0] + residual, logits=logits)


def test_residuals_of_a_gaussian_are_neither_heavy_nor_correlated(small):
    residual = torch.randn(2000, 192)
    evidence = with_residual(small, residual)
    kurtosis = statistics.residual_kurtosis(evidence, small.context)
    assert kurtosis.exp().mean().item() == pytest.approx(3.0, abs=0.05)
    correlation = statistics.spatial_autocorrelation(evidence, small.context)
    assert correlation.mean().item() == pytest.approx(0.0, abs=0.005)
    fit = statistics.gaussian_fit(evidence, small.context)
    assert (fit < statistics.gaussian_fit(with_residual(small, 2 * residual), small.context)).all()
    for band in range(2):
        energy = statistics.band_energy(evidence, small.context, band=band)
        assert energy.exp().mean().item() == pytest.approx(1.0, abs=0.02)


def test_heavy_tails_raise_the_kurtosis(small):
    spiky = torch.randn(50, 192)
    spiky[:, 7] = 30.0
    heavy = statistics.residual_kurtosis(with_residual(small, spiky), small.context)
    assert (heavy > math.log(10)).all()


def test_the_gaussian_fit_is_the_cramer_von_mises_distance(small):
    from scipy.stats import cramervonmises

    residual = torch.randn(3, 192)
    got = statistics.gaussian_fit(with_residual(small, residual), small.context)
    expected = [math.log(cramervonmises(row, "norm").statistic / 192) for row in residual.numpy()]
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-3)


def test_a_smooth_residual_is_correlated_and_lies_in_band_zero(small):
    constant = torch.zeros(1, 192)
    constant[:, :48] = 1.0
    evidence = with_residual(small, constant)
    # Both of the two products along an axis of two cells, over the mean square.
    assert statistics.spatial_autocorrelation(evidence, small.context).item() == pytest.approx(1.0)
    low = statistics.band_energy(evidence, small.context, band=0)
    high = statistics.band_energy(evidence, small.context, band=1)
    assert low.item() == pytest.approx(0.0, abs=1e-5)
    assert high.item() < -20


def test_the_feature_map_is_the_inverse_cosine_transform(small):
    z = torch.randn(2, 192, dtype=torch.float64)
    expected = idctn(z.numpy().reshape(2, 2, 2, 48), axes=(1, 2), norm="ortho")
    np.testing.assert_allclose(
        statistics.feature_map(z, small.context).numpy(), expected, atol=1e-12
    )


def test_what_a_batch_shares_changes_no_statistic():
    world = World.of("small")
    shared = world.context.for_batch(world.evidence)
    for statistic in world.statistics:
        torch.testing.assert_close(
            statistic.compute(world.evidence, shared),
            statistic.compute(world.evidence, world.context),
            rtol=0.0,
            atol=0.0,
        )
