"""Faults on purpose, in short form; `make faults` runs the full one."""

from __future__ import annotations

import pytest

from tests.faults import deaths, draining, leaks, overload, sharing, storm
from tests.faults.laws import tried

pytestmark = pytest.mark.slow


def test_sigterm_under_load_loses_no_accepted_request() -> None:
    result = draining.under_load(callers=12, load_s=0.5)
    assert result.broken == ()
    assert result.before["OK"] > 12


def test_a_hanging_network_does_not_keep_a_stopped_server() -> None:
    assert draining.while_the_network_hangs(drain_timeout_s=0.5).broken == ()


def test_rude_callers_leave_nothing_behind() -> None:
    assert leaks.of_rude_callers(cycles=240, silent=0).broken == ()


def test_a_decoder_killed_under_load_fails_no_call() -> None:
    assert deaths.of_decoders(kills=2, callers=6).broken == ()


def test_a_worker_killed_under_load_loses_only_its_calls_in_flight() -> None:
    assert deaths.of_a_worker(callers=12, load_s=0.5).broken == ()


def test_an_overloaded_server_does_what_it_can_and_recovers() -> None:
    result, _ = tried(lambda: overload.measure(5.0, capacity_s=2.0, concurrency=(32,)))
    assert result.broken == ()


def test_a_greedy_caller_does_not_starve_a_modest_one() -> None:
    result, _ = tried(lambda: sharing.between_callers(seconds=4.0, capacity_s=2.0))
    assert result.broken == ()


def test_a_flood_of_explain_yields_to_classify() -> None:
    result, _ = tried(lambda: sharing.between_lanes(seconds=4.0, capacity_s=2.0))
    assert result.broken == ()


def test_a_storm_of_connections_on_a_full_server_leaves_health_checks_room() -> None:
    assert storm.of_connections(connections=200).broken == ()
