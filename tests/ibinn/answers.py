"""Answers as a model would give them, for tests that need no model."""

from __future__ import annotations

import dataclasses

from ibinn import __version__
from ibinn.types import (
    ClassScore,
    ConformalSet,
    Group,
    InputInfo,
    ModelInfo,
    ObservedAccuracy,
    Prediction,
    Region,
    TestInfo,
    TestKind,
    TestResult,
    Verdict,
    Versions,
)

CLASSES = ("cat", "dog", "frog", "ship", "truck")
VERSIONS = Versions(
    weights="a1b2c3d4e5f60718" * 4,
    calibration="0f" * 32,
    policy="1e" * 32,
    taxonomy="1",
    software=__version__,
)


def make_prediction(
    *, verdict: Verdict = Verdict.NOT_FLAGGED, statistic: float = 3.5, reason: str | None = None
) -> Prediction:
    p_value = 0.0004 if verdict is Verdict.UNKNOWN else 0.42
    combined = TestResult(
        name="combined",
        group=Group.COMBINED,
        kind=TestKind.HIGH_IS_UNUSUAL,
        statistic=statistic,
        p_value=p_value,
        p_adjusted=p_value,
        smallest_p=0.0004,
        alpha=0.01,
        flagged=verdict is Verdict.UNKNOWN,
    )
    probabilities = (0.62, 0.25, 0.08, 0.03, 0.02)
    reasons = {
        Verdict.NOT_FLAGGED: "The combined test's p-value 0.42 is above α = 0.01.",
        Verdict.AMBIGUOUS: "The 95 % prediction set holds 2 classes: cat, dog.",
        Verdict.UNKNOWN: "The combined test's p-value 0.0004 is at most α = 0.01.",
        Verdict.NOT_ASSESSED: "The model is not calibrated.",
    }
    return Prediction(
        classes=tuple(
            ClassScore(
                index=index,
                name=name,
                probability=probability,
                raw_probability=probability,
                log_likelihood=-9000.0 - index,
                p_value=0.3,
            )
            for index, (name, probability) in enumerate(zip(CLASSES, probabilities, strict=True))
        ),
        entropy=1.03,
        temperature=1.2,
        bits_per_dim=4.113,
        conformal=ConformalSet(
            classes=CLASSES[: 2 if verdict is Verdict.AMBIGUOUS else 1],
            target_coverage=0.95,
            measured_coverage=0.952,
        ),
        tests=(dataclasses.replace(combined, name="log_q_x.typicality", group=Group.PIXEL),),
        combined=None if verdict is Verdict.NOT_ASSESSED else combined,
        verdict=verdict,
        reason=reasons[verdict] if reason is None else reason,
        observed_accuracy=ObservedAccuracy(accuracy=0.615, low=0.55, high=0.66, count=312)
        if verdict in (Verdict.NOT_FLAGGED, Verdict.AMBIGUOUS)
        else None,
        versions=VERSIONS,
        calibration_count=2500,
        input=InputInfo(
            width=451,
            height=300,
            format="PNG",
            sha256_bytes="00" * 32,
            sha256_pixels="11" * 32,
            region=Region(left=75, top=0, width=300, height=300),
            reductions=("cropped to the centre square", "resized to 32×32", "JPEG quality 75"),
        ),
    )


def make_info() -> ModelInfo:
    return ModelInfo(
        name="cifar10-small",
        classes=CLASSES,
        versions=VERSIONS,
        architecture="small",
        parameters=1_630_000,
        input_side=32,
        max_bytes=16 * 2**20,
        max_pixels=40_000_000,
        max_side=16_384,
        formats=("JPEG", "PNG"),
        calibrated=True,
        calibration_count=2500,
        temperature=1.2,
        alpha=0.01,
        conformal_coverage=0.95,
        tests=(
            TestInfo(
                name="log_q_x.typicality",
                group=Group.PIXEL,
                kind=TestKind.TYPICALITY,
                alpha=0.01,
                smallest_p=0.0004,
                auroc=(("digits", 0.602),),
            ),
            TestInfo(
                name="combined",
                group=Group.COMBINED,
                kind=TestKind.HIGH_IS_UNUSUAL,
                alpha=0.01,
                smallest_p=0.0004,
                miss_rates=(("digits", 0.01, 0.25), ("digits", 0.05, 0.125)),
                auroc=(("digits", 0.996),),
            ),
        ),
        metrics=(("top1", 0.79),),
        intended_use="Demonstration.",
        training_data="CIFAR-10 as JPEG.",
        explainable=True,
    )
