"""What the library and the service answer: frozen values, the same fields as on the wire.

No torch here, so that clients can import it. Arrays in results are numpy arrays.
Likelihoods and entropies are in nats, probabilities in [0, 1], pixels in [0, 255].
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import numpy as np
import numpy.typing as npt


class Verdict(StrEnum):
    """What the tests say about an image (science: section 6), in order of precedence."""

    NOT_ASSESSED = "NOT_ASSESSED"
    """Not calibrated, or a statistic is not finite."""
    UNKNOWN = "UNKNOWN"
    """The combined test's p-value is at most α."""
    AMBIGUOUS = "AMBIGUOUS"
    """The conformal set holds two or more classes."""
    NOT_FLAGGED = "NOT_FLAGGED"
    """Nothing unusual was found; this promises nothing about misses."""


class Action(StrEnum):
    """What a policy does with an answer (`ibinn.policy`)."""

    ACCEPT = "ACCEPT"
    """The class is good enough to be acted on under the policy."""
    DEFER = "DEFER"
    """A person decides."""
    REJECT_INPUT = "REJECT_INPUT"
    """This picture cannot be judged; take another one."""


class Group(StrEnum):
    """What kind of unusualness a statistic responds to."""

    PIXEL = "pixel"
    STYLE = "style"
    SEMANTIC = "semantic"
    COMBINED = "combined"


