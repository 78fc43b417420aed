"""Who gets in: over real sockets, with certificates, tokens and roles set up as operators do."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from typer.testing import CliRunner

from ibinn import cli
from ibinn.client import AsyncClient, Client, ClientTls, Retry
from ibinn.errors import (
    NotAllowedError,
    NotAuthenticatedError,
    OverloadedError,
    RemoteError,
    UnavailableError,
)
from ibinn.samples import all_samples
from ibinn.v1 import admin_service_pb2, classification_service_pb2
from service.access.cli import app as token_app
from service.call import Role
from service.server import Server
from tests.service.certificates import Authority, Certificates, Pair, certificates
from tests.service.running import PATIENCE_S, settings
from tests.service.stub import StubClassifier, png

READY_WITHIN_S = 120.0
REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
NEEDED = {
    f"/{service}/{method}": role
    for service, role, methods in (
        ("ibinn.v1.ClassificationService", Role.CLASSIFY, "Classify ClassifyStream GetModel"),
        ("ibinn.v1.ClassificationService", Role.EXPLAIN, "Explain"),
        ("ibinn.v1.ClassificationService", Role.FEEDBACK, "SubmitFeedback"),
        ("ibinn.v1.ClassificationService", Role.AUDIT, "GetRecord ListEntries"),
        ("ibinn.v1.AdminService", Role.ADMIN, "Reload Rollback SetShadow SetMode GetStatus"),
        ("ibinn.v1.AdminService", Role.ADMIN, "AcknowledgeDrift EraseImage"),
        ("inference.GRPCInferenceService", Role.CLASSIFY, "ModelInfer ModelMetadata"),
        ("inference.GRPCInferenceService", None, "ServerLive ServerReady ModelReady"),
        ("inference.GRPCInferenceService", None, "ServerMetadata"),
    )
    for method in methods.split()
}
"""Role by method; None: anybody may call it, so that a probe needs no token."""


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    return certificates(tmp_path)


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


def new_token(file: Path, name: str, *roles: str, more: tuple[str, ...] = ()) -> str:
    """A token, made as an operator makes one."""
    options = [option for role in roles for option in ("--role", role)]
    result = CliRunner().invoke(
        token_app, ["new", "--name", name, *options, *more, "--file", str(file)]
    )
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()


def tls_settings(made: Certificates, **changes: Any) -> dict[str, Any]:
    return {"tls_certificate": made.server.certificate, "tls_key": made.server.key, **changes}


@contextlib.asynccontextmanager
async def serving(**changes: Any) -> AsyncIterator[str]:
    """The address of a server with the stub."""
    server = Server(settings(**changes))
    stub = StubClassifier()
    addresses = await server.start()
    try:
        await server.load(lambda: stub)
        yield addresses.grpc
    finally:
        await server.stop()


def asking(target: str, *, ca: Path | None, client: Pair | None = None, token: str = "") -> Any:
    """A client that fails at once."""
    tls = None
    if ca is not None:
        tls = ClientTls.from_files(
            root_certificates=ca,
            certificate=None if client is None else client.certificate,
            key=None if client is None else client.key,
        )
    return AsyncClient(target, tls=tls, token=token, timeout_s=PATIENCE_S, retry=Retry.none())


async def asked(target: str, **how: Any) -> None:
    """An image is answered over a connection of its own."""
    async with asking(target, **how) as client:
        await client.classify(png())


async def code_of(
    channel: grpc.aio.Channel, method: str, *, token: str | None = None
) -> grpc.StatusCode:
    """The status of a call with an empty message."""
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    if method.endswith("Stream"):
        call = channel.stream_stream(method)(iter([b""]), metadata=metadata, timeout=PATIENCE_S)
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for _ in call:
                pass
        return await call.code()
    return await channel.unary_unary(method)(b"", metadata=metadata, timeout=PATIENCE_S).code()


async def streamed(client: AsyncClient) -> None:
    """Two images are answered over a stream."""
    async for result in client.classify_many([png(), png()]):
        if isinstance(result, Exception):
            raise result


async def until_refused(client: AsyncClient) -> None:
    """Asks again and again until the server refuses."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            await client.classify(png())


# ------------------------------------------------------------------------------ over the wire


