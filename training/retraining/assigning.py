"""Which of the new images serve which purpose. Old images keep the roles that they have.

New images are dealt out like the old ones (`training.dealing`): by content and class, with the
shares of the base's split, groups kept together. Three things differ:

- An image of a group that the old data has goes where that group is.
- Only images whose chance of being selected for labelling is known are calibrated and tested on,
  unless the caller says otherwise: images that were picked because a test flagged them would make
  every p-value of the new calibration too large. Images of new classes are the exception: there
  are no others to know those classes by.
- The data's own test set, where it has one, gets new test images too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from training.dealing import deal, keep_together
from training.image_set import ImageSet
from training.splits import Role, SplitConfig

HELD_OUT = (Role.CALIBRATION_A, Role.CALIBRATION_B, Role.TEST)
"""Roles that no image is ever trained on from."""


def assign(
    images: ImageSet,
    *,
    config: SplitConfig,
    known_chance: Sequence[bool],
    new_classes: Collection[str],
    old_groups: Mapping[str, Role],
) -> list[Role]:
    """A role for each new image.

    Args:
        images: N new images.
        config: The base's split.
        known_chance: Whether the chance of its being labelled is known, N of them.
        new_classes: Classes that the base does not know.
        old_groups: Role of each group of the old data.
    """
    roles = [Role.TRAIN] * len(images)
    clusters = keep_together([item.group for item in images.items], np.arange(len(images)))
    bound = np.zeros(len(images), bool)
    for index, item in enumerate(images.items):
        if item.group in old_groups and item.group:
            roles[index], bound[index] = old_groups[item.group], True
    fit = np.array(
        [
            known or images.class_names[item.label] in new_classes
            for known, item in zip(known_chance, images.items, strict=True)
        ],
        bool,
    ).reshape(-1)
    free = np.flatnonzero(~bound & _whole(fit, clusters))
    if not len(free):
        return roles
    shares = config.shares(own_test=False)
    order = list(Role)
    dealt = deal(
        [images.items[position].id for position in free],
        images.labels[free],
        np.unique(clusters[free], return_inverse=True)[1].astype(np.int64),
        [shares.get(role, 0.0) for role in order],
        seed=config.seed,
    )
    for position, number in zip(free.tolist(), dealt.tolist(), strict=True):
        roles[position] = order[number]
    return roles


def _whole(fit: npt.NDArray[np.bool_], clusters: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether all images that stay together with one are fit."""
    unfit = np.unique(clusters[~fit])
    return ~np.isin(clusters, unfit)
