"""A network between a server and its database that can be made bad: slow, silent or gone."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import threading
from collections.abc import Iterator

_CHUNK = 65536


class Network(enum.StrEnum):
    """What the way between the two is like."""

    WELL = "well"
    SLOW = "slow"
    """Every piece comes late."""
    SILENT = "silent"
    """Connections are taken and stay open, and nothing comes through."""
    GONE = "gone"
    """Connections are reset, and so are new ones."""


class Proxy:
    """Forwards connections, in a thread of its own. Made with `running`.

    Args:
        port: Of the database on this machine.
        delay_s: Of every piece in either direction while the network is slow.
    """

    def __init__(self, port: int, *, delay_s: float) -> None:
        self.port = 0
        self._behind = port
        self._delay_s = delay_s
        self._network = Network.WELL
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._server: asyncio.Server
        self._writers: set[asyncio.StreamWriter] = set()

    def become(self, network: Network) -> None:
        """From now on the network is like this."""
        asyncio.run_coroutine_threadsafe(self._become(network), self._loop).result()

    async def _become(self, network: Network) -> None:
        self._network = network
        self._changed.set()
        self._changed = asyncio.Event()
        if network is Network.GONE:
            for writer in list(self._writers):
                writer.transport.abort()

    async def start(self) -> None:
        """Listens on a free port."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._network is Network.GONE:
            writer.transport.abort()
            return
        behind, onward = await asyncio.open_connection("127.0.0.1", self._behind)
        ends = {writer, onward}
        self._writers |= ends
        try:
            await asyncio.gather(self._pump(reader, onward), self._pump(behind, writer))
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(_CHUNK):
                if self._network is Network.SLOW:
                    await asyncio.sleep(self._delay_s)
                while self._network is Network.SILENT:
                    await self._changed.wait()
                writer.write(piece)
                await writer.drain()
        # Whoever has nothing more to say ends the other direction as well.
        writer.transport.abort()

    def run(self, listening: threading.Event) -> None:
        """The thread's work, until `stop`."""
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self.start())
        listening.set()
        self._loop.run_forever()
        self._server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    def stop(self) -> None:
        """Ends the thread's work."""
        self._loop.call_soon_threadsafe(self._loop.stop)


@contextlib.contextmanager
def running(port: int, *, delay_s: float = 0.3) -> Iterator[Proxy]:
    """A proxy before a port of this machine."""
    proxy = Proxy(port, delay_s=delay_s)
    listening = threading.Event()
    thread = threading.Thread(target=proxy.run, args=(listening,), name="proxy", daemon=True)
    thread.start()
    listening.wait()
    try:
        yield proxy
    finally:
        proxy.stop()
        thread.join()
