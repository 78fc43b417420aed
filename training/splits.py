"""Which image serves which purpose: a seeded, stratified split by content.

Every image has one role, and everything that belongs together (exact copies, near-duplicates,
images of one group) has the same one. The order in which images are dealt out is that of
sha256(seed, id), so it does not depend on file names or on the order of the files.

Shapes: N images, K classes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ibinn.errors import ConfigError, DataError
from training.duplicates import find_duplicates
from training.image_set import DataSource, ImageSet, Item

Indices = npt.NDArray[np.int64]

FORMAT_VERSION = 1


class Role(StrEnum):
    """What an image is used for."""

    TRAIN = "train"
    VALIDATION = "validation"
    """Watching the training run."""
    CALIBRATION_A = "calibration_a"
    """Temperature, centres of the typicality tests, density of states."""
    CALIBRATION_B = "calibration_b"
    """Reference ranks, conformal quantiles, reliability."""
    TEST = "test"
    """Reported on, nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitConfig:
    """Shares of the images; what is left is for training.

    Attributes:
        seed: Seed of the split.
        validation: Share for validation, in [0, 1).
        calibration_a: Share for calibration part A, in [0, 1).
        calibration_b: Share for calibration part B, in [0, 1).
        test: Share for the test, in [0, 1); used only if the data has no test set of its own.

    Raises:
        ConfigError: A share is not in [0, 1), or nothing is left for training.
    """

    seed: int = 0
    validation: float = 0.05
    calibration_a: float = 0.05
    calibration_b: float = 0.05
    test: float = 0.15

    def __post_init__(self) -> None:
        shares = (self.validation, self.calibration_a, self.calibration_b, self.test)
        if not all(0 <= share < 1 for share in shares):
            raise ConfigError(f"split shares are {shares}; expected numbers in [0, 1)")
        if sum(shares) >= 1:
            raise ConfigError(
                f"split shares {shares} add up to {sum(shares):g}; expected less than 1, because "
                f"the rest is for training"
            )

    def shares(self, *, own_test: bool) -> dict[Role, float]:
        """Share of every role but TRAIN; without TEST where the data has its own test set."""
        shares = {
            Role.VALIDATION: self.validation,
            Role.CALIBRATION_A: self.calibration_a,
            Role.CALIBRATION_B: self.calibration_b,
        }
        return shares if own_test else shares | {Role.TEST: self.test}


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitManifest:
    """The roles of all images of a data set.

    Attributes:
        source: Name of the data set.
        config: How it was split.
        roles: Content ids of each role, sorted; exact copies stand in it once per copy.
        excluded: Ids of training images that are not used, because the data's own test set
            holds the same image or another image of the same group.

    Raises:
        DataError: An id has two roles.
    """

    source: str
    config: SplitConfig
    roles: Mapping[Role, tuple[str, ...]]
    excluded: tuple[str, ...] = ()
    _role_of: Mapping[str, Role] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        complete = {role: tuple(sorted(self.roles.get(role, ()))) for role in Role}
        role_of: dict[str, Role] = {}
        for role, ids in complete.items():
            for key in ids:
                if role_of.setdefault(key, role) is not role:
                    raise DataError(
                        f"split manifest gives image {key} two roles ({role_of[key]} and "
                        f"{role}); expected one: make the split again"
                    )
        object.__setattr__(self, "roles", MappingProxyType(complete))
        object.__setattr__(self, "_role_of", MappingProxyType(role_of))

    def role_of(self, image_id: str) -> Role | None:
        """The role of an image, or None if it has none."""
        return self._role_of.get(image_id)

    @property
    def sha256(self) -> dict[Role, str]:
        """sha256 (hex) of each role's sorted ids, one per line."""
        return {
            role: hashlib.sha256("\n".join(ids).encode()).hexdigest()
            for role, ids in self.roles.items()
        }

    def to_json(self) -> str:
        """The manifest as JSON text."""
        return json.dumps(
            {
                "format_version": FORMAT_VERSION,
                "source": self.source,
                "config": asdict(self.config),
                "sha256": self.sha256,
                "roles": dict(self.roles),
                "excluded": self.excluded,
            },
            indent=1,
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read `to_json`'s text.

        Raises:
            DataError: Malformed, of another format version, or ids that do not fit the hash.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            if values["format_version"] != FORMAT_VERSION:
                raise DataError(
                    f"split manifest has format version {values['format_version']!r}, expected "
                    f"{FORMAT_VERSION}; make the split again with this version"
                )
            manifest = cls(
                source=values["source"],
                config=SplitConfig(**values["config"]),
                roles={Role(role): tuple(ids) for role, ids in values["roles"].items()},
                excluded=tuple(values["excluded"]),
            )
            stated = {Role(role): digest for role, digest in values["sha256"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"split manifest is malformed ({type(error).__name__}: {error}); make the split "
                f"again"
            ) from error
        for role, digest in manifest.sha256.items():
            if stated.get(role) != digest:
                raise DataError(
                    f"split manifest: the ids of role {role} have sha256 {digest}, stated is "
                    f"{stated.get(role)}; the file was changed, make the split again"
                )
        return manifest

    def save(self, path: Path) -> None:
        """Write `to_json`'s text to a file."""
        path.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that `save` wrote.

        Raises:
            DataError: No such file, or as `from_json`.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"split manifest {path} cannot be read: {error}") from error
        return cls.from_json(text)


def make_splits(source: DataSource, config: SplitConfig) -> SplitManifest:
    """Give every image of a data set its role.

    Where the data has its own test set, all of it is TEST and nothing else is; a training
    image that is also in the test set, or of a group that is, gets no role. (Training images
    that are only *near*-duplicates of test images stay, so that a published split keeps its
    counts; the doctor reports them.)

    Raises:
        DataError: A role that was asked for would get no image.
    """
    items = source.train.items
    excluded = np.zeros(len(items), bool)
    test_ids: tuple[str, ...] = ()
    if source.test is not None:
        test_ids = tuple(item.id for item in source.test.items)
        in_test = set(test_ids)
        test_groups = {item.group for item in source.test.items} - {""}
        excluded = np.array([item.id in in_test or item.group in test_groups for item in items])
        if excluded.all():
            raise DataError(
                f"every training image of {source.name} is also in its test set, or of a group "
                f"that is; separate the two folders, or choose another --group-by"
            )
    used = np.flatnonzero(~excluded)
    chosen = source.train.subset(used)
    clusters = keep_together(chosen.items, duplicates_of(chosen))
    roles = deal(
        [item.id for item in chosen.items],
        chosen.labels,
        clusters,
        config.shares(own_test=source.test is not None),
        seed=config.seed,
    )
    ids: dict[Role, tuple[str, ...]] = {
        role: tuple(chosen.items[index].id for index in np.flatnonzero(roles == number))
        for number, role in enumerate(Role)
    }
    if source.test is not None:
        ids[Role.TEST] = test_ids
    manifest = SplitManifest(
        source=source.name,
        config=config,
        roles=ids,
        excluded=tuple(items[index].id for index in np.flatnonzero(excluded)),
    )
    wanted = [Role.TRAIN, *(r for r, s in config.shares(own_test=False).items() if s > 0)]
    missing = [role for role in wanted if not manifest.roles[role]]
    if missing:
        raise DataError(
            f"{source.name}: {len(used)} images in {len(np.unique(clusters))} groups that stay "
            f"together leave none for {', '.join(missing)}; add images or groups, or set those "
            f"shares to 0 or larger ones"
        )
    return manifest


def role_set(source: DataSource, manifest: SplitManifest, role: Role) -> ImageSet:
    """The images of one role, in the order of the data set.

    Images that the manifest does not know (added since the split) are left out.

    Raises:
        DataError: The data no longer holds images of this role.
    """
    from_test = role is Role.TEST and source.test is not None
    images = source.test if from_test and source.test is not None else source.train
    indices = [i for i, item in enumerate(images.items) if manifest.role_of(item.id) is role]
    missing = Counter(manifest.roles[role]) - Counter(images.items[i].id for i in indices)
    if missing:
        raise DataError(
            f"{source.name}: {missing.total()} of {len(manifest.roles[role])} images of role "
            f"{role} are not in the data any more (the first has id {min(missing)}); use the "
            f"data that the split was made of, or make a new split in a new run folder"
        )
    return images.subset(indices)


def duplicates_of(images: ImageSet) -> Indices:
    """Cluster numbers of exact copies and near-duplicates, int64 (N,)."""
    return find_duplicates([item.id for item in images.items], images.thumbnails).cluster


def keep_together(items: Sequence[Item], clusters: Indices) -> Indices:
    """Join clusters that share a group: int64 (N,), equal for images that stay together."""
    first: dict[str, int] = {}
    edges = [
        (first.setdefault(item.group, index), index)
        for index, item in enumerate(items)
        if item.group
    ]
    # Cluster numbers are nodes beside the images: N + cluster.
    nodes = len(items) + int(clusters.max(initial=0)) + 1
    grouped = np.asarray(edges, np.int64).reshape(-1, 2)
    rows = np.concatenate([grouped[:, 0], np.arange(len(items))])
    columns = np.concatenate([grouped[:, 1], len(items) + clusters])
    graph = coo_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=(nodes, nodes))
    joined = connected_components(graph, directed=False)[1][: len(items)]
    return np.unique(joined, return_inverse=True)[1].astype(np.int64)


