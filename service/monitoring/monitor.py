"""What the rest of the service calls to count."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector

from ibinn.policy import RULES, action_of
from ibinn.records import FeedbackEntry, FeedbackOutcome, Truth, TruthKind
from ibinn.serving import Detector
from ibinn.types import ModelInfo, Prediction, Versions
from service.monitoring import shared
from service.monitoring.model_series import BINS, OVERCONFIDENT, ByModel, OneModel, model_label
from service.monitoring.record_series import StoreGauges
from service.monitoring.series import Series


class Monitor:
    """The metrics of one server process.

    Args:
        enabled: False makes every method do nothing.

    Attributes:
        registry: Holds every metric of this monitor and nothing else.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self.registry = CollectorRegistry()
        if not enabled:
            return
        if not shared.active():
            ProcessCollector(registry=self.registry)
        self._series = Series(self.registry)
        self._by_model = ByModel(self._series.models)
        self._model: tuple[str, ...] | None = None
        self._calibration: str | None = None

    def request(self, method: str, code: str, seconds: float) -> None:
        """A call has ended."""
        if not self.enabled:
            return
        self._series.requests[method, code].inc()
        self._series.duration[method,].observe(seconds)

    def rejection(self, reason: str) -> None:
        """A request got no answer; `reason` is one of a fixed set of names."""
        if self.enabled:
            self._series.rejections[reason,].inc()

    def batch(self, size: int, seconds: float, lane: str = "classify") -> None:
        """A batch was computed; `lane` is one of `LANES`."""
        if not self.enabled:
            return
        self._series.batch_size[lane,].observe(size)
        self._series.compute[lane,].observe(seconds)

    def queue_wait(self, seconds: float, lane: str = "classify") -> None:
        """An image came to its batch; `lane` is one of `LANES`."""
        if self.enabled:
            self._series.queue_wait[lane,].observe(seconds)

    def expired_computed(self, count: int) -> None:
        """That many images of a batch belonged to requests that had expired before it began."""
        if self.enabled:
            self._series.computed_expired.inc(count)

    def prediction(self, prediction: Prediction) -> None:
        """An answer was given."""
        if not self.enabled:
            return
        series = self._series
        series.verdicts[prediction.verdict.value,].inc()
        if (decision := prediction.decision) is not None:
            series.decisions[decision.action.value, decision.rule].inc()
        combined = () if prediction.combined is None else (prediction.combined,)
        for test in (*prediction.tests, *combined):
            name = (test.name,)
            answered, flags = series.tests[name], series.flags[name]
            if test.p_value is not None:
                answered.inc()
            if test.flagged:
                flags.inc()
        one = self._by_model.of(prediction.versions)
        one.answered.inc()
        if prediction.combined is not None and prediction.combined.p_value is not None:
            one.p_value.observe(prediction.combined.p_value)
            top = (prediction.classes[0].name,)
            series.class_answers[top].inc()
            flags = series.class_flags[top]  # from the first answer on, flagged or not
            if prediction.combined.flagged:
                flags.inc()
            else:
                one.accepted.inc()

    def model(self, info: ModelInfo) -> None:
        """A model answers the calls that name none from now on."""
        if not self.enabled:
            return
        series, versions = self._series, info.versions
        if self._model is not None:
            shared.forget(series.model_info, self._model)
        self._model = (info.name, versions.weights, versions.calibration, versions.policy)
        series.model_info.labels(*self._model).set(1)
        self._calibrated(info)
        for name in info.classes if info.calibrated else ():
            series.class_answers[name,]
            series.class_flags[name,]
        for rule in RULES if info.policy is not None else ():
            series.decisions[action_of(rule).value, rule.value]
        for test in info.tests:
            series.tests[test.name,]
            series.flags[test.name,]
        self._by_model.of(versions)

    def _calibrated(self, info: ModelInfo) -> None:
        """Shows what the verdicts of the default model rest on, if it gives any."""
        gauges = (self._series.models.significance, self._series.models.calibration_images)
        if self._calibration is not None:
            for gauge in gauges:
                shared.forget(gauge, (self._calibration,))
        self._calibration = model_label(info.versions) if info.calibrated else None
        if self._calibration is not None:
            for gauge, number in zip(gauges, (info.alpha, info.calibration_count), strict=True):
                gauge.labels(self._calibration).set(number)

    def watch(self, *, pending: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Reads these numbers whenever they are asked for."""
        if self.enabled:
            shared.watch({self._series.pending: pending, self._series.waiting: waiting})

    def candidate(self, outcome: str, reason: str = "none") -> None:
        """A model was to become the default.

        Args:
            outcome: ``accepted`` or ``refused``.
            reason: The first of `REASONS` why it was refused; ``none`` where it was not.
        """
        if self.enabled:
            self._series.candidates[outcome, reason].inc()

    def shadow(
        self, *, class_differs: bool, verdict_differs: bool, confidence_difference: float
    ) -> None:
        """The shadow model has answered what the default model had answered.

        Args:
            class_differs: Whether the most probable class is another.
            verdict_differs: Whether the verdict is another.
            confidence_difference: Between the probabilities of the two top classes, in [-1, 1].
        """
        if not self.enabled:
            return
        self._series.shadow_comparisons.inc()
        self._series.shadow_differences["class",].inc(1 if class_differs else 0)
        self._series.shadow_differences["verdict",].inc(1 if verdict_differs else 0)
        self._series.shadow_confidence.observe(abs(confidence_difference))

    def shadow_skipped(self) -> None:
        """The shadow model did not answer a call that was chosen for it."""
        if self.enabled:
            self._series.shadow_skipped.inc()

    def decoder_fault(self, kind: str) -> None:
        """An image's decoding ended its process (``crash``) or was ended (``timeout``)."""
        if self.enabled:
            self._series.decoder_faults[kind,].inc()

    def mode(self, *, abstaining: bool) -> None:
        """Whether every decision is left to a person from now on."""
        if self.enabled:
            self._series.abstaining.set(1 if abstaining else 0)

    def recorded(self, kind: str, count: int, seconds: float) -> None:
        """Entries of a kind are durable since now, after one write that took so long."""
        if not self.enabled:
            return
        self._series.records.written[kind,].inc(count)
        self._series.records.write_seconds.observe(seconds)

    def record_dropped(self, count: int = 1) -> None:
        """That many answers left without a record."""
        if self.enabled:
            self._series.records.dropped.inc(count)

    def watch_records(
        self,
        *,
        waiting: Callable[[], int],
        reachable: Callable[[], bool],
        image_bytes: Callable[[], int],
    ) -> None:
        """Reads these whenever they are asked for, from now on; call it where there is a store."""
        if not self.enabled:
            return
        gauges = StoreGauges(self.registry)
        shared.watch(
            {
                gauges.waiting: waiting,
                gauges.reachable: lambda: 1 if reachable() else 0,
                gauges.image_bytes: image_bytes,
            }
        )

    def image_kept(self, reason: str) -> None:
        """An image was kept, for a reason of `ibinn.records.ImageKept`."""
        if self.enabled:
            self._series.records.images_kept[reason,].inc()

    def image_failure(self) -> None:
        """An image could not be kept, read or removed."""
        if self.enabled:
            self._series.records.image_failures.inc()

    def feedback(self, entry: FeedbackEntry, *, classes: Collection[str] | None = None) -> None:
        """A statement about an answer is durable; only a first one counts for calibration.

        Args:
            entry: The statement.
            classes: Those that the answer's model knows; None: they are not known here, and the
                truth is counted as one of them.
        """
        if not self.enabled:
            return
        self._series.records.feedback[entry.outcome.value,].inc()
        if entry.outcome is not FeedbackOutcome.FIRST:
            return
        one = self._by_model.of(entry.answer.versions)
        one.truths[_kind_of(entry, classes), entry.answer.verdict].inc()
        correct = entry.answer.correct(entry.truth)
        if correct is not None and math.isfinite(entry.answer.confidence):
            _count_label(
                one, entry.answer.confidence, right=int(correct), weight=entry.provenance.weight
            )

    def sentinel(self, versions: Versions, *, flagged: bool, wrong: bool) -> None:
        """A model has answered a held-out image.

        Args:
            versions: Of the model.
            flagged: Whether the image was flagged.
            wrong: Whether the answer is another class than the image's.
        """
        if not self.enabled:
            return
        one = self._by_model.of(versions)
        one.sentinels.inc()
        one.sentinel_flags.inc(1 if flagged else 0)
        one.sentinel_wrong.inc(1 if wrong else 0)

    def sentinel_failure(self) -> None:
        """A held-out image had no answer."""
        if self.enabled:
            self._series.models.sentinel_failures.inc()

    def drift_begins(self, versions: Versions, detectors: Sequence[Detector]) -> None:
        """Detectors watch a model from now on."""
        if not self.enabled:
            return
        for detector in detectors:
            self._series.models.alarms.labels(detector.name, model_label(versions))
        self.drift(versions, detectors)

    def drift(self, versions: Versions, detectors: Sequence[Detector]) -> None:
        """Where the detectors of a model are."""
        if not self.enabled:
            return
        series, label = self._series.models, model_label(versions)
        for detector in detectors:
            series.log_evidence.labels(label, detector.name).set(detector.log_evidence)
            series.log_threshold.labels(label, detector.name).set(detector.log_threshold)

    def drift_alarm(self, versions: Versions, detector: str) -> None:
        """A detector has raised the alarm."""
        if self.enabled:
            self._series.models.alarms.labels(detector, model_label(versions)).inc()

    def guarantee(self, versions: Versions, *, suspended: bool) -> None:
        """Whether the guarantee of a model is suspended from now on."""
        if self.enabled:
            gauge = self._series.models.suspended.labels(model_label(versions))
            gauge.set(1 if suspended else 0)

    def recent(
        self,
        versions: Versions,
        *,
        uniformity_p: float,
        typicality_p: float,
        prior_shift: float,
        covariate_shift: float,
    ) -> None:
        """What the last images of a model look like (`ibinn_recent_...`)."""
        if not self.enabled:
            return
        series, label = self._series.models, model_label(versions)
        for gauge, number in (
            (series.uniformity, uniformity_p),
            (series.typicality, typicality_p),
            (series.prior_shift, prior_shift),
            (series.covariate_shift, covariate_shift),
        ):
            if math.isfinite(number):
                gauge.labels(label).set(number)

    def expected(
        self, versions: Versions, *, accepted: int, correct: float, confidence: float
    ) -> None:
        """An estimate without labels of a window of answers to Classify.

        Args:
            versions: Of the model.
            accepted: Number of answers of the window that were accepted.
            correct: How many of these are expected to be right.
            confidence: Sum of their confidences.
        """
        if not self.enabled:
            return
        one = self._by_model.of(versions)
        one.expected_accepted.inc(accepted)
        one.expected_correct.inc(correct)
        one.confidence.inc(confidence)

    def drift_ends(self, versions: Versions, detectors: Sequence[Detector]) -> None:
        """Nothing watches a model any more: what it looked like last is not shown."""
        if not self.enabled:
            return
        series, label = self._series.models, model_label(versions)
        for gauge in (series.uniformity, series.typicality):
            shared.forget(gauge, (label,), neutral=math.inf)
        for gauge in (series.prior_shift, series.covariate_shift, series.suspended):
            shared.forget(gauge, (label,))
        for detector in detectors:
            shared.forget(series.log_evidence, (label, detector.name))
            shared.forget(series.log_threshold, (label, detector.name))


def _kind_of(entry: FeedbackEntry, classes: Collection[str] | None) -> str:
    """One of `service.monitoring.model_series.TRUTHS`."""
    truth: Truth = entry.truth
    if truth.kind is not TruthKind.CLASS:
        return truth.kind.value
    known = classes is None or truth.class_name in classes
    return "known_class" if known else "unknown_class"


def _count_label(one: OneModel, confidence: float, *, right: int, weight: float | None) -> None:
    index = min(int(confidence * BINS), BINS - 1)
    one.labelled[index].inc()
    one.correct[index].inc(right)
    one.confidence_sum[index].inc(confidence)
    if confidence >= OVERCONFIDENT:
        one.overconfident_labelled.inc()
        one.overconfident_wrong.inc(1 - right)
    if weight is not None:
        one.labelled_weight[index].inc(weight)
        one.correct_weight[index].inc(weight * right)
        one.confidence_weight[index].inc(weight * confidence)
        one.labelled_weight_squared[index].inc(weight**2)
