"""The acceptance set: what a model that is to become the default must answer well enough.

The operator's folder ``CLASS NAME/IMAGE``. Three figures of the new model are held against those of
the present one on the same images. An answer without a finite posterior counts as certain and
wrong, and one that is not assessed as flagged, so that a model that fails to answer never looks
better for it.

Shapes: N images, K classes.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from ibinn.errors import DataError, ExpiredError, ImageError, NotPossibleError, QueueFullError
from ibinn.reliability import top_label_ece
from ibinn.serving import AcceptanceFigure
from ibinn.types import Prediction, Verdict
from service.models.served import Background, Served
from service.settings import Settings

_PATIENCE_S = 60.0
"""For one image, behind everything that callers ask."""
_LONGEST_REST_S = 1.0
_ROUNDING = 1e-9
_REMEMBERED = 8
"""Number of models and sets whose figures are kept."""


class FigureName(StrEnum):
    """The figures, by the names that they have on the wire."""

    ACCURACY = "accuracy"
    TOP_LABEL_ECE = "top_label_ece"
    FALSE_POSITIVE_RATE = "false_positive_rate"


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptanceSet:
    """Images whose class is known.

    Attributes:
        images: Class name and file of each.
        digest: sha256 (hex) of the names and the contents.
    """

    images: tuple[tuple[str, Path], ...]
    digest: str

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that there are images of."""
        return tuple(dict.fromkeys(name for name, _ in self.images))


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one model makes of an acceptance set.

    Attributes:
        accuracy: Share of images whose most probable class is theirs.
        top_label_ece: Expected calibration error of the top class, 15 bins.
        false_positive_rate: Share of images that are flagged at the model's α.
        count: Number of images.
    """

    accuracy: float
    top_label_ece: float
    false_positive_rate: float
    count: int


def read(folder: Path) -> AcceptanceSet:
    """The set in a folder; reads every file once.

    Raises:
        DataError: The folder cannot be read or holds no images.
    """
    digest, images = hashlib.sha256(), []
    try:
        for class_folder in sorted(path for path in folder.iterdir() if path.is_dir()):
            for path in _shown(class_folder):
                digest.update(f"{class_folder.name}/{path.name}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
                images.append((class_folder.name, path))
    except OSError as error:
        raise DataError(
            f"acceptance folder {folder} cannot be read ({error}); give --acceptance "
            "(IBINN_ACCEPTANCE) a folder of class folders of images that the server may read"
        ) from error
    if not images:
        raise DataError(
            f"acceptance folder {folder} holds no images; expected {folder.name}/CLASS NAME/IMAGE"
        )
    return AcceptanceSet(images=tuple(images), digest=digest.hexdigest())


class Acceptance:
    """Asks models about the acceptance set.

    Args:
        settings: The folder and the margins.
        background: Answers.
    """

    def __init__(self, settings: Settings, background: Background) -> None:
        self._settings = settings
        self._background = background
        self._known: dict[tuple[str, ...], Figures] = {}

    async def compare(
        self, candidate: Served, present: Served | None
    ) -> tuple[AcceptanceFigure, ...]:
        """The candidate's figures with their limits; none where no acceptance set was given.

        Raises:
            DataError: The set cannot be used: empty, a file that is no image, a class that neither
                model knows.
            NotPossibleError: The server is too busy to answer the set.
        """
        if self._settings.acceptance is None:
            return ()
        chosen = await asyncio.to_thread(read, self._settings.acceptance)
        check_classes(chosen, [candidate] if present is None else [candidate, present])
        reference = None if present is None else await self._figures_of_present(chosen, present)
        found = await self._figures(chosen, candidate)
        return _against_limits(found, reference, candidate.info.alpha, self._settings)

    async def _figures_of_present(self, chosen: AcceptanceSet, present: Served) -> Figures:
        versions = present.info.versions
        key = (versions.weights, versions.calibration, versions.policy, chosen.digest)
        if key not in self._known:
            self._known[key] = await self._figures(chosen, present)
            for old in list(self._known)[:-_REMEMBERED]:
                del self._known[old]
        return self._known[key]

    async def _figures(self, chosen: AcceptanceSet, served: Served) -> Figures:
        waiting = iter(enumerate(chosen.images))
        answers: list[_Answer | None] = [None] * len(chosen.images)

        async def work(images: Iterator[tuple[int, tuple[str, Path]]]) -> None:
            for position, (class_name, path) in images:
                answers[position] = _answer(served, class_name, await self._ask(served, path))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._settings.max_batch_size, len(answers))):
                    group.create_task(work(waiting))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        return _figures([answer for answer in answers if answer is not None])

    async def _ask(self, served: Served, path: Path) -> Prediction:
        try:
            image = await asyncio.to_thread(path.read_bytes)
            async with asyncio.timeout(_PATIENCE_S):
                while True:
                    try:
                        return await self._background(served, image, patience_s=_PATIENCE_S)
                    except QueueFullError as error:
                        await asyncio.sleep(min(error.retry_after_s, _LONGEST_REST_S))
        except (ImageError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise _too_busy() from error
            raise DataError(
                f"acceptance image {path} cannot be classified: {error}; replace or remove it"
            ) from error
        except ExpiredError as error:
            raise _too_busy() from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What counts of one answer.

    Attributes:
        probabilities: Of the model's K classes, then of "a class that it does not know" and of "no
            answer" (K + 2).
        label: Index of the truth among these.
        flagged: Whether it is called unknown, or not assessed.
    """

    probabilities: tuple[float, ...]
    label: int
    flagged: bool


