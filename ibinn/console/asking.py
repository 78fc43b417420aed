"""What the page asks a server, on its typed client."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ibinn.console.corruption import SEVERITIES, Corruption, corrupted, reduced
from ibinn.console.truths import Statement
from ibinn.decoding import Limits
from ibinn.errors import (
    IbinnError,
    ImageTooLargeError,
    NotAllowedError,
    NotAuthenticatedError,
    RemoteError,
    UnavailableError,
)
from ibinn.records import Acknowledgement, Provenance
from ibinn.types import Explanation, Heatmap, ModelInfo, Prediction

if TYPE_CHECKING:
    from ibinn.client import Client

MOST_MAPS = 20
"""Classes of a model whose heatmaps are all asked for at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """An image with its answer.

    Attributes:
        name: Of the file or sample.
        data: The encoded image, as it was sent.
        info: The model that answered.
        prediction: The answer.
        explanation: None where the model has no heatmaps, or the token may not ask for them.
    """

    name: str
    data: bytes
    info: ModelInfo
    prediction: Prediction
    explanation: Explanation | None

    def heatmap(self, class_name: str) -> Heatmap | None:
        """The heatmap of a class; None where it was not asked for."""
        maps = self.explanation.heatmaps if self.explanation else ()
        return next((found for found in maps if found.class_name == class_name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """An image damaged in one way, in every severity, with the answers.

    Attributes:
        record_id: Of the answer to the image itself.
        corruption: How it was damaged.
        images: Per severity, uint8 (S, S, 3).
        answers: Per severity.
    """

    record_id: str
    corruption: Corruption
    images: tuple[npt.NDArray[np.uint8], ...]
    answers: tuple[Prediction, ...]


class Asker:
    """Asks one server; may be used from several threads.

    Args:
        client: The connection, which its owner closes.
        target: Its address, for messages.

    Every method raises an `IbinnError` where there is no result; `complaint` puts it in words.
    """

    def __init__(self, client: Client, *, target: str) -> None:
        self._client = client
        self.target = target

    def model(self) -> ModelInfo:
        """The server's default model."""
        return self._client.model()

    def look(self, data: bytes, name: str) -> Looked:
        """The answer for an image, with its evidence where the model has it."""
        info = self._client.model()
        if len(data) > info.max_bytes:
            raise ImageTooLargeError(
                f"{name} has {len(data):,} bytes; the server takes at most {info.max_bytes:,}; "
                "choose a smaller file"
            )
        weights = info.versions.weights
        group = group_of(data)
        explanation = None
        if info.explainable:
            classes = info.classes if len(info.classes) <= MOST_MAPS else None
            # A token may be good for answers alone.
            with contextlib.suppress(NotAllowedError):
                explanation = self._client.explain(
                    data, classes=classes, model=weights, group_id=group
                )
        if explanation is None:
            prediction = self._client.classify(data, model=weights, group_id=group)
        else:
            prediction = explanation.prediction
        return Looked(
            name=name, data=data, info=info, prediction=prediction, explanation=explanation
        )

    def with_heatmap(self, looked: Looked, class_name: str) -> Looked:
        """The same with the heatmap of one more class, asked for if it is not there."""
        if looked.explanation is None or looked.heatmap(class_name) is not None:
            return looked
        more = self._client.explain(
            looked.data,
            classes=(class_name,),
            model=looked.prediction.versions.weights,
            group_id=group_of(looked.data),
        )
        maps = (*looked.explanation.heatmaps, *more.heatmaps)
        explanation = dataclasses.replace(looked.explanation, heatmaps=maps)
        return dataclasses.replace(looked, explanation=explanation)

    def damage(self, looked: Looked, corruption: Corruption) -> Damaged:
        """The answers for an image damaged in one way, in every severity."""
        info = looked.info
        limits = Limits(
            max_bytes=info.max_bytes, max_pixels=info.max_pixels, max_side=info.max_side
        )
        pixels = reduced(looked.data, looked.prediction.input, info.input_side, limits=limits)
        images = tuple(corrupted(pixels, corruption, severity) for severity in SEVERITIES)
        answers = []
        for answer in self._client.classify_many(
            images,
            model=looked.prediction.versions.weights,
            group_id=group_of(looked.data),
        ):
            if not isinstance(answer, Prediction):
                raise answer
            answers.append(answer)
        return Damaged(
            record_id=record_id_of(looked.prediction),
            corruption=corruption,
            images=images,
            answers=tuple(answers),
        )

    def tell(self, looked: Looked, statement: Statement) -> Acknowledgement:
        """Says what is true of an image; durable on return."""
        return self._client.submit_feedback(
            looked.prediction,
            statement.truth,
            provenance=Provenance(
                source=statement.source,
                saw_answer=True,  # it stands on the page
                reaction=statement.reaction,
            ),
            labelled_time=datetime.now(UTC),
            comment=statement.comment,
        )


def group_of(data: bytes) -> str:
    """The group of an image and of all that is made of it: drift tests count a group once."""
    return f"console-{hashlib.sha256(data).hexdigest()[:16]}"


def record_id_of(prediction: Prediction) -> str:
    """The name of an answer on record; empty where no server gave it."""
    return prediction.receipt.record_id if prediction.receipt else ""


def complaint(error: IbinnError, target: str) -> str:
    """Why there is no result, and what to do, for whoever looks at the page."""
    match error:
        case UnavailableError() if error.reason:
            return f"The server at {target} cannot do this now: {error}"
        case UnavailableError():
            return (
                f"The server at {target} is away. Start it, or give the console the address of "
                f"one that runs (--server), and try again. ({error})"
            )
        case NotAuthenticatedError():
            return f"The server at {target} wants a token (--token-file): {error}"
        case NotAllowedError():
            return f"The console's token may not do this at {target}: {error}"
        case RemoteError() if error.request_id:
            return f"{error} (request {error.request_id})"
        case _:
            return str(error)
