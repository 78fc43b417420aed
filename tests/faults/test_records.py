"""Records under kills and on bad databases, in short form; `make durability` kills at length."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.records.ledger import Ledger
from tests.faults import durability, proxy, stores
from tests.faults.calls import ANSWERED
from tests.faults.proxy import Network, Proxy
from tests.faults.server import stub_server
from tests.service.records.databases import PostgreSQL

pytestmark = pytest.mark.slow

AUDITS = ("best_effort", "required")
TIMEOUT_S = 1.0
QUEUE = 300
BAD: dict[str, Any] = {
    "records_timeout_s": TIMEOUT_S,
    "records_queue": QUEUE,
    "decode_in": "thread",
}


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    with durability.running_postgresql(fsync="off") as server:
        yield server


@pytest.fixture(scope="module")
def network(postgresql: PostgreSQL) -> Iterator[Proxy]:
    with proxy.running(postgresql.port) as running:
        yield running


def test_what_was_acknowledged_outlives_kills_of_the_server_on_sqlite() -> None:
    result = durability.on_sqlite(count=1500, kills=2)
    assert result.broken == ()
    assert result.kills == {"server": 2}


def test_what_was_acknowledged_outlives_kills_of_workers_on_one_sqlite() -> None:
    assert durability.on_sqlite(count=800, kills=2, workers=2).broken == ()


def test_what_was_acknowledged_outlives_kills_of_server_and_database_on_postgresql() -> None:
    result = durability.on_postgresql(count=1500, server_kills=1, database_kills=2, fsync="off")
    assert result.broken == ()
    assert result.kills == {"server": 1, "database": 2}


@pytest.mark.parametrize("audit", AUDITS)
def test_a_bad_network_to_the_database_is_borne_and_recovered_from(
    audit: str, postgresql: PostgreSQL, network: Proxy
) -> None:
    url = postgresql.new_database().replace(f":{postgresql.port}/", f":{network.port}/")
    with stub_server(records=url, audit=audit, **BAD) as server:
        for kind in (Network.SLOW, Network.SILENT, Network.GONE):
            result = stores.bad(
                server,
                kind.value,
                stores.network_is(network, kind),
                audit=audit,
                timeout_s=TIMEOUT_S,
                queue=QUEUE,
            )
            assert result.broken == ()


@pytest.mark.parametrize("audit", AUDITS)
def test_a_locked_sqlite_is_borne_and_recovered_from(audit: str, tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    with stub_server(records=f"sqlite:///{path}", audit=audit, **BAD) as server:
        result = stores.bad(
            server,
            "locked",
            stores.locked(path),
            audit=audit,
            timeout_s=TIMEOUT_S,
            queue=QUEUE,
        )
    assert result.broken == ()


@pytest.mark.parametrize("audit", AUDITS)
def test_a_full_disk_is_borne_and_recovered_from(audit: str, tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    with stub_server(records=f"sqlite:///{path}", audit=audit, **BAD) as server:
        result = stores.bad(
            server,
            "full",
            stores.full(server.pid),
            audit=audit,
            timeout_s=TIMEOUT_S,
            queue=QUEUE,
        )
    assert result.broken == ()
    assert durability.wrong(f"sqlite:///{path}") == ()


def test_a_server_that_is_told_to_stop_writes_what_waits(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'records.db'}"
    with stub_server(records=url, decode_in="thread") as server:
        caller = stores.Caller(server)
        assert set(asyncio.run(caller.classify(500))) == {ANSWERED}
        server.signal(signal.SIGTERM)
        assert server.ended(timeout_s=60) == 0
        assert server.faults() == ()
    ledger = Ledger.open(url, timeout_s=20)
    assert ledger.entries(0, 1).head_sequence == 500
    ledger.close()


def test_a_full_postgresql_is_waited_for(postgresql: PostgreSQL) -> None:
    """More servers than the database takes connections from: they take turns."""
    with durability.running_postgresql(fsync="off", max_connections="8") as small:
        url = small.new_database()
        with (
            stub_server(records=url, audit="required", decode_in="thread") as first,
            stub_server(records=url, audit="required", decode_in="thread") as second,
        ):
            for server in (first, second) * 2:
                ended = asyncio.run(stores.Caller(server).classify(100))
                assert set(ended) == {ANSWERED}
            assert first.faults() == second.faults() == ()
        assert durability.wrong(url) == ()
