"""A server with a models folder and an operator's token, for tests."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from ibinn.v1 import admin_service_pb2 as admin
from ibinn.v1 import answer_pb2
from ibinn.v1 import classification_service_pb2 as service
from ibinn.v1.admin_service_pb2_grpc import AdminServiceStub
from ibinn.v1.classification_service_pb2_grpc import ClassificationServiceStub
from service.access import grants
from service.server import Server
from tests.service.models import scripted
from tests.service.models.scripted import Script, write
from tests.service.running import settings

_TOKENS = """[[token]]
name = "operator"
sha256 = "{sha256}"
roles = ["admin", "classify"]
"""


class _Bearer(grpc.aio.UnaryUnaryClientInterceptor):
    """Sends a token with every call."""

    def __init__(self, token: str) -> None:
        self._pair = ("authorization", f"Bearer {token}")

    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        metadata = grpc.aio.Metadata(*(client_call_details.metadata or ()), self._pair)
        return await continuation(client_call_details._replace(metadata=metadata), request)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Administered:
    server: Server
    admin: AdminServiceStub
    classification: ClassificationServiceStub
    models: Path
    target: str
    token: str

    async def classify(self, **options) -> answer_pb2.Classification:
        request = service.ClassifyRequest(image=scripted.image(), **options)
        return (await self.classification.Classify(request)).classification

    async def status(self) -> admin.ServerState:
        return (await self.admin.GetStatus(admin.GetStatusRequest())).state


@contextlib.asynccontextmanager
async def administered(tmp_path: Path, **changes) -> AsyncIterator[Administered]:
    models = tmp_path / "models"
    models.mkdir(exist_ok=True)
    first = write(tmp_path / "elsewhere", "initial", Script())
    chosen = {"models": models, "bundle": first, "watch_interval_s": 3600.0, **changes}
    token = grants.new_token()
    (tmp_path / "tokens.toml").write_text(_TOKENS.format(sha256=grants.token_digest(token).hex()))
    server = Server(settings(tokens=tmp_path / "tokens.toml", **chosen), load=scripted.load)
    addresses = await server.start()
    try:
        await server.load(lambda: scripted.load(first))
        bearer = _Bearer(token)
        async with grpc.aio.insecure_channel(addresses.grpc, interceptors=[bearer]) as channel:
            yield Administered(
                target=addresses.grpc,
                token=token,
                server=server,
                admin=AdminServiceStub(channel),
                classification=ClassificationServiceStub(channel),
                models=models,
            )
    finally:
        await server.stop()
