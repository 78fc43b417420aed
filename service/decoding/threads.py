"""Decoding in threads of the server: cheapest, but a fault of a decoder ends the server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ibinn.errors import ImageError
from service.decoding.faults import Fault, FaultCounter, blamed, stopping, was_cancelled

if TYPE_CHECKING:
    from ibinn.images import PreparedImage
    from service.models.served import Preparer

_log = logging.getLogger(__name__)


class ThreadDecoders:
    """Decodes in threads of this process; `service.decoding.decoders.Decoders`.

    Args:
        threads: How many.
        monitor: Counts exceptions that are not an image's.
    """

    def __init__(self, threads: int, *, monitor: FaultCounter) -> None:
        self._threads = threads
        self._monitor = monitor
        self._executor: ThreadPoolExecutor | None = None

    @property
    def slots(self) -> int:
        """Number of threads."""
        return self._threads

    async def start(self) -> None:
        """Makes the threads' pool."""
        self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="ibinn-decode")

    async def stop(self) -> None:
        """Drops the calls that wait; a thread in a decoder ends when the decoder does."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)

    async def prepare(
        self, preparer: Preparer, images: Sequence[bytes]
    ) -> list[PreparedImage | ImageError]:
        """The images as the network sees them, or why not, in order.

        Raises:
            NotServingError: Not started, or stopped.
        """
        if self._executor is None:
            raise stopping()
        future = self._executor.submit(self._prepare_all, preparer, images)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if was_cancelled():
                raise
            raise stopping() from None  # `stop` dropped it

    def _prepare_all(
        self, preparer: Preparer, images: Sequence[bytes]
    ) -> list[PreparedImage | ImageError]:
        return [self._prepare(preparer, image) for image in images]

    def _prepare(self, preparer: Preparer, image: bytes) -> PreparedImage | ImageError:
        try:
            return preparer(image)
        except ImageError as error:
            return error
        except Exception:  # noqa: BLE001 - the thread's task: one image may not fail the others
            _log.exception("a decoder failed on an image of %d bytes", len(image))
            self._monitor.decoder_fault(Fault.CRASH)
            return blamed(Fault.CRASH)
