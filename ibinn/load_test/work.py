"""What is sent: requests serialised once, sent round and round.

Serialising costs the generator nothing while it runs, and answers of unary calls are not parsed:
a generator that shares a machine with the server must leave it the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ibinn.client import wire
from ibinn.errors import ConfigError

MOST_IMAGES_PER_MESSAGE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class UnaryWork:
    """Calls with one request and one answer.

    Attributes:
        path: Full name of the method, ``/package.Service/Method``.
        requests: Serialised requests, sent in turn.
    """

    path: str
    requests: tuple[bytes, ...]

    def __post_init__(self) -> None:
        _check_not_empty(len(self.requests))


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamWork:
    """Messages with several images each over one long call for each connection.

    Attributes:
        path: Full name of the method.
        messages: Serialised messages, sent in turn.
        images_per_message: Images in each of them.
    """

    path: str
    messages: tuple[bytes, ...]
    images_per_message: int

    def __post_init__(self) -> None:
        _check_not_empty(len(self.messages))


Work = UnaryWork | StreamWork


def classify_work(images: Sequence[bytes], *, model: str = "") -> UnaryWork:
    """`Classify` for each of these images in turn.

    Args:
        images: Encoded images.
        model: First digits of the weights digest of the model that must answer; "": the default.
    """
    requests = tuple(wire.classify_bytes(image, model=model) for image in images)
    return UnaryWork(path=wire.CLASSIFY, requests=requests)


def explain_work(images: Sequence[bytes], *, model: str = "") -> UnaryWork:
    """`Explain` for each of these images in turn."""
    requests = tuple(wire.explain_bytes(image, model=model) for image in images)
    return UnaryWork(path=wire.EXPLAIN, requests=requests)


def stream_work(
    images: Sequence[bytes], *, images_per_message: int, timeout_s: float, model: str = ""
) -> StreamWork:
    """`ClassifyStream` with these images in turn.

    Args:
        images: Encoded images.
        images_per_message: Images in one message, 1 to 64.
        timeout_s: After this time the server gives an image up.
        model: As for `classify_work`.
    """
    if not 1 <= images_per_message <= MOST_IMAGES_PER_MESSAGE:
        raise ConfigError(
            f"images per message is {images_per_message}, expected 1 to "
            f"{MOST_IMAGES_PER_MESSAGE}; choose another number"
        )
    _check_not_empty(len(images))
    messages = tuple(
        wire.stream_bytes(
            [images[(first + i) % len(images)] for i in range(images_per_message)],
            timeout_s=timeout_s,
            model=model,
        )
        for first in range(len(images))
    )
    return StreamWork(
        path=wire.CLASSIFY_STREAM, messages=messages, images_per_message=images_per_message
    )


def _check_not_empty(count: int) -> None:
    if count == 0:
        raise ConfigError("there is no image to send; give at least one")