async def test_only_callers_of_the_authority_connect_under_mutual_tls(made: Certificates) -> None:
    async with serving(**tls_settings(made, tls_client_ca=made.ca)) as target:
        await asked(target, ca=made.ca, client=made.client)
        for how in (
            {"ca": made.ca},  # no certificate
            {"ca": made.ca, "client": made.foreign},  # one of another authority
            {"ca": made.ca, "client": made.expired},
            {"ca": made.foreign_ca, "client": made.client},  # does not trust the server
            {"ca": None},  # plaintext
        ):
            with pytest.raises(UnavailableError):
                await asked(target, **how)
        await asked(target, ca=made.ca, client=made.client)


async def test_certificates_change_under_load_without_a_failed_call(
    made: Certificates, tmp_path: Path
) -> None:
    both = tmp_path / "both-ca.pem"
    new = Authority("the next authority")
    both.write_bytes(made.ca.read_bytes() + new.certificate)
    new_ca = tmp_path / "new-ca.pem"
    new_ca.write_bytes(new.certificate)
    async with serving(**tls_settings(made)) as target:
        stop = asyncio.Event()

        async def steady() -> int:
            """One connection for all its calls."""
            done = 0
            async with asking(target, ca=both) as client:
                while not stop.is_set():
                    await client.classify(png())
                    done += 1
            return done

        async def coming_and_going() -> int:
            done = 0
            while not stop.is_set():
                await asked(target, ca=both)
                done += 1
            return done

        loads = [asyncio.create_task(load()) for load in (steady, steady, coming_and_going)]
        with pytest.raises(UnavailableError):
            await asked(target, ca=new_ca)
        new.issue("server.test").write(tmp_path, "server")
        for _ in range(10):
            await asked(target, ca=new_ca)
        with pytest.raises(UnavailableError):
            await asked(target, ca=made.ca)
        stop.set()
        assert min(await asyncio.gather(*loads)) > 0


async def test_without_a_known_token_nothing_is_answered(made: Certificates, tokens: Path) -> None:
    token = new_token(tokens, "line-3", "classify", "explain")
    async with serving(**tls_settings(made, tokens=tokens)) as target:
        async with asking(target, ca=made.ca, token=token) as client:
            await streamed(client)
        for wrong in ("", "ibinn_guessed", token[:-1], token.upper()):
            async with asking(target, ca=made.ca, token=wrong) as client:
                for call in (client.classify(png()), client.explain(png()), client.model()):
                    with pytest.raises(NotAuthenticatedError) as caught:
                        await call
                    assert caught.value.code == "UNAUTHENTICATED"
                    assert caught.value.reason == "UNAUTHENTICATED"
                    assert not wrong or wrong not in str(caught.value)
                with pytest.raises(NotAuthenticatedError):
                    await streamed(client)


async def test_what_a_caller_without_a_token_sends_is_not_even_read(
    made: Certificates, tokens: Path
) -> None:
    token = new_token(tokens, "line-3", "classify")
    limits = settings()
    too_much = bytes(2 * limits.max_message_bytes)
    async with (
        serving(**tls_settings(made, tokens=tokens)) as target,
        grpc.aio.secure_channel(
            target, grpc.ssl_channel_credentials(made.ca.read_bytes())
        ) as channel,
    ):
        classify = channel.unary_unary("/ibinn.v1.ClassificationService/Classify")
        codes = []
        for sent in (token, "ibinn_guessed", ""):
            metadata = (("authorization", f"Bearer {sent}"),) if sent else ()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await classify(too_much, metadata=metadata, timeout=PATIENCE_S)
            codes.append(caught.value.code())
    # gRPC tells of the size of what it begins to read.
    assert codes == [
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNAUTHENTICATED,
    ]


async def test_a_token_does_what_its_roles_say_and_no_more(
    made: Certificates, tokens: Path
) -> None:
    classify = new_token(tokens, "line-3", "classify")
    explain = new_token(tokens, "desk", "explain")
    async with serving(**tls_settings(made, tokens=tokens)) as target:
        async with asking(target, ca=made.ca, token=classify) as client:
            await client.classify(png())
            with pytest.raises(NotAllowedError, match="needs the role explain") as caught:
                await client.explain(png())
            assert (caught.value.code, caught.value.reason) == ("PERMISSION_DENIED", "FORBIDDEN")
        async with asking(target, ca=made.ca, token=explain) as client:
            await client.explain(png())
            with pytest.raises(NotAllowedError, match="needs the role classify"):
                await client.classify(png())


