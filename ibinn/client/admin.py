"""`AdminClient`: what an operator tells a running server."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import grpc

from ibinn.client import records, states
from ibinn.client.calls import Caller, new_request_id
from ibinn.client.channels import ClientTls, Connection
from ibinn.client.names import MODES
from ibinn.client.records import Erased
from ibinn.client.retries import Retry
from ibinn.errors import ConfigError
from ibinn.serving import Mode, Reloaded, ServerState
from ibinn.v1 import admin_service_pb2 as admin
from ibinn.v1.admin_service_pb2_grpc import AdminServiceStub

DEFAULT_TIMEOUT_S = 300.0
"""A reload loads a model and answers the whole acceptance set."""

_MODES = {mode: number for number, mode in MODES.items()}


class AdminClient:
    """Tells a server which model to serve and what to do with answers; blocks until it is done.

    Usable from several threads. A call that fails to reach the server is tried again where making
    it twice does no harm: not `reload`, `rollback`, `acknowledge_drift` and `erase_image`.

    Args:
        target: As for `Client`, like all others; the token needs the role ``admin``.

    Every call raises a subclass of `ibinn.errors.RemoteError` if it was not done; a candidate that
    was refused raises `ibinn.errors.PreconditionError` with every reason in `reasons`.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        tls: ClientTls | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        token: str = "",
        allow_plaintext_token: bool = False,
        retry: Retry | None = None,
    ) -> None:
        connection = Connection(
            target=target,
            tls=tls,
            credentials=credentials,
            token=token,
            allow_plaintext_token=allow_plaintext_token,
        )
        self._caller = Caller.of(connection, retry=retry or Retry(), timeout_s=timeout_s)
        self._channel = connection.channel()
        self._stub: Any = AdminServiceStub(self._channel)

    def status(self) -> ServerState:
        """What the server holds and does."""
        response = self._call(self._stub.GetStatus, admin.GetStatusRequest())
        return states.server_state(response.state)

    def reload(self, bundle: str) -> Reloaded:
        """Makes a bundle the default model, if it passes the server's checks.

        Args:
            bundle: Name of a folder in the server's models folder.
        """
        return self._reload(admin.ReloadRequest(bundle=bundle))

    def load(self, bundle: str) -> Reloaded:
        """Loads and checks a bundle as `reload` does, and leaves the default model as it is.

        Args:
            bundle: Name of a folder in the server's models folder.
        """
        return self._reload(admin.ReloadRequest(bundle=bundle, keep_default=True))

    def rollback(self) -> ServerState:
        """Makes the previous default model the default again."""
        response = self._call(self._stub.Rollback, admin.RollbackRequest(), repeatable=False)
        return states.server_state(response.state)

    def set_shadow(self, bundle: str, *, share: float | None = None) -> ServerState:
        """Starts or replaces the shadow: a model that answers a share of the calls silently.

        Args:
            bundle: Name of a folder in the server's models folder.
            share: Of the calls that the default model answers, in (0, 1]; None: the server's
                setting.

        Raises:
            ConfigError: The share is out of range.
        """
        if share is not None and not 0 < share <= 1:
            raise ConfigError(f"share is {share}, expected a number above 0 and at most 1")
        request = admin.SetShadowRequest(bundle=bundle, share=share)
        return states.server_state(self._call(self._stub.SetShadow, request).state)

    def end_shadow(self) -> ServerState:
        """Ends the shadow."""
        response = self._call(self._stub.SetShadow, admin.SetShadowRequest())
        return states.server_state(response.state)

    def set_mode(self, mode: Mode, *, reason: str = "") -> ServerState:
        """Presses or releases the stop button.

        Args:
            mode: What to do with every answer.
            reason: Why; stands in every answer's decision and in the server's log.
        """
        request = admin.SetModeRequest(mode=_MODES[mode], reason=reason)
        return states.server_state(self._call(self._stub.SetMode, request).state)

    def acknowledge_drift(self, reason: str) -> ServerState:
        """Ends the suspension of the guarantee after a drift alarm: the detectors begin anew.

        Args:
            reason: Why; stands in the ledger and in the server's log.
        """
        request = admin.AcknowledgeDriftRequest(reason=reason)
        # Made twice, it could acknowledge an alarm that nobody has seen.
        response = self._call(self._stub.AcknowledgeDrift, request, repeatable=False)
        return states.server_state(response.state)

    def erase_image(self, record_id: str, reason: str) -> Erased:
        """Erases the image of an answer, from every record of the same bytes; the records stay.

        Args:
            record_id: Of one answer that had the image.
            reason: Why; stands in the ledger.
        """
        request = admin.EraseImageRequest(record_id=record_id, reason=reason)
        # Made twice, it would say of the image that there was none.
        return records.erased(self._call(self._stub.EraseImage, request, repeatable=False))

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _reload(self, request: admin.ReloadRequest) -> Reloaded:
        response = self._call(self._stub.Reload, request, repeatable=False)
        return Reloaded(
            candidate=states.candidate(response.candidate),
            state=states.server_state(response.state),
        )

    def _call(self, method: Any, request: object, *, repeatable: bool = True) -> Any:
        return self._caller.call(
            method, request, request_id=new_request_id(), timeout_s=None, repeatable=repeatable
        )
