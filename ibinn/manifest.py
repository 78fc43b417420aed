"""The manifest of a bundle: what the model is, and the sha256 of itself and every other file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ibinn.errors import BundleFormatError, BundleIntegrityError, BundleNotFoundError

FORMAT_VERSION = 1
FILE = "manifest.json"
SIGNATURE = "manifest.sig"
"""Detached signature of the manifest (`ibinn.signing`); not among the files that it lists."""
_BESIDE = frozenset({"format_version", "sha256"})
"""Entries of the file that are not of the manifest: its format, and the digest of the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """What a test is worth, from the report.

    Attributes:
        test: Name of the test.
        auroc: (set name, AUROC) per out-of-distribution set.
        miss_rates: (set name, α, share not flagged).
    """

    test: str
    auroc: tuple[tuple[str, float], ...]
    miss_rates: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How a model came about.

    Attributes:
        command: The command that trained it.
        seconds: Training time.
        machine: Type of machine.
        config: The whole run configuration.
        split_sha256: Digest of each role's image ids.
        libraries: Versions of the libraries that trained it.
    """

    command: str
    seconds: float
    machine: str
    config: Mapping[str, Any]
    split_sha256: Mapping[str, str]
    libraries: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything about a bundle but its numbers.

    Attributes:
        name: Name of the model.
        architecture: As `ibinn.flow.architectures.to_dict` gives it.
        mixture: Fields of `ibinn.latent.MixtureConfig`.
        preprocessing: As `PreprocessingConfig.to_dict` gives it.
        classes: Class names in index order.
        taxonomy_version: Version of the class list.
        alpha: Default significance of the verdict.
        conformal_coverage: Target coverage of the conformal sets.
        intended_use: What the model is for.
        training_data: What it was trained on, and the terms of that.
        training: How it was trained.
        metrics: Headline figures from the report.
        detections: Detection figures from the report.
        files: sha256 (hex) of every other file, by name.
    """

    name: str
    architecture: Mapping[str, Any]
    mixture: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    classes: tuple[str, ...]
    taxonomy_version: str
    alpha: float
    conformal_coverage: float
    intended_use: str
    training_data: str
    training: Training
    metrics: Mapping[str, float] = field(default_factory=dict)
    detections: tuple[Detection, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def weights_digest(self) -> str:
        """sha256 (hex) of architecture, preprocessing, classes and the weights file."""
        return _digest(
            {
                "architecture": self.architecture,
                "mixture": self.mixture,
                "preprocessing": self.preprocessing,
                "classes": self.classes,
                "weights": self.files.get("weights.safetensors", ""),
            }
        )

    @property
    def calibration_digest(self) -> str:
        """sha256 (hex) of the reference scores; empty if not calibrated."""
        return self.files.get("reference.safetensors", "")


def policy_digest(*, alpha: float, coverage: float) -> str:
    """sha256 (hex) of the settings that answers are made under."""
    return _digest({"alpha": alpha, "conformal_coverage": coverage})


def write(manifest: Manifest, folder: Path) -> None:
    """Write ``manifest.json``, atomically; a signature of the one before is removed."""
    content = {"format_version": FORMAT_VERSION, **dataclasses.asdict(manifest)}
    content["sha256"] = _own_digest(content)
    temporary = folder / f".{FILE}.partial"
    temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / SIGNATURE).unlink(missing_ok=True)
    temporary.replace(folder / FILE)


def embedded_path() -> Path:
    """Path of the model that comes with the package.

    Raises:
        BundleNotFoundError: This installation has none.
    """
    path = Path(__file__).parent / "models" / "cifar10-small"
    read(path)
    return path


def read(folder: Path) -> Manifest:
    """Read ``manifest.json``; the other files are not looked at.

    Raises:
        BundleNotFoundError: There is no bundle at the path.
        BundleFormatError: Another format version, or a missing, unknown or malformed entry.
        BundleIntegrityError: The entries are not those that were written.
    """
    return parse(read_bytes(folder), folder)


def read_bytes(folder: Path) -> bytes:
    """The bytes of ``manifest.json``, for `parse` or to check a signature of.

    Raises:
        BundleNotFoundError: There is no bundle at the path.
    """
    path = folder / FILE
    if not path.is_file():
        raise BundleNotFoundError(
            f"no model bundle at {folder}: expected a folder with {FILE}; give the path of a "
            "bundle, such as RUN/bundle of a training run"
        )
    return path.read_bytes()


