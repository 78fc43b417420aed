"""The folder of bundles that operators fill: names, completeness, and what is in one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from ibinn import manifest
from ibinn.errors import NotPossibleError, UnknownModelError
from ibinn.signing import policy_signature

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_UNFINISHED = ".tmp"
_POLICY = ".policy.json"


def find(models: Path | None, name: str) -> Path:
    """The bundle of that name.

    Args:
        models: The models folder.
        name: Of a folder in it, or of a link there to another folder in it.

    Raises:
        NotPossibleError: The server has no models folder.
        UnknownModelError: There is no such bundle; the message lists those there are.
    """
    if models is None:
        raise NotPossibleError(
            f"bundle {name!r} was asked for, and this server has no models folder; start it with "
            "--models FOLDER (IBINN_MODELS)"
        )
    if _NAME.fullmatch(name) and _is_inside(models, models / name):
        return models / name
    there = ", ".join(sorted(path.name for path in complete(models))) or "none"
    raise UnknownModelError(
        f"there is no bundle {name!r} in the models folder; there are: {there}; copy it there, or "
        "name one of these"
    )


def complete(models: Path) -> Iterator[Path]:
    """Every folder with a manifest, unless its name starts with a dot or ends with ``.tmp``.

    Bundles are written manifest last, so one with a manifest is meant to be whole.
    """
    try:
        entries = sorted(models.iterdir())
    except OSError:
        return
    for path in entries:
        if (
            _NAME.fullmatch(path.name)
            and not path.name.endswith(_UNFINISHED)
            and _is_inside(models, path)
            and (path / manifest.FILE).is_file()
        ):
            yield path


def policy_file(bundle: Path) -> Path:
    """Where a bundle's own policy lies, if it has one: ``NAME.policy.json`` beside the folder."""
    return bundle.with_name(bundle.name + _POLICY)


def signature(bundle: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Name, size, time and number of every file; as long as it stays, nothing was written."""
    found = []
    for path in _files(bundle):
        status = path.stat()
        found.append((path.name, status.st_size, status.st_mtime_ns, status.st_ino))
    return tuple(found)


def fingerprint(bundle: Path) -> str:
    """sha256 (hex) of every file's name and content, the policy beside the folder included.

    Raises:
        OSError: A file went away meanwhile, or cannot be read.
    """
    found = hashlib.sha256()
    for path in _files(bundle):
        found.update(f"{path.name}\0{manifest.file_sha256(path)}\n".encode())
    return found.hexdigest()


def _files(bundle: Path) -> list[Path]:
    files = sorted(path for path in bundle.iterdir() if path.is_file())
    policy = policy_file(bundle)
    beside = (policy, policy_signature(policy))
    return [*files, *(path for path in beside if path.is_file())]


def _is_inside(models: Path, path: Path) -> bool:
    return path.is_dir() and path.resolve().parent.is_relative_to(models.resolve())
