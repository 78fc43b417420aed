"""Scores of whole image sets: preprocessing, batches, and what each test orders images by.

Every image, test or out-of-distribution, goes through the bundle's own preprocessing and the
same scoring as a live request. Shapes: B batch, N images, K classes, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ibinn.assessment import COMBINED
from ibinn.classifier import images_at_once
from ibinn.images import Preprocessing
from ibinn.types import ModelInfo, TestInfo, TestKind, Verdict
from training.ood_sets import Images, LazyImages, OodSet, Pixels

FloatArray = npt.NDArray[np.float64]
Progress = Callable[[str, int, int], None]
"""Called with (what is scored, images done, images in all)."""


class ScoresLike(Protocol):
    """What `EvaluatedClassifier.score` returns; `ibinn.assessment.Scores` is one."""

    @property
    def logits(self) -> npt.NDArray[Any]: ...
    @property
    def probabilities(self) -> npt.NDArray[Any]: ...
    @property
    def bits_per_dim(self) -> npt.NDArray[Any]: ...
    @property
    def statistics(self) -> Mapping[str, npt.NDArray[Any]]: ...
    @property
    def p_values(self) -> Mapping[str, npt.NDArray[Any]]: ...
    @property
    def combined_score(self) -> npt.NDArray[Any]: ...
    @property
    def combined_p(self) -> npt.NDArray[Any]: ...
    @property
    def views(self) -> Mapping[str, npt.NDArray[Any]]: ...
    @property
    def verdicts(self) -> Sequence[Verdict]: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Kept:
    """What is used of a batch's scores: the rest is as large again where there are many classes."""

    logits: npt.NDArray[Any]
    probabilities: npt.NDArray[Any]
    bits_per_dim: npt.NDArray[Any]
    statistics: Mapping[str, npt.NDArray[Any]]
    p_values: Mapping[str, npt.NDArray[Any]]
    combined_score: npt.NDArray[Any]
    combined_p: npt.NDArray[Any]
    views: Mapping[str, npt.NDArray[Any]]
    verdicts: Sequence[Verdict]

    @staticmethod
    def of(scores: ScoresLike) -> _Kept:
        """Of one batch."""
        return _Kept(**{field.name: getattr(scores, field.name) for field in fields(_Kept)})


class ReferenceLike(Protocol):
    """What is asked of a calibration; `ibinn.reference.Reference` is one."""

    @property
    def centres(self) -> Mapping[str, float]:
        """Mean on calibration part A per statistic."""
        ...

    def quantile(self, coverage: float) -> float | None:
        """Quantile of the conformal sets of a target coverage."""
        ...


class EvaluatedClassifier(Protocol):
    """What an evaluation asks of a model; `ibinn.trusted.TrustedClassifier` is one."""

    @property
    def info(self) -> ModelInfo: ...
    @property
    def preprocessing(self) -> Preprocessing: ...
    @property
    def reference(self) -> ReferenceLike | None: ...

    def score(self, pixels: Pixels, /) -> ScoresLike:
        """Scores of preprocessed images, uint8 (B, S, S, 3)."""
        ...

    def completeness_errors(self, pixels: Pixels, /) -> FloatArray:
        """max_y |sum of the heatmap - log q(y|x)| in nats, (B,), where heatmaps exist."""
        ...

    def round_trip_errors(self, pixels: Pixels, /) -> FloatArray:
        """Largest |image - inverse(forward(image))| in units of the pixel range, (B,)."""
        ...


class LabelledImages(Protocol):
    """Test images; `training.data.ImageSet` is one."""

    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> npt.NDArray[np.int64]: ...
    def __len__(self) -> int: ...
    def load(self, index: int, /) -> Pixels: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """Scores of a whole set of N images.

    Attributes:
        logits: (N, K).
        probabilities: Calibrated posterior (N, K).
        bits_per_dim: (N,).
        p: Test name -> (N,), the combined test included.
        unusual: Test name -> (N,), the score by which it orders images, high = unusual.
        statistics: Statistic name -> (N,).
        views: View of the combined test -> (N,), nats of -log p against part A.
        verdicts: (N,) names.
    """

    logits: FloatArray
    probabilities: FloatArray
    bits_per_dim: FloatArray
    p: dict[str, FloatArray]
    unusual: dict[str, FloatArray]
    statistics: dict[str, FloatArray]
    views: dict[str, FloatArray]
    verdicts: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.bits_per_dim)