def _answer(served: Served, class_name: str, prediction: Prediction) -> _Answer:
    classes = served.info.classes
    known = [0.0] * len(classes)
    for score in prediction.classes:
        known[score.index] = score.probability
    answered = all(math.isfinite(value) for value in known)
    return _Answer(
        probabilities=(*known, 0.0, 0.0) if answered else (*[0.0] * len(classes), 0.0, 1.0),
        label=classes.index(class_name) if class_name in classes else len(classes),
        flagged=prediction.verdict in (Verdict.UNKNOWN, Verdict.NOT_ASSESSED),
    )


def _figures(answers: Sequence[_Answer]) -> Figures:
    probabilities = np.array([answer.probabilities for answer in answers])
    labels = np.array([answer.label for answer in answers])
    return Figures(
        accuracy=float(np.mean(probabilities.argmax(axis=1) == labels)),
        top_label_ece=top_label_ece(probabilities, labels),
        false_positive_rate=sum(answer.flagged for answer in answers) / len(answers),
        count=len(answers),
    )


def _against_limits(
    found: Figures, present: Figures | None, alpha: float, settings: Settings
) -> tuple[AcceptanceFigure, ...]:
    """The figures with limits: the present model's and the margin.

    Without a present model only the share of flagged images has a limit, α and the margin.
    """
    accuracy = ece = None
    least, most_ece = 0.0, 1.0
    rate, most_flagged = None, alpha + settings.false_positive_margin
    if present is not None:
        accuracy, ece, rate = present.accuracy, present.top_label_ece, present.false_positive_rate
        least = accuracy - settings.accuracy_margin
        most_ece = ece + settings.calibration_margin
        most_flagged = rate + settings.false_positive_margin
    least, most_ece, most_flagged = max(least, 0.0), min(most_ece, 1.0), min(most_flagged, 1.0)
    return (
        AcceptanceFigure(
            name=FigureName.ACCURACY,
            candidate=found.accuracy,
            present=accuracy,
            limit=least,
            passed=found.accuracy >= least - _ROUNDING,
            count=found.count,
        ),
        AcceptanceFigure(
            name=FigureName.TOP_LABEL_ECE,
            candidate=found.top_label_ece,
            present=ece,
            limit=most_ece,
            passed=found.top_label_ece <= most_ece + _ROUNDING,
            count=found.count,
        ),
        AcceptanceFigure(
            name=FigureName.FALSE_POSITIVE_RATE,
            candidate=found.false_positive_rate,
            present=rate,
            limit=most_flagged,
            passed=found.false_positive_rate <= most_flagged + _ROUNDING,
            count=found.count,
        ),
    )


def check_classes(chosen: AcceptanceSet, models: Sequence[Served]) -> None:
    """Refuses a set with a class that none of the models knows.

    Raises:
        DataError: It has one; the message names it.
    """
    known = {name for served in models for name in served.info.classes}
    if unknown := [name for name in chosen.classes if name not in known]:
        raise DataError(
            f"acceptance folder has class {unknown[0]!r}, which no model here knows; expected "
            f"folders named {', '.join(models[0].info.classes)}"
        )


def _shown(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if not files:
        raise DataError(f"acceptance folder {folder} holds no images; put some there, or remove it")
    return files


def _too_busy() -> NotPossibleError:
    return NotPossibleError(
        f"the server is too busy: an acceptance image had no answer within {_PATIENCE_S:g} s; try "
        "again when there are fewer calls"
    )
