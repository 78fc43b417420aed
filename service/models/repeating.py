"""Work that is done again and again while a server runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ibinn.errors import IbinnError

_log = logging.getLogger(__name__)


async def repeat(
    interval_s: float, work: Callable[[], Awaitable[None]], *, rest_s: float = 0.0
) -> None:
    """Does the work until it is cancelled; says once what keeps it from going well.

    Args:
        interval_s: Seconds between the end of one time and the next.
        work: What to do.
        rest_s: Least seconds until the next time after one that did not go well.
    """
    said = ""
    while True:
        pause_s = max(interval_s, rest_s)
        try:
            await work()
            said, pause_s = "", interval_s
        except IbinnError as error:
            if str(error) != said:
                said = str(error)
                _log.error("%s", said)
        except Exception as error:  # noqa: BLE001 - a task's main: it must not end
            if repr(error) != said:
                said = repr(error)
                _log.exception("a fault of the server")
        await asyncio.sleep(pause_s)
