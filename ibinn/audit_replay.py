"""Computes an answer on record again: the same bundle and policy, the same image.

torch is imported only when a bundle is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ibinn import manifest
from ibinn.audit_compare import Comparison, compare
from ibinn.errors import BundleError, ConfigError, DataError, PolicyError
from ibinn.policy.file import read as read_policy
from ibinn.types import Prediction, Versions

if TYPE_CHECKING:
    from ibinn.deciding import DecidingClassifier
    from ibinn.inference import Engine
    from ibinn.trusted import TrustedClassifier

_DIGITS = 12

_WAYS: tuple[tuple[Engine, int], ...] = (("plain", 1), ("auto", 1), ("auto", 8))
"""What computes again, and how many images at once: the network as it was trained, then the form
that servers take, which has a way of its own for `ibinn.inference.batches.BATCH` images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What computing an answer again gave.

    Attributes:
        record_id: The answer's.
        bundle: The bundle that it was computed with.
        policy: The policy's file; empty without one.
        engine: What computed it now; see `ibinn.inference`.
        recorded: The answer on record.
        replayed: The one computed now.
        comparison: What differs.
    """

    record_id: str
    bundle: str
    policy: str
    engine: str
    recorded: Prediction
    replayed: Prediction
    comparison: Comparison

    @property
    def same(self) -> bool:
        """Whether the answer is the one on record, within the stated tolerances."""
        return not self.comparison.differences


class Replayer:
    """Computes answers again; keeps the last classifiers, which the next record may need too.

    Args:
        bundle: The bundle; None: the one of `bundles`, or the embedded one, with the record's
            digests.
        bundles: Folder of bundles; also its subfolders' are looked at.
        policy: File of the policy; None: ``NAME.policy.json`` beside a bundle with the record's
            digest, where the answer was made under one.
    """

    def __init__(self, *, bundle: Path | None, bundles: Path | None, policy: Path | None) -> None:
        if bundle is not None and bundles is not None:
            raise ConfigError(
                "got --bundle and --bundles; give the bundle, or where to look for it"
            )
        if bundles is not None and not bundles.is_dir():
            raise ConfigError(f"--bundles is {str(bundles)!r}, which is not a folder")
        self._bundle = bundle
        self._bundles = bundles
        self._policy = policy
        self._loaded_for: object = None
        self._loaded: dict[Engine, TrustedClassifier | DecidingClassifier] = {}

    def replay(self, record_id: str, recorded: Prediction, image: bytes) -> Replay:
        """Computes an answer again, with the network as it was trained.

        Where that is another answer, the form that servers compute with is asked too, for one
        image and for a whole batch: of a score at a threshold, or between two calibration scores,
        the last digits decide, and these may differ in them.

        Raises:
            DataError: The image is not the one that was answered.
            ConfigError: There is no bundle or policy with the digests on record.
            BundleError, PolicyError, ImageError: They cannot be used.
        """
        check_image(recorded, image)
        path = self._bundle_for(recorded.versions)
        policy = self._policy_for(recorded, path)
        found: list[Replay] = []
        for engine, batch in _WAYS:
            classifier = self._classifier(engine, recorded, path, policy, image)
            replayed = classifier.assess([classifier.prepare(image)] * batch)[0]
            made = Replay(
                record_id=record_id,
                bundle=str(path),
                policy="" if policy is None else str(policy),
                engine=classifier.computed_by.split()[0],
                recorded=recorded,
                replayed=replayed,
                comparison=compare(recorded, replayed),
            )
            if made.same:
                return made
            found.append(made)
        return found[0]

    def _bundle_for(self, wanted: Versions) -> Path:
        if self._bundle is not None:
            found = manifest.read(self._bundle)
            if not _is_of(found, wanted):
                raise ConfigError(
                    f"{self._bundle} holds weights {found.weights_digest[:_DIGITS]} with "
                    f"calibration {found.calibration_digest[:_DIGITS] or 'none'}; the record is of "
                    f"{_in_words(wanted)}: give that bundle, or --bundles with a folder that has it"
                )
            return self._bundle
        places = [manifest.embedded_path()] if self._bundles is None else _bundles_in(self._bundles)
        for path in places:
            try:
                found = manifest.read(path)
            except BundleError:  # not the one that is looked for
                continue
            if _is_of(found, wanted):
                return path
        where = "the embedded bundle is not it" if self._bundles is None else (
            f"none of the {len(places)} bundles in {self._bundles} is it"
        )  # fmt: skip
        raise ConfigError(
            f"the record is of {_in_words(wanted)}; {where}: give --bundle DIR, or --bundles with "
            "a folder that has it"
        )

    def _policy_for(self, recorded: Prediction, bundle: Path) -> Path | None:
        """The file of the policy that the answer was made under; None: it was made under none."""
        wanted = recorded.versions.policy
        found = manifest.read(bundle)
        alpha = found.alpha if recorded.combined is None else recorded.combined.alpha
        if wanted == manifest.policy_digest(alpha=alpha, coverage=found.conformal_coverage):
            return None
        if self._policy is not None:
            if (policy := read_policy(self._policy)).digest != wanted:
                raise ConfigError(
                    f"policy {self._policy} has the digest {policy.digest[:_DIGITS]}; the record "
                    f"is of {wanted[:_DIGITS]}: give that one"
                )
            return self._policy
        for path in sorted(bundle.parent.glob("*.policy.json")):
            try:
                if read_policy(path).digest == wanted:
                    return path
            except PolicyError:  # not the one that is looked for
                continue
        raise ConfigError(
            f"the answer was made under a policy with the digest {wanted[:_DIGITS]}, and no "
            f"*.policy.json in {bundle.parent} has it; give --policy FILE"
        )

    def _classifier(
        self,
        engine: Engine,
        recorded: Prediction,
        path: Path,
        policy: Path | None,
        image: bytes,
    ) -> TrustedClassifier | DecidingClassifier:
        from ibinn import bundle, deciding
        from ibinn.images import Limits

        usual = Limits()
        limits = Limits(  # the server took the image, whatever its limits were
            max_bytes=max(usual.max_bytes, len(image)),
            max_pixels=max(usual.max_pixels, recorded.input.width * recorded.input.height),
            max_side=max(usual.max_side, recorded.input.width, recorded.input.height),
        )
        alpha = None if recorded.combined is None else recorded.combined.alpha
        key = (path, policy, alpha, limits)
        if self._loaded_for != key:
            self._loaded_for, self._loaded = key, {}
        if engine not in self._loaded:
            self._loaded[engine] = (
                bundle.load(path, alpha=alpha, limits=limits, engine=engine)
                if policy is None
                else deciding.load(path, read_policy(policy), limits=limits, engine=engine)
            )
        return self._loaded[engine]


def check_image(recorded: Prediction, image: bytes) -> None:
    """Makes sure that an image is the one that was answered; decoded pixels are compared later.

    Raises:
        DataError: It is another.
    """
    wanted, found = recorded.input.sha256_bytes, hashlib.sha256(image).hexdigest()
    if wanted and wanted != found:
        raise DataError(
            f"the image has the sha256 {found}; the one that was answered had {wanted}: give the "
            "very file that was sent"
        )


def _bundles_in(folder: Path) -> list[Path]:
    return sorted(path.parent for path in _manifests(folder))


def _manifests(folder: Path) -> Iterator[Path]:
    for pattern in ("manifest.json", "*/manifest.json", "*/*/manifest.json"):
        yield from folder.glob(pattern)


def _is_of(found: manifest.Manifest, wanted: Versions) -> bool:
    return (found.weights_digest, found.calibration_digest) == (wanted.weights, wanted.calibration)


def _in_words(wanted: Versions) -> str:
    calibration = wanted.calibration[:_DIGITS] or "none"
    return f"weights {wanted.weights[:_DIGITS]} with calibration {calibration}"
