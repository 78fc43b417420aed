"""What the heatmaps are worth: whether they show what decided, beside captum's methods.

Every method explains the same number, the calibrated log q(y|x) of the class that the model
decided for. Options that captum's methods leave open are chosen on validation images, figures
are of test images. Shapes: N images, F + 1 points of a curve.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ibinn.metrics import clopper_pearson
from ibinn.selective import Estimate
from training import attributions
from training import faithfulness as measures
from training.attributions import (
    CELLS,
    GRADCAM,
    HEATMAP,
    LABELS,
    PIXELS,
    Baseline,
    Options,
    Sign,
    Subject,
)
from training.chapters.base import Material, NotMeasured
from training.chapters.faithfulness_figures import figures
from training.chapters.faithfulness_results import (
    Choice,
    Completeness,
    Faithfulness,
    Forgetting,
    MethodCurves,
    Patches,
    PatchHits,
)
from training.faithfulness import FloatArray, Images, IntArray, Perturbation, mean_estimate
from training.image_set import ImageSet
from training.planted import AREA, CONFIDENT, Pixels, bland, plant
from training.randomisation import cascade

__all__ = ["figures", "measure"]

COUNT = 200
"""Most test images for curves, and most planted patches per kind of host."""

CHOICE_COUNT = 48
"""Validation images on which captum's options are chosen."""

CASCADE_COUNT = 40
"""Test images whose maps are followed while the network forgets."""

STATISTICS_COUNT = 256
"""Validation images for the batch-norm statistics of randomised networks."""

GUESTS_COUNT = 400
"""Validation images of which the confidently classified ones are planted."""

TRIALS_PER_PATCH = 12
"""Images made at most for each one in which the patch decides."""

STEPS = 16
"""Steps of a curve."""

PATH_STEPS = 32
"""Points on the path of Integrated Gradients."""

COMPLETENESS_LIMIT_NATS = 1e-3

UNKNOWING = ("centre", "random")
"""Methods that look at nothing, so that no randomised network changes them."""

CAPTUM = (PIXELS, CELLS, GRADCAM, "saliency")

Maps = dict[str, FloatArray]


class _Exactness:
    """Keeps the largest completeness error of the heatmaps of every class that were made."""

    def __init__(self) -> None:
        self.maps, self.worst = 0, 0.0

    def add(self, subject: Subject, images: Images) -> None:
        """Look at the maps of these images."""
        totals = subject.heatmaps(images).sum(axis=(2, 3))
        errors = np.abs(totals - subject.log_probabilities(images))
        self.maps += errors.size
        self.worst = max(self.worst, float(errors.max()))


def measure(material: Material) -> Faithfulness | NotMeasured:
    """Compare the exact heatmap with captum's methods; see the module."""
    classifier, validation = material.classifier, material.validation
    if classifier.network.heatmap_shape is None:
        return NotMeasured(
            reason="this network mixes all positions after its last feature map, so that it has "
            "no exact heatmap"
        )
    if validation is None or classifier.reference is None:
        return NotMeasured(
            reason="options of captum's methods are chosen on validation images of a calibrated "
            "model; the split or the calibration is not there"
        )
    subject = Subject(classifier.model, temperature=classifier.reference.temperature)
    exactness = _Exactness()
    _tell(material, 0)
    chosen_on = _tensors(material, _pixels(material, validation, CHOICE_COUNT))
    choices, options = _choose(subject, chosen_on)
    _tell(material, 1)
    pixels = _pixels(material, material.test, min(COUNT, material.limit))
    images = _tensors(material, pixels)
    classes = subject.log_probabilities(images).argmax(axis=1)
    exactness.add(subject, images)
    maps = attributions.maps_of(
        subject, images, classes, options, steps=PATH_STEPS, seed=material.seed
    )
    curves = _curves(subject, images, classes, maps, material)
    _tell(material, 2)
    guests = _pixels(material, validation, GUESTS_COUNT)
    patches = []
    for words, hosts in (
        ("photographs", pixels),
        ("the same, blurred", np.stack([bland(host) for host in pixels])),
    ):
        patches.append(_patches(material, subject, words, hosts, guests, options, exactness))
    _tell(material, 3)
    followed = images[np.linspace(0, len(images) - 1, min(CASCADE_COUNT, len(images))).astype(int)]
    stages, forgetting, path_errors = _forgetting(material, subject, followed, options, exactness)
    _tell(material, 4)
    won, lost, undecided = _conclusions(curves, patches)
    return Faithfulness(
        count=len(images),
        side=images.shape[-1],
        cells=subject.cells,
        temperature=subject.temperature,
        blur_sides=measures.BLUR,
        path_steps=PATH_STEPS,
        probability=float(subject.probability(images, classes).mean()),
        probability_blurred=float(subject.probability(measures.blurred(images), classes).mean()),
        fractions=tuple(np.linspace(0, 1, STEPS + 1).tolist()),
        choices=choices,
        choice_count=len(chosen_on),
        curves=curves,
        area=AREA,
        confident=CONFIDENT,
        patches=tuple(patches),
        stages=stages,
        forgetting_count=len(followed),
        forgetting=forgetting,
        completeness=Completeness(
            maps=exactness.maps,
            worst=exactness.worst,
            limit=COMPLETENESS_LIMIT_NATS,
            right=exactness.worst <= COMPLETENESS_LIMIT_NATS,
            path_mean=float(np.abs(path_errors).mean()),
            path_worst=float(np.abs(path_errors).max()),
        ),
        won=won,
        lost=lost,
        undecided=undecided,
    )


