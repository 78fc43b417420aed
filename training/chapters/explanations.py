"""Where images and classes lie: the figures of the latent space, held to the test images.

Figures 5.8-5.10, 5.13, 5.15 and 5.20-5.23 of the thesis. Everything but samples, trajectories and
the receptive field follows from the logits that were scored already: a = logits - w + ½‖μ‖².

Shapes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ibinn.explain.latent_layout import DecisionMap, fit_decision_map, latent_layout
from ibinn.explain.receptive_field import ReceptiveField, receptive_field
from ibinn.explain.similarity import (
    closest_pairs,
    mean_distances,
)
from ibinn.explain.trajectory import CORRUPTIONS, trajectory
from ibinn.latent import Subspaces
from training.chapters.base import Material, NotMeasured
from training.chapters.explanations_figures import figures
from training.chapters.explanations_sheets import Sheet, interpolations, samples
from training.chapters.explanations_similarity import Similarity, similarity
from training.chapters.explanations_spaces import Latents, Spaces, spaces
from training.evaluation import Rate
from training.image_set import ImageSet
from training.ood_sets import choose
from training.scoring import fitted

__all__ = ["Explanations", "NotMeasured", "figures", "headline", "measure"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

STRENGTHS = {
    "noise": (0.0, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2),
    "blur": (0.0, 0.4, 0.6, 0.8, 1.1, 1.5, 2.0),
    "rotation": (0.0, 5.0, 10.0, 20.0, 45.0, 90.0, 180.0),
    "contrast": (0.0, 0.2, 0.4, 0.6, 0.75, 0.85, 0.95),
}
UNITS = {
    "noise": "σ, share of the pixel range",
    "blur": "σ, pixels",
    "rotation": "degrees",
    "contrast": "share taken away",
}
PATHS = 12
"""Single images whose way is drawn."""
TRAJECTORY_IMAGES = 100
FIELD_IMAGES = 24
FIELD_CHANNELS = 192
"""A backward pass each: all 3072 channels of IB-INN-50 would take hours."""
MAPPED_CLASSES = 50
"""With more classes, only the most similar ones are laid out on a plane: the fit takes minutes
and nobody could tell its regions apart."""

LAYOUT_POINTS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Test images in the plane of the largest spread of the means.

    Attributes:
        class_names: K names.
        means: (K, 2).
        averages: Of the test images of each class (K, 2); NaN where there is none.
        shares: Share of the means' spread along each axis (2,).
        places: Of some test images (n, 2).
        labels: Their classes (n,).
    """

    class_names: tuple[str, ...]
    means: FloatArray
    averages: FloatArray
    shares: FloatArray
    places: FloatArray
    labels: IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class MapResult:
    """A rank-2 decision map.

    Attributes:
        class_names: The chosen classes.
        means: Their refitted means (J, 2).
        log_weights: (J,).
        accuracy: On test images of the chosen classes.
        full_accuracy: Of the whole model on the same images, deciding among the same classes.
        places: Of some test images (n, 2).
        labels: Their classes as positions in `class_names` (n,).
    """

    class_names: tuple[str, ...]
    means: FloatArray
    log_weights: FloatArray
    accuracy: Rate
    full_accuracy: Rate
    places: FloatArray
    labels: IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrupted:
    """Trajectories under one corruption; averages are over images.

    Attributes:
        name: Of the corruption.
        unit: Of the strengths.
        strengths: (N,).
        accuracy: Share right (N,).
        flagged: Share with combined p at most the shipped α (N,).
        confidence: Mean largest probability (N,).
        entropy: Mean, nats (N,).
        bits_per_dim: Mean (N,).
        paths: (bits/dim, confidence) of single images (paths, N, 2).
    """

    name: str
    unit: str
    strengths: FloatArray
    accuracy: FloatArray
    flagged: FloatArray
    confidence: FloatArray
    entropy: FloatArray
    bits_per_dim: FloatArray
    paths: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanations:
    """Everything that the chapter states.

    Attributes:
        similarity: Of the classes.
        layout: Of the latent space, or None with fewer than three classes.
        maps: Rank-2 decision maps; empty where no images are at hand to fit them.
        map_images: Which images they were fitted to, and how many.
        spaces: Decision spaces, or None with one class.
        alpha: Significance of the flags.
        trajectory_count: Test images that were corrupted.
        trajectories: One per corruption.
        field: Effective receptive field, or None where cells have no place.
        samples: Images made by the model.
        interpolations: Images made by the model.
    """

    similarity: Similarity
    layout: Layout | None
    maps: tuple[MapResult, ...]
    map_images: str
    spaces: Spaces | None
    alpha: float
    trajectory_count: int
    trajectories: tuple[Corrupted, ...]
    field: ReceptiveField | None
    samples: Sheet
    interpolations: Sheet


def measure(material: Material) -> Explanations | NotMeasured:
    """Measure the chapter on what was scored, and on few images that are scored anew."""
    names = material.classifier.info.classes
    if len(names) < 2:
        return NotMeasured(reason="the model has one class; classes cannot be compared")
    mixture = material.classifier.model.mixture
    subspaces = mixture.subspaces()
    labels = material.test.labels
    test = Latents.of(material.test_scores, subspaces)
    maps, map_images = _maps(material, subspaces, test, labels)
    chosen = choose(len(labels), min(TRAJECTORY_IMAGES, material.limit), seed=material.seed)
    return Explanations(
        similarity=similarity(
            material.test_scores.logits,
            test.products,
            labels,
            subspaces=subspaces,
            class_names=names,
            draws=material.draws,
            seed=material.seed,
        ),
        layout=_layout(subspaces, test, labels, names, material.seed) if len(names) > 2 else None,
        maps=maps,
        map_images=map_images,
        spaces=spaces(material, subspaces, test, labels),
        alpha=material.classifier.info.alpha,
        trajectory_count=len(chosen),
        trajectories=tuple(_trajectories(material, material.test.subset(chosen))),
        field=_field(material),
        samples=samples(material.classifier, seed=material.seed),
        interpolations=interpolations(material.classifier, seed=material.seed),
    )