def fitted(images: LabelledImages, preprocessing: Preprocessing) -> LazyImages:
    """The images at the model's input size, before the JPEG step; uint8 (S, S, 3) each."""
    return LazyImages(
        count=len(images), make=lambda index: preprocessing.fit_size(images.load(index))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """Runs images through a model in batches.

    Attributes:
        model: A calibrated classifier.
        reference: Its calibration.
        batch_size: Images per forward pass, at most; large images go in smaller batches.
        progress: Called after every batch, or None.
    """

    model: EvaluatedClassifier
    reference: ReferenceLike
    batch_size: int
    progress: Progress | None = None

    def ood(self, ood: OodSet, *, finish: bool) -> Scored:
        """Scores of an out-of-distribution set; see `images`."""
        if ood.finished:
            return self._score(ood.images, ood.name, lambda pixels: pixels)
        name = ood.name if finish else f"{ood.name} without JPEG"
        return self.images(ood.images, name, finish=finish)

    def images(self, images: Images, name: str, *, finish: bool) -> Scored:
        """Scores of images, uint8 (h, w, 3) each.

        Args:
            images: Before the preprocessing.
            name: For `progress`.
            finish: Whether the preprocessing's JPEG step is taken.
        """
        steps = self.model.preprocessing

        def prepare(pixels: Pixels) -> Pixels:
            fit = steps.fit_size(np.asarray(pixels, dtype=np.uint8))
            return steps.finish(fit) if finish else fit

        return self._score(images, name, prepare)

    def _score(self, images: Images, name: str, prepare: Callable[[Pixels], Pixels]) -> Scored:
        parts: list[ScoresLike] = []
        done = 0
        for batch in self._batches(images, prepare):
            parts.append(_Kept.of(self.model.score(batch)))
            done += len(batch)
            if self.progress is not None:
                self.progress(name, done, len(images))
        return _joined(parts, self.model.info.tests, self.reference.centres)

    def _batches(self, images: Images, prepare: Callable[[Pixels], Pixels]) -> Iterator[Pixels]:
        side = self.model.preprocessing.config.side
        size = images_at_once(3 * side**2, most=self.batch_size)
        for start in range(0, len(images), size):
            stop = min(start + size, len(images))
            yield np.stack([prepare(images[index]) for index in range(start, stop)])


def _joined(
    parts: Sequence[ScoresLike], tests: Sequence[TestInfo], centres: Mapping[str, float]
) -> Scored:
    def all_of(arrays: Sequence[npt.NDArray[Any]]) -> FloatArray:
        return np.concatenate([np.asarray(array, dtype=np.float64) for array in arrays])

    p = {name: all_of([part.p_values[name] for part in parts]) for name in parts[0].p_values}
    statistics = {
        name: all_of([part.statistics[name] for part in parts]) for name in parts[0].statistics
    }
    unusual = {
        test.name: _unusual(test, p[test.name], statistics, centres)
        for test in tests
        if test.name != COMBINED
    }
    p[COMBINED] = all_of([part.combined_p for part in parts])
    unusual[COMBINED] = all_of([part.combined_score for part in parts])
    return Scored(
        logits=all_of([part.logits for part in parts]),
        probabilities=all_of([part.probabilities for part in parts]),
        bits_per_dim=all_of([part.bits_per_dim for part in parts]),
        p=p,
        unusual=unusual,
        statistics=statistics,
        views={name: all_of([part.views[name] for part in parts]) for name in parts[0].views},
        verdicts=np.array([str(verdict.value) for part in parts for verdict in part.verdicts]),
    )


def _unusual(
    test: TestInfo,
    p: FloatArray,
    statistics: Mapping[str, FloatArray],
    centres: Mapping[str, float],
) -> FloatArray:
    """The score by which a test orders images, as `ibinn.ood.p_values.unusualness` has it."""
    statistic = test.name.rsplit(".", 1)[0]
    match test.kind:
        case TestKind.HIGH_IS_UNUSUAL:
            return statistics[statistic]
        case TestKind.LOW_IS_UNUSUAL:
            return -statistics[statistic]
        case TestKind.TYPICALITY:
            return np.asarray(np.abs(statistics[statistic] - centres[statistic]))
        case TestKind.TWO_TAILED:
            return -p
