"""A classifier that reads its answer off the pixels, so that every figure is known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ibinn.assessment import COMBINED, Scores
from ibinn.conformal import fit_quantile, prediction_set
from ibinn.images import JpegStep, Preprocessing, PreprocessingConfig
from ibinn.ood.p_values import p_values, reference, smallest_p
from ibinn.types import Group, ModelInfo, TestInfo, TestKind, Verdict, Versions

SIDE = 8
CLASSES = ("bolt", "nut", "washer")
CALIBRATION_COUNT = 499
TESTS = (
    ("oddness.typicality", Group.PIXEL, TestKind.TYPICALITY),
    ("oddness.two_tailed", Group.PIXEL, TestKind.TWO_TAILED),
    ("distance.high", Group.SEMANTIC, TestKind.HIGH_IS_UNUSUAL),
    (COMBINED, Group.COMBINED, TestKind.HIGH_IS_UNUSUAL),
)


def pictures(
    labels: np.ndarray, shown: np.ndarray, oddness: np.ndarray, confidence: np.ndarray
) -> np.ndarray:
    """uint8 (N, SIDE, SIDE, 3): the top-left pixel holds what the stub answers.

    `shown` is the class that the stub answers, `oddness` in [0, 255] and `confidence` in
    [0, 255] what it says of it; flat blocks, so that a JPEG step changes them little.
    """
    images = np.zeros((len(labels), SIDE, SIDE, 3), dtype=np.uint8)
    images[..., 0] = 100 * shown[:, None, None]
    images[..., 1] = oddness[:, None, None]
    images[..., 2] = confidence[:, None, None]
    return images


@dataclass(frozen=True)
class StubReference:
    """Ranks of the stub's statistics."""

    values: np.ndarray
    conformal_quantile: float | None

    @property
    def centres(self) -> dict[str, float]:
        return {"oddness": 128.0, "distance": 128.0}

    def quantile(self, coverage: float) -> float | None:
        return self.conformal_quantile


class StubSet:
    """Labelled images in memory."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.class_names = CLASSES
        self.labels = labels.astype(np.int64)
        self._images = images

    def __len__(self) -> int:
        return len(self.labels)

    def load(self, index: int) -> np.ndarray:
        return self._images[index]


class StubClassifier:
    """Answers class `shown` with the probability that the pixels hold."""

    def __init__(
        self, rng: np.random.Generator, *, jpeg: bool = False, calibrated: bool = True
    ) -> None:
        self.preprocessing = Preprocessing(
            PreprocessingConfig(
                side=SIDE,
                mean=(0.5, 0.5, 0.5),
                std=(0.25, 0.25, 0.25),
                jpeg=JpegStep() if jpeg else None,
            )
        )
        part_b = make_set(rng, CALIBRATION_COUNT)
        images = np.stack([part_b.load(i) for i in range(len(part_b))])
        probabilities, oddness = _read(images)
        quantile = fit_quantile(probabilities, part_b.labels, 0.9)
        self.reference = StubReference(values=oddness, conformal_quantile=quantile)
        self.part_b = part_b
        self.info = ModelInfo(
            name="stub",
            classes=CLASSES,
            versions=Versions(
                weights="0f" * 32, calibration="1e" * 32, policy="", taxonomy="1", software="0"
            ),
            architecture="stub",
            parameters=12_345,
            input_side=SIDE,
            max_bytes=1,
            max_pixels=1,
            max_side=1,
            formats=(),
            calibrated=calibrated,
            calibration_count=CALIBRATION_COUNT,
            temperature=1.25,
            alpha=0.01,
            conformal_coverage=0.9,
            tests=tuple(
                TestInfo(
                    name=name,
                    group=group,
                    kind=kind,
                    alpha=0.01,
                    smallest_p=smallest_p(CALIBRATION_COUNT, kind),
                )
                for name, group, kind in TESTS
            ),
            metrics=(),
            intended_use="Tests <only>.",
            training_data="Made up.",
            explainable=True,
        )

    def score(self, pixels: np.ndarray) -> Scores:
        probabilities, oddness = _read(pixels)
        count = len(pixels)
        values = self.reference.values
        high, low = TestKind.HIGH_IS_UNUSUAL, TestKind.TWO_TAILED
        ranks = reference(values, high)
        centred = reference(values, TestKind.TYPICALITY, centre=128.0)
        p_high = p_values(oddness, ranks, high)
        quantile = self.reference.conformal_quantile
        sets = None if quantile is None else prediction_set(probabilities, quantile)
        return Scores(
            logits=1.25 * np.log(probabilities),
            probabilities=probabilities,
            log_likelihoods=np.zeros((count, len(CLASSES))),
            bits_per_dim=np.full(count, 4.0) + oddness / 255,
            statistics={"oddness": oddness, "distance": oddness},
            p_values={
                "oddness.typicality": p_values(oddness, centred, TestKind.TYPICALITY, centre=128.0),
                "oddness.two_tailed": p_values(oddness, ranks, low),
                "distance.high": p_high,
            },
            combined_score=oddness,
            combined_p=p_high,
            views={"density_of_states": oddness / 50.0, "distance": oddness / 60.0},
            group_p={},
            group_excess={},
            class_p=None,
            conformal=sets,
            verdicts=tuple(Verdict.UNKNOWN if p <= 0.01 else Verdict.NOT_FLAGGED for p in p_high),
        )

    def completeness_errors(self, pixels: np.ndarray) -> np.ndarray:
        return np.linspace(0.0, 2e-5, len(pixels))

    def round_trip_errors(self, pixels: np.ndarray) -> np.ndarray:
        return np.linspace(0.0, 3e-6, len(pixels))


def make_set(
    rng: np.random.Generator, count: int, *, wrong_every: int = 5, classes: Sequence[int] = ()
) -> StubSet:
    """Images of which every `wrong_every`-th is answered wrongly, oddness uniform in 0 ... 254."""
    labels = rng.permutation(np.arange(count) % len(CLASSES)) if not classes else np.array(classes)
    shown = labels.copy()
    shown[::wrong_every] = (labels[::wrong_every] + 1) % len(CLASSES)
    oddness = rng.integers(0, 255, size=count)
    confidence = rng.integers(120, 250, size=count)
    return StubSet(pictures(labels, shown, oddness, confidence), labels)


def _read(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    top = pixels[:, SIDE // 2, SIDE // 2].astype(np.float64)
    confidence = np.clip(top[:, 2] / 255, 0.4, 0.999)
    shown = np.clip(np.rint(top[:, 0] / 100), 0, len(CLASSES) - 1).astype(int)
    probabilities = np.repeat(((1 - confidence) / (len(CLASSES) - 1))[:, None], len(CLASSES), 1)
    probabilities[np.arange(len(pixels)), shown] = confidence
    # Ties between whole levels are broken by the confidence, as a real statistic has none.
    return probabilities, top[:, 1] + top[:, 2] / 1000
