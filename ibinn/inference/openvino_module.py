"""OpenVINO without its telemetry.

Importing `openvino` reports the import to its makers over the network, unless it finds no
telemetry package. A service that is asked about private images reports to nobody.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

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

__all__ = ["ops", "ov"]
