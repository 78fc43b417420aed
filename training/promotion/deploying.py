"""A bundle into the servers' models folder: whole or not at all.

A server sees a folder there once it is renamed: ``NAME.tmp`` it leaves alone.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from ibinn import manifest
from ibinn.errors import BundleIntegrityError, ConfigError, DataError
from ibinn.signing import policy_signature
from training.promotion.measuring import Model

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


def default_name(model: Model) -> str:
    """Name, weights and calibration, so that no two models have the same."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", model.name).lstrip(".-") or "model"
    return f"{plain}-{model.weights[:8]}-{model.calibration[:8]}"


def deploy(candidate: Path, model: Model, models: Path, *, name: str | None = None) -> Path:
    """Copy a bundle, with the policy beside it if there is one.

    Args:
        candidate: The bundle's folder.
        model: What was judged; the bundle must be this still.
        models: The folder that servers watch.
        name: Of the bundle there; None: `default_name`.

    Returns:
        Where it lies. Nothing is done where the same bundle is there already.

    Raises:
        BundleIntegrityError: The bundle is not the one that was judged.
        ConfigError: The name cannot be used, or another bundle has it.
        DataError: The folder is not there, or cannot be written.
    """
    name = name or default_name(model)
    if not _NAME.fullmatch(name) or name.endswith(".tmp"):
        raise ConfigError(
            f"--name is {name!r}; expected letters, digits, dots, dashes and underscores, not "
            "ending with .tmp"
        )
    if not models.is_dir():
        raise DataError(f"--deploy {models} is not a folder; give the servers' models folder")
    target, temporary = models / name, models / f"{name}.tmp"
    if target.exists():
        _require(target, model, f"--name {name} is taken by another bundle; choose another name")
        return target
    _require(candidate, model, "it was changed after it was judged: compare again")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        found = manifest.read(candidate)
        for file in (*found.files, manifest.SIGNATURE, manifest.FILE):
            if (candidate / file).is_file():
                _copy(candidate / file, temporary / file)
        # What counts is what was copied, whatever happened to the source meanwhile.
        _require(temporary, model, "it was changed while it was copied: compare again")
        policy = candidate.with_name(f"{candidate.name}.policy.json")
        for path in (policy, policy_signature(policy)):
            if path.is_file():
                _copy(path, models / path.name.replace(candidate.name, name, 1))
        temporary.rename(target)
        _flush(models)
    except OSError as error:
        raise DataError(
            f"--deploy {models} cannot be written ({error}); what was begun is in {temporary.name}"
        ) from error
    return target


def _require(folder: Path, model: Model, otherwise: str) -> None:
    manifest.verify(folder)
    if manifest.file_sha256(folder / manifest.FILE) != model.manifest_sha256:
        raise BundleIntegrityError(f"{folder} is not the bundle that was judged; {otherwise}")


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
