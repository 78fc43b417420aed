"""What the chapter on heatmaps states; fractions throughout, relevance in nats.

Shapes: N images, F + 1 points of a curve.
"""

from __future__ import annotations

from dataclasses import dataclass

from ibinn.selective import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One option of a method, and how it did on validation images.

    Attributes:
        label: Of the method.
        words: The option.
        score: Mean insertion area minus mean deletion area.
        chosen: Whether it was the best.
    """

    label: str
    words: str
    score: float
    chosen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodCurves:
    """Insertion and deletion of one method on the test images.

    Attributes:
        name: The method.
        label: For tables.
        insertion: Mean area under q(y|x) while pixels are restored; high is good.
        deletion: Mean area while pixels are removed; low is good.
        insertion_gain: Paired mean of the exact heatmap's area minus this method's, or None for
            the heatmap itself; positive speaks for the heatmap.
        deletion_gain: Paired mean of this method's area minus the heatmap's; likewise.
        insertion_curve: Mean q(y|x) at each of the F + 1 points.
        deletion_curve: The same while pixels are removed.
    """

    name: str
    label: str
    insertion: Estimate
    deletion: Estimate
    insertion_gain: Estimate | None
    deletion_gain: Estimate | None
    insertion_curve: tuple[float, ...]
    deletion_curve: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchHits:
    """How often one method points at the patch that decided.

    Attributes:
        name: The method.
        label: For tables.
        hits: Images whose largest relevance lies in the patch.
        rate: hits / count.
        low: Lower end of its 95 % Clopper-Pearson interval.
        high: Its upper end.
        mass: Share of the positive relevance that lies in the patch.
        gain: Paired difference of the exact heatmap's hit rate and this method's, or None for
            the heatmap itself.
    """

    name: str
    label: str
    hits: int
    rate: float
    low: float
    high: float
    mass: Estimate
    gain: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches:
    """Planted patches in one kind of host.

    Attributes:
        hosts: What the hosts are, in words.
        count: Images in which the patch decided.
        tried: Images made to find them.
        methods: One per method.
    """

    hosts: str
    count: int
    tried: int
    methods: tuple[PatchHits, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgetting:
    """One method's maps while the network forgets.

    Attributes:
        name: The method.
        label: For tables.
        absolute: Mean rank correlation of absolute maps before and after, one per step.
        signed: The same of signed maps.
        between_images: Mean rank correlation of the absolute maps of different images: what a
            map has left that knows the photographer only.
    """

    name: str
    label: str
    absolute: tuple[float, ...]
    signed: tuple[float, ...]
    between_images: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Completeness:
    """How exactly maps add up to what they explain, in nats.

    Attributes:
        maps: Heatmaps looked at, every class of every image, randomised networks included.
        worst: Largest |sum of the heatmap - log q(y|x)|.
        limit: What is accepted.
        right: ``worst <= limit``.
        path_mean: Mean |sum - difference explained| of Integrated Gradients.
        path_worst: The largest.
    """

    maps: int
    worst: float
    limit: float
    right: bool
    path_mean: float
    path_worst: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Faithfulness:
    """What maps are worth.

    Attributes:
        count: Test images N.
        side: Of the input.
        cells: H and W of the heatmap.
        temperature: Of the posterior explained.
        blur_sides: Standard deviation of the blur in sides of the image.
        path_steps: Points on the path of Integrated Gradients.
        probability: Mean q(y|x) of the images.
        probability_blurred: The same of the blurred images.
        fractions: Points of the curves (F + 1,).
        choices: Options tried on validation images.
        choice_count: How many images those were.
        curves: One per method, the exact heatmap first.
        area: Share of the image that a patch covers.
        confident: Least probability of a planted image's class.
        patches: Planted patches, one entry per kind of host.
        stages: What was randomised, in order.
        forgetting_count: Images followed.
        forgetting: One per method that looks at the network.
        completeness: Of the heatmaps.
        won: Comparisons with captum's methods in which the heatmap is better, interval and all.
        lost: Those in which it is worse.
        undecided: Those whose interval holds 0.
    """

    count: int
    side: int
    cells: tuple[int, int]
    temperature: float
    blur_sides: float
    path_steps: int
    probability: float
    probability_blurred: float
    fractions: tuple[float, ...]
    choices: tuple[Choice, ...]
    choice_count: int
    curves: tuple[MethodCurves, ...]
    area: float
    confident: float
    patches: tuple[Patches, ...]
    stages: tuple[str, ...]
    forgetting_count: int
    forgetting: tuple[Forgetting, ...]
    completeness: Completeness
    won: tuple[str, ...]
    lost: tuple[str, ...]
    undecided: tuple[str, ...]
