"""Images that are known already, and images that a figure of the base model rests on.

A model must never be trained on an image that it is judged by, so everything like a held-out image
of the base (its calibration and test images, and those of an operator's acceptance set) is left
out: exact copies by their content id, re-encoded, rescaled and re-lit ones as near-duplicates
(`training.duplicates`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.duplicates import find_duplicates, nearest_copies
from training.image_set import ImageSet

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """An old image that a new one is a copy of.

    Attributes:
        where: Name of the set that it is in, such as ``test``.
        label: Its class there, by name.
        distance: Of the thumbnails; 0 for an exact copy.
    """

    where: str
    label: str
    distance: float


def matches(new: ImageSet, old: Mapping[str, ImageSet]) -> list[Match | None]:
    """For each new image the old one that it is a copy of, exact copies before near ones.

    Args:
        new: N images.
        old: Sets by name; the earlier ones are named where two match equally well.
    """
    found: list[Match | None] = [None] * len(new)
    for where, images in old.items():
        if not len(images):
            continue
        ids = {item.id: index for index, item in reversed(list(enumerate(images.items)))}
        nearest, distances = nearest_copies(new.thumbnails, images.thumbnails)
        for row, item in enumerate(new.items):
            exact = ids.get(item.id)
            if exact is None and nearest[row] < 0:
                continue
            index = int(nearest[row]) if exact is None else exact
            distance = float(distances[row]) if exact is None else 0.0
            before = found[row]
            if before is None or distance < before.distance:
                label = images.class_names[images.items[index].label]
                found[row] = Match(where=where, label=label, distance=distance)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Among:
    """Near-duplicates among the new images themselves.

    Attributes:
        repeated: Images that are near-duplicates of an earlier one of the same class.
        disputed: Pairs of near-duplicates with different classes.
    """

    repeated: frozenset[int]
    disputed: tuple[tuple[int, int], ...]


def among(new: ImageSet, labels: Sequence[str]) -> Among:
    """Find near-duplicates among new images, which come in the order of time.

    Of near-duplicates of one class the first is kept. Of two with different classes one is wrong
    or the classes meet there; neither is used.

    Args:
        new: N images with different content.
        labels: Their classes.
    """
    pairs = find_duplicates([item.id for item in new.items], new.thumbnails).pairs
    disputed = tuple((int(a), int(b)) for a, b in pairs if labels[a] != labels[b])
    out = {index for pair in disputed for index in pair}
    repeated: set[int] = set()
    # Pairs are sorted with the earlier image first: one that is left out itself hides no other.
    for a, b in sorted((int(a), int(b)) for a, b in pairs):
        if labels[a] == labels[b] and not {a, b} & out and a not in repeated:
            repeated.add(b)
    return Among(repeated=frozenset(repeated), disputed=disputed)
