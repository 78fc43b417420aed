"""Addresses, TLS, tokens and several servers: what a connection takes, and what it refuses."""

from __future__ import annotations

import asyncio
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse

from ibinn import errors
from ibinn.client import AsyncClient, Client, ClientTls, Connection, Retry
from ibinn.client.channels import _uri
from tests.ibinn.client.fake import Fake, Handler, serving
from tests.service.certificates import Authority
from tests.service.stub import png

TLS = ClientTls(root_certificates=b"-----BEGIN CERTIFICATE-----")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.mark.parametrize(
    ("target", "uri"),
    [
        ("localhost:1", "localhost:1"),
        ("[::1]:50051", "[::1]:50051"),
        ("dns:///ibinn.example:50051", "dns:///ibinn.example:50051"),
        ("unix:/run/ibinn.sock", "unix:/run/ibinn.sock"),
        ("127.0.0.1:1, 127.0.0.2:2", "ipv4:127.0.0.1:1,127.0.0.2:2"),
        ("[::1]:1,[::2]:2", "ipv6:[::1]:1,[::2]:2"),
        ("localhost:1,127.0.0.2:2", "ipv4:127.0.0.1:1,127.0.0.2:2"),
    ],
)
def test_an_address_is_told_to_grpc_in_its_words(target: str, uri: str) -> None:
    assert _uri(Connection(target=target).target) == uri


@pytest.mark.parametrize(
    "target", ["", "localhost", "localhost:", ":1", "localhost:port", "::1:1", "a:1,b", "a:99999"]
)
def test_what_is_no_address_is_a_config_error(target: str) -> None:
    with pytest.raises(errors.ConfigError, match="is not the address of a server"):
        Connection(target=target)


def test_hosts_that_are_not_known_or_have_nothing_in_common_are_named() -> None:
    with pytest.raises(errors.ConfigError, match=r"host 'no-such-host\.invalid' is not known"):
        _uri("no-such-host.invalid:1,127.0.0.1:2")
    with pytest.raises(errors.ConfigError, match="no kind of address in common"):
        _uri("[::1]:1,127.0.0.1:2")


@pytest.mark.parametrize(
    "target", ["localhost:1", "127.0.0.1:1", "[::1]:1", "unix:/x", "127.0.0.1:1,127.0.0.9:2",
               "dns:///localhost:1"]
)  # fmt: skip
def test_a_token_may_stay_on_this_machine_in_the_clear(target: str) -> None:
    assert Connection(target=target, token="t").metadata("r") == (
        ("x-request-id", "r"),
        ("authorization", "Bearer t"),
    )


@pytest.mark.parametrize(
    "target", ["example.org:1", "10.0.0.1:1", "127.0.0.1:1,10.0.0.1:1", "dns:///example.org:1",
               "localhost.example.org:1"]
)  # fmt: skip
def test_a_token_does_not_leave_this_machine_in_the_clear(target: str) -> None:
    with pytest.raises(errors.ConfigError, match="in the clear; use TLS"):
        Client(target, token="secret")
    tls = dataclasses.replace(TLS, server_name="a")
    assert Connection(target=target, token="secret", tls=tls).secure
    assert not Connection(target=target, token="secret", allow_plaintext_token=True).secure


def test_secrets_are_not_shown() -> None:
    tls = ClientTls(certificate=b"public", key=b"hidden-key")
    shown = repr(Connection(target="localhost:1", token="hidden-token", tls=tls))
    assert "hidden" not in shown
    with pytest.raises(errors.ConfigError) as caught:
        Connection(target="localhost:1", token="hidden\n")
    assert "hidden" not in str(caught.value)


def test_halves_and_doubles_of_tls_are_config_errors(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigError, match="certificate without its key"):
        ClientTls(certificate=b"x")
    with pytest.raises(errors.ConfigError, match="key without its certificate"):
        ClientTls(key=b"x")
    with pytest.raises(errors.ConfigError, match=r"cannot read .*none\.pem"):
        ClientTls.from_files(root_certificates=tmp_path / "none.pem")
    with pytest.raises(errors.ConfigError, match="got tls and credentials"):
        Connection(target="a:1", tls=TLS, credentials=grpc.ssl_channel_credentials())
    with pytest.raises(errors.ConfigError, match="give server_name"):
        Connection(target="a:1,b:2", tls=TLS)


