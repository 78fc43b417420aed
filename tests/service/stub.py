"""A classifier without a network: real decoding, made-up answers, a gate to hold it."""

from __future__ import annotations

import dataclasses
import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ibinn.decoding import DecodedImage, Limits, decode, open_image
from ibinn.types import (
    Action,
    ClassPoint,
    ClassScore,
    Comparison,
    ConformalSet,
    Decision,
    DecisionSpace,
    Explanation,
    Group,
    Heatmap,
    InputInfo,
    Measured,
    MeasuredCoverage,
    ModelInfo,
    ModelReport,
    NearbyClass,
    ObservedAccuracy,
    PolicyInfo,
    Prediction,
    Region,
    SelectiveRisk,
    SetMethod,
    TestInfo,
    TestKind,
    TestResult,
    Verdict,
    Versions,
    WorstGroup,
)

CLASSES = ("cat", "dog", "ship")
VERSIONS = Versions(
    weights="a" * 64, calibration="b" * 64, policy="c" * 64, taxonomy="animals-1", software="0.1.0"
)
REPORT = ModelReport(
    accuracy=Measured(value=0.79, low=0.78, high=0.8, count=10_000),
    top_label_ece=Measured(value=0.0, floor=0.012),
    raw_top_label_ece=Measured(value=0.03),
    overconfidence=Measured(value=1.2, low=0.3, high=3.0, count=0),
    coverages=(
        MeasuredCoverage(
            method=SetMethod.RAPS,
            target=0.9,
            coverage=Measured(value=0.91, count=10_000),
            not_flagged=Measured(value=0.9),
            mean_size=1.5,
        ),
        MeasuredCoverage(
            method=SetMethod.PLAIN, target=0.95, coverage=Measured(value=0.95, count=10_000)
        ),
    ),
    selective_risks=(SelectiveRisk(coverage=0.8, risk=Measured(value=0.02)),),
    augrc=Measured(value=0.05, low=0.04, high=0.06),
    comparisons=(
        Comparison(
            comparator="resnet",
            figure="augrc",
            theirs=0.07,
            difference=Measured(value=-0.02, low=-0.03, high=-0.01),
        ),
    ),
    worst_groups=(
        WorstGroup(figure="accuracy", group="cat", value=Measured(value=0.6, count=1000)),
    ),
)
POLICY = PolicyInfo(
    name="strict",
    digest="f" * 64,
    alpha=0.02,
    max_risk=0.02,
    delta=0.05,
    threshold=0.9,
    costs=("asking a person: 0.2",),
    priors=(("cat", 0.5), ("dog", 0.5), ("ship", 0.0)),
)
INFO = ModelInfo(
    name="stub",
    classes=CLASSES,
    versions=VERSIONS,
    architecture="none",
    parameters=12_345,
    input_side=8,
    max_bytes=100_000,
    max_pixels=1_000_000,
    max_side=4000,
    formats=("JPEG", "PNG"),
    calibrated=True,
    calibration_count=2500,
    temperature=1.25,
    alpha=0.01,
    conformal_coverage=0.95,
    tests=(
        TestInfo(
            name="log_q_x.typicality",
            group=Group.PIXEL,
            kind=TestKind.TYPICALITY,
            alpha=0.01,
            smallest_p=1 / 2501,
            miss_rates=(("digits", 0.01, 0.25), ("noise", 0.05, 0.0)),
            auroc=(("digits", 0.97),),
        ),
        TestInfo(
            name="combined",
            group=Group.COMBINED,
            kind=TestKind.HIGH_IS_UNUSUAL,
            alpha=0.01,
            smallest_p=1 / 2501,
        ),
    ),
    metrics=(("top1", 0.79), ("bits_per_dim", 4.5)),
    intended_use="tests",
    training_data="none",
    explainable=True,
    report=REPORT,
    erased=("Detail finer than 8×8 pixels.",),
    policy=POLICY,
)


PLAIN_SET = ConformalSet(classes=("dog",), target_coverage=0.95, measured_coverage=0.948)
RAPS_SET = ConformalSet(
    classes=("dog", "cat"), target_coverage=0.9, measured_coverage=None, method=SetMethod.RAPS
)
ACCEPTED = Decision(
    action=Action.ACCEPT,
    class_name="dog",
    rule="accepted",
    reason="Acting on dog is cheap.",
    expected_cost=0.0,
)
DEFERRED = Decision(
    action=Action.DEFER,
    class_name=None,
    rule="not_assessed",
    reason="A person decides.",
    expected_cost=None,
)
NEARBY = (
    NearbyClass(class_name="cat", distance=3.0, overlap=0.067),
    NearbyClass(class_name="ship", distance=9.0, overlap=0.0),
)
SPACE = DecisionSpace(
    x=-1.5,
    y=2.0,
    boundary=0.0,
    dims=2,
    means=(
        ClassPoint(class_name="dog", x=-1.5, y=0.0, radius=2.1, probability=0.7),
        ClassPoint(class_name="cat", x=1.5, y=0.0, radius=2.2, probability=0.3),
    ),
)


def make_test(
    name: str,
    *,
    group: Group = Group.PIXEL,
    kind: TestKind = TestKind.TYPICALITY,
    p: float | None = 0.5,
    flagged: bool = False,
) -> TestResult:
    return TestResult(
        name=name,
        group=group,
        kind=kind,
        statistic=-1234.5,
        p_value=p,
        p_adjusted=None if p is None else min(1.0, 2 * p),
        smallest_p=1 / 2501,
        alpha=0.01,
        flagged=flagged,
    )


