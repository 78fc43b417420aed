from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from ibinn import bundle
from ibinn.errors import ConfigError, NotCalibratedError
from ibinn.images import JpegStep
from ibinn.latent import wide_means
from ibinn.trusted import TrustedClassifier
from ibinn.types import Verdict
from tests.conftest import EMBEDDED_BUNDLE
from tests.ibinn.bundles import write_bundle
from training.attack_score import OpenBook, flag_threshold, surprise
from training.attacks import (
    Search,
    as_served,
    attack,
    bare,
    evade,
    margin,
    misclassify,
    random_start,
)
from training.corruptions import CORRUPTIONS, corrupt
from training.jpeg_gradient import quantization, through_jpeg
from training.metamers import class_part, swap

QUICK = Search(steps=3, patience=1, batch_size=3)


@cache
def embedded() -> TrustedClassifier:
    return bundle.load(EMBEDDED_BUNDLE)


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    """Smooth images of the embedded model's size, already through its JPEG step."""
    coarse = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    smooth = coarse.repeat(4, axis=1).repeat(4, axis=2)
    return np.stack([embedded().preprocessing.finish(image) for image in smooth])


def hostile(rng: np.random.Generator) -> np.ndarray:
    """Images at the ends of what pixels can be."""
    checks = np.indices((32, 32)).sum(0)[:, :, None].repeat(3, 2) % 2 * 255
    return np.stack(
        [
            np.zeros((32, 32, 3)),
            np.full((32, 32, 3), 255),
            checks,
            rng.integers(0, 256, (32, 32, 3)),
        ]
    ).astype(np.uint8)


def test_the_differentiable_score_equals_the_score_of_answers(
    images: np.ndarray, rng: np.random.Generator
) -> None:
    book = OpenBook(embedded())
    pixels = np.concatenate([images, hostile(rng)])
    scores = embedded().score(pixels)
    x = book.tensor(pixels).requires_grad_()
    evidence = book.evidence(x, pixels)
    found = book.score(evidence)
    np.testing.assert_allclose(found.detach().numpy(), scores.combined_score, rtol=1e-9)
    np.testing.assert_allclose(evidence.logits.detach().numpy(), scores.logits, rtol=1e-9)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert torch.isfinite(gradient).all()
    flagged = [verdict is Verdict.UNKNOWN for verdict in scores.verdicts]
    np.testing.assert_array_equal(scores.combined_score > book.threshold, flagged)


def test_a_step_against_the_gradient_lowers_the_score(images: np.ndarray) -> None:
    book = OpenBook(embedded())
    x = book.tensor(images).requires_grad_()
    before = book.score(book.evidence(x, images))
    (gradient,) = torch.autograd.grad(before.sum(), x)
    after = book.score(book.evidence(x.detach() - 1e-3 * gradient.sign(), images))
    assert (after < before.detach()).sum() >= 3


