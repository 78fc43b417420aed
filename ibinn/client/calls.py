"""One call with one answer: named, within its time, tried again where that makes sense."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from ibinn.client.channels import Connection
from ibinn.client.failures import remote_error
from ibinn.client.retries import Attempts, Budget, Retry
from ibinn.errors import RemoteError

DEFAULT_TIMEOUT_S = 30.0


def new_request_id() -> str:
    """A name for a request that no other has."""
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Makes the calls of one client.

    Attributes:
        connection: Where they go.
        retry: How often and how soon a failed one is tried again.
        budget: What all of them may spend on that.
        timeout_s: Time for a call with all its attempts, unless the call says otherwise.
    """

    connection: Connection
    retry: Retry
    budget: Budget
    timeout_s: float | None

    @classmethod
    def of(cls, connection: Connection, *, retry: Retry, timeout_s: float | None) -> Caller:
        """A caller with a full budget."""
        return cls(connection=connection, retry=retry, budget=Budget(retry), timeout_s=timeout_s)

    def call(
        self,
        method: Any,
        request: object,
        *,
        request_id: str,
        timeout_s: float | None,
        repeatable: bool = True,
    ) -> Any:
        """The response of a unary method of a `grpc.Channel`.

        Args:
            method: The method of a stub.
            request: Its message.
            request_id: The call's name, the same in all attempts.
            timeout_s: Time for all attempts; None: the client's.
            repeatable: Whether making the call twice does no harm.

        Raises:
            RemoteError: There is none.
        """
        timeout_s, attempts = self._attempts(timeout_s, repeatable=repeatable)
        while True:
            try:
                response = method(request, **self._options(request_id, attempts))
            except grpc.RpcError as error:
                failure = self._failure(error, timeout_s, request_id)
                if (wait_s := attempts.wait_s(failure)) is None:
                    raise failure from error
                time.sleep(wait_s)
            else:
                attempts.succeeded()
                return response

    async def call_async(
        self,
        method: Any,
        request: object,
        *,
        request_id: str,
        timeout_s: float | None,
    ) -> Any:
        """The response of a unary method of a `grpc.aio.Channel`; see `call`."""
        timeout_s, attempts = self._attempts(timeout_s, repeatable=True)
        while True:
            try:
                response = await method(request, **self._options(request_id, attempts))
            except grpc.aio.AioRpcError as error:
                failure = self._failure(error, timeout_s, request_id)
                if (wait_s := attempts.wait_s(failure)) is None:
                    raise failure from error
                await asyncio.sleep(wait_s)
            else:
                attempts.succeeded()
                return response

    def _attempts(
        self, timeout_s: float | None, *, repeatable: bool
    ) -> tuple[float | None, Attempts]:
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        retry = self.retry if repeatable else Retry.none()
        return timeout_s, Attempts(retry, self.budget, timeout_s=timeout_s)

    def _options(self, request_id: str, attempts: Attempts) -> dict[str, Any]:
        return {
            "timeout": attempts.left_s,
            "metadata": self.connection.metadata(request_id),
            "wait_for_ready": self.connection.wait_for_ready,
        }

    def _failure(self, error: Any, timeout_s: float | None, request_id: str) -> RemoteError:
        return remote_error(
            error, target=self.connection.target, timeout_s=timeout_s, request_id=request_id
        )
