"""Attacks on the answer and on the test that guards it: how many get through.

Three gradient attacks (`training.attacks`), each at three strengths and judged as a request would
be, and images with the class part of one image and the style of another (`training.metamers`).
Nothing here is a claim of robustness: the figures are what these attackers reached.

Shapes: N images under attack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from ibinn.types import Verdict
from training import plots
from training.attack_score import OpenBook
from training.attacks import (
    Search,
    Serving,
    as_served,
    attack,
    bare,
    evade,
    misclassify,
    random_start,
)
from training.chapters.base import Material, NotMeasured
from training.chapters.conditions import Mask, share
from training.evaluation import Rate
from training.image_set import ImageSet
from training.metamers import swap
from training.ood_sets import OodSet, Pixels, choose
from training.scoring import fitted

MOST_IMAGES = 200
EPS_LEVELS = (1, 2, 4)
"""Radii in grey levels of 255."""

WEIGHTS = (1.0, 10.0, 0.1)
"""λ of the adaptive attack, in the order in which they are tried."""

PASSES = (5.0, 3.0, 7.0)
"""Largest entry of the JPEG tables that the gradient passes, in multiples of the radius; one
search of the posterior for each, and one λ. Coarser ones are hardly ever moved by half."""

ACCEPTED = 2
"""The most an attacker can reach: a wrong answer that is NOT_FLAGGED."""

SHARES = (0.5, 0.75, 1.0)
"""Strengths of the swap: how much of the class part comes from the other image."""

BLIND, AWARE, ADAPTIVE = "blind", "aware", "adaptive"
TITLES = {
    BLIND: "on the network, the JPEG step unknown to it",
    AWARE: "on the posterior, through rounding and the JPEG step",
    ADAPTIVE: "adaptive: on posterior and combined test together",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Strength:
    """One attack at one radius, as served.

    Attributes:
        attack: Short name.
        title: In words.
        eps_levels: Radius in grey levels of 255.
        wrong: Share of the attacked images that are now answered wrongly.
        wrong_before_jpeg: The same without the JPEG step, or None where there is none.
        flagged: Share UNKNOWN of the wrong ones.
        slipped: Share of the attacked images that are wrong and not UNKNOWN: the worst case.
        accepted: Share that are wrong and NOT_FLAGGED.
        by_weight: (λ, how many images got farther with it than before), for the adaptive attack.
    """

    attack: str
    title: str
    eps_levels: int
    wrong: Rate
    wrong_before_jpeg: Rate | None
    flagged: Rate
    slipped: Rate
    accepted: Rate
    by_weight: tuple[tuple[float, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """Swaps at one strength, as served.

    Attributes:
        share: How much of the class part comes from A.
        follows: Share of pairs answered with the class of A, whose class part it is.
        follows_before_jpeg: The same without the JPEG step, or None where there is none.
        stays: Share answered with the class of B, which it looks like.
        unknown: Share with the verdict UNKNOWN.
        slipped: Share answered with A's class and not UNKNOWN: the worst case.
        accepted: Share answered with A's class and NOT_FLAGGED.
        distance_levels: Root mean square distance from B in grey levels, median over pairs.
        clipped: Share of the inverse's values that were outside of the pixel range.
    """

    share: float
    follows: Rate
    follows_before_jpeg: Rate | None
    stays: Rate
    unknown: Rate
    slipped: Rate
    accepted: Rate
    distance_levels: float
    clipped: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Attacks:
    """The chapter.

    Attributes:
        drawn: Test images drawn.
        attacked: How many of them are answered rightly and not UNKNOWN: those that are attacked.
        classes: K.
        alpha: Of the verdict.
        jpeg: Whether there is a JPEG step.
        search: How long each search is.
        restarts: Searches per image and radius on the posterior.
        weights: λ of the adaptive attack.
        strengths: By attack, then by radius.
        pairs: Number of swaps per strength.
        swaps: By strength.
    """

    drawn: int
    attacked: int
    classes: int
    alpha: float
    jpeg: bool
    search: Search
    restarts: int
    weights: tuple[float, ...]
    strengths: tuple[Strength, ...]
    pairs: int
    swaps: tuple[Swap, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Answers:
    """What the classifier says of N images: classes (N,) and verdicts (N,)."""

    classes: npt.NDArray[np.int64]
    verdicts: npt.NDArray[np.str_]

    @property
    def unknown(self) -> Mask:
        return self.verdicts == Verdict.UNKNOWN.value

    @property
    def accepted(self) -> Mask:
        return self.verdicts == Verdict.NOT_FLAGGED.value


def measure(material: Material) -> Attacks | NotMeasured:
    """Attack test images that are answered rightly and let through, in every way."""
    if material.classifier.reference is None:
        return NotMeasured(reason="the bundle is not calibrated, so there is no test to attack")
    preprocessing = material.classifier.preprocessing
    wanted = min(material.limit, MOST_IMAGES)
    test = material.test.subset(choose(len(material.test), wanted, seed=material.seed))
    images = _sized(material, test)
    clean = _answers(material, images, "images to attack")
    chosen = (clean.classes == test.labels) & ~clean.unknown
    if not chosen.any():
        return NotMeasured(
            reason=f"none of {len(test)} test images is answered rightly and let through"
        )
    targets, labels = images[chosen], test.labels[chosen]
    search = Search()
    swaps = _swaps(material, targets, labels)
    return Attacks(
        drawn=len(test),
        attacked=len(targets),
        classes=len(material.test.class_names),
        alpha=material.classifier.significance.alpha,
        jpeg=preprocessing.config.jpeg is not None,
        search=search,
        restarts=len(PASSES),
        weights=tuple(sorted(WEIGHTS)),
        strengths=_strengths(material, targets, labels, search),
        pairs=swaps[0].follows.count if swaps else 0,
        swaps=swaps,
    )


def headline(result: Attacks) -> dict[str, float]:
    """The worst case of the adaptive attack at each radius, for the manifest."""
    return {
        f"attack_slipped@{s.eps_levels}": s.slipped.value
        for s in result.strengths
        if s.attack == ADAPTIVE and s.slipped.value is not None
    }


def figures(result: Attacks) -> dict[str, Figure]:
    """What got through against the radius, and what swaps are answered with."""
    figure = Figure(figsize=(plots.WIDTH_IN, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = dict.fromkeys(s.attack for s in result.strengths)
    for name, colour in zip(names, plots.COLOURS, strict=False):
        own = [s for s in result.strengths if s.attack == name]
        radii = [s.eps_levels for s in own]
        left.plot(
            radii, [s.wrong.value for s in own], color=colour, linewidth=1.2, marker="o",
            markersize=4, linestyle=(0, (4, 2)),
        )  # fmt: skip
        left.plot(
            radii, [s.slipped.value for s in own], color=colour, linewidth=1.6, marker="o",
            markersize=4, label=name,
        )  # fmt: skip
        left.plot(
            radii, [s.accepted.value for s in own], color=colour, linewidth=1.4, marker="o",
            markersize=4, linestyle=":",
        )  # fmt: skip
    left.set(
        xlabel="radius, grey levels of 255", ylabel="share of the attacked images",
        ylim=(-0.02, 1.02), xticks=EPS_LEVELS,
    )  # fmt: skip
    left.legend(fontsize=8, frameon=False)
    shares = [s.share for s in result.swaps]
    for label, values, colour in (
        ("answered as the class part", [s.follows.value for s in result.swaps], plots.COLOURS[0]),
        ("answered as the style part", [s.stays.value for s in result.swaps], plots.COLOURS[1]),
        ("called unknown", [s.unknown.value for s in result.swaps], plots.COLOURS[2]),
    ):
        right.plot(shares, values, color=colour, marker="o", markersize=4, label=label)
    right.set(
        xlabel="share of the class part that is swapped", ylabel="share of the pairs",
        ylim=(-0.02, 1.02), xticks=shares,
    )  # fmt: skip
    right.legend(fontsize=8, frameon=False)
    for axes in (left, right):
        plots.style(axes)
    return {"attacks": figure}


def _strengths(
    material: Material, targets: Pixels, labels: npt.NDArray[np.int64], search: Search
) -> tuple[Strength, ...]:
    book = OpenBook(material.classifier)
    preprocessing = material.classifier.preprocessing
    names = (AWARE, ADAPTIVE) if preprocessing.config.jpeg is None else tuple(TITLES)
    found: list[Strength] = []
    aware: dict[int, Pixels] = {}
    for name in names:
        latest = targets
        for eps in EPS_LEVELS:
            servings = [
                bare() if name == BLIND else as_served(preprocessing, coarsest=factor * eps)
                for factor in PASSES
            ]
            run = partial(attack, book, eps_levels=eps, search=search)
            weights: tuple[tuple[float, int], ...] = ()
            if name == ADAPTIVE:
                starts = [aware[eps], latest]
                latest, weights = _adaptive(material, run, targets, labels, starts, servings)
            else:
                latest = _posterior(material, run, targets, labels, latest, servings, eps)
            if name == AWARE:
                aware[eps] = latest
            found.append(_strength(material, name, eps, targets, labels, latest, weights))
            if material.progress is not None:
                material.progress("attacks", len(found), len(names) * len(EPS_LEVELS))
    return tuple(found)


def _posterior(
    material: Material,
    run: partial[Pixels],
    targets: Pixels,
    labels: npt.NDArray[np.int64],
    warm: Pixels,
    servings: Sequence[Serving],
    eps: int,
) -> Pixels:
    """Searches from the smaller radius's images, from what they gave, and from random ones."""
    best = warm.copy()
    for number, serving in enumerate(servings):
        left = ~_wrong(material, best, labels, serving)
        if not left.any():
            break
        last = number == len(servings) - 1
        start = random_start(targets, eps, seed=material.seed) if last else best
        best[left] = run(
            images=targets[left],
            labels=labels[left],
            start=start[left],
            objective=misclassify,
            serving=serving,
        )
    return best


