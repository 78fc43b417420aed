"""The detectors of one calibration and what is known of its recent images.

Everything here is used from one thread, image by image in the order in which they were answered.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ibinn import serving
from ibinn.drift import Blocker, Detector, DriftReference, Observation, Observations, accuracy
from ibinn.drift import detectors as all_detectors
from ibinn.drift.detectors import rate_of_each
from ibinn.errors import DataError, NotCalibratedError
from ibinn.types import Prediction
from service.drift.calibrated import calibration_of
from service.drift.recent import Recent
from service.drift.saved import Saved
from service.models.served import Served

_log = logging.getLogger(__name__)

_LEAST_RECENT = 50
"""Images below which nothing is said of the recent ones."""
_REFRESHED = 10
"""The recent images are looked at again when one in so many of the window is new ..."""
_REST_S = 5.0
"""... and this time has passed, because it costs more than the detectors."""

_WINDOWS_PER_S = 1.0
_MOST_WINDOWS = 4.0
"""Windows are estimated at this rate, and so many at once; of more, some are left out."""

_WORDS = {
    "p_values": "images score otherwise than the calibration images did",
    "covered_confidence": "the confidence of answers that are not flagged has changed",
    "prior": "the classes are answered with other frequencies than at calibration",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A detector reached its threshold.

    Attributes:
        detector: Its name.
        reason: What was found, in a sentence.
    """

    detector: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A full window of answers without labels.

    Attributes:
        accepted: How many of its answers were accepted.
        correct: How many of these are expected to be right.
        confidence: Sum of the confidences of these.
    """

    accepted: int
    correct: float
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of some answers.

    Attributes:
        detectors: Where the detectors are now.
        alarms: That were not raised before.
        windows: That are full now and were estimated.
        recent: Figures of the last images, where they were looked at again.
    """

    detectors: tuple[serving.Detector, ...]
    alarms: tuple[Alarm, ...] = ()
    windows: tuple[Expected, ...] = ()
    recent: Recent | None = None


def reference_of(served: Served) -> DriftReference:
    """What a calibrated model's images are held against; takes a moment.

    Raises:
        NotCalibratedError: It is not, or by a version that kept too little of it.
        DataError: What it kept does not fit together.
    """
    reference = calibration_of(served)
    if reference is None:
        raise NotCalibratedError(f"model {served.info.name!r} is not calibrated; calibrate it")
    return DriftReference.of(
        reference.held_out,
        temperature=reference.temperature,
        alpha=served.info.alpha,
        combined=reference.combined,
    )


