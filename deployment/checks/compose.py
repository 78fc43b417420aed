"""compose.yaml: its schema, and the project's own rules for it."""

from __future__ import annotations

from collections.abc import Iterable


def findings() -> Iterable[str]:
    """What is wrong with compose.yaml."""
    return ()
