"""What a data set holds, what is wrong with it, and what it can promise.

`diagnose` looks at everything that was read and at the split that a run would make of it;
`training.doctor_view.render` shows the result.

Shapes: N images, K classes.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from ibinn.errors import DataError
from ibinn.ood.p_values import needed_calibration_count, smallest_p
from ibinn.types import TestKind
from training.duplicates import Duplicates, find_duplicates
from training.image_set import DataSource, Item, Skipped
from training.splits import Role, SplitConfig, SplitManifest, make_splits

ALPHA = 0.05
"""The significance that a class should be able to be tested at."""

EXAMPLES = 5
"""Pairs of each kind that are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What a number of calibration images (part B) can promise.

    Attributes:
        count: Number n of calibration images.
        smallest_alpha: 1/(n + 1), the smallest significance of a one-tailed test, or None
            where there are no calibration images.
        alpha: The significance wished for.
        more: Calibration images that are lacking for it: ceil(1/α) - 1 - n, at least 0.
    """

    count: int
    smallest_alpha: float | None
    alpha: float
    more: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassDiagnosis:
    """One class.

    Attributes:
        name: The class.
        counts: Number of images in each role, in the order of `Role`; zeros if no split exists.
        total: Number of images, those without a role included.
        promise: What its calibration images can promise about it alone.
    """

    name: str
    counts: tuple[int, ...]
    total: int
    promise: Promise


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeDiagnosis:
    """Sizes of the images, width by height in pixels.

    Attributes:
        distinct: Number of different sizes.
        commonest: The most frequent size.
        commonest_count: How many images have it.
        smallest_side: The shortest side of any image.
        median_side: Median over the images of the shorter side.
        largest_side: The longest side of any image.
    """

    distinct: int
    commonest: tuple[int, int]
    commonest_count: int
    smallest_side: int
    median_side: float
    largest_side: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupDiagnosis:
    """Groups of images that stay on one side.

    Attributes:
        count: Number of groups.
        largest: Name of the largest.
        largest_count: Its number of images.
        across_test: Number of groups with images both in the training folder and in the data's
            own test set.
    """

    count: int
    largest: str
    largest_count: int
    across_test: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicatePair:
    """Two images that are the same picture, or nearly."""

    first: str
    second: str
    distance: float
    """0 for exact copies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateDiagnosis:
    """Copies and near-duplicates.

    Attributes:
        copies: Number of images that are exact copies of an earlier one.
        near: Number of near-duplicate pairs that are not exact copies.
        across_count: Number of pairs whose images have different roles; only the data's own
            test set, and chains too long to be kept together, can cause them.
        across: The closest of those.
        contradicting_count: Number of pairs whose images have different classes.
        contradicting: The closest of those.
        loosened: Images in chains too long to be kept together, see
            `training.duplicates.find_duplicates`.
    """

    copies: int
    near: int
    across_count: int
    across: tuple[DuplicatePair, ...]
    contradicting_count: int
    contradicting: tuple[DuplicatePair, ...]
    loosened: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What the doctor found.

    Attributes:
        name: Name of the data set.
        own_test: Whether it has a test set of its own.
        classes: One entry per class.
        promise: What all calibration images together can promise.
        calibration_share: Share of the images that calibration part B gets.
        sizes: Image sizes.
        groups: Groups, or None where there are none.
        duplicates: Copies and near-duplicates.
        excluded: Training images without a role, because the test set holds them or their group.
        unreadable: Files that could not be read.
        ignored: Number of files in class folders that are not of an accepted image type.
        split_problem: Why no split can be made, or None.
    """

    name: str
    own_test: bool
    classes: tuple[ClassDiagnosis, ...]
    promise: Promise
    calibration_share: float
    sizes: SizeDiagnosis
    groups: GroupDiagnosis | None
    duplicates: DuplicateDiagnosis
    excluded: int
    unreadable: tuple[Skipped, ...]
    ignored: int
    split_problem: str | None


def diagnose(source: DataSource, config: SplitConfig, *, alpha: float = ALPHA) -> Diagnosis:
    """Examine a data set and the split that `config` makes of it.

    Args:
        source: The data, opened with ``skip_unreadable`` so that bad files can be listed.
        config: The split of the run that is planned.
        alpha: Significance that every class is wished to be testable at, in (0, 1).

    Raises:
        ConfigError: `alpha` is not in (0, 1).
    """
    items = list(source.train.items)
    thumbnails, sizes = source.train.thumbnails, source.train.sizes
    if source.test is not None:
        items += source.test.items
        thumbnails = np.concatenate([thumbnails, source.test.thumbnails])
        sizes = np.concatenate([sizes, source.test.sizes])
    manifest, problem = _split(source, config)
    counts = _counts(source, manifest)
    part_b = list(Role).index(Role.CALIBRATION_B)
    duplicates = find_duplicates([item.id for item in items], thumbnails)
    totals = np.bincount([item.label for item in items], minlength=len(source.train.class_names))
    return Diagnosis(
        name=source.name,
        own_test=source.test is not None,
        classes=tuple(
            ClassDiagnosis(
                name=name,
                counts=tuple(int(count) for count in counts[:, label]),
                total=int(totals[label]),
                promise=promise(int(counts[part_b, label]), alpha),
            )
            for label, name in enumerate(source.train.class_names)
        ),
        promise=promise(int(counts[part_b].sum()), alpha),
        calibration_share=config.calibration_b,
        sizes=_sizes(sizes),
        groups=_groups(source),
        duplicates=_duplicates(items, duplicates, manifest),
        excluded=0 if manifest is None else len(manifest.excluded),
        unreadable=source.skipped,
        ignored=source.ignored,
        split_problem=problem,
    )


def promise(count: int, alpha: float) -> Promise:
    """What `count` calibration images can promise, and how many more `alpha` needs.

    Example:
        >>> promise(11, 0.05).more
        8
    """
    kind = TestKind.HIGH_IS_UNUSUAL
    return Promise(
        count=count,
        smallest_alpha=smallest_p(count, kind) if count else None,
        alpha=alpha,
        more=max(0, needed_calibration_count(alpha, kind) - count),
    )


def rounded_up(alpha: float) -> str:
    """A significance with two digits, rounded up so that it can still be tested.

    Example:
        >>> rounded_up(1 / 12)
        '0.084'
    """
    if alpha >= 1:
        return "1"
    digits = 1 - math.floor(math.log10(alpha))
    # 1/10 is stored as a little more than a tenth; it is not to become 0.11.
    return f"{math.ceil(alpha * 10**digits - 1e-9) / 10**digits:.{digits}f}"


def _split(source: DataSource, config: SplitConfig) -> tuple[SplitManifest | None, str | None]:
    try:
        return make_splits(source, config), None
    except DataError as error:
        return None, str(error)


def _counts(source: DataSource, manifest: SplitManifest | None) -> np.ndarray:
    counts = np.zeros((len(Role), len(source.train.class_names)), np.int64)
    if manifest is None:
        return counts
    number = {role: index for index, role in enumerate(Role)}
    for item in source.train.items:
        role = manifest.role_of(item.id)
        # A training image that the test set holds too has the role TEST there, not here.
        if role is not None and not (role is Role.TEST and source.test is not None):
            counts[number[role], item.label] += 1
    for item in source.test.items if source.test is not None else ():
        counts[number[Role.TEST], item.label] += 1
    return counts


def _sizes(sizes: np.ndarray) -> SizeDiagnosis:
    distinct, counts = np.unique(sizes, axis=0, return_counts=True)
    height, width = distinct[np.argmax(counts)]
    return SizeDiagnosis(
        distinct=len(distinct),
        commonest=(int(width), int(height)),
        commonest_count=int(counts.max()),
        smallest_side=int(sizes.min()),
        median_side=float(np.median(sizes.min(axis=1))),
        largest_side=int(sizes.max()),
    )


def _groups(source: DataSource) -> GroupDiagnosis | None:
    train = Counter(item.group for item in source.train.items if item.group)
    test = Counter(item.group for item in source.test.items) if source.test else Counter()
    if not train:
        return None
    largest, count = (train + test).most_common(1)[0]
    return GroupDiagnosis(
        count=len(set(train) | set(test)),
        largest=largest,
        largest_count=count,
        across_test=len(set(train) & set(test)),
    )


def _duplicates(
    items: list[Item], found: Duplicates, manifest: SplitManifest | None
) -> DuplicateDiagnosis:
    across: list[DuplicatePair] = []
    contradicting: list[DuplicatePair] = []
    closest_first = np.argsort(found.distance, kind="stable")
    for index in closest_first:
        first, second = (items[position] for position in found.pairs[index])
        pair = DuplicatePair(
            first=first.name, second=second.name, distance=float(found.distance[index])
        )
        if first.label != second.label:
            contradicting.append(pair)
        if manifest is not None:
            roles = manifest.role_of(first.id), manifest.role_of(second.id)
            if None not in roles and roles[0] is not roles[1]:
                across.append(pair)
    return DuplicateDiagnosis(
        copies=len(items) - len({item.id for item in items}),
        near=int((found.distance > 0).sum()),
        across_count=len(across),
        across=tuple(across[:EXAMPLES]),
        contradicting_count=len(contradicting),
        contradicting=tuple(contradicting[:EXAMPLES]),
        loosened=found.loosened,
    )
