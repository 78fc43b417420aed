"""What happened when: printed as it goes on, and kept for the record."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

_STYLES = {"step": "bold", "alarm": "bold red", "good": "green", "note": "dim"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened.

    Attributes:
        at_s: Seconds since the loop began.
        kind: ``step``, ``alarm``, ``good``, ``note`` or ``fact``.
        text: What, in words.
        name: A short name for a mark in the plots; empty: no mark.
    """

    at_s: float
    kind: str
    text: str
    name: str = ""


class Timeline:
    """Prints what happens with its time, and keeps it; usable from several threads.

    Args:
        console: Where to print.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self.began = datetime.now(UTC)

    @property
    def events(self) -> tuple[Event, ...]:
        """Everything so far, in order."""
        with self._lock:
            return tuple(self._events)

    def now_s(self) -> float:
        """Seconds since the loop began."""
        return time.monotonic() - self._began

    def tell(self, kind: str, text: str, *, name: str = "") -> None:
        """Print and keep an event."""
        with self._lock:
            event = Event(at_s=self.now_s(), kind=kind, text=text, name=name)
            self._events.append(event)
            minutes, seconds = divmod(int(event.at_s), 60)
            line = Text(f"{minutes:>2}:{seconds:02d}  ", style="dim")
            line.append(text, style=_STYLES.get(kind, ""))
            self._console.print(line, soft_wrap=True)