def _adaptive(
    material: Material,
    run: partial[Pixels],
    targets: Pixels,
    labels: npt.NDArray[np.int64],
    starts: Sequence[Pixels],
    servings: Sequence[Serving],
) -> tuple[Pixels, tuple[tuple[float, int], ...]]:
    """For every image the worst over all λ and starts: NOT_FLAGGED before just not UNKNOWN."""
    best = starts[0].copy()
    success = _success(material, best, labels)
    for start in starts[1:]:
        _keep(best, success, start, _success(material, start, labels))
    counts = []
    for number, (weight, serving) in enumerate(zip(WEIGHTS, servings, strict=True)):
        left = success < ACCEPTED
        if not left.any():
            break
        tried = best.copy()
        tried[left] = run(
            images=targets[left],
            labels=labels[left],
            start=starts[number % len(starts)][left],
            objective=evade(weight),
            serving=serving,
        )
        better = _keep(best, success, tried, _success(material, tried, labels))
        counts.append((weight, better))
    return best, tuple(counts)


def _success(
    material: Material, images: Pixels, labels: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """What an attacker reached (N,): 0 nothing, 1 wrong and not UNKNOWN, 2 and NOT_FLAGGED."""
    served = _answers(material, images, "attacked")
    wrong = served.classes != labels
    return (wrong & ~served.unknown).astype(np.int64) + (wrong & served.accepted)


def _keep(
    best: Pixels,
    success: npt.NDArray[np.int64],
    tried: Pixels,
    reached: npt.NDArray[np.int64],
) -> int:
    """Take over, in place, the images that reached more; returns how many."""
    better = reached > success
    best[better], success[better] = tried[better], reached[better]
    return int(better.sum())


def _strength(
    material: Material,
    name: str,
    eps: int,
    targets: Pixels,
    labels: npt.NDArray[np.int64],
    found: Pixels,
    weights: tuple[tuple[float, int], ...],
) -> Strength:
    reached = int(np.abs(found.astype(int) - targets).max(initial=0))
    assert reached <= eps, f"an attacked image is {reached} levels away, allowed are {eps}"
    served = _answers(material, found, f"{name} attack, {eps} levels")
    wrong = served.classes != labels
    before = None
    if material.classifier.preprocessing.config.jpeg is not None:
        before = share(_wrong(material, found, labels, bare()))
    return Strength(
        attack=name,
        title=TITLES[name],
        eps_levels=eps,
        wrong=share(wrong),
        wrong_before_jpeg=before,
        flagged=share(served.unknown[wrong]),
        slipped=share(wrong & ~served.unknown),
        accepted=share(wrong & served.accepted),
        by_weight=weights,
    )


def _swaps(material: Material, targets: Pixels, labels: npt.NDArray[np.int64]) -> tuple[Swap, ...]:
    """Every image's class part put into the next image of another class."""
    classifier = material.classifier
    partner = _partners(labels)
    if not len(partner):
        return ()
    finish = classifier.preprocessing.finish
    style_images = np.stack([finish(image) for image in targets])
    class_images = style_images[partner]
    own, other = labels, labels[partner]
    found = []
    for strength in SHARES:
        swapped = swap(classifier, class_images, style_images, share=strength)
        served = _answers(material, swapped.pixels, f"swaps, {strength:g}")
        follows = served.classes == other
        before = None
        if classifier.preprocessing.config.jpeg is not None:
            before = share(_classes(material, swapped.pixels, bare()) == other)
        distance = swapped.pixels.astype(float) - style_images
        found.append(
            Swap(
                share=strength,
                follows=share(follows),
                follows_before_jpeg=before,
                stays=share(served.classes == own),
                unknown=share(served.unknown),
                slipped=share(follows & ~served.unknown),
                accepted=share(follows & served.accepted),
                distance_levels=float(np.median(np.sqrt(np.square(distance).mean((1, 2, 3))))),
                clipped=swapped.clipped,
            )
        )
    return tuple(found)


def _partners(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each image the next one of another class, cyclically; empty if there is one class."""
    count = len(labels)
    partners = []
    for index in range(count):
        others = ((index + step) % count for step in range(1, count))
        found = next((other for other in others if labels[other] != labels[index]), None)
        if found is None:
            return np.empty(0, dtype=np.int64)
        partners.append(found)
    return np.array(partners, dtype=np.int64)


def _sized(material: Material, test: ImageSet) -> Pixels:
    images = fitted(test, material.classifier.preprocessing)
    return np.stack([np.asarray(images[index]) for index in range(len(images))])


def _answers(material: Material, images: Pixels, what: str) -> _Answers:
    """As served: the JPEG step is taken."""
    finish = material.classifier.preprocessing.finish
    finished = np.stack([finish(image) for image in images])
    scored = material.scorer.ood(
        OodSet(name=what, description=what, images=finished, finished=True), finish=False
    )
    return _Answers(
        classes=np.nan_to_num(scored.probabilities, nan=-1.0).argmax(axis=1),
        verdicts=scored.verdicts,
    )


def _classes(material: Material, images: Pixels, serving: Serving) -> npt.NDArray[np.int64]:
    served = np.stack([serving.apply(image) for image in images])
    scored = material.scorer.ood(
        OodSet(name="attacked", description="", images=served, finished=True), finish=False
    )
    return scored.logits.argmax(axis=1)


def _wrong(
    material: Material, images: Pixels, labels: npt.NDArray[np.int64], serving: Serving
) -> Mask:
    return _classes(material, images, serving) != labels