class Watching:
    """Detectors, remembered groups and recent images of one calibration.

    Args:
        reference: Its calibration images.
        false_alarm_rate: Of all detectors together.
        window: Images that figures of recent images are of.
        seed: Of the detectors' ties.
        acknowledged: Which acknowledgement they begin after.
        saved: From `to_saved`; None: begin anew.

    Attributes:
        acknowledged: As given, then that of `begin_anew`.
        count: Answers heard of.
    """

    def __init__(
        self,
        reference: DriftReference,
        *,
        false_alarm_rate: float,
        window: int,
        seed: int,
        acknowledged: str = "",
        saved: Saved | None = None,
    ) -> None:
        self.acknowledged = acknowledged
        self.count = 0
        self._reference = reference
        self._rate = false_alarm_rate
        self._window = window
        self._estimator = accuracy.shipped(reference)
        self._blocker = Blocker()
        self._told: set[str] = set()
        self._recent: deque[Observation] = deque(maxlen=window)
        self._unseen = 0
        self._next_look = -math.inf
        self._gathered: list[Observation] = []
        self._allowance, self._allowed_at = _MOST_WINDOWS, time.monotonic()
        self._detectors = self._fresh(seed)
        if saved is not None:
            self._restore(saved)

    @property
    def detectors(self) -> tuple[serving.Detector, ...]:
        """Where the detectors are."""
        return tuple(
            serving.Detector(
                name=detector.name,
                count=detector.count,
                log_evidence=detector.log_evidence,
                log_threshold=detector.log_threshold,
                alarmed=detector.alarmed,
            )
            for detector in self._detectors
        )

    def observe(self, answers: Sequence[Prediction]) -> Found:
        """Hears of answers, in their order.

        An answer is accepted here where the combined test does not flag it, whatever policy and
        stop button make of it: that is what calibration images can be held to.
        """
        self.count += len(answers)
        heard: list[Observation] = []
        firsts: list[Observation] = []
        alpha = self._reference.alpha
        for answer in answers:
            found = Observation.of(answer)
            if found is None or not math.isfinite(found.confidence):
                continue
            found = dataclasses.replace(found, accepted=found.p_value > alpha)
            heard.append(found)
            receipt = answer.receipt
            if self._blocker.counts("" if receipt is None else receipt.group_id):
                firsts.append(found)
        if firsts:
            together = Observations.of(firsts)
            for detector in self._detectors:
                detector.observe_many(together)
        return Found(
            detectors=self.detectors,
            alarms=tuple(self._alarms()),
            windows=tuple(self._windows(heard)),
            recent=self._looked_at(firsts),
        )

    def begin_anew(self, *, seed: int, acknowledged: str) -> None:
        """Forgets what the detectors have seen; the recent images stay."""
        self._detectors = self._fresh(seed)
        self._told.clear()
        self.acknowledged = acknowledged

    def to_saved(self) -> Saved:
        """For a restart."""
        return Saved(
            acknowledged=self.acknowledged,
            detectors={detector.name: detector.to_state() for detector in self._detectors},
            told=frozenset(self._told),
            groups=self._blocker.to_state(),
        )

    def _fresh(self, seed: int) -> tuple[Detector, ...]:
        return all_detectors(self._reference, false_alarm_rate=self._rate, seed=seed)

    def _restore(self, saved: Saved) -> None:
        rate = rate_of_each(self._rate)
        try:
            restored = tuple(
                Detector.from_state(
                    saved.detectors[fresh.name], reference=self._reference, false_alarm_rate=rate
                )
                for fresh in self._detectors
            )
            blocker = Blocker.from_state(saved.groups)
        except (DataError, KeyError) as error:
            _log.warning("the drift detectors begin anew: %s", error)
            return
        self._detectors, self._blocker, self._told = restored, blocker, set(saved.told)

    def _alarms(self) -> list[Alarm]:
        found = []
        for detector in self._detectors:
            if detector.alarmed and detector.name not in self._told:
                self._told.add(detector.name)
                found.append(Alarm(detector=detector.name, reason=_reason(detector)))
        return found

    def _windows(self, heard: Sequence[Observation]) -> list[Expected]:
        windows = []
        self._gathered += heard
        while len(self._gathered) >= self._window:
            together = Observations.of(self._gathered[: self._window])
            del self._gathered[: self._window]
            if not self._may_estimate():
                continue
            estimate = self._estimator.estimate(together)
            windows.append(
                Expected(
                    accepted=estimate.accepted,
                    correct=estimate.expected_correct,
                    confidence=float(together.confidence[together.accepted].sum()),
                )
            )
        return windows

    def _may_estimate(self) -> bool:
        now = time.monotonic()
        gained = (now - self._allowed_at) * _WINDOWS_PER_S
        self._allowance, self._allowed_at = min(self._allowance + gained, _MOST_WINDOWS), now
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True

    def _looked_at(self, firsts: Sequence[Observation]) -> Recent | None:
        self._recent += firsts
        self._unseen += len(firsts)
        now = time.monotonic()
        enough = len(self._recent) >= _LEAST_RECENT and self._unseen * _REFRESHED >= self._window
        if not enough or now < self._next_look:
            return None
        self._unseen, self._next_look = 0, now + _REST_S
        return Recent.of(Observations.of(tuple(self._recent)), self._reference)


def _reason(detector: Detector) -> str:
    return (
        f"{_WORDS.get(detector.name, 'something has changed')} (detector {detector.name}, evidence "
        f"e^{detector.log_evidence:.1f} after {detector.count} images, alarm from "
        f"e^{detector.log_threshold:.1f})"
    )
