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


class Guarantee(StrEnum):
    """Whether what the tests promise holds for the images of late."""

    HELD = "held"
    SUSPENDED = "suspended"
    """A drift alarm was raised and not yet acknowledged."""


class SetMethod(StrEnum):
    """How a conformal prediction set is made (`ibinn.conformal`)."""

    PLAIN = "plain"
    """The classes with 1 - p(y) at most the quantile."""
    RAPS = "raps"
    """Regularised adaptive sets (Angelopoulos et al. 2021), randomised by the input's hash."""


class HeatmapSize(StrEnum):
    """How finely a heatmap is drawn; its sum is the same."""

    GRID = "grid"
    """The cells of the last feature map, as they are computed."""
    IMAGE = "image"
    """The pixels of the network's input, interpolated between the cells."""


class TestDetail(StrEnum):
    """Which tests an answer lists; verdict and decision rest on all of them in any case."""

    __test__ = False  # not a pytest class

    ALL = "all"
    FLAGGED = "flagged"
    """Those that flagged the image."""
    NONE = "none"


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
        method: How the set was made.
    """

    classes: tuple[str, ...]
    target_coverage: float
    measured_coverage: float | None
    method: SetMethod = SetMethod.PLAIN


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
        policy: sha256 digest (hex) of the policy in force, or of the significances alone where
            there is no policy.
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
        request_id: The request's name, the caller's or made by the server.
        group_id: The caller's name for what images belong together; empty: none.
        token: Signed by the server; feedback with it is accepted even if the answer's record was
            lost. Opaque; empty where the server takes no feedback.
    """

    record_id: str
    received_time: datetime
    timing: ServerTiming
    request_id: str = ""
    group_id: str = ""
    token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The answer for one image.

    Attributes:
        classes: All classes, most probable first (`AnswerOptions.top_classes` shortens the list).
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
        driver: Where the verdict is UNKNOWN, the group of statistics that stands out most, which
            `reason` names in words; else None.
        conformal_sets: Every prediction set, by method and target, `conformal` among them; empty
            if not calibrated.
        guarantee: Whether the tests' false-positive rate holds for the images of late; None where
            nothing watches.
        guarantee_reason: Why it is suspended; empty where it is not.
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
    driver: Group | None = None
    conformal_sets: tuple[ConformalSet, ...] = ()
    guarantee: Guarantee | None = None
    guarantee_reason: str = ""

    @property
    def top(self) -> ClassScore:
        """The most probable class."""
        return self.classes[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerOptions:
    """How much a server's answer tells; no figure, verdict or decision depends on it.

    Attributes:
        top_classes: List this many classes, the most probable ones; 0: all.
        tests: Which single tests are listed.
    """

    top_classes: int = 0
    tests: TestDetail = TestDetail.ALL


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastChoice:
    """Which two classes to weigh against each other.

    Attributes:
        class_name: None: the most probable class other than `versus`.
        versus: None: the most probable class other than `class_name`.
    """

    class_name: str | None = None
    versus: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainOptions:
    """What an explanation shows.

    Attributes:
        classes: Names of the classes to explain; none: the three most probable.
        contrast: Two classes to weigh against each other, or None.
        heatmap_size: How finely heatmaps and contrast are drawn.
    """

    classes: tuple[str, ...] = ()
    contrast: ContrastChoice | None = None
    heatmap_size: HeatmapSize = HeatmapSize.GRID


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
class Contrast:
    """Where the evidence for one class over another lies; the classes' shared part cancels.

    Attributes:
        class_name: The class that positive cells speak for.
        versus: The class that negative cells speak for.
        values: Q(k, l, class) - Q(k, l, versus) in nats, float64, shape (H, W).
        log_odds: log q(class|x) - log q(versus|x), which `values` sums to.
        completeness_error: |sum of values - log_odds| in nats.
    """

    class_name: str
    versus: str
    values: npt.NDArray[np.float64]
    log_odds: float
    completeness_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NearbyClass:
    """A class that the model places near the most probable one, whatever the image.

    Attributes:
        class_name: The class.
        distance: Δ, the distance of its mean from the most probable class's mean.
        overlap: Φ(-Δ/2), the expected 1 - max p between the two where both are equally likely
            (C.5 in closed form); 0.5 for equal means.
    """

    class_name: str
    distance: float
    overlap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassPoint:
    """A class's mean in a `DecisionSpace`.

    Attributes:
        class_name: The class.
        x: Place along the line through the first two means, from the middle between them.
        y: Distance from that line, at least 0.
        radius: Of the circle around (x, y) that holds 90 % of the class's own codes.
        probability: Calibrated posterior of the class for the image.
    """

    class_name: str
    x: float
    y: float
    radius: float
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionSpace:
    """Where an image lies among the classes most probable for it (figure 5.20).

    Its latent code is projected onto the span of their means; `x` runs along the line through
    the first two, from the most probable class (x < 0) to the second (x > 0), and `y` is the
    distance from that line. The unit is one standard deviation of a class. The first two are
    equally probable at ``x == boundary``, whatever y: their log-odds at T = 1 are
    (boundary - x) times the distance between the two means.

    Attributes:
        x: Place of the image along the line.
        y: Its distance from the line, at least 0.
        boundary: Where the first two classes are equally probable; 0 for equal class weights.
        dims: Dimension of the span; an image of the first class lies at about
            y = sqrt(dims - 1), not at 0.
        means: The classes, most probable first.
    """

    x: float
    y: float
    boundary: float
    dims: int
    means: tuple[ClassPoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Heatmaps of chosen classes for one image, with the answer they explain.

    Attributes:
        prediction: The answer.
        heatmaps: One per class asked for, in the order asked.
        image: What the network saw, uint8, shape (side, side, 3).
        contrast: Log-odds map of two classes, where it was asked for.
        nearby: Classes near the most probable one, nearest first.
        receptive_field_px: Radius, in pixels of the network's input, of what a heatmap's cell
            responds to (Eq. 5.30), as the report measured it; None where it did not.
        decision_space: The image among its five most probable classes, or None where no line
            runs through the means of the first two.
    """

    prediction: Prediction
    heatmaps: tuple[Heatmap, ...]
    image: npt.NDArray[np.uint8]
    contrast: Contrast | None = None
    nearby: tuple[NearbyClass, ...] = ()
    receptive_field_px: float | None = None
    decision_space: DecisionSpace | None = None


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
class Measured:
    """A figure measured on images that served neither training nor calibration.

    Attributes:
        value: The figure.
        low: Lower end of its 95 % interval, or None if there is none.
        high: Its upper end.
        count: Number of images it is of.
        floor: What a model that errs nowhere in this respect would show on as many images
            (the 95th percentile over draws), or None where the figure has no floor.
    """

    value: float
    low: float | None = None
    high: float | None = None
    count: int | None = None
    floor: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredCoverage:
    """How often a kind of prediction set held the truth.

    Attributes:
        method: How the sets are made.
        target: Coverage asked for.
        coverage: Over all test images.
        not_flagged: Over those that were not called UNKNOWN, or None if not measured.
        mean_size: Mean number of classes in a set, or None if not measured.
    """

    method: SetMethod
    target: float
    coverage: Measured
    not_flagged: Measured | None = None
    mean_size: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectiveRisk:
    """Error rate among accepted images of the report's fixed mix; lower is better.

    Attributes:
        coverage: Share of the mix that is accepted.
        risk: Share of those that are wrong; accepting an unknown image is wrong.
    """

    coverage: float
    risk: Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A figure beside a comparator's, on the same images.

    Attributes:
        comparator: Name of the comparator, such as ``resnet``.
        figure: Name of the figure, such as ``selective_risk@0.8``; lower is better.
        theirs: The comparator's figure.
        difference: Ours minus theirs, paired.
    """

    comparator: str
    figure: str
    theirs: float
    difference: Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstGroup:
    """The group of images for which a figure is worst.

    Attributes:
        figure: Name of the figure, such as ``accuracy``.
        group: Name of the class, slice or set.
        value: The figure there.
    """

    figure: str
    group: str
    value: Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReport:
    """What a model was measured to be worth; each entry None or empty if it was not measured.

    Attributes:
        accuracy: Share of test images whose most probable class is theirs.
        top_label_ece: Expected calibration error of the calibrated top class, 15 bins.
        raw_top_label_ece: The same before the temperature.
        geometric_mean: Of ECE, MCE and ICE over all classes (mean-confidence bins).
        overconfidence: OCE: error rate where max p >= 0.997, divided by 0.003; 1 is right.
        coverages: Of the prediction sets, by method and target.
        selective_risks: Error among accepted images of the fixed mix.
        augrc: Area under the generalised risk-coverage curve on the mix.
        comparisons: Comparators on the same images.
        worst_groups: Where the figures are worst.
    """

    accuracy: Measured | None = None
    top_label_ece: Measured | None = None
    raw_top_label_ece: Measured | None = None
    geometric_mean: Measured | None = None
    overconfidence: Measured | None = None
    coverages: tuple[MeasuredCoverage, ...] = ()
    selective_risks: tuple[SelectiveRisk, ...] = ()
    augrc: Measured | None = None
    comparisons: tuple[Comparison, ...] = ()
    worst_groups: tuple[WorstGroup, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyInfo:
    """The policy in force, in short (`ibinn.policy`).

    Attributes:
        name: For people.
        digest: sha256 (hex) of the policy.
        alpha: Significance of the verdict under the policy.
        max_risk: Largest error rate among accepted images that it was fitted for, or None where
            it promises none.
        delta: Probability that the promise fails, over the draw of the calibration images; None
            like `max_risk`.
        threshold: Least probability of the class acted on that keeps that promise; None like
            `max_risk`.
        costs: The costs in words, a sentence each.
        priors: (class, deployment prior) pairs; empty where the model's own are used.
    """

    name: str
    digest: str
    alpha: float
    max_risk: float | None
    delta: float | None
    threshold: float | None
    costs: tuple[str, ...]
    priors: tuple[tuple[str, float], ...] = ()


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
        report: What it was measured to be worth; None where the bundle holds no figures.
        erased: What the preprocessing takes away, which nothing behind it can detect; sentences.
        policy: The policy in force; None without one.
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
    report: ModelReport | None = None
    erased: tuple[str, ...] = ()
    policy: PolicyInfo | None = None
