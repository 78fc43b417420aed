"""A bundle from a released checkpoint, calibrated if there are images to calibrate on.

Without such images the bundle is not calibrated: every verdict is NOT_ASSESSED. Nothing about
what is usual is guessed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ibinn import bundle, manifest
from ibinn.errors import BundleFormatError, ConfigError, DataError
from ibinn.flow.architectures import to_dict as architecture_to_dict
from ibinn.images import Preprocessing, PreprocessingConfig
from ibinn.manifest import Manifest, Training
from ibinn.ood.p_values import check_alpha
from ibinn.reference import Reference
from ibinn.types import TestKind
from training import imagenet_names
from training.calibrate import COVERAGES, calibrate
from training.class_folders import halves, read_class_folders
from training.config import FitConfig, to_dict
from training.finish import library_versions
from training.image_set import ImageSet
from training.released_file import read_tensors
from training.released_model import ReleasedSizes, model_of
from training.splits import Role

RECIPE = "imported"
"""What stands for a recipe in the manifest of a bundle that was not trained here."""

REMAINDER = "released.json"
"""File of the bundle with what an export needs besides the weights."""

CALIBRATION = "calibration_images.json"
"""File of the bundle with the content ids of the images that it was calibrated on."""

CALIBRATION_IMAGES = 5_000

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What the released weights were trained with, of values k/255."""

RESIZED, CROPPED = 256, 224

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """What is to be imported.

    Attributes:
        file: The checkpoint.
        out: Folder of the bundle.
        name: Name of the model; None: the file's name.
        class_names: File with a class name a line; None: ImageNet's.
        calibrate: Folder of class folders with images to calibrate on; None: not calibrated.
        images: Most images of it that are used, half for each part.
        skip_unreadable: Go on without images that cannot be read.
        alpha: Significance of the verdict.
        seed: Which images are used, and for which part.
        command: For the manifest.
    """

    file: Path
    out: Path
    name: str | None = None
    class_names: Path | None = None
    calibrate: Path | None = None
    images: int = CALIBRATION_IMAGES
    skip_unreadable: bool = False
    alpha: float = 0.01
    seed: int = 0
    command: str = ""


def import_checkpoint(request: ImportRequest, *, device: torch.device, say: Say) -> Manifest:
    """Write a bundle of a released checkpoint.

    Args:
        request: What, and where to.
        device: Where calibration computes.
        say: Told what is being done.

    Returns:
        The manifest that was written.

    Raises:
        CheckpointError: The file is not a released checkpoint that can be used.
        ConfigError: The class names do not fit, or `out` holds something else.
        DataError: The calibration images cannot be used, or are too few for α.
    """
    _check_free(request.out)
    released = model_of(read_tensors(request.file))
    model = released.model
    classes = _classes(request.class_names, released.sizes.classes)
    config = _run_config(request, released.sizes)
    parts = _parts(request, classes, say)
    reference: Reference | None = None
    if parts is not None:
        say(f"calibrating on {len(parts[0])} + {len(parts[1])} images")
        reference = calibrate(
            model.to(device),
            Preprocessing(config.preprocessing),
            *parts,
            coverages=tuple(sorted({*COVERAGES, config.conformal_coverage})),
            seed=request.seed,
        )
        model.cpu()
    found = Manifest(
        name=request.name or request.file.name.split(".")[0],
        architecture=architecture_to_dict(config.architecture),
        mixture=dataclasses.asdict(model.mixture.config),
        preprocessing=config.preprocessing.to_dict(),
        classes=classes,
        taxonomy_version="1",
        alpha=config.alpha,
        conformal_coverage=config.conformal_coverage,
        intended_use=config.intended_use,
        training_data=config.training_data,
        training=Training(
            command=request.command,
            seconds=0.0,
            machine="not known: imported",
            config=to_dict(config),
            split_sha256={} if parts is None else _digests(parts),
            libraries=library_versions(),
        ),
    )
    extra = {REMAINDER: released.remainder.to_json()}
    if parts is not None:
        extra[CALIBRATION] = json.dumps(
            {
                role.value: [item.id for item in part.items]
                for role, part in zip(_ROLES, parts, strict=True)
            }
        )
    return bundle.save(found, model, reference, request.out, extra=extra)


def is_imported(found: Manifest) -> bool:
    """Whether a bundle was imported and not trained here."""
    return found.training.config.get("recipe") == RECIPE