def quotas(
    labels: Indices, shares: Mapping[Role, float], *, class_count: int
) -> npt.NDArray[np.int64]:
    """How many images of each class each role should get: int64 (roles, K), rows as in `Role`.

    A role's total is round(share * N); its classes get share * N_y rounded down or up (largest
    remainders), and every class keeps at least one image for training.
    """
    sizes = np.bincount(labels, minlength=class_count)
    table = np.zeros((len(Role), class_count), np.int64)
    free = np.maximum(sizes - 1, 0)
    for number, role in enumerate(Role):
        share = shares.get(role, 0.0)
        exact = share * sizes
        given = np.minimum(np.floor(exact + 1e-9).astype(np.int64), free)
        missing = round(share * len(labels)) - int(given.sum())
        remainders = np.where(free > given, exact - given, -1.0)
        for label in np.argsort(-remainders, kind="stable")[: max(missing, 0)]:
            given[label] += int(remainders[label] > 0)
        table[number] = given
        free = free - given
    table[list(Role).index(Role.TRAIN)] = sizes - table.sum(axis=0)
    return table


def deal(
    ids: Sequence[str],
    labels: Indices,
    clusters: Indices,
    shares: Mapping[Role, float],
    *,
    seed: int,
) -> Indices:
    """Deal images out to roles: int64 (N,), positions in `Role`.

    First the clusters that are large beside a role's quota (over a tenth of it), the largest
    first, each to the role that lacks the largest share of its quota; then the small ones, each
    to a role drawn with the roles' shares if it fits there; then single images fill every quota
    exactly. Large groups can overshoot a quota, but every role gets its turn before any gets a
    second group.

    Args:
        ids: N content ids.
        labels: (N,).
        clusters: (N,), equal for images that stay together.
        shares: Share of every role but TRAIN.
        seed: Seed of the order.
    """
    class_count = int(labels.max(initial=0)) + 1
    target = quotas(labels, shares, class_count=class_count)
    left = target.copy()
    totals = target.sum(axis=1)
    order = np.argsort(np.array([_rank(seed, key) for key in ids], np.uint64), kind="stable")
    roles = np.full(len(ids), -1, np.int64)

    def give(members: Indices, role: int) -> None:
        roles[members] = role
        np.subtract.at(left[role], labels[members], 1)

    sizes = np.bincount(clusters)
    members: dict[int, list[int]] = {}
    for index in order[sizes[clusters[order]] > 1]:
        members.setdefault(int(clusters[index]), []).append(int(index))
    groups = [np.asarray(indices, np.int64) for indices in members.values()]
    threshold = totals[totals > 0].min() / 10 if len(ids) else 0.0
    large = sorted((g for g in groups if len(g) > threshold), key=len, reverse=True)
    for group in large:
        give(group, _neediest(left, target, labels[group]))
    cumulative = np.cumsum(totals / max(totals.sum(), 1))
    for group in (g for g in groups if len(g) <= threshold):
        needed = np.bincount(labels[group], minlength=class_count)
        draw = _rank(seed, "draw " + ids[group[0]]) / 2.0**64
        role = min(int(np.searchsorted(cumulative, draw, side="right")), len(totals) - 1)
        fits = bool((left[role] >= needed).all())
        give(group, role if fits else _neediest(left, target, labels[group]))

    train = list(Role).index(Role.TRAIN)
    for label in range(class_count):
        single = order[(roles[order] < 0) & (labels[order] == label)]
        for role in range(len(totals)):
            if role != train:
                taken, single = np.split(single, [max(int(left[role, label]), 0)])
                give(taken, role)
        give(single, train)
    return roles


def _neediest(left: npt.NDArray[np.int64], target: Indices, labels: Indices) -> int:
    """The role that lacks the largest share of its quota in the classes of a cluster."""
    classes = np.unique(labels)
    wanted = target[:, classes].sum(axis=1)
    # A class may have no quota in a small role; the role's own total stands in for it.
    lacking = np.where(wanted > 0, left[:, classes].sum(axis=1), left.sum(axis=1))
    wanted = np.where(wanted > 0, wanted, target.sum(axis=1))
    need = np.where(wanted > 0, lacking / np.maximum(wanted, 1), -np.inf)
    return int(np.argmax(need))


def _rank(seed: int, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big")
