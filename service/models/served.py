"""What the service needs of a model, and a model that is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from ibinn.types import Explanation, ModelInfo, Prediction

if TYPE_CHECKING:
    from ibinn.images import PreparedImage  # imports torch, which only the classifier needs


class Preparer(Protocol):
    """Decodes and preprocesses one image; can be pickled, so that another process can do it.

    Two preparers that do the same are equal.
    """

    def __call__(self, image: bytes) -> PreparedImage:
        """The image as the network sees it; called from several threads; raises ImageError."""

    def from_pixels(self, pixels: npt.NDArray[np.uint8]) -> PreparedImage:
        """The same for an image that is decoded already, uint8 (H, W, 3); raises ImageError."""


class Classifier(Protocol):
    """What the service needs of a model; `ibinn.trusted.TrustedClassifier` has it."""

    @property
    def info(self) -> ModelInfo:
        """What the model is."""

    @property
    def preparer(self) -> Preparer:
        """Decodes and preprocesses for this model."""

    def assess(self, prepared: Sequence[PreparedImage]) -> list[Prediction]:
        """One answer for each image, from one forward pass."""

    def explain_prepared(
        self, prepared: Sequence[PreparedImage], classes: Sequence[str] | None = None
    ) -> list[Explanation]:
        """One explanation of the same classes for each image, from one forward pass."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Served:
    """One loaded model; equal only to itself, so that no batch mixes two.

    Attributes:
        classifier: Computes.
        info: What it is.
        preparer: Makes its input.
        bundle: Name of the bundle's folder.
        fingerprint: Of the folder's content (`service.models.folder`) when it was loaded; empty for
            a bundle that is not from the models folder.
    """

    classifier: Classifier
    info: ModelInfo
    preparer: Preparer
    bundle: str
    fingerprint: str = ""

    @classmethod
    def of(cls, classifier: Classifier, *, bundle: str = "", fingerprint: str = "") -> Served:
        """A loaded classifier as the service holds it."""
        return cls(
            classifier=classifier,
            info=classifier.info,
            preparer=classifier.preparer,
            bundle=bundle,
            fingerprint=fingerprint,
        )

    @property
    def digest(self) -> str:
        """The weights digest, by which callers pin a model."""
        return self.info.versions.weights


class Background(Protocol):
    """Answers behind everything that callers ask; `service.predictor.Predictor` has it."""

    async def __call__(self, served: Served, image: bytes, *, patience_s: float) -> Prediction:
        """The answer of a model.

        Raises:
            ImageError: The image cannot be classified.
            QueueFullError: There is no room now.
            ExpiredError: There was no answer within `patience_s`.
        """
