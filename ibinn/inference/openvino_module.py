"""OpenVINO without its telemetry.

Importing `openvino` reports the import to its makers over the network, unless it finds no
telemetry package. A service that is asked about private images reports to nobody.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

TELEMETRY = "openvino_telemetry"


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Let imports of a module fail, as if it were not installed."""
    before = sys.modules.get(module)
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]
        if before is not None:
            sys.modules[module] = before


with _hidden(TELEMETRY):
    import openvino as ov
    from openvino import opset13 as ops

__all__ = ["core", "ops", "ov"]


@cache
def core() -> ov.Core:
    """The one core of this process, with its plugin for the processor loaded.

    A plugin gives the thread that loads it a signal stack of its own, and when it is unloaded puts
    back the one before, which may be gone by then: the next signal would end the process. So it is
    loaded in a thread that ends at once, and stays loaded.
    """
    made = ov.Core()
    loading = threading.Thread(target=made.get_property, args=("CPU", "FULL_DEVICE_NAME"))
    loading.start()
    loading.join()
    return made
