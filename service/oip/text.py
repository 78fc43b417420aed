"""What callers wrote, as messages may repeat it."""

from __future__ import annotations

_LONGEST = 64


def shown(text: str) -> str:
    """`text` in quotes, control characters escaped, cut where it is long."""
    quoted = repr(text[: _LONGEST + 1])
    return quoted if len(text) <= _LONGEST else f"{quoted[: _LONGEST + 1]}...'"
