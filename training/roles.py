"""The images of each role of the run that trained a bundle, found again in its data."""

from __future__ import annotations

from ibinn.errors import DataError
from ibinn.manifest import Manifest
from training.config import from_dict
from training.data import DataSource, open_data
from training.fit import held_out_images
from training.image_set import ImageSet
from training.retraining.composed import recorded_split
from training.splits import Role, SplitManifest, make_splits, role_set


def roles_of(
    manifest: Manifest, data: str, *, skip_unreadable: bool = False, group_by: str | None = None
) -> dict[Role, ImageSet]:
    """The images of each role of the run that trained a bundle.

    The split is made again from the run's settings and checked against the manifest's digests.

    Raises:
        DataError: The data is not that of the run.
    """
    source, split = recorded(manifest, data, skip_unreadable=skip_unreadable, group_by=group_by)
    return {role: role_set(source, split, role) for role in Role}


def recorded(
    manifest: Manifest, data: str, *, skip_unreadable: bool = False, group_by: str | None = None
) -> tuple[DataSource, SplitManifest]:
    """The data of the run that trained a bundle, and its roles there.

    Raises:
        DataError: The data is not that of the run.
    """
    config = from_dict(dict(manifest.training.config))
    source = open_data(data, skip_unreadable=skip_unreadable, group_by=group_by)
    split = recorded_split(data) or make_splits(source, config.split)
    for role, digest in split.sha256.items():
        expected = manifest.training.split_sha256.get(role.value)
        if digest != expected:
            raise DataError(
                f"{data}: its split gives {role.value} images with sha256 {digest[:12]}, the "
                f"bundle was made with {(expected or 'none')[:12]}; give the data of the training "
                "run, with its --group-by"
            )
    return source, split


def known_roles(
    manifest: Manifest, data: str, *, skip_unreadable: bool = False, group_by: str | None = None
) -> dict[Role, ImageSet]:
    """`roles_of` where the data is that of the run, else its own test images alone.

    Raises:
        DataError: The data has no test images that a bundle may be judged on.
    """
    try:
        return roles_of(manifest, data, skip_unreadable=skip_unreadable, group_by=group_by)
    except DataError:
        test = held_out_images(manifest, data, skip_unreadable=skip_unreadable, group_by=group_by)
        return {Role.TEST: test}
