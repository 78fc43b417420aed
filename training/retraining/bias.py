"""How the labelled images were selected, and what that does to figures that are made of them.

Labels come for images that somebody chose. Where the chance p of each is known, weighting by 1/p
undoes the choice; where it is not, nothing does. Training is not weighted: a classifier's posterior
suffers little from more images of a hard kind. Calibration and test are protected by giving them
only images whose chance is known (`training.retraining.assigning`), and this table says how far
even those are from a plain sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.retraining.candidates import Candidate
from training.retraining.labels import Labelled


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassShare:
    """One class among the labelled images.

    Attributes:
        name: The class.
        plain: Its share of the images.
        weighted: Its share by 1/p, over images whose p is known; None where none is.
    """

    name: str
    plain: float
    weighted: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionBias:
    """How the labelled images were selected.

    Attributes:
        images: Number of them.
        known: Of those, how many have a known sampling probability.
        effective: (Σ w)² / Σ w² over the known ones: the plain sample that they are worth.
        selections: Images by why they were selected; empty text: not said.
        verdicts: Share of each verdict among labelled images with a file.
        verdicts_without_image: The same among those without: what the keeping of images does.
        classes: Shares with and without weights.
    """

    images: int
    known: int
    effective: float
    selections: Mapping[str, int]
    verdicts: Mapping[str, float]
    verdicts_without_image: Mapping[str, float]
    classes: tuple[ClassShare, ...]


def selection_bias(labelled: Sequence[Labelled], candidates: Sequence[Candidate]) -> SelectionBias:
    """The table.

    Args:
        labelled: Images with a settled class.
        candidates: All of the export, those without a file too.
    """
    weights = [image.weight for image in labelled]
    known = [weight for weight in weights if weight is not None]
    squares = sum(weight * weight for weight in known)
    plain = Counter(image.class_name for image in labelled)
    weighted: Counter[str] = Counter()
    for image in labelled:
        if image.weight is not None:
            weighted[image.class_name] += image.weight  # type: ignore[assignment]
    total = sum(known)
    return SelectionBias(
        images=len(labelled),
        known=len(known),
        effective=total * total / squares if squares else 0.0,
        selections=dict(sorted(Counter(image.selection for image in labelled).items())),
        verdicts=_verdicts([c for c in candidates if c.path is not None]),
        verdicts_without_image=_verdicts([c for c in candidates if c.path is None]),
        classes=tuple(
            ClassShare(
                name=name,
                plain=count / len(labelled),
                weighted=weighted[name] / total if total else None,
            )
            for name, count in sorted(plain.items())
        ),
    )


def _verdicts(candidates: Sequence[Candidate]) -> dict[str, float]:
    counts = Counter(candidate.verdict.value for candidate in candidates)
    return {name: count / len(candidates) for name, count in sorted(counts.items())}
