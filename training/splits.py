"""Which image serves which purpose: a seeded, stratified split by content.

Every image has one role, and everything that belongs together (exact copies, near-duplicates,
images of one group) has the same one. How they are dealt out stands in `training.dealing`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from ibinn.errors import ConfigError, DataError
from training.dealing import deal, keep_together
from training.duplicates import find_duplicates
from training.image_set import DataSource, ImageSet

FORMAT_VERSION = 1


class Role(StrEnum):
    """What an image is used for; training comes first because it gets what the others leave."""

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
    chosen_ids = [item.id for item in chosen.items]
    clusters = keep_together(
        [item.group for item in chosen.items],
        find_duplicates(chosen_ids, chosen.thumbnails).cluster,
    )
    shares = config.shares(own_test=source.test is not None)
    roles = deal(
        chosen_ids,
        chosen.labels,
        clusters,
        [shares.get(role, 0.0) for role in Role],
        seed=config.seed,
    )
    ids: dict[Role, tuple[str, ...]] = {
        role: tuple(chosen_ids[index] for index in np.flatnonzero(roles == number))
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
    wanted = [Role.TRAIN, *(role for role, share in shares.items() if share > 0)]
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