async def test_several_servers_take_turns_and_one_that_is_lost_is_passed_over() -> None:
    async with serving() as first:
        async with serving() as second:
            target = f"{first.target},{second.target}"
            async with AsyncClient(target, timeout_s=30) as client:
                await client.classify(png())
                async with asyncio.timeout(20):
                    while not (first.attempts and second.attempts):
                        await client.classify(png())
                counts = len(first.attempts), len(second.attempts)
                for _ in range(20):
                    await client.classify(png())
                more = len(first.attempts) - counts[0], len(second.attempts) - counts[1]
                assert more == (10, 10)
        # the second is gone
        async with AsyncClient(target, timeout_s=30) as client:
            for _ in range(5):
                await client.classify(png())
        assert len(first.attempts) == counts[0] + 10 + 5


async def test_a_server_that_says_it_does_not_serve_gets_no_calls() -> None:
    servers, fakes, states, ports = [], [], [], []
    for _ in range(2):
        fake, server, state = Fake(), grpc.aio.server(), health.aio.HealthServicer()
        server.add_generic_rpc_handlers((Handler(fake),))
        health_pb2_grpc.add_HealthServicer_to_server(state, server)
        ports.append(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
        servers.append(server)
        fakes.append(fake)
        states.append(state)
    name = "ibinn.v1.ClassificationService"
    await states[0].set(name, HealthCheckResponse.SERVING)
    await states[1].set(name, HealthCheckResponse.NOT_SERVING)
    target = ",".join(f"127.0.0.1:{port}" for port in ports)
    async with AsyncClient(target, timeout_s=30) as client:
        for _ in range(10):
            await client.classify(png())
        assert [len(fake.attempts) for fake in fakes] == [10, 0]
        await states[1].set(name, HealthCheckResponse.SERVING)
        async with asyncio.timeout(20):
            while not fakes[1].attempts:
                await client.classify(png())
    for server in servers:
        await server.stop(None)


async def test_one_client_keeps_one_connection() -> None:
    def ask() -> None:
        with Client(fake.target) as client, ThreadPoolExecutor(4) as pool:
            list(pool.map(client.classify, [png()] * 20))

    async with serving() as fake:
        await asyncio.to_thread(ask)
    assert len(fake.attempts) == 20
    assert len({attempt.peer for attempt in fake.attempts}) == 1


async def test_both_sides_of_tls_know_each_other_and_the_token_goes_along(
    authority: Authority,
) -> None:
    server = authority.issue("server", hosts=("ibinn.test",))
    own = authority.issue("client", hosts=())
    credentials = grpc.ssl_server_credentials(
        [(server.key, server.certificate)], authority.certificate, require_client_auth=True
    )
    tls = ClientTls(
        root_certificates=authority.certificate,
        certificate=own.certificate,
        key=own.key,
        server_name="ibinn.test",
    )

    def ask() -> None:
        with Client(fake.target, tls=tls, token="t", timeout_s=30) as client:
            client.classify(png())

    async with serving(credentials=credentials) as fake:
        async with AsyncClient(fake.target, tls=tls, token="t", timeout_s=30) as client:
            await client.classify(png())
        await asyncio.to_thread(ask)
        # Also through a list of addresses, which have one name together.
        port = fake.target.rpartition(":")[2]
        target = f"127.0.0.1:{port},localhost:{port}"
        async with AsyncClient(target, tls=tls, timeout_s=30) as client:
            await client.classify(png())
    assert [a.metadata.get("authorization") for a in fake.attempts] == ["Bearer t"] * 2 + [None]


@pytest.mark.parametrize("wrong", ["authority", "name", "no certificate"])
async def test_a_side_that_does_not_know_the_other_gets_no_answer(
    authority: Authority, wrong: str
) -> None:
    server = authority.issue("server")
    credentials = grpc.ssl_server_credentials(
        [(server.key, server.certificate)],
        authority.certificate,
        require_client_auth=wrong == "no certificate",
    )
    trusted = Authority("another").certificate if wrong == "authority" else authority.certificate
    name = "other.test" if wrong == "name" else ""
    tls = ClientTls(root_certificates=trusted, server_name=name)
    async with (
        serving(credentials=credentials) as fake,
        AsyncClient(fake.target, tls=tls, timeout_s=30, retry=Retry.none()) as client,
    ):
        with pytest.raises(errors.UnavailableError, match="no answer from"):
            await client.classify(png())
    assert fake.attempts == []