def _tell(material: Material, done: int) -> None:
    if material.progress is not None:
        material.progress("heatmaps", done, 4)


def _pixels(material: Material, images: ImageSet, count: int) -> Pixels:
    """Up to `count` images, spread over the set and so over its classes, finished."""
    steps = material.classifier.preprocessing
    chosen = np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int)
    return np.stack([steps.finish(steps.fit_size(images.load(int(i)))) for i in chosen])


def _tensors(material: Material, pixels: Pixels) -> Images:
    """What the network is given, (N, C, S, S)."""
    array: Images = material.classifier.preprocessing.to_tensor(torch.from_numpy(pixels)).numpy()
    return np.ascontiguousarray(array)


def _choose(subject: Subject, images: Images) -> tuple[tuple[Choice, ...], Options]:
    """The options with the largest insertion minus deletion area."""
    classes = subject.log_probabilities(images).argmax(axis=1)

    def score(maps: FloatArray) -> float:
        insertion, deletion = (
            measures.areas(
                measures.curves(subject.probability, images, maps, classes, kind, steps=STEPS)
            ).mean()
            for kind in (Perturbation.INSERTION, Perturbation.DELETION)
        )
        return float(insertion - deletion)

    scores: dict[tuple[str, Baseline | Sign], float] = {}
    for baseline in Baseline:
        maps, _ = attributions.integrated_gradients(
            subject, images, classes, baseline, steps=PATH_STEPS
        )
        scores[PIXELS, baseline] = score(maps)
        scores[CELLS, baseline] = score(attributions.over_cells(maps, subject.cells))
    for sign in Sign:
        scores[GRADCAM, sign] = score(attributions.gradcam(subject, images, classes, sign))

    def best(method: str) -> Baseline | Sign:
        return max((key for key in scores if key[0] == method), key=lambda key: scores[key])[1]

    found = {method: best(method) for method in (PIXELS, CELLS, GRADCAM)}
    pixels, cells, gradcam = found[PIXELS], found[CELLS], found[GRADCAM]
    assert isinstance(pixels, Baseline)
    assert isinstance(cells, Baseline)
    assert isinstance(gradcam, Sign)
    choices = tuple(
        Choice(
            label=LABELS[method], words=option.value, score=value, chosen=found[method] is option
        )
        for (method, option), value in sorted(scores.items(), key=lambda item: item[0][0])
    )
    return choices, Options(pixels=pixels, cells=cells, gradcam=gradcam)


def _curves(
    subject: Subject, images: Images, classes: IntArray, maps: Maps, material: Material
) -> tuple[MethodCurves, ...]:
    found = {
        (name, kind): measures.curves(
            subject.probability, images, values, classes, kind, steps=STEPS, seed=material.seed
        )
        for name, values in maps.items()
        for kind in Perturbation
    }
    areas = {key: measures.areas(values) for key, values in found.items()}

    def gain(name: str, kind: Perturbation, sign: float) -> Estimate | None:
        if name == HEATMAP:
            return None
        differences = sign * (areas[HEATMAP, kind] - areas[name, kind])
        return mean_estimate(differences, draws=material.draws, seed=material.seed)

    def mean(name: str, kind: Perturbation) -> Estimate:
        return mean_estimate(areas[name, kind], draws=material.draws, seed=material.seed)

    return tuple(
        MethodCurves(
            name=name,
            label=LABELS[name],
            insertion=mean(name, Perturbation.INSERTION),
            deletion=mean(name, Perturbation.DELETION),
            insertion_gain=gain(name, Perturbation.INSERTION, 1.0),
            deletion_gain=gain(name, Perturbation.DELETION, -1.0),
            insertion_curve=tuple(found[name, Perturbation.INSERTION].mean(axis=0).tolist()),
            deletion_curve=tuple(found[name, Perturbation.DELETION].mean(axis=0).tolist()),
        )
        for name in maps
    )