class TestKind(StrEnum):
    """How a statistic is turned into a p-value (science: section 5)."""

    __test__ = False  # not a pytest class

    HIGH_IS_UNUSUAL = "high"
    """One-tailed: p = (1 + #{ref >= s}) / (n + 1)."""
    LOW_IS_UNUSUAL = "low"
    """One-tailed on the other side: p = (1 + #{ref <= s}) / (n + 1)."""
    TYPICALITY = "typicality"
    """One-tailed on |s - mean of s on calibration part A| (Nalisnick et al. 2019)."""
    TWO_TAILED = "two_tailed"
    """Thesis: p = min(1, 2 min(1 + #{ref >= s}, 1 + #{ref <= s}) / (n + 1))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """One class of an answer.

    Attributes:
        index: Position in the model's class list.
        name: The class's name.
        probability: Calibrated posterior, log_softmax of (w_y + log q(z|y)) / T.
        raw_probability: Posterior at T = 1.
        log_likelihood: log q(x|y) in nats, all constants included.
        p_value: Class-conditional p-value of the image's latent distance to this class's
            mean, or None where the bundle has no class-wise reference.
    """

    index: int
    name: str
    probability: float
    raw_probability: float
    log_likelihood: float
    p_value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """One out-of-distribution test on one image.

    Attributes:
        name: The statistic's registered name with the test's, such as ``log_q_x.typicality``.
        group: Kind of unusualness it responds to.
        kind: How the p-value was made.
        statistic: Value of the statistic (nats for likelihoods).
        p_value: Raw p-value in (0, 1], or None where the statistic is not finite.
        p_adjusted: Holm-adjusted over the tests shown side by side; None like `p_value`.
            The combined test stands alone: its adjusted value is its raw one.
        smallest_p: The smallest p-value that n calibration images can give.
        alpha: The significance it is held against.
        flagged: ``p_adjusted <= alpha``.
    """

    __test__ = False  # not a pytest class

    name: str
    group: Group
    kind: TestKind
    statistic: float
    p_value: float | None
    p_adjusted: float | None
    smallest_p: float
    alpha: float
    flagged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConformalSet:
    """Split-conformal prediction set.

    Attributes:
        classes: Names of the classes in the set, most probable first.
        target_coverage: 1 - ε asked for, such as 0.95.
        measured_coverage: Share of held-out images whose set held the truth, or None
            where the bundle's report has not measured it.
    """

    classes: tuple[str, ...]
    target_coverage: float
    measured_coverage: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedAccuracy:
    """Accuracy on calibration images answered with about this confidence.

    Attributes:
        accuracy: correct / count.
        low: Lower end of the 95 % Clopper-Pearson interval.
        high: Its upper end.
        count: Number of calibration images in this confidence bin.
    """

    accuracy: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the policy makes of an answer.

    Attributes:
        action: ACCEPT, DEFER or REJECT_INPUT.
        class_name: The class to act on, that of least expected cost under the policy's costs and
            priors; None unless the action is ACCEPT.
        rule: Name of the rule that fired, such as ``unknown`` or ``risk``.
        reason: The rule in words, with its numbers.
        expected_cost: Expected cost of acting on `class_name` (or of the best class, where the
            action is not ACCEPT) under the policy's costs and priors; None if not assessed.
    """

    action: Action
    class_name: str | None
    rule: str
    reason: str
    expected_cost: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """Which model, calibration and settings gave an answer.

    Attributes:
        weights: sha256 digest (hex) of architecture, preprocessing and weights.
        calibration: sha256 digest (hex) of the reference scores; empty if not calibrated.
        policy: sha256 digest (hex) of the significances in force.
        taxonomy: Version of the class list.
        software: Version of `ibinn`.
    """

    weights: str
    calibration: str
    policy: str
    taxonomy: str
    software: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A rectangle in pixels of the upright original image."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InputInfo:
    """What came in and what was looked at.

    Attributes:
        width: Width of the original in pixels, after EXIF orientation.
        height: Height of the original in pixels, after EXIF orientation.
        format: ``JPEG``, ``PNG``, ...; ``PIL`` or ``ARRAY`` where no bytes were decoded.
        sha256_bytes: Hash of the encoded bytes; empty where there were none.
        sha256_pixels: Hash of the decoded RGB pixels (row-major uint8, before resizing).
        region: The part of the original that was evaluated.
        reductions: What the preprocessing took away, in words.
    """

    width: int
    height: int
    format: str
    sha256_bytes: str
    sha256_pixels: str
    region: Region
    reductions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTiming:
    """Where a server's time went, in seconds.

    Attributes:
        prepare_s: Decoding and preprocessing.
        queue_s: Waiting for the network.
        compute_s: The forward pass of the whole batch and what follows from it.
        total_s: From taking the request on to having the answer.
        batch_size: Number of images computed together.
    """

    prepare_s: float
    queue_s: float
    compute_s: float
    total_s: float
    batch_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a server adds to an answer.

    Attributes:
        record_id: The server's name for this answer, 32 hexadecimal digits.
        received_time: When the server took the request on (UTC).
        timing: Where its time went.
    """

    record_id: str
    received_time: datetime
    timing: ServerTiming


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The answer for one image.

    Attributes:
        classes: All classes, most probable first.
        entropy: Entropy of the calibrated posterior in nats.
        temperature: T of the calibration (1 if not calibrated).
        bits_per_dim: Bits per dimension of the preprocessed image, centre dequantisation.
        conformal: Prediction set, or None if not calibrated.
        tests: Every single test, in registry order.
        combined: The combined test, which decides the verdict; None if not calibrated.
        verdict: See `Verdict`.
        reason: One sentence that says why.
        observed_accuracy: Given only where nothing was flagged (verdict NOT_FLAGGED or
            AMBIGUOUS) and the bundle is calibrated.
        versions: Origin of the answer.
        calibration_count: Number n of calibration images behind the p-values.
        input: What was looked at.
        receipt: Given only by a server.
        decision: What the policy makes of it; None without a policy.
    """

    classes: tuple[ClassScore, ...]
    entropy: float
    temperature: float
    bits_per_dim: float
    conformal: ConformalSet | None
    tests: tuple[TestResult, ...]
    combined: TestResult | None
    verdict: Verdict
    reason: str
    observed_accuracy: ObservedAccuracy | None
    versions: Versions
    calibration_count: int
    input: InputInfo
    receipt: Receipt | None = None
    decision: Decision | None = None

    @property
    def top(self) -> ClassScore:
        """The most probable class."""
        return self.classes[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heatmap:
    """A posterior heatmap of one class (science: section 7; Eq. 5.35-5.40).

    Attributes:
        class_name: The class explained.
        values: Q(k, l, y) in nats, float64, shape (H, W) of the last feature map.
        log_posterior: log q(y|x) shown in the answer, which `values` sums to.
        completeness_error: |sum of values - log_posterior| in nats.
    """

    class_name: str
    values: npt.NDArray[np.float64]
    log_posterior: float
    completeness_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Heatmaps of chosen classes for one image, with the answer they explain.

    Attributes:
        prediction: The answer.
        heatmaps: One per class asked for, in the order asked.
        image: What the network saw, uint8, shape (side, side, 3).
    """

    prediction: Prediction
    heatmaps: tuple[Heatmap, ...]
    image: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class TestInfo:
    """A test a model runs, with what it is worth.

    Attributes:
        name: As in `TestResult`.
        group: As in `TestResult`.
        kind: As in `TestResult`.
        alpha: Significance in force.
        smallest_p: Smallest attainable p-value.
        miss_rates: (set name, α, share not flagged) per out-of-distribution set, from the report.
        auroc: (set name, AUROC in [0, 1]) per out-of-distribution set, from the report.
    """

    __test__ = False

    name: str
    group: Group
    kind: TestKind
    alpha: float
    smallest_p: float
    miss_rates: tuple[tuple[str, float, float], ...] = ()
    auroc: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What a model is, for `ibinn model` and GetModel.

    Attributes:
        name: Name of the bundle.
        classes: Class names in index order.
        versions: Digests.
        architecture: Name of the architecture.
        parameters: Number of trainable parameters.
        input_side: Side in pixels of the network's input.
        max_bytes: Largest encoded image accepted.
        max_pixels: Largest width times height accepted.
        max_side: Largest side accepted, in pixels.
        formats: Image formats accepted.
        calibrated: Whether verdicts can be given.
        calibration_count: Images behind the p-values.
        temperature: T.
        alpha: Significance of the verdict.
        conformal_coverage: Target coverage of the conformal sets.
        tests: Every single test and then the combined one.
        metrics: (name, value) pairs from the report, such as ``("top1", 0.79)``.
        intended_use: From the manifest.
        training_data: From the manifest, with its terms.
        explainable: Whether heatmaps exist for this network.
    """

    name: str
    classes: tuple[str, ...]
    versions: Versions
    architecture: str
    parameters: int
    input_side: int
    max_bytes: int
    max_pixels: int
    max_side: int
    formats: tuple[str, ...]
    calibrated: bool
    calibration_count: int
    temperature: float
    alpha: float
    conformal_coverage: float
    tests: tuple[TestInfo, ...]
    metrics: tuple[tuple[str, float], ...]
    intended_use: str
    training_data: str
    explainable: bool
