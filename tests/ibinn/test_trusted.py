"""What people call: images of every kind in, one answer each out, the same from any thread."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ibinn import bundle
from ibinn.errors import (
    ImageDecodeError,
    ImageError,
    ImageTooLargeError,
    NotExplainableError,
    UnknownClassError,
)
from ibinn.flow.architectures import CifarConfig
from ibinn.images import Limits
from ibinn.trusted import CHUNK, TrustedClassifier
from ibinn.types import Explanation, Prediction, SetMethod, Verdict
from tests.ibinn.bundles import (
    ARCHITECTURE,
    CLASSES,
    COUNT_B,
    SIDE,
    make_manifest,
    make_model,
    write_bundle,
)
from training.data import open_data


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> TrustedClassifier:
    """A calibrated classifier of a tiny network."""
    folder = tmp_path_factory.mktemp("trusted")
    write_bundle(folder)
    return bundle.load(folder)


@pytest.fixture
def pixels() -> np.ndarray:
    """A digit, 16 x 16."""
    return np.repeat(np.repeat(open_data("digits").train.load(5), 2, axis=0), 2, axis=1)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def one(answer: Prediction | list[Prediction]) -> Prediction:
    assert isinstance(answer, Prediction)
    return answer


def figures(answer: Prediction) -> tuple[object, ...]:
    """Everything but where the image came from."""
    return (
        answer.classes,
        answer.bits_per_dim,
        answer.tests,
        answer.combined,
        answer.conformal,
        answer.verdict,
        answer.reason,
    )


@pytest.mark.parametrize(
    "given",
    [
        lambda pixels, folder: png(pixels),
        lambda pixels, folder: folder / "image.png",
        lambda pixels, folder: str(folder / "image.png"),
        lambda pixels, folder: Image.fromarray(pixels),
        lambda pixels, folder: pixels,
        lambda pixels, folder: np.ascontiguousarray(pixels[:, :, 0]),
    ],
    ids=["bytes", "path", "text path", "PIL", "array", "grey array"],
)
def test_every_kind_of_image_gives_the_same_answer(
    classifier: TrustedClassifier,
    pixels: np.ndarray,
    tmp_path: Path,
    given: Callable[[np.ndarray, Path], object],
) -> None:
    (tmp_path / "image.png").write_bytes(png(pixels))
    answer = one(classifier.classify(given(pixels, tmp_path)))  # type: ignore[call-overload]
    assert figures(answer) == figures(one(classifier.classify(pixels)))
    assert (answer.input.width, answer.input.height) == (16, 16)


def test_many_images_give_a_list_in_their_order(
    classifier: TrustedClassifier, pixels: np.ndarray, tmp_path: Path
) -> None:
    other = 255 - pixels
    (tmp_path / "image.png").write_bytes(png(other))
    separate = [one(classifier.classify(pixels)), one(classifier.classify(other))]
    for many in (
        np.stack([pixels, other]),
        [pixels, other],
        (png(pixels), tmp_path / "image.png"),
        [Image.fromarray(pixels), png(other)],
    ):
        answers = classifier.classify(many)
        assert isinstance(answers, list)
        assert [answer.verdict for answer in answers] == [answer.verdict for answer in separate]
        for answer, alone in zip(answers, separate, strict=True):
            assert answer.bits_per_dim == pytest.approx(alone.bits_per_dim, rel=1e-5)
            assert answer.top.probability == pytest.approx(alone.top.probability, rel=1e-4)
    assert classifier.classify([]) == []
    assert classifier.classify(np.zeros((0, SIDE, SIDE, 3), np.uint8)) == []


def test_answers_do_not_depend_on_the_batch(classifier: TrustedClassifier) -> None:
    digits = open_data("digits").train
    images = np.stack([digits.load(index) for index in range(CHUNK + 3)])
    together = classifier.classify(images)
    assert isinstance(together, list)
    for position in (0, CHUNK - 1, CHUNK, CHUNK + 2):
        alone = one(classifier.classify(images[position]))
        assert together[position].bits_per_dim == pytest.approx(alone.bits_per_dim, rel=1e-5)
        assert [c.name for c in together[position].classes[:2]] == [
            c.name for c in alone.classes[:2]
        ]


def test_an_answer_is_complete(classifier: TrustedClassifier, pixels: np.ndarray) -> None:
    answer = one(classifier.classify(pixels))
    assert sorted(score.name for score in answer.classes) == sorted(CLASSES)
    assert sum(score.probability for score in answer.classes) == pytest.approx(1.0)
    assert all(CLASSES[score.index] == score.name for score in answer.classes)
    assert all(score.p_value is not None for score in answer.classes)
    probabilities = [score.probability for score in answer.classes]
    assert probabilities == sorted(probabilities, reverse=True)
    assert answer.top is answer.classes[0]
    assert answer.combined is not None
    assert answer.combined.smallest_p == pytest.approx(1 / (COUNT_B + 1))
    assert answer.conformal is not None
    assert answer.conformal.target_coverage == 0.9
    assert answer.top.name in answer.conformal.classes
    assert answer.calibration_count == COUNT_B
    assert answer.versions == classifier.versions
    names = [test.name for test in answer.tests]
    assert [*names, answer.combined.name] == [test.name for test in classifier.info.tests]
    assert len(set(names)) == len(names)


def test_noise_is_unknown_and_the_reason_says_so(
    classifier: TrustedClassifier, rng: np.random.Generator
) -> None:
    noise = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    answer = one(classifier.classify(noise))
    assert answer.verdict is Verdict.UNKNOWN
    assert "Unlike the calibration images" in answer.reason
    assert answer.observed_accuracy is None


def test_an_error_names_which_image_it_is(
    classifier: TrustedClassifier, pixels: np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(ImageDecodeError, match=r"^image 1: .*empty") as caught:
        classifier.classify([pixels, b"", pixels])
    assert caught.value.field == "image"
    with pytest.raises(ImageError, match=r"^image 2: .*nowhere\.png"):
        classifier.classify([pixels, pixels, tmp_path / "nowhere.png"])
    with pytest.raises(ImageError, match=r"^image file"):
        classifier.classify(tmp_path / "nowhere.png")
    with pytest.raises(ImageError, match="uint8"):
        classifier.classify(pixels.astype(np.float32))  # type: ignore[call-overload]


def test_limits_hold_before_decoding(tmp_path: Path, pixels: np.ndarray) -> None:
    write_bundle(tmp_path)
    limited = bundle.load(tmp_path, limits=Limits(max_side=15))
    assert limited.info.max_side == 15
    with pytest.raises(ImageTooLargeError, match="15"):
        limited.classify(png(pixels))


def assert_adds_up(explanation: Explanation) -> None:
    scores = {score.name: score for score in explanation.prediction.classes}
    for heatmap in explanation.heatmaps:
        assert heatmap.completeness_error < 1e-3
        assert heatmap.values.sum() == pytest.approx(heatmap.log_posterior, abs=1e-3)
        shown = np.log(scores[heatmap.class_name].probability)
        assert heatmap.log_posterior == pytest.approx(shown, abs=1e-3)


def test_three_most_probable_classes_are_explained(
    classifier: TrustedClassifier, pixels: np.ndarray
) -> None:
    explanation = classifier.explain(pixels)
    assert [heatmap.class_name for heatmap in explanation.heatmaps] == [
        score.name for score in explanation.prediction.classes[:3]
    ]
    assert_adds_up(explanation)
    assert figures(explanation.prediction) == figures(one(classifier.classify(pixels)))
    assert (explanation.image.shape, explanation.image.dtype) == ((SIDE, SIDE, 3), np.uint8)
    side = SIDE // 2 ** len(ARCHITECTURE.blocks)
    assert explanation.heatmaps[0].values.shape == (side, side)


def test_classes_are_explained_in_the_order_asked(
    classifier: TrustedClassifier, pixels: np.ndarray
) -> None:
    explanation = classifier.explain(pixels, ["7", "0"])
    assert [heatmap.class_name for heatmap in explanation.heatmaps] == ["7", "0"]
    assert_adds_up(explanation)


def test_an_unknown_class_is_named_with_the_known_ones(
    classifier: TrustedClassifier, pixels: np.ndarray
) -> None:
    with pytest.raises(UnknownClassError, match="class is 'cat'; this model has: 0, 1, 2"):
        classifier.explain(pixels, ["0", "cat"])
    with pytest.raises(UnknownClassError, match="class is 'cat'"):
        classifier.sample("cat", 1)


def test_a_network_without_heatmaps_says_so(tmp_path: Path, pixels: np.ndarray) -> None:
    config = CifarConfig(side=8, blocks=(1, 1, 1), widths=(4, 4, 4), hidden=8)
    bundle.save(make_manifest(config), make_model(config), None, tmp_path)
    loaded = bundle.load(tmp_path)
    assert one(loaded.classify(pixels)).verdict is Verdict.NOT_ASSESSED
    with pytest.raises(NotExplainableError, match="'cifar' mixes all positions"):
        loaded.explain(pixels)


def test_the_network_maps_images_to_latents_and_back(
    classifier: TrustedClassifier, pixels: np.ndarray
) -> None:
    prepared = classifier.prepare(pixels)
    x = classifier.preprocessing.to_tensor(torch.from_numpy(prepared.pixels[None]))
    z, log_det = classifier.network(x)
    assert (z.shape, log_det.shape) == ((1, 3 * SIDE * SIDE), (1,))
    back, _ = classifier.network.inverse(z)
    torch.testing.assert_close(back, x, atol=1e-4, rtol=0)
    assert classifier.round_trip_errors(prepared.pixels[None])[0] < 1e-4
    assert classifier.completeness_errors(prepared.pixels[None])[0] < 1e-3


def test_samples_are_images_and_follow_their_seed(classifier: TrustedClassifier) -> None:
    first = classifier.sample("3", 2, seed=1)
    assert (first.shape, first.dtype) == ((2, SIDE, SIDE, 3), np.uint8)
    np.testing.assert_array_equal(first, classifier.sample("3", 2, seed=1))
    assert (first != classifier.sample("3", 2, seed=2)).any()
    assert len(classifier.classify(first)) == 2  # type: ignore[arg-type]


def test_scores_are_the_numbers_of_the_answers(
    classifier: TrustedClassifier, pixels: np.ndarray
) -> None:
    prepared = classifier.prepare(pixels)
    scores = classifier.score(prepared.pixels[None])
    answer = classifier.assess([prepared])[0]
    assert scores.verdicts == (answer.verdict,)
    assert answer.combined is not None
    assert scores.combined_p[0] == answer.combined.p_value
    assert scores.probabilities[0, answer.top.index] == answer.top.probability


def test_threads_get_the_answers_of_one_thread(classifier: TrustedClassifier) -> None:
    digits = open_data("digits").train
    images = [digits.load(index) for index in range(12)]
    expected = [figures(one(classifier.classify(image))) for image in images]
    explained = [classifier.explain(image).heatmaps[0].values for image in images]

    def work(position: int) -> tuple[tuple[object, ...], np.ndarray]:
        answer = figures(one(classifier.classify(images[position])))
        return answer, classifier.explain(images[position]).heatmaps[0].values

    with ThreadPoolExecutor(2) as pool:
        for position, (answer, values) in enumerate(pool.map(work, range(len(images)))):
            assert answer == expected[position]
            np.testing.assert_array_equal(values, explained[position])


def test_an_explanation_places_the_image_among_its_classes(
    classifier: TrustedClassifier, pixels: np.ndarray
) -> None:
    explanation = classifier.explain(pixels)
    space, top = explanation.decision_space, explanation.prediction.top.name
    assert space is not None
    assert space.means[0].class_name == top
    # Log-odds at T = 1 are (boundary - x)·Δ, by the docstring of DecisionSpace.
    first, second = (point.class_name for point in space.means[:2])
    raw = {c.name: c.raw_probability for c in explanation.prediction.classes}
    distance = space.means[1].x - space.means[0].x
    np.testing.assert_allclose(
        (space.boundary - space.x) * distance,
        np.log(raw[first] / raw[second]),
        rtol=1e-6,
        atol=1e-6,
    )
    assert [c.class_name for c in explanation.nearby] != []
    assert all(c.class_name != top for c in explanation.nearby)
    assert list(explanation.nearby) == sorted(explanation.nearby, key=lambda c: c.distance)


def test_every_prediction_set_holds_the_most_probable_class(
    classifier: TrustedClassifier, pixels: np.ndarray
) -> None:
    answer = classifier.classify(pixels)
    assert {s.method for s in answer.conformal_sets} == set(SetMethod)
    assert all(answer.top.name in s.classes for s in answer.conformal_sets)
    assert answer.conformal in answer.conformal_sets
