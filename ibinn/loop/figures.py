"""Numbers of the loop: of each stretch of traffic, and over time.

Shapes: T points in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ibinn.loop.judging import top_label_ece
from ibinn.loop.traffic import Seen
from ibinn.loop.watching import Sample
from ibinn.types import Verdict

FloatArray = npt.NDArray[np.float64]

WINDOW_IMAGES = 200
"""Images that a point of the flag rate is of."""
WINDOW_S = 6.0
"""Seconds that a point of the figures from metrics is of."""
_FEWEST = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseFigures:
    """A stretch of traffic in numbers.

    Attributes:
        name: Of the phase.
        title: In a line.
        begin_s: When it began, in seconds since the loop began.
        end_s: When it ended.
        images: How many were sent.
        rate: Images per second.
        unknown: Share with the verdict UNKNOWN.
        accuracy: Share whose top class is the truth, which the server is told of later or never.
        confidence: Mean probability of the top class.
        ece: Top-label calibration error of all of them.
        labelled: How many were labelled.
        labelled_ece: The same error from the server's own counters; None: too few labels.
        expected_accuracy: Of accepted images, from the server's label-free counters; None: none.
        accepted_accuracy: Of the images that are not flagged, by their truths; None: none.
        held_at_end: Whether its last answer said that the guarantee holds.
    """

    name: str
    title: str
    begin_s: float
    end_s: float
    images: int
    rate: float
    unknown: float
    accuracy: float
    confidence: float
    ece: float
    labelled: int
    labelled_ece: float | None
    expected_accuracy: float | None
    accepted_accuracy: float | None
    held_at_end: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One figure over time.

    Attributes:
        name: What it is.
        at_s: When, in seconds since the loop began (T,).
        value: Its value (T,).
    """

    name: str
    at_s: FloatArray
    value: FloatArray


def phase_figures(
    name: str, title: str, seen: Sequence[Seen], before: Sample, after: Sample
) -> PhaseFigures:
    """A stretch of traffic in numbers.

    Args:
        name: Of the phase.
        title: In a line.
        seen: Its images.
        before: The server's metrics when it began.
        after: The same once its labels were told.
    """
    confidence = [image.confidence for image in seen]
    right = [image.right for image in seen]
    accepted = [image.right for image in seen if image.verdict is Verdict.NOT_FLAGGED]
    seconds = seen[-1].at_s - seen[0].at_s
    return PhaseFigures(
        name=name,
        title=title,
        begin_s=seen[0].at_s,
        end_s=seen[-1].at_s,
        images=len(seen),
        rate=len(seen) / max(seconds, 1e-9),
        unknown=sum(image.verdict is Verdict.UNKNOWN for image in seen) / len(seen),
        accuracy=sum(right) / len(seen),
        confidence=sum(confidence) / len(seen),
        ece=top_label_ece(confidence, right),
        labelled=sum(image.labelled for image in seen),
        labelled_ece=labelled_ece(before, after),
        expected_accuracy=expected_accuracy(before, after),
        accepted_accuracy=sum(accepted) / len(accepted) if accepted else None,
        held_at_end=seen[-1].held is True,
    )


def labelled_ece(before: Sample, after: Sample) -> float | None:
    """Top-label ECE of the labels between two readings: Σ_b |correct_b - confidence_b| / n.

    None where there are fewer than 30.
    """
    count = _growth("ibinn_labelled_total", before, after)
    total = sum(count.values())
    if total < _FEWEST:
        return None
    correct = _growth("ibinn_correct_total", before, after)
    confidence = _growth("ibinn_confidence_sum_total", before, after)
    gaps = (abs(correct.get(bin_, 0.0) - confidence.get(bin_, 0.0)) for bin_ in count)
    return sum(gaps) / total


def labelled_accuracy(before: Sample, after: Sample) -> float | None:
    """Share of right answers among the labels between two readings; None with fewer than 30."""
    count = sum(_growth("ibinn_labelled_total", before, after).values())
    right = sum(_growth("ibinn_correct_total", before, after).values())
    return right / count if count >= _FEWEST else None


