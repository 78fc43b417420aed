"""The methods of `ibinn.v1.AdminService`: convert, call, convert, and write down who told what."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Iterator

from ibinn.errors import IbinnError
from ibinn.v1 import admin_service_pb2 as admin
from ibinn.v1 import classification_service_pb2, model_pb2
from service.call import Call, Role, Route
from service.converters.admin import candidate_message, mode_of, served_model, server_state
from service.drift import DriftWatch
from service.models.manager import ModelManager
from service.models.registry import Models
from service.records.recorder import Recorder
from service.records_servicer import keeping

_log = logging.getLogger(__name__)

SERVICE_NAME: str = admin.DESCRIPTOR.services_by_name["AdminService"].full_name


class AdminServicer:
    """Does what operators ask; errors leave as exceptions, which the border makes into statuses.

    Args:
        manager: Changes models and mode.
        drift: Watches; None: nothing does.
        recorder: Keeps records; None: this server keeps none.
    """

    def __init__(
        self, manager: ModelManager, *, drift: DriftWatch, recorder: Recorder | None
    ) -> None:
        self._manager = manager
        self._drift = drift
        self._recorder = recorder

    async def reload(self, request: admin.ReloadRequest, call: Call) -> admin.ReloadResponse:
        """Makes a bundle the default model."""
        what = "load bundle %r beside the default" if request.keep_default else "reload bundle %r"
        with _recorded(call, what % request.bundle):
            found = await self._manager.reload(request.bundle, keep_default=request.keep_default)
        return admin.ReloadResponse(candidate=candidate_message(found), state=await self._state())

    async def rollback(self, request: admin.RollbackRequest, call: Call) -> admin.RollbackResponse:
        """Returns to the previous default model."""
        with _recorded(call, "roll back"):
            await self._manager.rollback()
        return admin.RollbackResponse(state=await self._state())

    async def set_shadow(
        self, request: admin.SetShadowRequest, call: Call
    ) -> admin.SetShadowResponse:
        """Starts, replaces or ends the shadow."""
        share = f" share {request.share:g}" if request.share else ""
        what = f"shadow bundle {request.bundle!r}{share}" if request.bundle else "end the shadow"
        with _recorded(call, what):
            await self._manager.set_shadow(request.bundle, share=request.share)
        return admin.SetShadowResponse(state=await self._state())

    async def set_mode(self, request: admin.SetModeRequest, call: Call) -> admin.SetModeResponse:
        """Presses or releases the stop button."""
        abstain_all = request.mode == model_pb2.MODE_ABSTAIN_ALL
        with _recorded(call, f"set mode {model_pb2.Mode.Name(request.mode)}"):
            await self._manager.set_mode(abstain_all=abstain_all, reason=request.reason)
        return admin.SetModeResponse(state=await self._state())

    async def get_status(
        self, request: admin.GetStatusRequest, call: Call
    ) -> admin.GetStatusResponse:
        """Says what is loaded and what is being done with it."""
        return admin.GetStatusResponse(state=await self._state())

    async def acknowledge_drift(
        self, request: admin.AcknowledgeDriftRequest, call: Call
    ) -> admin.AcknowledgeDriftResponse:
        """Ends the suspension of the guarantee."""
        with _recorded(call, f"acknowledge drift: {request.reason}"):
            await self._drift.acknowledge(reason=request.reason, caller=call.caller.name)
        return admin.AcknowledgeDriftResponse(state=await self._state())

    async def erase_image(
        self, request: admin.EraseImageRequest, call: Call
    ) -> admin.EraseImageResponse:
        """Erases the image of an answer; its record stays."""
        with _recorded(call, f"erase the image of {request.record_id}: {request.reason}"):
            erased = await keeping(self._recorder).erase(
                request.record_id, reason=request.reason, caller=call.caller.name
            )
        return admin.EraseImageResponse(found=erased.found, records=erased.records)

    async def _state(self) -> admin.ServerState:
        state = dataclasses.replace(await self._manager.state(), drift=self._drift.state())
        if self._recorder is not None:
            state = dataclasses.replace(state, records=self._recorder.state())
        return server_state(state)


@contextlib.contextmanager
def _recorded(call: Call, what: str) -> Iterator[None]:
    """Leaves one entry for an order that changes something: who gave it, and what became of it.

    Args:
        call: Of the operator, named by token or certificate.
        what: The order in words.
    """
    outcome = "failed"
    try:
        yield
        outcome = "done"
    except IbinnError:
        outcome = "refused"
        raise
    except asyncio.CancelledError:
        outcome = "not waited for"
        raise
    finally:
        _log.info("order: %s", what, extra={"caller": call.caller.name, "outcome": outcome})


def admin_routes(
    manager: ModelManager,
    *,
    drift: DriftWatch,
    recorder: Recorder | None,
) -> list[Route]:
    """The service's methods; see `AdminServicer`."""
    servicer = AdminServicer(manager, drift=drift, recorder=recorder)
    handlers = (
        ("Reload", admin.ReloadRequest, servicer.reload),
        ("Rollback", admin.RollbackRequest, servicer.rollback),
        ("SetShadow", admin.SetShadowRequest, servicer.set_shadow),
        ("SetMode", admin.SetModeRequest, servicer.set_mode),
        ("GetStatus", admin.GetStatusRequest, servicer.get_status),
        ("AcknowledgeDrift", admin.AcknowledgeDriftRequest, servicer.acknowledge_drift),
        ("EraseImage", admin.EraseImageRequest, servicer.erase_image),
    )
    return [
        Route(method=method, role=Role.ADMIN, request=request, unary=handler)
        for method, request, handler in handlers
    ]


def describe(models: Models, response: classification_service_pb2.GetModelResponse) -> None:
    """Adds to GetModel's answer which models can be asked, and the mode."""
    response.served.extend(map(served_model, models.listed()))
    response.mode = mode_of(abstain_all=models.mode.abstain_all)
