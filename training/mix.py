"""The fixed mix on which trust is judged: clean, mildly corrupted, near- and far-OoD images.

An image of the mix should be accepted if its class is answered rightly. The mildly corrupted ones
are still what they were, so rejecting one that is answered rightly costs as much as rejecting a
clean one; an out-of-distribution image has no right answer, and accepting it is always an error.

Shares are kept by weights: every image that there is takes part, and each component counts as
much as its share says.

Shapes: N images of the mix, P components, K classes, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from ibinn.errors import ConfigError
from training.corruptions import CORRUPTIONS, corrupt
from training.ood_sets import Images, LazyImages, OodSet, Pixels

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

NO_LABEL = -1
"""Label of images that show none of the classes."""

CLEAN_NAME = "test images"
CORRUPTED_NAME = "mildly corrupted"


class Part(StrEnum):
    """What kind of image it is."""

    CLEAN = "clean"
    CORRUPTED = "mildly corrupted"
    NEAR = "near-OoD"
    FAR = "far-OoD"


@dataclass(frozen=True, slots=True, kw_only=True)
class MixConfig:
    """What is in the mix.

    Attributes:
        clean: Share of test images as they are.
        corrupted: Share of mildly corrupted test images.
        near: Share of near-OoD images: photographs of other things.
        far: Share of far-OoD images: no photographs, or badly damaged ones.
        corruptions: Names of `training.corruptions`, in equal numbers: one of noise, of blur, of
            weather and of the digital ones.
        severities: Of five, in equal numbers.
        near_sets: Names of the near-OoD sets; those that exist share `near` equally.
        far_sets: Names of the far-OoD sets, likewise.
        seed: Of the corruptions and of which image gets which.

    Raises:
        ConfigError: The shares do not add up to 1, or one is negative.
    """

    clean: float = 0.5
    corrupted: float = 0.25
    near: float = 0.125
    far: float = 0.125
    corruptions: tuple[str, ...] = ("gaussian_noise", "defocus_blur", "brightness", "contrast")
    severities: tuple[int, ...] = (1, 2)
    near_sets: tuple[str, ...] = ("tiny-imagenet",)
    far_sets: tuple[str, ...] = ("rotation", "noise-0.1", "digits", "digits-8x8")
    seed: int = 0

    def __post_init__(self) -> None:
        shares = (self.clean, self.corrupted, self.near, self.far)
        if min(shares) < 0 or abs(sum(shares) - 1.0) > 1e-9:
            raise ConfigError(
                f"shares of the mix are {shares}; expected numbers of 0 or more that add up to 1"
            )
        if unknown := sorted(set(self.corruptions) - set(CORRUPTIONS)):
            raise ConfigError(
                f"corruptions {unknown} do not exist; choose among {', '.join(CORRUPTIONS)}"
            )

    @property
    def ood_share(self) -> float:
        """Share of images that show none of the classes."""
        return self.near + self.far

    @property
    def conditions(self) -> tuple[tuple[str, int], ...]:
        """Every (corruption, severity)."""
        return tuple((name, level) for level in self.severities for name in self.corruptions)

    def with_ood_share(self, share: float) -> MixConfig:
        """The same mix with another share of OoD images; the rest keeps its proportions."""
        inside, outside = (1.0 - share) / (1.0 - self.ood_share), share / self.ood_share
        return replace(
            self,
            clean=self.clean * inside,
            corrupted=self.corrupted * inside,
            near=self.near * outside,
            far=self.far * outside,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Component:
    """Images of one kind.

    Attributes:
        name: Name of the set.
        part: Its kind.
        share: Its share of the mix.
        description: How the images were made, in words.
        images: uint8 (h, w, 3) each, before the preprocessing unless `finished`.
        finished: As in `training.ood_sets.OodSet`.
        labels: Class of each image, `NO_LABEL` where it has none.
        sources: Number of the image of the mix's first component that each was made of; those
            with other origins have numbers of their own.
    """

    name: str
    part: Part
    share: float
    description: str
    images: Images
    finished: bool
    labels: IntArray
    sources: IntArray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mix:
    """Components side by side; image i of the mix is in component `component[i]`.

    Attributes:
        components: Clean images first.
        config: What was asked for.
        notes: What could not be had, and what was done instead.
    """

    components: tuple[Component, ...]
    config: MixConfig
    notes: tuple[str, ...]

    @property
    def component(self) -> IntArray:
        """Number of each image's component (N,)."""
        return np.repeat(np.arange(len(self.components)), [len(c) for c in self.components])

    @property
    def labels(self) -> IntArray:
        """Class of each image, or `NO_LABEL` (N,)."""
        return np.concatenate([c.labels for c in self.components])

    @property
    def sources(self) -> IntArray:
        """Number of each image's original (N,)."""
        return np.concatenate([c.sources for c in self.components])

    @property
    def shares(self) -> FloatArray:
        """Share of each component, adding up to 1 (P,)."""
        return np.array([c.share for c in self.components])

    def shares_of(self, config: MixConfig) -> FloatArray:
        """Shares of these components in a mix of other proportions (P,)."""
        return _shares([c.part for c in self.components], config)