def headline(result: Explanations) -> dict[str, float]:
    """Figures for the manifest; `Explanation.receptive_field_px` is the first."""
    found = {"similarity_rank_correlation": result.similarity.rank_correlation.value}
    if result.field is not None:
        found["receptive_field_px"] = result.field.radius_90_px
    return found


def _layout(
    subspaces: Subspaces, test: Latents, labels: IntArray, names: tuple[str, ...], seed: int
) -> Layout:
    plane = latent_layout(subspaces.gram.cpu().numpy())
    some = choose(len(labels), LAYOUT_POINTS, seed=seed)
    places = plane.places(test.products)
    averages = np.full((len(names), 2), np.nan)
    for label in np.unique(labels):
        averages[label] = places[labels == label].mean(axis=0)
    return Layout(
        class_names=names,
        means=np.round(plane.means, 4),
        averages=np.round(averages, 4),
        shares=plane.shares,
        places=np.round(places[some], 2),
        labels=labels[some],
    )


def _maps(
    material: Material, subspaces: Subspaces, test: Latents, labels: IntArray
) -> tuple[tuple[MapResult, ...], str]:
    """Maps of all classes and of the most similar ones, fitted on images of calibration part A."""
    fit, words = material.calibration_a, "calibration part A"
    if fit is None or not len(fit):
        return (), ""
    scored = material.scorer.images(
        fitted(fit, material.classifier.preprocessing), words, finish=True
    )
    names = material.classifier.info.classes
    known = Latents.of(scored, subspaces)
    similar = closest_pairs(mean_distances(subspaces), names, 3)
    few = sorted({names.index(name) for pair in similar for name in (pair.first, pair.second)})
    maps = []
    every = list(range(len(names))) if len(names) <= MAPPED_CLASSES else []
    for classes in (every, few):
        if len(classes) < 3 or not set(classes) <= set(fit.labels.tolist()):
            continue
        found = fit_decision_map(
            known.products,
            fit.labels,
            gram=subspaces.gram.cpu().numpy(),
            log_weights=subspaces.log_weights.cpu().numpy(),
            classes=classes,
        )
        maps.append(_map_result(found, test, labels, names, material.seed))
    return tuple(maps), f"{len(fit):,} images of {words}"


def _map_result(
    found: DecisionMap, test: Latents, labels: IntArray, names: tuple[str, ...], seed: int
) -> MapResult:
    kept = np.flatnonzero(np.isin(labels, found.classes))
    places = found.places(test.products[kept])
    right = found.decisions(places) == labels[kept]
    full = found.classes[test.logits.numpy()[kept][:, found.classes].argmax(axis=1)]
    some = choose(len(kept), LAYOUT_POINTS, seed=seed)
    position = {int(label): row for row, label in enumerate(found.classes)}
    return MapResult(
        class_names=tuple(names[k] for k in found.classes),
        means=np.round(found.means, 5),
        log_weights=np.round(found.log_weights, 5),
        accuracy=Rate.of(int(right.sum()), len(kept)),
        full_accuracy=Rate.of(int((full == labels[kept]).sum()), len(kept)),
        places=np.round(places[some], 2),
        labels=np.array([position[int(label)] for label in labels[kept][some]]),
    )


def _trajectories(material: Material, images: ImageSet) -> Iterator[Corrupted]:
    classifier, labels = material.classifier, images.labels
    for name, strengths in STRENGTHS.items():
        found = []
        for index in range(len(images)):
            path = trajectory(classifier, images.load(index), CORRUPTIONS[name], strengths)
            found.append(path)
            if material.progress is not None:
                material.progress(f"paths under {name}", index + 1, len(images))
        bits = np.stack([path.bits_per_dim for path in found])
        confidence = np.stack([path.confidence for path in found])
        top = np.stack([path.top for path in found])
        p = np.stack([path.combined_p for path in found])
        yield Corrupted(
            name=name,
            unit=UNITS[name],
            strengths=np.asarray(strengths),
            accuracy=(top == labels[:, None]).mean(axis=0),
            flagged=(p <= classifier.info.alpha).mean(axis=0),
            confidence=confidence.mean(axis=0),
            entropy=np.mean([path.entropy for path in found], axis=0),
            bits_per_dim=bits.mean(axis=0),
            paths=np.round(np.stack((bits, confidence), axis=2)[:PATHS], 4),
        )


def _field(material: Material) -> ReceptiveField | None:
    classifier = material.classifier
    if classifier.network.heatmap_shape is None:
        return None
    steps, test = classifier.preprocessing, material.test
    some = choose(len(test), min(FIELD_IMAGES, material.limit), seed=material.seed)
    if material.progress is not None:
        material.progress("receptive field", 0, len(some))
    pixels = np.stack([steps.finish(steps.fit_size(test.load(index))) for index in some])
    x = steps.to_tensor(torch.from_numpy(pixels).to(classifier.device))
    return receptive_field(classifier.network, x, most_channels=FIELD_CHANNELS)
