"""Which bundles of the models folder are new and whole."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from service.models import folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A bundle that nobody has judged yet.

    Attributes:
        bundle: Its folder.
        fingerprint: Of its content.
    """

    bundle: Path
    fingerprint: str


class Watch:
    """Looks at the models folder again and again.

    A bundle is whole once no file of it changed from one look to the next; only then are its files
    read. So a bundle may be copied in place, though renaming it when it is whole is surer.

    Args:
        models: The folder.
    """

    def __init__(self, models: Path) -> None:
        self._models = models
        self._signatures: dict[str, tuple[tuple[str, int, int, int], ...]] = {}
        self._fingerprints: dict[str, str] = {}

    def look(self, judged: Collection[str]) -> tuple[Found, ...]:
        """The whole bundles whose fingerprint is not among the judged ones, by name.

        Args:
            judged: Fingerprints.
        """
        found, signatures, fingerprints = [], {}, {}
        for bundle in folder.complete(self._models):
            try:
                signature = folder.signature(bundle)
                signatures[bundle.name] = signature
                if self._signatures.get(bundle.name) != signature:
                    continue
                fingerprint = self._fingerprints.get(bundle.name) or folder.fingerprint(bundle)
            except OSError:  # it is being replaced; the next look sees what came of it
                continue
            fingerprints[bundle.name] = fingerprint
            if fingerprint not in judged:
                found.append(Found(bundle=bundle, fingerprint=fingerprint))
        self._signatures, self._fingerprints = signatures, fingerprints
        return tuple(found)
