"""What all tests of the watch share."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from service.drift import thread


@pytest.fixture(autouse=True)
def _ties_break_always_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it a test without drift fails as often as detectors raise false alarms."""
    monkeypatch.setattr(thread, "secrets", SimpleNamespace(randbits=lambda _bits: 1))
