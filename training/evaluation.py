"""What a report states about a model: frozen values, and their JSON.

Fractions throughout, not percent; likelihoods and entropies in nats; pixel errors in units of
the pixel range.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from ibinn.assessment import COMBINED, coverage_figure
from ibinn.calibration import CalibrationReport
from ibinn.conformal import Coverage, CoverageReport
from ibinn.manifest import Detection
from ibinn.metrics import DetectionAtAlpha, DetectionReport, clopper_pearson
from ibinn.types import Group, SetMethod, TestKind
from training.chapters.registry import Chapter, headline
from training.checkpoint import CurvePoint
from training.ood_sets import LeftOut

FORMAT = 1
"""Version of the JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A share with its interval.

    Attributes:
        count: Number of images.
        hits: How many have the property.
        value: hits / count, None where count is 0.
        low: Lower end of the 95 % Clopper-Pearson interval, None like `value`.
        high: Its upper end.
    """

    count: int
    hits: int
    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, hits: int, count: int) -> Rate:
        """The share of `hits` among `count`."""
        if count == 0:
            return cls(count=0, hits=0, value=None, low=None, high=None)
        low, high = clopper_pearson(hits, count)
        return cls(count=count, hits=hits, value=hits / count, low=low, high=high)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedModel:
    """Which model this is about, as its `ModelInfo` says.

    Attributes:
        name: Name of the bundle.
        architecture: Name of the architecture.
        parameters: Number of trainable parameters.
        input_side: Side of the input in pixels.
        weights: sha256 digest of the weights.
        calibration: sha256 digest of the calibration.
        calibration_count: Number n of images behind the p-values.
        temperature: T of the calibrated posterior.
        alpha: Significance that is shipped.
        intended_use: From the manifest.
        training_data: From the manifest.
        jpeg_step: The preprocessing's JPEG step in words, empty if it has none.
    """

    name: str
    architecture: str
    parameters: int
    input_side: int
    weights: str
    calibration: str
    calibration_count: int
    temperature: float
    alpha: float
    intended_use: str
    training_data: str
    jpeg_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FalseFlags:
    """How often one test flagged in-distribution test images.

    Attributes:
        test: Name of the test.
        group: What kind of unusualness it responds to.
        kind: How its p-value is made.
        smallest_p: Smallest p-value that the calibration images can give.
        at: One entry per significance; `DetectionAtAlpha.flags_right` says whether the count
            lies in the central 99.9 % of the beta-binomial law. Misses are not in here.
    """

    test: str
    group: Group
    kind: TestKind
    smallest_p: float
    at: tuple[FlagCount, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagCount:
    """False flags at one significance.

    Attributes:
        alpha: The significance; an image is flagged where its raw p <= alpha.
        count: Test images whose p-value exists.
        flags: Number flagged.
        rate: flags / count.
        low: Lower end of the central 99.9 % beta-binomial interval, in images.
        high: Its upper end.
        right: low <= flags <= high.
        testable: False where alpha is below the smallest attainable p: nothing can be flagged.
    """

    alpha: float
    count: int
    flags: int
    rate: float
    low: int
    high: int
    right: bool
    testable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TestDetection:
    """What one test finds of one set."""

    __test__ = False  # not a pytest class

    test: str
    report: DetectionReport


@dataclass(frozen=True, slots=True, kw_only=True)
class SetReport:
    """One out-of-distribution set.

    Attributes:
        name: As in `training.ood_sets.OodSet`.
        description: How its images were made.
        caveat: What a reader of its figures must know.
        barred: Whether a bar is set on it.
        count: Number of images.
        bits_per_dim: Mean over its images.
        entropy_increase_nats: Mean H(y|x) on the set minus on the test set, posterior at T = 1
            (Eq. 5.28).
        verdicts: Share of each verdict.
        detection: Each single test, then the combined one.
    """

    name: str
    description: str
    caveat: str
    barred: bool
    count: int
    bits_per_dim: float
    entropy_increase_nats: float
    verdicts: tuple[tuple[str, float], ...]
    detection: tuple[TestDetection, ...]

    def test(self, name: str) -> DetectionReport | None:
        """The figures of one test, or None if the model has no such test."""
        return next((d.report for d in self.detection if d.test == name), None)

    def combined_at(self, alpha: float) -> DetectionAtAlpha | None:
        """Misses of the verdict's test at `alpha`."""
        report = self.test(COMBINED)
        return None if report is None else next((a for a in report.at if a.alpha == alpha), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """The same sets when neither they nor the test images pass the JPEG step.

    The references stay those of the shipped calibration, made with the step.
    """

    false_flags: tuple[FalseFlags, ...]
    sets: tuple[SetReport, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """An AUROC that must be 0.5: two samples of the same images by the combined test.

    Attributes:
        name: What is compared.
        auroc: In [0, 1].
        standard_error: Of an AUROC between equal distributions,
            sqrt((n + m + 1) / (12 n m)).
        right: Within 0.02 of 0.5, or within 3.29 standard errors where that is wider.
    """

    name: str
    auroc: float
    standard_error: float
    right: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstError:
    """The largest error over some test images.

    Attributes:
        count: Number of images looked at.
        worst: Largest error.
        limit: What is accepted.
    """

    count: int
    worst: float
    limit: float

    @property
    def right(self) -> bool:
        """Whether the worst error is below the limit."""
        return self.worst < self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassReport:
    """Test images of one class."""

    name: str
    accuracy: Rate
    flagged: Rate
    coverage: Coverage | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """One statistic on the test images and on each set.

    Attributes:
        statistic: Its name.
        edges: Bin edges (bins + 1,). Values outside are counted in the end bins.
        shares: (name, share of images per bin) of ``test`` and of every set.
    """

    statistic: str
    edges: tuple[float, ...]
    shares: tuple[tuple[str, tuple[float, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Roc:
    """ROC of the combined test on one set, thinned to a few hundred points.

    Attributes:
        name: Name of the set.
        false_positive_rate: Ascending, from 0 to 1.
        true_positive_rate: Of the same length.
    """

    name: str
    false_positive_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A discriminative classifier of equal training cost, for the cost of trust.

    Attributes:
        name: What it is, such as ``ResNet-20``.
        accuracy: On the same test images.
        train_seconds: What its training took.
        description: How it was trained.
    """

    name: str
    accuracy: Rate
    train_seconds: float
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Everything that a report states.

    Attributes:
        model: Which model.
        test_name: What the test images are.
        test_count: Their number.
        alphas: Significances at which flags and misses are counted.
        accuracy: Top-1 on the test images.
        bits_per_dim: Mean over the test images, centre dequantisation.
        entropy_nats: Mean H(y|x) on the test images, T = 1.
        raw: Calibration figures at T = 1.
        calibrated: The same at the shipped T.
        coverage: Conformal sets, or None if the bundle has none.
        false_flags: Every single test, then the combined one.
        verdicts: Share of each verdict on the test images.
        classes: By class.
        sets: Out-of-distribution sets.
        left_out: Sets that could not be made.
        without_jpeg: The sets without the JPEG step, or None where there is no such step or the
            comparison was not asked for.
        controls: AUROCs that must be 0.5.
        completeness: Heatmaps' completeness error in nats, or None where the network has none.
        round_trip: Image -> latent -> image, in units of the pixel range.
        erased: What the preprocessing takes away and thus cannot be detected.
        histograms: For the figures.
        rocs: For the figures.
        curve: Figures of the training.
        baseline: Cost of trust, or None if no baseline was trained.
        facts: (name, value) pairs to print: command, time, machine.
        chapters: What else was measured.
    """

    model: EvaluatedModel
    test_name: str
    test_count: int
    alphas: tuple[float, ...]
    accuracy: Rate
    bits_per_dim: float
    entropy_nats: float
    raw: CalibrationReport
    calibrated: CalibrationReport
    coverage: CoverageReport | None
    false_flags: tuple[FalseFlags, ...]
    verdicts: tuple[tuple[str, float], ...]
    classes: tuple[ClassReport, ...]
    sets: tuple[SetReport, ...]
    left_out: tuple[LeftOut, ...]
    without_jpeg: Ablation | None
    controls: tuple[Control, ...]
    completeness: WorstError | None
    round_trip: WorstError
    erased: tuple[str, ...]
    histograms: tuple[Histogram, ...]
    rocs: tuple[Roc, ...]
    curve: tuple[CurvePoint, ...] = ()
    baseline: Baseline | None = None
    facts: tuple[tuple[str, str], ...] = ()
    chapters: tuple[Chapter, ...] = ()

    def set_named(self, name: str) -> SetReport | None:
        """One out-of-distribution set by its name."""
        return next((s for s in self.sets if s.name == name), None)

    def detections(self) -> tuple[Detection, ...]:
        """What each test is worth, for the bundle's manifest."""
        found = []
        for test in (flags.test for flags in self.false_flags):
            reports = [(s.name, r) for s in self.sets if (r := s.test(test)) is not None]
            found.append(
                Detection(
                    test=test,
                    auroc=tuple((name, report.auroc) for name, report in reports),
                    miss_rates=tuple(
                        (name, at.alpha, at.miss_rate)
                        for name, report in reports
                        for at in report.at
                    ),
                )
            )
        return tuple(found)

    def headline(self) -> dict[str, float]:
        """The few figures that go into the bundle's manifest."""
        after, overconfidence = self.calibrated, self.calibrated.overconfidence
        mean, floor = after.thesis.with_mean_confidence, after.thesis_floor_with_mean_confidence
        figures: list[tuple[str, float | None]] = [
            ("top1", self.accuracy.value),
            ("accuracy", self.accuracy.value),
            ("accuracy_low", self.accuracy.low),
            ("accuracy_high", self.accuracy.high),
            ("accuracy_count", self.accuracy.count),
            ("bits_per_dim", self.bits_per_dim),
            ("nll_nats", after.nll_nats),
            ("brier", after.brier),
            ("top_label_ece", after.top_label_ece),
            ("top_label_ece_floor", after.top_label_ece_floor),
            ("raw_top_label_ece", self.raw.top_label_ece),
            ("raw_top_label_ece_floor", self.raw.top_label_ece_floor),
            ("geometric_mean", mean.geometric_mean),
            ("geometric_mean_floor", floor.geometric_mean),
            ("oce", overconfidence.value),
            ("oce_low", overconfidence.low),
            ("oce_high", overconfidence.high),
            ("oce_count", overconfidence.count),
        ]
        if self.coverage is not None:
            name = coverage_figure(SetMethod.PLAIN, self.coverage.target)
            figures.append((name, self.coverage.overall.rate))
        combined = next((f for f in self.false_flags if f.test == COMBINED), None)
        if combined is not None:
            figures += [(f"false_flag_rate@{at.alpha:g}", at.rate) for at in combined.at]
        found = {name: value for name, value in figures if value is not None}
        return found | headline(self.chapters)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``report.json``; what is not a finite number becomes null."""
        plain = _plain(self)
        assert isinstance(plain, dict)
        plain["chapters"] = {c.name: _plain(c.result) for c in self.chapters}
        return {"format": FORMAT, **plain}


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