async def test_every_method_asks_for_its_role(made: Certificates, tokens: Path) -> None:
    held = {role: new_token(tokens, role, role) for role in Role}
    services = [
        classification_service_pb2.DESCRIPTOR.services_by_name["ClassificationService"],
        admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
    ]
    methods = {f"/{each.full_name}/{method.name}" for each in services for method in each.methods}
    assert methods | set(NEEDED) == set(NEEDED)
    async with (
        serving(**tls_settings(made, tokens=tokens)) as target,
        grpc.aio.secure_channel(
            target, grpc.ssl_channel_credentials(made.ca.read_bytes())
        ) as channel,
    ):
        for method, needed in NEEDED.items():
            unknown = await code_of(channel, method)
            assert (unknown is grpc.StatusCode.UNAUTHENTICATED) is (needed is not None), method
            for role, token in held.items():
                code = await code_of(channel, method, token=token)
                if needed in (None, role):
                    assert code not in REFUSED, (method, role)
                else:
                    assert code is grpc.StatusCode.PERMISSION_DENIED, (method, role)


async def test_without_tokens_nobody_administers() -> None:
    async with serving() as target, grpc.aio.insecure_channel(target) as channel:
        for method, needed in NEEDED.items():
            code = await code_of(channel, method)
            assert (code in REFUSED) is (needed is Role.ADMIN), method
            if needed is Role.ADMIN:
                assert code is grpc.StatusCode.PERMISSION_DENIED


async def test_a_certificate_has_the_roles_of_its_entry(made: Certificates, tokens: Path) -> None:
    new_token(tokens, "press", "classify", more=("--certificate", "client.test"))
    other = made.authority.issue("other.test", hosts=("other.test",)).write(made.ca.parent, "other")
    async with serving(**tls_settings(made, tls_client_ca=made.ca, tokens=tokens)) as target:
        await asked(target, ca=made.ca, client=made.client)
        async with asking(target, ca=made.ca, client=made.client) as client:
            with pytest.raises(NotAllowedError, match="caller 'press' has classify"):
                await client.explain(png())
        with pytest.raises(NotAuthenticatedError, match=r"certificate of 'other\.test'"):
            await asked(target, ca=made.ca, client=other)


async def test_a_token_is_revoked_while_its_connection_is_open(
    made: Certificates, tokens: Path
) -> None:
    kept, revoked = new_token(tokens, "kept", "classify"), new_token(tokens, "gone", "classify")
    async with (
        serving(**tls_settings(made, tokens=tokens)) as target,
        asking(target, ca=made.ca, token=revoked) as client,
    ):
        await client.classify(png())
        result = CliRunner().invoke(token_app, ["remove", "gone", "--file", str(tokens)])
        assert result.exit_code == 0
        with pytest.raises(NotAuthenticatedError):
            await until_refused(client)
        await asked(target, ca=made.ca, token=kept)


async def test_a_caller_over_its_rate_is_told_when_to_come_again_and_others_go_on(
    made: Certificates, tokens: Path
) -> None:
    slow = new_token(tokens, "slow", "classify", more=("--rate", "0.5", "--burst", "2"))
    fast = new_token(tokens, "fast", "classify")
    async with serving(**tls_settings(made, tokens=tokens)) as target:
        async with asking(target, ca=made.ca, token=slow) as client:
            for _ in range(2):
                await client.classify(png())
            with pytest.raises(OverloadedError, match="'slow' may send") as caught:
                await client.classify(png())
        assert caught.value.reason == "RATE_LIMITED"
        assert caught.value.retry_after_s is not None
        assert 0 < caught.value.retry_after_s <= 2.0
        async with asking(target, ca=made.ca, token=fast) as client:
            for _ in range(20):
                await client.classify(png())


