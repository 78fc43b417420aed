"""What the rest of the service calls to count."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, ProcessCollector

from ibinn.policy import RULES, action_of
from ibinn.types import ModelInfo, Prediction
from service.monitoring import shared
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
        self._model: tuple[str, ...] | None = None

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

    def model(self, info: ModelInfo) -> None:
        """A model answers the calls that name none from now on."""
        if not self.enabled:
            return
        series, versions = self._series, info.versions
        if self._model is not None:
            shared.forget(series.model_info, self._model)
        self._model = (info.name, versions.weights, versions.calibration, versions.policy)
        series.model_info.labels(*self._model).set(1)
        for rule in RULES if info.policy is not None else ():
            series.decisions[action_of(rule).value, rule.value]
        for test in info.tests:
            series.tests[test.name,]
            series.flags[test.name,]

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
