"""Over real sockets: who gets a connection, and that new certificates need no restart."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from ibinn.errors import ConfigError
from service.access import tls
from service.settings import Settings
from tests.service.certificates import Authority, Certificates, Issued, Pair, certificates

PATIENCE_S = 20.0
METHOD = "/test.Service/Names"


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A bare server that answers with the names of its caller's certificate."""

    port: int
    made: Certificates


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    return certificates(tmp_path)


def settings(made: Certificates, **changes: Any) -> Settings:
    values = {"tls_certificate": made.server.certificate, "tls_key": made.server.key, **changes}
    return Settings(**values)


@contextlib.asynccontextmanager
async def served(made: Certificates, **changes: Any) -> AsyncIterator[Served]:
    async def names(request: bytes, context: Any) -> bytes:
        return "|".join(tls.certificate_names(context.auth_context())).encode()

    handler = grpc.method_handlers_generic_handler(
        "test.Service", {"Names": grpc.unary_unary_rpc_method_handler(names)}
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    credentials = tls.server_credentials(settings(made, **changes))
    assert credentials is not None
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield Served(port=port, made=made)
    finally:
        await server.stop(None)


def channel(
    port: int, *, ca: Path, client: Pair | Issued | None = None, plaintext: bool = False
) -> grpc.aio.Channel:
    # Each channel its own connection, or a session of before could be used.
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
    address = f"127.0.0.1:{port}"
    if plaintext:
        return grpc.aio.insecure_channel(address, options=options)
    certificate = key = None
    if isinstance(client, Pair):
        certificate, key = client.certificate.read_bytes(), client.key.read_bytes()
    elif client is not None:
        certificate, key = client.certificate, client.key
    credentials = grpc.ssl_channel_credentials(
        root_certificates=ca.read_bytes(), private_key=key, certificate_chain=certificate
    )
    return grpc.aio.secure_channel(address, credentials, options=options)


async def ask(channel: grpc.aio.Channel) -> str:
    answer: bytes = await channel.unary_unary(METHOD)(b"", timeout=PATIENCE_S)
    return answer.decode()


async def answered(port: int, **how: Any) -> str:
    """The answer over a connection of its own."""
    async with channel(port, **how) as connection:
        return await ask(connection)


async def refused(port: int, **how: Any) -> None:
    """A connection is not made."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answered(port, **how)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_caller_that_trusts_the_authority_is_served(made: Certificates) -> None:
    async with served(made) as server:
        assert await answered(server.port, ca=made.ca) == ""


async def test_a_caller_that_trusts_another_authority_is_not_served(made: Certificates) -> None:
    async with served(made) as server:
        await refused(server.port, ca=made.foreign_ca)


async def test_plaintext_to_a_tls_port_is_not_served(made: Certificates) -> None:
    async with served(made) as server:
        await refused(server.port, ca=made.ca, plaintext=True)


async def test_mutual_tls_serves_known_certificates_by_name_and_no_others(
    made: Certificates,
) -> None:
    async with served(made, tls_client_ca=made.ca) as server:
        assert await answered(server.port, ca=made.ca, client=made.client) == "client.test"
        await refused(server.port, ca=made.ca)
        await refused(server.port, ca=made.ca, client=made.foreign)
        await refused(server.port, ca=made.ca, client=made.expired)
        await refused(server.port, ca=made.ca, plaintext=True)
        assert await answered(server.port, ca=made.ca, client=made.client) == "client.test"


async def test_alternative_names_come_before_the_common_name(made: Certificates) -> None:
    client = made.authority.issue("common.test", hosts=("a.test", "10.0.0.7"))
    async with served(made, tls_client_ca=made.ca) as server:
        found = await answered(server.port, ca=made.ca, client=client)
    assert found == "a.test|10.0.0.7|common.test"


async def test_a_new_certificate_holds_for_new_connections_without_a_restart(
    made: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    new = Authority("a new authority")
    new_ca = tmp_path / "new-ca.pem"
    new_ca.write_bytes(new.certificate)
    async with served(made) as server, channel(server.port, ca=made.ca) as open_before:
        await ask(open_before)
        await refused(server.port, ca=new_ca)
        with caplog.at_level(logging.INFO):
            new.issue("server.test").write(tmp_path, "server")
            assert await answered(server.port, ca=new_ca) == ""
        assert "was read again" in caplog.text
        await refused(server.port, ca=made.ca)
        assert await ask(open_before) == ""


async def test_a_pair_that_is_half_written_leaves_the_one_before_in_force(
    made: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    new = Authority("a new authority")
    new_ca = tmp_path / "new-ca.pem"
    new_ca.write_bytes(new.certificate)
    issued = new.issue("server.test")
    async with served(made) as server:
        made.server.certificate.write_bytes(issued.certificate)
        for _ in range(3):
            assert await answered(server.port, ca=made.ca) == ""
        (error,) = [record for record in caplog.records if record.levelname == "ERROR"]
        assert "does not belong to certificate" in error.message
        assert "stays in force" in error.message
        made.server.key.write_bytes(issued.key)
        assert await answered(server.port, ca=new_ca) == ""


@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERTIFICATE-----\nMIIB", None])
async def test_a_certificate_that_is_damaged_or_gone_leaves_the_one_before_in_force(
    made: Certificates, content: bytes | None
) -> None:
    async with served(made) as server:
        if content is None:
            made.server.certificate.unlink()
        else:
            made.server.certificate.write_bytes(content)
        assert await answered(server.port, ca=made.ca) == ""


async def test_an_expired_new_certificate_leaves_the_one_before_in_force(
    made: Certificates, tmp_path: Path
) -> None:
    async with served(made) as server:
        expired = Pair(certificate=made.expired.certificate, key=made.expired.key)
        made.server.certificate.write_bytes(expired.certificate.read_bytes())
        made.server.key.write_bytes(expired.key.read_bytes())
        assert await answered(server.port, ca=made.ca) == ""


async def test_new_client_authorities_hold_without_a_restart(
    made: Certificates, tmp_path: Path
) -> None:
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(made.ca.read_bytes())
    async with served(made, tls_client_ca=trusted) as server:
        assert await answered(server.port, ca=made.ca, client=made.client) == "client.test"
        await refused(server.port, ca=made.ca, client=made.foreign)
        trusted.write_bytes(made.foreign_ca.read_bytes())
        await refused(server.port, ca=made.ca, client=made.client)
        assert "client.test" in await answered(server.port, ca=made.ca, client=made.foreign)
        trusted.write_bytes(made.foreign_ca.read_bytes() + made.ca.read_bytes())
        assert await answered(server.port, ca=made.ca, client=made.client) == "client.test"


async def test_many_changes_under_connections_are_all_seen(
    made: Certificates, tmp_path: Path
) -> None:
    async with served(made) as server:
        for number in range(20):
            new = Authority(f"authority {number}")
            ca = tmp_path / "current-ca.pem"
            ca.write_bytes(new.certificate)
            new.issue("server.test").write(tmp_path, "server")
            answers = await asyncio.gather(*(answered(server.port, ca=ca) for _ in range(5)))
            assert answers == [""] * 5


def test_without_a_certificate_there_are_no_credentials() -> None:
    assert tls.server_credentials(Settings()) is None
    assert tls.problems(Settings()) == []


def test_plaintext_beyond_this_machine_is_refused_unless_asked_for() -> None:
    with pytest.raises(ConfigError, match="plaintext"):
        tls.server_credentials(Settings(host="0.0.0.0"))
    assert tls.server_credentials(Settings(host="0.0.0.0", insecure=True)) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("tls_certificate",), "tls_key is not set; give --tls-key as well"),
        (("tls_key",), "tls_certificate is not set; give --tls-certificate as well"),
        (("tls_client_ca",), "tls_certificate is not set: callers' certificates are asked"),
        (("tls_certificate", "tls_client_ca"), "tls_key is not set"),
    ],
)
def test_half_a_set_of_settings_is_refused(
    made: Certificates, given: tuple[str, ...], message: str
) -> None:
    paths = {
        "tls_certificate": made.server.certificate,
        "tls_key": made.server.key,
        "tls_client_ca": made.ca,
    }
    half = Settings(**{name: paths[name] for name in given})
    (problem,) = tls.problems(half)
    assert message in problem
    with pytest.raises(ConfigError, match=message):
        tls.server_credentials(half)


def test_everything_wrong_with_the_files_is_told_at_the_start(
    made: Certificates, tmp_path: Path
) -> None:
    wrong = settings(
        made,
        tls_certificate=made.expired.certificate,
        tls_client_ca=tmp_path / "missing.pem",
    )
    with pytest.raises(ConfigError) as caught:
        tls.server_credentials(wrong)
    for part in ("client CA", "cannot be read", "expired at", "does not belong"):
        assert part in str(caught.value)
    assert len(tls.problems(wrong)) == 3


def test_names_that_could_deceive_a_log_are_left_out() -> None:
    context = {
        "x509_common_name": [b"a.test"],
        "x509_subject_alternative_name": [b"b\n.test", b"\xff", b"", b"c\x00.test", b"d.test"],
        "transport_security_type": [b"ssl"],
    }
    assert tls.certificate_names(context) == ("d.test", "a.test")
    assert tls.certificate_names({}) == ()
    assert tls.certificate_names({"x509_common_name": [b"a"] * 2}) == ("a",)