def test_surprise_has_the_slope_of_minus_log_p_between_calibration_values() -> None:
    reference = embedded().reference
    assert reference is not None
    tail = reference.combined_test.tails["density_of_states"]
    n = len(tail.values)
    at = torch.tensor(
        [tail.values[0] - 1, float(np.mean(tail.values[n // 2 : n // 2 + 2])), tail.threshold + 2],
        dtype=torch.float64,
        requires_grad=True,
    )
    found = surprise(at, tail)
    np.testing.assert_allclose(found.detach().numpy(), tail.surprise(at.detach().numpy()))
    (slope,) = torch.autograd.grad(found.sum(), at)
    assert slope[0] == 0
    assert slope[1] > 0
    assert slope[2] == pytest.approx(1 / tail.scale)


@pytest.mark.parametrize(("alpha", "flagged"), [(0.25, 1), (0.5, 2), (0.1, 0), (0.99, 3)])
def test_scores_above_the_threshold_are_those_that_the_p_value_flags(
    alpha: float, flagged: int
) -> None:
    threshold = flag_threshold(np.array([1.0, 2.0, 3.0]), alpha, 3)
    assert sum(score > threshold for score in (1.5, 2.5, 3.5)) == flagged


@pytest.mark.parametrize("eps", [1, 4])
def test_attacked_images_stay_in_the_ball_after_rounding(
    eps: int, images: np.ndarray, rng: np.random.Generator
) -> None:
    book = OpenBook(embedded())
    pixels = np.concatenate([images[:1], hostile(rng)[:3]])
    labels = embedded().score(pixels).logits.argmax(1)
    for objective in (misclassify, evade(1.0)):
        found = attack(
            book, pixels, labels, eps_levels=eps, objective=objective,
            serving=as_served(embedded().preprocessing, coarsest=20.0), search=QUICK,
            start=random_start(pixels, eps, seed=0),
        )  # fmt: skip
        assert found.dtype == np.uint8
        assert np.abs(found.astype(int) - pixels).max() <= eps


def test_an_attack_is_a_function_of_its_arguments_and_never_worsens_its_start(
    images: np.ndarray,
) -> None:
    book = OpenBook(embedded())
    labels = embedded().score(images).logits.argmax(1)

    def run() -> np.ndarray:
        return attack(
            book, images, labels, eps_levels=2, objective=misclassify,
            serving=bare(), search=QUICK,
        )  # fmt: skip

    first = run()
    np.testing.assert_array_equal(first, run())

    def margins(pixels: np.ndarray) -> np.ndarray:
        logits = torch.from_numpy(embedded().score(pixels).logits)
        return margin(logits, torch.from_numpy(labels)).numpy()

    assert (margins(first) <= margins(images)).all()
    assert margins(first).sum() < margins(images).sum()


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_the_gradient_of_the_jpeg_step_is_that_of_a_linear_map(
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"], rng: np.random.Generator
) -> None:
    step = JpegStep(quality=75, subsampling=subsampling)
    a, b = rng.normal(size=(2, 1, 24, 24, 3)).astype(np.float32)
    once = through_jpeg(a, step, coarsest=12)
    np.testing.assert_allclose(through_jpeg(once, step, coarsest=12)[:, :16, :16],
                               once[:, :16, :16], atol=1e-4)  # fmt: skip
    summed = through_jpeg(a + 2 * b, step, coarsest=12)
    np.testing.assert_allclose(summed, once + 2 * through_jpeg(b, step, coarsest=12), atol=1e-4)
    assert np.square(once).sum() < np.square(a).sum()


def test_a_gradient_that_may_pass_everywhere_passes_full_colour_unchanged(
    rng: np.random.Generator,
) -> None:
    gradient = rng.normal(size=(2, 16, 16, 3)).astype(np.float32)
    step = JpegStep(quality=75, subsampling="4:4:4")
    np.testing.assert_allclose(through_jpeg(gradient, step, coarsest=255), gradient, atol=1e-5)
    assert not through_jpeg(gradient, step, coarsest=0).any()


def test_tables_are_those_of_libjpeg_in_natural_order() -> None:
    luma, chroma = quantization(JpegStep(quality=50))
    assert luma[0].tolist() == [16, 11, 10, 16, 24, 40, 51, 61]
    assert chroma[1, :3].tolist() == [18, 21, 26]


def test_a_change_along_the_passed_gradient_survives_the_step_better(images: np.ndarray) -> None:
    step = embedded().preprocessing.config.jpeg
    assert step is not None
    wanted = np.random.default_rng(0).normal(size=images.shape).astype(np.float32)

    def gained(direction: np.ndarray) -> float:
        moved = np.clip(images + 4.0 * np.sign(direction), 0, 255).astype(np.uint8)
        served = np.stack([embedded().preprocessing.finish(image) for image in moved])
        return float(((served.astype(float) - images) * wanted).sum())

    assert gained(through_jpeg(wanted, step, coarsest=16)) > gained(wanted)


def test_an_attack_needs_a_radius_and_a_calibration(tmp_path: Path, images: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        attack(
            OpenBook(embedded()), images, np.zeros(4, np.int64), eps_levels=0,
            objective=misclassify, serving=bare(),
        )  # fmt: skip
    with pytest.raises(ConfigError, match="steps is 0"):
        Search(steps=0)
    write_bundle(tmp_path / "bare", calibrated=False)
    with pytest.raises(NotCalibratedError, match="calibrate"):
        OpenBook(bundle.load(tmp_path / "bare"))


def test_swaps_of_share_0_give_the_style_image_back(images: np.ndarray) -> None:
    swapped = swap(embedded(), np.roll(images, 1, axis=0), images, share=0.0)
    np.testing.assert_array_equal(swapped.pixels, images)
    assert swapped.clipped == 0


def test_swaps_of_an_image_with_itself_give_it_back(images: np.ndarray) -> None:
    np.testing.assert_array_equal(swap(embedded(), images, images, share=1.0).pixels, images)


def test_the_class_part_decides_alone_and_leaves_the_style_as_it_is(images: np.ndarray) -> None:
    book, mixture = OpenBook(embedded()), embedded().model.mixture
    means = wide_means(mixture)
    with torch.no_grad():
        a = book.evidence(book.tensor(images), images).z.double()
    b = a.flip(0)
    moved = b + class_part(a - b, book.subspaces)
    np.testing.assert_allclose(moved @ means.T, a @ means.T, rtol=1e-9, atol=1e-7)
    style_before = b - class_part(b, book.subspaces)
    style_after = moved - class_part(moved, book.subspaces)
    np.testing.assert_allclose(style_after, style_before, atol=1e-8)


def test_a_whole_swap_turns_the_answer(images: np.ndarray) -> None:
    other = np.roll(images, 1, axis=0)
    gap = [
        np.abs(embedded().score(swap(embedded(), other, images, share=share).pixels).logits
               - embedded().score(other).logits).mean()
        for share in (0.0, 1.0)
    ]  # fmt: skip
    assert gap[1] < gap[0]


def test_swaps_refuse_a_share_that_is_none(images: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="expected 0 to 1"):
        swap(embedded(), images, images, share=1.5)


def test_corrupted_attacked_and_swapped_images_crash_nothing(
    images: np.ndarray, rng: np.random.Generator
) -> None:
    extreme = hostile(rng)
    damaged = [corrupt(image, name, 5, seed=0) for name in CORRUPTIONS for image in extreme]
    attacked = attack(
        OpenBook(embedded()), extreme, np.zeros(len(extreme), np.int64), eps_levels=4,
        objective=evade(10.0), serving=as_served(embedded().preprocessing, coarsest=20.0),
        search=QUICK,
    )  # fmt: skip
    swapped = [swap(embedded(), extreme, images, share=s).pixels for s in (0.5, 1.0)]
    for answer in embedded().classify([*damaged, *attacked, *np.concatenate(swapped)]):
        assert answer.verdict in Verdict
        assert np.isfinite([c.probability for c in answer.classes]).all()


def test_codes_that_are_not_finite_become_pixels_all_the_same(
    images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = bundle.load(EMBEDDED_BUNDLE)

    def overflow(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.full((len(z), 3, 32, 32), torch.nan)
        x[:, 0], x[:, 1] = torch.inf, -torch.inf
        return x, torch.zeros(len(z))

    monkeypatch.setattr(classifier.network, "inverse", overflow)
    swapped = swap(classifier, images, images, share=1.0)
    assert swapped.clipped == 1.0
    assert {answer.verdict for answer in classifier.classify(swapped.pixels)} <= set(Verdict)