def _patches(
    material: Material,
    subject: Subject,
    words: str,
    hosts: Pixels,
    guests: Pixels,
    options: Options,
    exactness: _Exactness,
) -> Patches:
    rows = subject.log_probabilities(_tensors(material, guests))
    confident = rows.max(axis=1) > np.log(CONFIDENT)
    wanted = min(COUNT, material.limit)
    planted = plant(
        hosts,
        guests[confident],
        rows.argmax(axis=1)[confident],
        log_probabilities=lambda pixels: subject.log_probabilities(_tensors(material, pixels)),
        finish=material.classifier.preprocessing.finish,
        count=wanted,
        trials=TRIALS_PER_PATCH * wanted,
        seed=material.seed,
    )
    count = len(planted.classes)
    if count == 0:
        return Patches(hosts=words, count=0, tried=planted.tried, methods=())
    images = _tensors(material, planted.pixels)
    exactness.add(subject, images)
    maps = attributions.maps_of(
        subject, images, planted.classes, options, steps=PATH_STEPS, seed=material.seed
    )
    hits = {name: measures.hits(values, planted.patches) for name, values in maps.items()}

    def row(name: str) -> PatchHits:
        successes = int(hits[name].sum())
        low, high = clopper_pearson(successes, count)
        ahead = hits[HEATMAP].astype(float) - hits[name]
        mass = measures.mass_inside(maps[name], planted.patches)
        return PatchHits(
            name=name,
            label=LABELS[name],
            hits=successes,
            rate=successes / count,
            low=low,
            high=high,
            mass=mean_estimate(mass, draws=material.draws, seed=material.seed),
            gain=(
                None
                if name == HEATMAP
                else mean_estimate(ahead, draws=material.draws, seed=material.seed)
            ),
        )

    return Patches(
        hosts=words, count=count, tried=planted.tried, methods=tuple(row(name) for name in maps)
    )


def _forgetting(
    material: Material,
    subject: Subject,
    images: Images,
    options: Options,
    exactness: _Exactness,
) -> tuple[tuple[str, ...], tuple[Forgetting, ...], FloatArray]:
    """(what was randomised, maps of each method meanwhile, path errors before)."""
    assert material.validation is not None
    statistics = _tensors(material, _pixels(material, material.validation, STATISTICS_COUNT))
    classes = subject.log_probabilities(images).argmax(axis=1)
    names = [name for name in LABELS if name not in UNKNOWING]

    def maps_of(current: Subject) -> Maps:
        return attributions.maps_of(current, images, classes, options, steps=PATH_STEPS)

    before = maps_of(subject)
    stages: list[str] = []
    absolute: dict[str, list[float]] = {name: [] for name in names}
    signed: dict[str, list[float]] = {name: [] for name in names}
    networks = cascade(material.classifier.model, subject.tensor(statistics), seed=material.seed)
    for stage, model in networks:
        forgetful = Subject(model, temperature=subject.temperature)
        exactness.add(forgetful, images)
        after = maps_of(forgetful)
        stages.append(stage)
        for name in names:
            one, two = before[name], after[name]
            signed[name].append(float(measures.rank_correlations(one, two).mean()))
            kept = measures.rank_correlations(np.abs(one), np.abs(two))
            absolute[name].append(float(kept.mean()))
    _, errors = attributions.integrated_gradients(
        subject, images, classes, options.pixels, steps=PATH_STEPS
    )
    forgetting = tuple(
        Forgetting(
            name=name,
            label=LABELS[name],
            absolute=tuple(absolute[name]),
            signed=tuple(signed[name]),
            between_images=float(
                measures.rank_correlations(
                    np.abs(before[name]), np.roll(np.abs(before[name]), 1, axis=0)
                ).mean()
            ),
        )
        for name in names
    )
    return tuple(stages), forgetting, errors


def _conclusions(
    curves: Sequence[MethodCurves], patches: Sequence[Patches]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Comparisons with captum's methods that are won, lost, and not decided."""
    compared = [
        (f"{what} against {found.label}", gain)
        for found in curves
        for what, gain in (("insertion", found.insertion_gain), ("deletion", found.deletion_gain))
        if found.name in CAPTUM and gain is not None
    ] + [
        (f"patches in {group.hosts} against {found.label}", found.gain)
        for group in patches
        for found in group.methods
        if found.name in CAPTUM and found.gain is not None
    ]
    return (
        tuple(words for words, gain in compared if gain.low > 0),
        tuple(words for words, gain in compared if gain.high < 0),
        tuple(words for words, gain in compared if not gain.excludes_zero),
    )
