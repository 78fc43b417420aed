"""The metrics that are kept for each model: calibration with labels and without, drift, sentinels.

The label ``model`` is the first digits of the weights' and of the calibration's digest
(`model_label`), so that a recalibrated model starts anew. All counters are additive over workers,
replicas and time: figures are made of their sums, never the mean of figures.
"""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ibinn.types import Verdict, Versions
from service.monitoring import shared

BINS = 15
"""Equal-width bins of the top class's confidence (`ibinn.reliability.TOP_LABEL_BINS`)."""
OVERCONFIDENT = 0.997
"""Confidence from which an answer counts for the overconfidence figure."""
TRUTHS = ("known_class", "unknown_class", "out_of_scope", "unreadable")
"""What may be true of an image, beside a model's classes."""

MOST_MODELS = 16
"""Number of models whose counters are kept."""

_P_VALUES = tuple(step / 20 for step in range(1, 21))
_DIGITS = 12


def model_label(versions: Versions) -> str:
    """The label of a model and its calibration; ends with the hyphen if it is not calibrated."""
    return f"{versions.weights[:_DIGITS]}-{versions.calibration[:_DIGITS]}"


class ModelSeries:
    """Every metric with the label ``model``.

    Args:
        registry: Gets them all.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"ibinn_{name}", text, (*labels, "model"), registry=registry)

        self.answered = counter("answered", "Answers.")
        self.accepted = counter(
            "accepted",
            "Answers that the combined test did not flag; what the policy made of them is counted "
            "in ibinn_decisions_total.",
        )
        self.p_value = Histogram(
            "ibinn_combined_p_value",
            "p-values of the combined test. Uniform as long as images are like the calibration "
            "images.",
            ("model",),
            buckets=_P_VALUES,
            registry=registry,
        )
        self.labelled = counter(
            "labelled",
            "Answers with a first label that names a class, by bin of the top class's confidence; "
            "unweighted: of the images that were labelled, not of all.",
            "bin",
        )
        self.correct = counter(
            "correct", "Of ibinn_labelled_total, answers whose top class is the label.", "bin"
        )
        self.confidence_sum = counter(
            "confidence_sum", "Sum of the top class's confidence over ibinn_labelled_total.", "bin"
        )
        self.labelled_weight = counter(
            "labelled_weight",
            "Like ibinn_labelled_total, each label weighted by 1 / the chance with which its image "
            "was selected, and only where that is known; assumes that the stated chances are true.",
            "bin",
        )
        self.correct_weight = counter(
            "correct_weight", "Like ibinn_correct_total, weighted in the same way.", "bin"
        )
        self.confidence_weight = counter(
            "confidence_weight", "Like ibinn_confidence_sum_total, weighted in the same way.", "bin"
        )
        self.labelled_weight_squared = counter(
            "labelled_weight_squared",
            "Sum of the squared weights of ibinn_labelled_weight_total; (sum of weights)² over "
            "this is the effective number of labels.",
            "bin",
        )
        self.overconfident_labelled = counter(
            "overconfident_labelled",
            f"Of ibinn_labelled_total, answers with a confidence of at least {OVERCONFIDENT}.",
        )
        self.overconfident_wrong = counter(
            "overconfident_wrong",
            "Of ibinn_overconfident_labelled_total, answers whose top class is not the label. The "
            "share divided by 0.003 is the overconfidence (OCE); 1 is right.",
        )
        self.truths = Counter(
            "ibinn_truths",
            "First statements about answers by what is true and by the answer's verdict; of the "
            "images that were labelled, not of all.",
            ("model", "truth", "verdict"),
            registry=registry,
        )
        self.expected_accepted = counter(
            "expected_accepted",
            "Accepted answers to Classify whose accuracy was estimated without labels, in full "
            "windows; of very many answers, some windows are left out.",
        )
        self.expected_correct = counter(
            "expected_correct_assuming_covariate_shift",
            "How many of ibinn_expected_accepted_total are expected to be right, from confidences "
            "alone. Assumes that images changed and the meaning of an image did not: blind to "
            "classes that are named differently than before, and to images out of scope.",
        )
        self.confidence = counter(
            "accepted_confidence_sum",
            "Sum of the top class's confidence over ibinn_expected_accepted_total: the plain "
            "estimate beside the expected one.",
        )
        self.alarms = counter("drift_alarms", "Alarms of the drift detectors.", "detector")
        self.sentinels = counter(
            "sentinels", "Held-out images sent through the whole path and answered."
        )
        self.sentinel_flags = counter(
            "sentinel_flags",
            "Of ibinn_sentinels_total, images that were flagged: false positives, because they are "
            "known to be in scope.",
        )
        self.sentinel_wrong = counter(
            "sentinel_wrong",
            "Of ibinn_sentinels_total, images answered with another class than their folder's.",
        )
        self.sentinel_failures = Counter(
            "ibinn_sentinel_failures",
            "Sentinel images that had no answer: unreadable, no room, or no time.",
            registry=registry,
        )
        self._gauges(registry)

    def _gauges(self, registry: CollectorRegistry) -> None:
        own: dict[str, Any] = {"registry": registry}
        lowest: dict[str, Any] = {"multiprocess_mode": "livemin", **own}
        highest: dict[str, Any] = {"multiprocess_mode": "livemax", **own}
        self.uniformity = Gauge(
            "ibinn_recent_uniformity_p_value",
            "Of the test that the last images' p-values are uniform; the smallest of the workers. "
            "Looked at again and again: small values come by chance too, the detectors allow for "
            "that.",
            ("model",),
            **lowest,
        )
        self.typicality = Gauge(
            "ibinn_recent_typicality_p_value",
            "Of the test that the last images together are typical (mean combined score); the "
            "smallest of the workers. Looked at again and again, as the uniformity.",
            ("model",),
            **lowest,
        )
        self.prior_shift = Gauge(
            "ibinn_recent_prior_shift",
            "Total variation distance in [0, 1] of the class shares of the last images, estimated "
            "from their posteriors, from those of the calibration images; the largest of the "
            "workers. Assumes that images of one class look as before. By chance not 0: about "
            "0.4 sqrt(classes / images).",
            ("model",),
            **highest,
        )
        self.covariate_shift = Gauge(
            "ibinn_recent_covariate_shift",
            "Distance in [0, 1] (Kolmogorov-Smirnov, the larger of scores and confidences) of the "
            "last images from calibration images in the same class shares; the largest of the "
            "workers. By chance not 0: about 0.87 / sqrt(images).",
            ("model",),
            **highest,
        )
        self.log_evidence = Gauge(
            "ibinn_drift_log_evidence",
            "Evidence (natural logarithm) of a detector against no drift; the largest of the "
            "workers. At ibinn_drift_log_threshold the alarm is raised.",
            ("model", "detector"),
            **highest,
        )
        self.log_threshold = Gauge(
            "ibinn_drift_log_threshold",
            "Where a detector raises the alarm.",
            ("model", "detector"),
            **highest,
        )
        self.significance = Gauge(
            "ibinn_significance",
            "Significance of the default model's verdicts: the rate at which images like the "
            "calibration images are flagged.",
            ("model",),
            **highest,
        )
        self.calibration_images = Gauge(
            "ibinn_calibration_images",
            "Images behind the p-values of the default model.",
            ("model",),
            **highest,
        )
        self.suspended = Gauge(
            "ibinn_guarantee_suspended",
            "1 while the guarantee of the default model is suspended, in any worker; else 0.",
            ("model",),
            **highest,
        )


class OneModel:
    """The series of one model, found once.

    Args:
        series: Of all models.
        label: The model's.
    """

    __slots__ = (
        "accepted",
        "answered",
        "confidence",
        "confidence_sum",
        "confidence_weight",
        "correct",
        "correct_weight",
        "expected_accepted",
        "expected_correct",
        "label",
        "labelled",
        "labelled_weight",
        "labelled_weight_squared",
        "overconfident_labelled",
        "overconfident_wrong",
        "p_value",
        "sentinel_flags",
        "sentinel_wrong",
        "sentinels",
        "truths",
    )

    def __init__(self, series: ModelSeries, label: str) -> None:
        def bins(counter: Counter) -> tuple[Counter, ...]:
            return tuple(counter.labels(str(index), label) for index in range(BINS))

        self.label = label
        self.answered = series.answered.labels(label)
        self.accepted = series.accepted.labels(label)
        self.p_value = series.p_value.labels(label)
        self.labelled = bins(series.labelled)
        self.correct = bins(series.correct)
        self.confidence_sum = bins(series.confidence_sum)
        self.labelled_weight = bins(series.labelled_weight)
        self.correct_weight = bins(series.correct_weight)
        self.confidence_weight = bins(series.confidence_weight)
        self.labelled_weight_squared = bins(series.labelled_weight_squared)
        self.overconfident_labelled = series.overconfident_labelled.labels(label)
        self.overconfident_wrong = series.overconfident_wrong.labels(label)
        self.truths = {
            (truth, verdict): series.truths.labels(label, truth, verdict.value)
            for truth in TRUTHS
            for verdict in Verdict
        }
        self.expected_accepted = series.expected_accepted.labels(label)
        self.expected_correct = series.expected_correct.labels(label)
        self.confidence = series.confidence.labels(label)
        self.sentinels = series.sentinels.labels(label)
        self.sentinel_flags = series.sentinel_flags.labels(label)
        self.sentinel_wrong = series.sentinel_wrong.labels(label)


class ByModel:
    """The series of each model that was heard of, the latest `MOST_MODELS`.

    Truths may come long after a model has left, so its counters stay; but not for ever.

    Args:
        series: Of all models.
    """

    def __init__(self, series: ModelSeries) -> None:
        self._series = series
        self._found: dict[tuple[str, str], OneModel] = {}

    def of(self, versions: Versions) -> OneModel:
        """The series of a model; made, at zero, when it is first asked for."""
        found = self._found.get((versions.weights, versions.calibration))
        return self._begin(versions) if found is None else found

    def _begin(self, versions: Versions) -> OneModel:
        label = model_label(versions)
        one = OneModel(self._series, label)
        self._found[versions.weights, versions.calibration] = one
        if len(self._found) > MOST_MODELS:
            gone = self._found.pop(next(iter(self._found)))
            if gone.label != label and not shared.active():
                _remove(self._series, gone.label)
        return one


def _remove(series: ModelSeries, label: str) -> None:
    """Takes a model's counters out; those in files stay there until the server is started again."""
    for metric in vars(series).values():
        if isinstance(metric, Counter | Histogram) and "model" in metric._labelnames:
            metric.remove_by_labels({"model": label})
