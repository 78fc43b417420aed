"""Whether a model can be watched. Apart from `watching`, whose imports take seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.models.served import Served

if TYPE_CHECKING:
    from ibinn.reference import Reference


def calibration_of(served: Served) -> Reference | None:
    """What calibration left in a model's bundle, also where a policy stands above the model."""
    classifier = getattr(served.classifier, "classifier", served.classifier)
    found: Reference | None = getattr(classifier, "reference", None)
    return found
