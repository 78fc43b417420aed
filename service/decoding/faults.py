"""What can go wrong with a decoder beyond an image that it refuses."""

from __future__ import annotations

import asyncio
import enum
from typing import Protocol

from ibinn.errors import ImageDecodeError, NotServingError


class Fault(enum.StrEnum):
    """How a decoder failed."""

    CRASH = "crash"
    """It ended, or raised what no decoder of an image should raise."""
    TIMEOUT = "timeout"
    """It took longer than an image may take."""


class FaultCounter(Protocol):
    """What decoders need of `service.monitoring.Monitor`."""

    def decoder_fault(self, kind: str) -> None:
        """A decoder failed; `kind` is a `Fault`."""


class DecoderEndedError(Exception):
    """A decoder process ended before it answered; its images are tried again.

    Args:
        fault: How.
        cause: What is known of it, in words.
    """

    def __init__(self, fault: Fault, cause: str) -> None:
        super().__init__(f"a decoder process ended ({fault}): {cause}")
        self.fault = fault


def blamed(fault: Fault, *, timeout_s: float | None = None) -> ImageDecodeError:
    """The error for an image on which a decoder failed.

    Args:
        fault: How it failed.
        timeout_s: How long the image was allowed to take, in seconds.
    """
    what = f"did not finish within {timeout_s:g} s" if fault is Fault.TIMEOUT else "broke down"
    return ImageDecodeError(
        f"image cannot be decoded: the decoder {what} on it; save the image anew and send that"
    )


def stopping() -> NotServingError:
    """The error for calls that decoders no longer take or finish."""
    return NotServingError("the server is stopping; ask another one or try again")


def was_cancelled() -> bool:
    """Whether the running task was cancelled, not only something that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