def expected_accuracy(before: Sample, after: Sample) -> float | None:
    """Accuracy of accepted images that is expected without labels; None where none is accepted."""
    accepted = _rise("ibinn_expected_accepted_total", before, after)
    correct = _rise("ibinn_expected_correct_assuming_covariate_shift_total", before, after)
    return correct / accepted if accepted >= 1.0 else None


def flag_rate(seen: Sequence[Seen]) -> Curve:
    """Share of UNKNOWN among the last 200 images, over time."""
    flagged = np.array([image.verdict is Verdict.UNKNOWN for image in seen], np.float64)
    at = np.array([image.at_s for image in seen])
    size = min(WINDOW_IMAGES, len(seen))
    sums = np.cumsum(np.concatenate(([0.0], flagged)))
    return Curve(
        name="share of UNKNOWN", at_s=at[size - 1 :], value=(sums[size:] - sums[:-size]) / size
    )


def truths_of_accepted(seen: Sequence[Seen]) -> Curve:
    """Accuracy of the images that were not flagged among the last 200, over time.

    Only who made the traffic knows it at once; nothing where fewer than 30 were not flagged.
    """
    accepted = np.array([image.verdict is Verdict.NOT_FLAGGED for image in seen], np.float64)
    right = np.array([image.right for image in seen], np.float64) * accepted
    at = np.array([image.at_s for image in seen])
    size = min(WINDOW_IMAGES, len(seen))
    counts, hits = (np.cumsum(np.concatenate(([0.0], found))) for found in (accepted, right))
    count = counts[size:] - counts[:-size]
    enough = count >= _FEWEST
    return Curve(
        name="true, as the traffic's maker knows it",
        at_s=at[size - 1 :][enough],
        value=(hits[size:] - hits[:-size])[enough] / count[enough],
    )


def suspended(samples: Sequence[Sample]) -> Curve:
    """1 where the guarantee of some served model is suspended, over time."""
    found = [(s.at_s, max(s.by("ibinn_guarantee_suspended", "model").values(), default=0.0))
             for s in samples]  # fmt: skip
    return Curve(
        name="guarantee suspended",
        at_s=np.array([at for at, _ in found]),
        value=np.array([value for _, value in found]),
    )


def over_time(samples: Sequence[Sample], name: str, kind: str) -> Curve:
    """A figure of the server's counters over windows of six seconds.

    Args:
        samples: Readings.
        name: Of the curve.
        kind: ``ece``, ``accuracy`` or ``expected``.
    """
    figure = {
        "ece": labelled_ece,
        "accuracy": labelled_accuracy,
        "expected": expected_accuracy,
    }[kind]
    at, values = [], []
    first = 0
    for sample in samples:
        while samples[first].at_s < sample.at_s - WINDOW_S:
            first += 1
        value = figure(samples[max(0, first - 1)], sample)
        if value is not None:
            at.append(sample.at_s)
            values.append(value)
    return Curve(name=name, at_s=np.array(at), value=np.array(values))


def evidence(samples: Sequence[Sample]) -> tuple[Curve, ...]:
    """Each detector's log-evidence as a share of its threshold, over time; 1 raises the alarm."""
    curves = []
    names = sorted({key for s in samples for key in s.by("ibinn_drift_log_threshold", "detector")})
    for name in names:
        at, values = [], []
        for sample in samples:
            threshold = sample.by("ibinn_drift_log_threshold", "detector").get(name, 0.0)
            if threshold > 0:
                found = sample.by("ibinn_drift_log_evidence", "detector").get(name, 0.0)
                at.append(sample.at_s)
                values.append(found / threshold)
        curves.append(Curve(name=name, at_s=np.array(at), value=np.array(values)))
    return tuple(curves)


def gauge(samples: Sequence[Sample], metric: str, name: str) -> Curve:
    """A gauge over time, where it has a value."""
    points = [(s.at_s, s.total(metric)) for s in samples if s.by(metric, "model")]
    return Curve(
        name=name,
        at_s=np.array([at for at, _ in points]),
        value=np.array([value for _, value in points]),
    )


def _growth(name: str, before: Sample, after: Sample) -> dict[str, float]:
    then, now = before.by(name, "bin"), after.by(name, "bin")
    return {bin_: value - then.get(bin_, 0.0) for bin_, value in now.items()}


def _rise(name: str, before: Sample, after: Sample) -> float:
    return after.total(name) - before.total(name)