async def test_health_is_answered_without_a_token_to_whom_tls_lets_in(
    made: Certificates, tokens: Path
) -> None:
    new_token(tokens, "a", "classify")
    async with serving(**tls_settings(made, tokens=tokens)) as target:
        credentials = grpc.ssl_channel_credentials(made.ca.read_bytes())
        async with grpc.aio.secure_channel(target, credentials) as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=PATIENCE_S
            )
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_no_token_is_logged_on_its_way(
    made: Certificates, tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = new_token(tokens, "line-3", "classify")
    with caplog.at_level(logging.DEBUG):
        async with serving(**tls_settings(made, tokens=tokens)) as target:
            for sent in (token, "ibinn_guessed"):
                async with asking(target, ca=made.ca, token=sent) as client:
                    with contextlib.suppress(RemoteError):
                        await client.classify(png())
                    with contextlib.suppress(RemoteError):
                        await client.explain(png())
    assert token not in caplog.text
    assert "ibinn_guessed" not in caplog.text


# -------------------------------------------------------------------------- the command itself


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A running ``ibinn-serve`` with the embedded model."""

    target: str
    process: subprocess.Popen[str]


def command(*arguments: object) -> list[str]:
    options = ("--port=0", "--metrics-port=0", "--threads=1")
    return [sys.executable, "-m", "service", *options, *map(str, arguments)]


def environment() -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("IBINN_")},
        "OMP_NUM_THREADS": "1",
    }


@contextlib.contextmanager
def started(*arguments: object) -> Iterator[Process]:
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    lines: queue.Queue[str] = queue.Queue()
    assert process.stdout is not None
    reader = threading.Thread(target=_put_lines, args=(process.stdout, lines), daemon=True)
    reader.start()
    seen: list[str] = []
    try:
        while not seen or not seen[-1].startswith("ready grpc="):
            seen.append(lines.get(timeout=READY_WITHIN_S))
            assert seen[-1], "".join(seen)
        target = seen[-1].split()[1].removeprefix("grpc=")
        yield Process(target=target, process=process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(READY_WITHIN_S) == 0
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()


def _put_lines(stream: Any, lines: queue.Queue[str]) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")


def refused(*arguments: object) -> str:
    """What ``ibinn-serve`` says when it does not start."""
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=READY_WITHIN_S,
        env=environment(),
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "ready" not in done.stdout
    return done.stderr


@pytest.mark.slow
def test_nothing_is_served_in_plaintext_beyond_this_machine_unless_asked_for() -> None:
    for host in ("0.0.0.0", "::"):
        assert "plaintext" in refused(f"--host={host}")


@pytest.mark.slow
def test_all_that_is_wrong_with_access_is_told_at_once(made: Certificates, tokens: Path) -> None:
    tokens.write_text("[[token]]\n")
    said = refused(
        f"--tls-certificate={made.expired.certificate}",
        f"--tls-key={made.client.key}",
        f"--tokens={tokens}",
        "--require-signature",
    )
    for part in ("expired at", "does not belong", "token number 1", "trusted_keys is not"):
        assert part in said


@pytest.mark.slow
def test_a_signed_bundle_is_served_over_tls_to_a_token_and_an_unsigned_one_never(
    made: Certificates, tokens: Path, tmp_path: Path, embedded_bundle: Path
) -> None:
    def ibinn(*arguments: object) -> None:
        result = CliRunner().invoke(cli.app, [str(each) for each in arguments])
        assert result.exit_code == 0, result.stderr

    key, public = tmp_path / "release.pem", tmp_path / "release.pub.pem"
    ibinn("keygen", "--out", key)
    signing = ("--require-signature", f"--trusted-keys={public}")
    assert "bears no signature" in refused(*signing)
    bundle = tmp_path / "bundle"
    shutil.copytree(embedded_bundle, bundle)
    assert "bears no signature" in refused(f"--bundle={bundle}", *signing)
    ibinn("sign", bundle, "--key", key)

    token = new_token(tokens, "line-3", "classify")
    tls = ClientTls.from_files(root_certificates=made.ca)
    image = all_samples()[0].data
    with started(
        "--host=0.0.0.0",
        f"--tls-certificate={made.server.certificate}",
        f"--tls-key={made.server.key}",
        f"--tokens={tokens}",
        f"--bundle={bundle}",
        *signing,
    ) as server:
        target = server.target.replace("0.0.0.0", "127.0.0.1")
        with Client(target, tls=tls, token=token, retry=Retry.none()) as client:
            assert client.classify(image).classes
        with (
            Client(target, tls=tls, retry=Retry.none()) as client,
            pytest.raises(NotAuthenticatedError),
        ):
            client.classify(image)

    (bundle / "manifest.json").write_bytes((bundle / "manifest.json").read_bytes() + b"\n")
    assert "changed after signing" in refused(f"--bundle={bundle}", *signing)