def make_mix(
    test_images: Images,
    labels: IntArray,
    sets: Sequence[OodSet],
    config: MixConfig,
    *,
    corrupted_count: int | None = None,
) -> Mix:
    """The mix of test images and out-of-distribution sets.

    Args:
        test_images: At the model's input size, uint8 (S, S, 3) each.
        labels: Their classes.
        sets: Out-of-distribution sets; those that `config` names are taken. A part without any
            set leaves its share to the other OoD part.
        config: What is in the mix.
        corrupted_count: Most mildly corrupted images; None: one for each test image.

    Raises:
        ConfigError: None of the sets is there.
    """
    count = len(test_images)
    wanted = count if corrupted_count is None else min(count, corrupted_count)
    # Spread over the set, which may be sorted by class, and in random order of conditions.
    chosen = np.linspace(0, count - 1, wanted).round().astype(np.int64)
    conditions = config.conditions
    turn = np.random.default_rng(config.seed).permutation(wanted) % len(conditions)

    def damaged(index: int) -> Pixels:
        name, severity = conditions[turn[index]]
        return corrupt(test_images[int(chosen[index])], name, severity, seed=config.seed)

    found = [(s, Part.NEAR) for s in sets if s.name in config.near_sets]
    found += [(s, Part.FAR) for s in sets if s.name in config.far_sets]
    if not found:
        raise ConfigError(
            f"none of the sets {', '.join((*config.near_sets, *config.far_sets))} is there; "
            "expected at least one: a mix without unknown images says nothing of trust"
        )
    parts = [Part.CLEAN, Part.CORRUPTED, *(part for _, part in found)]
    shares = _shares(parts, config)
    severities = " and ".join(str(level) for level in config.severities)
    components = [
        Component(
            name=CLEAN_NAME,
            part=Part.CLEAN,
            share=float(shares[0]),
            description="Test images as they are.",
            images=test_images,
            finished=False,
            labels=np.asarray(labels, dtype=np.int64),
            sources=np.arange(count),
        ),
        Component(
            name=CORRUPTED_NAME,
            part=Part.CORRUPTED,
            share=float(shares[1]),
            description=f"Test images after {', '.join(config.corruptions).replace('_', ' ')} "
            f"at severity {severities} of five, in equal numbers.",
            images=LazyImages(count=wanted, make=damaged),
            finished=False,
            labels=np.asarray(labels, dtype=np.int64)[chosen],
            sources=chosen,
        ),
    ]
    first_free = count
    for (ood, part), share in zip(found, shares[2:], strict=True):
        components.append(
            Component(
                name=ood.name,
                part=part,
                share=float(share),
                description=ood.description,
                images=ood.images,
                finished=ood.finished,
                labels=np.full(len(ood.images), NO_LABEL, dtype=np.int64),
                sources=first_free + np.arange(len(ood.images)),
            )
        )
        first_free += len(ood.images)
    notes = tuple(
        f"There is no {part} set, so its share went to the other unknown images."
        for part in (Part.NEAR, Part.FAR)
        if part not in parts
    )
    return Mix(components=tuple(components), config=config, notes=notes)


def _shares(parts: Sequence[Part], config: MixConfig) -> FloatArray:
    """Share of each component: that of its part, in equal pieces (P,)."""
    of_part = {
        Part.CLEAN: config.clean,
        Part.CORRUPTED: config.corrupted,
        Part.NEAR: config.near if Part.FAR in parts else config.ood_share,
        Part.FAR: config.far if Part.NEAR in parts else config.ood_share,
    }
    return np.array([of_part[part] / parts.count(part) for part in parts])
