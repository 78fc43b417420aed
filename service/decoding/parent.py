"""One decoder process, as the server sees it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence

from ibinn.errors import ConfigError
from ibinn.images import ImagePreparer
from service.decoding import frames
from service.decoding.faults import DecoderEndedError, Fault
from service.decoding.frames import Answer, FrameError
from service.models.served import Preparer

_START_S = 60.0
"""Longest time for a process to get ready."""
_GRACE_S = 1.0
"""How much longer than its images may take a process may stay silent."""
_KEPT_ENVIRONMENT = ("LD_LIBRARY_PATH",)


class DecoderProcess(asyncio.Protocol):
    """A running decoder process; made by `start`. It takes one request at a time.

    Args:
        process: Its process.
        timeout_s: Longest time for one image.
    """

    def __init__(self, process: subprocess.Popen[bytes], *, timeout_s: float) -> None:
        self._process = process
        self._timeout_s = timeout_s
        self._numbers: dict[Preparer, int] = {}
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._asked: tuple[int, int | None] | None = None  # number of images, side if known
        self._heard: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        self._judged = ""
        self._late = False
        self._ended = False
        self.on_end: Callable[[], None] = lambda: None
        """Called when the process has closed its socket."""

    @classmethod
    async def start(cls, *, timeout_s: float, memory_bytes: int) -> DecoderProcess:
        """Starts a process and waits until it is ready.

        Args:
            timeout_s: Longest time for one image.
            memory_bytes: Memory that it may take beyond what it begins with.

        Raises:
            ConfigError: It did not get ready.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = _begin(theirs, timeout_s=timeout_s, memory_bytes=memory_bytes)
            except OSError as error:
                ours.close()
                raise ConfigError(
                    f"a decoder process did not start: {error}; --decode-in thread "
                    "(IBINN_DECODE_IN) does without such processes"
                ) from error
        child = cls(process, timeout_s=timeout_s)
        try:
            async with asyncio.timeout(_START_S):
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: child, sock=ours)
                await child._heard
        except (_GoneError, TimeoutError) as error:
            raise ConfigError(
                f"a decoder process did not start ({await child.why_ended()}); "
                "--decode-in thread (IBINN_DECODE_IN) does without such processes"
            ) from error
        except BaseException:
            await child.end()
            raise
        return child

    @property
    def ended(self) -> bool:
        """Whether the process has closed its socket."""
        return self._ended

    async def ask(self, preparer: Preparer, images: Sequence[bytes]) -> list[Answer]:
        """What the process makes of images; `frames.MAX_IMAGES` of them at most.

        Raises:
            DecoderEndedError: The process ended instead, or had to be ended.
        """
        if self._ended:
            raise await self.why_ended()
        number = self._numbers.get(preparer)
        new = number is None
        if number is None:
            number = self._numbers[preparer] = len(self._numbers)
        request = frames.request(number, preparer if new else None, images)
        side = preparer.config.side if isinstance(preparer, ImagePreparer) else None
        loop = asyncio.get_running_loop()
        self._asked = len(images), side
        self._heard = loop.create_future()
        assert self._transport is not None
        self._transport.write(request)
        watchdog = loop.call_later(len(images) * self._timeout_s + _GRACE_S, self._give_up)
        try:
            return await self._heard
        except _GoneError:
            raise await self.why_ended() from None
        finally:
            watchdog.cancel()

    async def why_ended(self) -> DecoderEndedError:
        """Ends the process if it has not ended, and says what ended it."""
        status = await self.end()
        late = self._late or status == -signal.SIGALRM
        cause = self._judged or _in_words(status)
        return DecoderEndedError(Fault.TIMEOUT if late else Fault.CRASH, cause)

    async def end(self) -> int:
        """Kills the process and waits for it; its exit status."""
        if self._transport is not None:
            self._transport.abort()
        self._process.kill()
        return await asyncio.to_thread(self._process.wait)

    def _give_up(self) -> None:
        self._late = True
        self._judge("it did not answer in time")

    def _judge(self, cause: str) -> None:
        """Has done with the process; whoever waits for it ends it."""
        self._judged = cause
        assert self._transport is not None
        self._transport.abort()

    # ---------------------------------------------------------------------- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Puts the parts of an answer together."""
        self._received += data
        try:
            self._read()
        except FrameError as error:
            self._judge(f"{error}")

    def connection_lost(self, error: Exception | None) -> None:
        """The process has ended or closed its socket, which is the same to us."""
        self._ended = True
        if not self._heard.done():
            self._heard.set_exception(_GoneError())
            self._heard.exception()  # nobody may be listening any more
        self.on_end()

    def _read(self) -> None:
        if self._heard.done():
            raise FrameError("an answer that nobody asked for")
        if self._asked is None:
            if not frames.READY.startswith(self._received):
                raise FrameError("not the first word of a decoder process")
            if len(self._received) == len(frames.READY):
                self._received = bytearray()
                self._heard.set_result([])
            return
        header_bytes = frames.ANSWER_HEADER_BYTES
        if len(self._received) < header_bytes:
            return
        count, side = self._asked
        text_bytes, pixel_bytes = frames.answer_sizes(self._received, count=count, side=side)
        missing = header_bytes + text_bytes + pixel_bytes - len(self._received)
        if missing < 0:
            raise FrameError(f"{-missing} bytes too many")
        if missing == 0:
            answer, self._received = self._received, bytearray()
            pixels = header_bytes + text_bytes
            self._heard.set_result(
                frames.read_answer(
                    answer[header_bytes:pixels], answer[pixels:], count=count, side=side
                )
            )


class _GoneError(Exception):
    """The process has closed its socket, or it was closed to it."""


def _begin(
    connection: socket.socket, *, timeout_s: float, memory_bytes: int
) -> subprocess.Popen[bytes]:
    # Not from another thread: the kernel ends the process together with the thread that began it.
    return subprocess.Popen(
        [
            *(sys.executable, "-P", "-s", "-m", "service.decoding.child"),
            f"--timeout-s={timeout_s}",
            f"--memory-bytes={memory_bytes}",
            f"--parent={os.getpid()}",
        ],
        stdin=connection.fileno(),
        stdout=subprocess.DEVNULL,
        env=_environment(),
        cwd="/",
        start_new_session=True,  # Ctrl-C is for the server, which then ends this one
    )


def _in_words(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    return f"signal {-status} ({signal.strsignal(-status)})"


def _environment() -> dict[str, str]:
    """Where modules are, and nothing of ours: no secret that a stranger could be after."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path),
        "OPENBLAS_NUM_THREADS": "1",  # threads would only take address space; nothing uses them
        # glibc otherwise gives the memory of every photograph back, and gets it again page by page
        # for the next one, which is a third of the time of decoding it.
        "MALLOC_MMAP_THRESHOLD_": str(8 * 2**20),
        "MALLOC_TRIM_THRESHOLD_": str(32 * 2**20),
    }
