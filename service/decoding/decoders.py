"""What decodes and preprocesses images for the predictor, and which kind the settings choose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ibinn.errors import ImageError
from service.decoding.faults import FaultCounter
from service.decoding.pool import ProcessDecoders
from service.decoding.threads import ThreadDecoders
from service.settings import Settings

if TYPE_CHECKING:
    from ibinn.images import PreparedImage
    from service.models.served import Preparer


class Decoders(Protocol):
    """Decodes and preprocesses images off the event loop."""

    @property
    def slots(self) -> int:
        """How many calls of `prepare` make progress at once; more only wait."""

    async def start(self) -> None:
        """Gets ready.

        Raises:
            ConfigError: What decodes cannot be started.
        """

    async def stop(self) -> None:
        """Ends everything that `start` began; calls that still wait raise NotServingError."""

    async def prepare(
        self, preparer: Preparer, images: Sequence[bytes]
    ) -> list[PreparedImage | ImageError]:
        """The images as the network sees them, in order.

        Args:
            preparer: What to do with each; a value that can be hashed and pickled.
            images: Encoded bytes. Several in one call cost less each.

        Returns:
            For each image what the network sees, or why there is nothing to see; one image's error
            does not touch the others.

        Raises:
            QueueFullError: What decodes broke down too often of late and rests.
            NotServingError: It was stopped.
        """


def decoders_of(settings: Settings, monitor: FaultCounter) -> Decoders:
    """The decoders that the settings ask for, not yet started.

    Args:
        settings: `decode_in`, `decode_threads`, `decode_timeout_s` and the limits count.
        monitor: Counts what goes wrong.
    """
    if settings.decode_in == "thread":
        return ThreadDecoders(settings.decode_threads, monitor=monitor)
    return ProcessDecoders(
        settings.decode_threads,
        timeout_s=settings.decode_timeout_s,
        max_pixels=settings.max_image_px,
        max_bytes=settings.max_message_bytes,
        monitor=monitor,
    )
