"""Faults on purpose, in short form; `make faults` runs the full one."""

from __future__ import annotations

import pytest

from tests.faults import draining, leaks


@pytest.mark.slow
def test_sigterm_under_load_loses_no_accepted_request() -> None:
    result = draining.under_load(callers=12, load_s=0.5)
    assert result.broken == ()
    assert result.before["OK"] > 12


@pytest.mark.slow
def test_a_hanging_network_does_not_keep_a_stopped_server() -> None:
    assert draining.while_the_network_hangs(drain_timeout_s=0.5).broken == ()


@pytest.mark.slow
def test_rude_callers_leave_nothing_behind() -> None:
    assert leaks.of_rude_callers(cycles=240, silent=0).broken == ()