def imported_roles(
    folder: Path, found: Manifest, data: str, *, skip_unreadable: bool = False
) -> dict[Role, ImageSet]:
    """Images that an imported bundle may be judged on: those it was not calibrated on.

    Args:
        folder: The bundle.
        found: Its manifest.
        data: Folder of class folders, such as ImageNet's validation images.
        skip_unreadable: Go on without images that cannot be read.

    Returns:
        The test images, and the calibration images where all of them are in the folder.

    Raises:
        DataError: No image is left.
    """
    images, _ = read_class_folders(Path(data), found.classes, skip_unreadable=skip_unreadable)
    ids = [item.id for item in images.items]
    used = _calibration_ids(folder, found)
    known = {key for keys in used.values() for key in keys}
    test = [index for index, key in enumerate(ids) if key not in known]
    if not test:
        raise DataError(
            f"all {len(images)} images in {data} served the bundle's calibration; a report on them "
            "would flatter it; add others"
        )
    roles = {Role.TEST: images.subset(test)}
    places = {key: index for index, key in enumerate(ids)}
    for role, keys in used.items():
        if all(key in places for key in keys):
            roles[role] = images.subset([places[key] for key in keys])
    return roles


_ROLES = (Role.CALIBRATION_A, Role.CALIBRATION_B)


def _calibration_ids(folder: Path, found: Manifest) -> Mapping[Role, Sequence[str]]:
    stored = manifest.read_files(found, folder, (CALIBRATION,)).get(CALIBRATION)
    if stored is None:
        return {}
    try:
        content = json.loads(stored)
        return {role: [str(key) for key in content[role.value]] for role in _ROLES}
    except (ValueError, KeyError, TypeError) as error:
        raise BundleFormatError(
            f"{folder / CALIBRATION}: not readable ({error}); import the checkpoint again"
        ) from error


def _check_free(out: Path) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if out.is_dir() and (out / manifest.FILE).is_file() and is_imported(manifest.read(out)):
        return
    raise ConfigError(
        f"{out} exists and is not an imported bundle, which could be written again; choose "
        "another folder with --out"
    )


def _classes(path: Path | None, count: int) -> tuple[str, ...]:
    if path is None:
        if count != imagenet_names.COUNT:
            raise ConfigError(
                f"the checkpoint has {count} classes; names are known for the "
                f"{imagenet_names.COUNT} of ImageNet; give --class-names FILE with one name a line"
            )
        return imagenet_names.class_names()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"class names {path} cannot be read: {error}") from error
    names = tuple(line.strip() for line in lines)
    while names and not names[-1]:
        names = names[:-1]
    if len(names) != count:
        raise ConfigError(
            f"class names {path}: {len(names)} lines; the checkpoint has {count} classes; give one "
            "name a line, in the order of the classes"
        )
    twice = sorted({name for name in names if names.count(name) > 1 or not name})
    if twice:
        raise ConfigError(
            f"class names {path}: {twice[0]!r} stands there {names.count(twice[0])} times; "
            "expected a different name for every class, none of them empty"
        )
    return names


def _run_config(request: ImportRequest, sizes: ReleasedSizes) -> FitConfig:
    side = sizes.architecture.side
    digest = manifest.file_sha256(request.file)
    return FitConfig(
        recipe=RECIPE,
        architecture=sizes.architecture,
        mixture=sizes.mixture,
        preprocessing=PreprocessingConfig(
            side=side,
            mean=MEAN,
            std=STD,
            shorter_side=round(side * RESIZED / CROPPED),
            levels=255,
        ),
        alpha=request.alpha,
        seed=request.seed,
        training_data=(
            f"That of the imported checkpoint {request.file.name} (sha256 {digest}), which does "
            "not say what it was trained on; the released ones were on ImageNet (ILSVRC 2012)."
        ),
    )


def _parts(
    request: ImportRequest, classes: Sequence[str], say: Say
) -> tuple[ImageSet, ImageSet] | None:
    if request.calibrate is None:
        return None
    say(f"reading images to calibrate on: {request.calibrate}")
    images, skipped = read_class_folders(
        request.calibrate,
        classes,
        most=request.images,
        seed=request.seed,
        skip_unreadable=request.skip_unreadable,
    )
    if skipped:
        say(f"skipped {len(skipped)} files that cannot be read, such as {skipped[0].name}")
    parts = halves(images, seed=request.seed)
    # Before the images are computed with, which takes minutes.
    check_alpha(request.alpha, min(map(len, parts)), TestKind.HIGH_IS_UNUSUAL)
    return parts


def _digests(parts: tuple[ImageSet, ImageSet]) -> dict[str, str]:
    """sha256 (hex) of each part's sorted ids, as a split manifest has them."""
    return {
        role.value: hashlib.sha256(
            "\n".join(sorted(item.id for item in part.items)).encode()
        ).hexdigest()
        for role, part in zip(_ROLES, parts, strict=True)
    }