def make_prediction(**changes: Any) -> Prediction:
    prediction = Prediction(
        classes=(
            ClassScore(
                index=1,
                name="dog",
                probability=0.7,
                raw_probability=0.8,
                log_likelihood=-99.5,
                p_value=0.25,
            ),
            ClassScore(
                index=0, name="cat", probability=0.3, raw_probability=0.2, log_likelihood=-100.5
            ),
        ),
        entropy=0.61,
        temperature=1.25,
        bits_per_dim=4.4,
        conformal=PLAIN_SET,
        conformal_sets=(PLAIN_SET, RAPS_SET),
        tests=(
            make_test("log_q_x.typicality"),
            make_test("log_q_z.two_tailed", group=Group.STYLE, kind=TestKind.TWO_TAILED),
            make_test("log_q_z_c.low", group=Group.SEMANTIC, kind=TestKind.LOW_IS_UNUSUAL),
        ),
        combined=make_test("combined", group=Group.COMBINED, kind=TestKind.HIGH_IS_UNUSUAL),
        verdict=Verdict.NOT_FLAGGED,
        reason="nothing unusual was found",
        observed_accuracy=ObservedAccuracy(accuracy=0.9, low=0.85, high=0.94, count=210),
        versions=VERSIONS,
        calibration_count=2500,
        input=InputInfo(
            width=640,
            height=480,
            format="PNG",
            sha256_bytes="d" * 64,
            sha256_pixels="e" * 64,
            region=Region(left=80, top=0, width=480, height=480),
            reductions=("cropped to a square", "resized to 8 × 8"),
        ),
    )
    return dataclasses.replace(prediction, **changes)


def make_heatmap(name: str) -> Heatmap:
    """A heatmap, different for each class."""
    values = np.linspace(-1.0, (1 + CLASSES.index(name)) / 3, 12).reshape(3, 4)
    return Heatmap(
        class_name=name,
        values=values,
        log_posterior=float(values.sum()),
        completeness_error=1e-12,
    )


NOT_CALIBRATED = make_prediction(
    conformal=None,
    conformal_sets=(),
    tests=(make_test("log_q_x.typicality", p=None),),
    combined=None,
    verdict=Verdict.NOT_ASSESSED,
    observed_accuracy=None,
    calibration_count=0,
)
UNKNOWN = make_prediction(
    tests=(make_test("log_q_x.typicality", p=0.0004, flagged=True),),
    combined=make_test("combined", group=Group.COMBINED, p=0.0004, flagged=True),
    verdict=Verdict.UNKNOWN,
    reason="unlike every calibration image",
    observed_accuracy=None,
    driver=Group.PIXEL,
)


@dataclass(frozen=True, slots=True)
class StubImage:
    """Stands for `ibinn.images.PreparedImage`."""

    decoded: DecodedImage


@dataclass(frozen=True, slots=True)
class StubPreparer:
    """Decodes in earnest; can be sent to another process."""

    limits: Limits

    def __call__(self, image: bytes) -> Any:
        return StubImage(decode(image, self.limits))

    def from_pixels(self, pixels: Any) -> Any:
        return StubImage(open_image(pixels, self.limits))


class StubClassifier:
    """Answers `prediction` to every image.

    `gate` holds the inference thread while it is closed; `entered` is set when a batch begins.
    """

    def __init__(
        self, prediction: Prediction | None = None, *, info: ModelInfo = INFO, error: Any = None
    ) -> None:
        self.prediction = make_prediction() if prediction is None else prediction
        self.info = info
        self.limits = Limits(
            max_bytes=info.max_bytes, max_pixels=info.max_pixels, max_side=info.max_side
        )
        self.error: Exception | None = error
        self.batches: list[tuple[str, int]] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    @property
    def batch_sizes(self) -> list[int]:
        return [size for _, size in self.batches]

    @property
    def preparer(self) -> StubPreparer:
        return StubPreparer(self.limits)

    def assess(self, prepared: Sequence[Any]) -> list[Prediction]:
        self._begin("assess", len(prepared))
        return [self._answer(image) for image in prepared]

    def explain_prepared(
        self, prepared: Sequence[Any], classes: Sequence[str] | None = None
    ) -> list[Explanation]:
        self._begin("explain", len(prepared))
        seen = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
        heatmaps = tuple(make_heatmap(name) for name in classes or CLASSES)
        return [
            Explanation(
                prediction=self._answer(image),
                heatmaps=heatmaps,
                image=seen,
                nearby=NEARBY,
                receptive_field_px=5.5,
                decision_space=SPACE,
            )
            for image in prepared
        ]

    def _begin(self, what: str, size: int) -> None:
        self.batches.append((what, size))
        self.threads.add(threading.current_thread().name)
        self.entered.set()
        if not self.gate.wait(timeout=30):
            raise RuntimeError("the test did not open the gate")
        if self.error is not None:
            raise self.error

    def _answer(self, image: StubImage) -> Prediction:
        # The hash ties an answer to its image, so that a mix-up inside a batch shows.
        seen = dataclasses.replace(self.prediction.input, sha256_bytes=image.decoded.sha256_bytes)
        return dataclasses.replace(self.prediction, input=seen)


def png(value: int = 0, *, width: int = 4, height: int = 4) -> bytes:
    """A small PNG, different for every value."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (value % 256, value // 256, 7)).save(buffer, format="PNG")
    return buffer.getvalue()