def parse(data: bytes, folder: Path) -> Manifest:
    """The manifest in the bytes of ``manifest.json``.

    Args:
        data: Its bytes.
        folder: The bundle's folder; names the file in errors.

    Raises:
        BundleFormatError, BundleIntegrityError: As in `read`.
    """
    path = folder / FILE
    try:
        content = json.loads(data.decode("utf-8"))
        version = content.get("format_version")
    except (ValueError, AttributeError, RecursionError) as error:
        raise BundleFormatError(
            f"{path}: not readable as a JSON object ({error}); the bundle is damaged, copy it again"
        ) from error
    if version != FORMAT_VERSION:
        raise BundleFormatError(
            f"{path}: format version is {version!r}, this software reads {FORMAT_VERSION}; use "
            "the version of ibinn that wrote the bundle, or export the bundle again"
        )
    stated = content.get("sha256")
    if stated is not None and stated != (found := _own_digest(content)):
        raise BundleIntegrityError(
            f"{path}: its entries have sha256 {found[:16]}…, it states {str(stated)[:16]}…; it was "
            "changed or damaged, copy the bundle again (α is set where a bundle is loaded)"
        )
    known = {entry.name for entry in dataclasses.fields(Manifest)} | _BESIDE
    if wrong := sorted(known.symmetric_difference(content)):
        raise BundleFormatError(
            f"{path}: entry {wrong[0]!r} is {'missing' if wrong[0] in known else 'unknown'}; "
            f"expected: {', '.join(sorted(known))}; copy the bundle again"
        )
    try:
        training = Training(**content.pop("training"))
        detections = tuple(
            Detection(
                test=row["test"],
                auroc=tuple((str(name), float(value)) for name, value in row["auroc"]),
                miss_rates=tuple((str(n), float(a), float(m)) for n, a, m in row["miss_rates"]),
            )
            for row in content.pop("detections")
        )
        classes = tuple(str(name) for name in content.pop("classes"))
        rest = {name: value for name, value in content.items() if name not in _BESIDE}
        if not all(isinstance(digest, str) for digest in rest["files"].values()):
            raise ValueError("files are not sha256 by name")
        return Manifest(training=training, detections=detections, classes=classes, **rest)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise BundleFormatError(
            f"{path}: malformed entry ({error}); the bundle is damaged, copy it again"
        ) from error


def verify(folder: Path) -> Manifest:
    """Read the manifest and check the sha256 of every file that it lists.

    Raises:
        BundleNotFoundError: There is no bundle at the path.
        BundleFormatError: The manifest cannot be used.
        BundleIntegrityError: A file is missing or is not the one that was written; it is named.
    """
    manifest = read(folder)
    verify_files(manifest, folder)
    return manifest


def verify_files(manifest: Manifest, folder: Path) -> None:
    """Check the sha256 of every file that a manifest lists.

    Raises:
        BundleIntegrityError: A file is missing or is not the one that was written; it is named.
    """
    read_files(manifest, folder, ())


def read_files(manifest: Manifest, folder: Path, names: Collection[str]) -> dict[str, bytearray]:
    """Check the sha256 of every file that a manifest lists, and give the content of some.

    What is checked are the very bytes that are given, each file being read once: one that is
    replaced meanwhile cannot slip in.

    Args:
        manifest: Of the bundle.
        folder: The bundle's folder.
        names: Files whose content is wanted; those that the manifest does not list are left out.

    Raises:
        BundleIntegrityError: A file is missing or is not the one that was written; it is named.
    """
    contents = {}
    for name, expected in manifest.files.items():
        path = _listed(folder, name)
        if name in names:
            contents[name] = _content(path)
            found = hashlib.sha256(contents[name]).hexdigest()
        else:
            found = file_sha256(path)
        if found != expected:
            raise _changed(path, found=found, stated=expected)
    return contents


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listed(folder: Path, name: str) -> Path:
    path = folder / name
    if path.name != name or not path.is_file():
        raise BundleIntegrityError(
            f"{path} is listed in {FILE} and is missing; copy the bundle again"
        )
    return path


def _content(path: Path) -> bytearray:
    """All bytes of a file, held once."""
    with path.open("rb", buffering=0) as file:
        content = bytearray(path.stat().st_size)
        view, filled = memoryview(content), 0
        while filled < len(content) and (count := file.readinto(view[filled:])):
            filled += count
        view.release()
    return content


def _changed(path: Path, *, found: str, stated: str) -> BundleIntegrityError:
    return BundleIntegrityError(
        f"{path} has sha256 {found[:16]}…, {FILE} states {stated[:16]}…; the file was changed or "
        "damaged, copy the bundle again"
    )


def _own_digest(content: Mapping[str, Any]) -> str:
    return _digest({name: value for name, value in content.items() if name != "sha256"})


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
