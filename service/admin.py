"""The methods of `ibinn.v1.AdminService`: convert, call, convert."""

from __future__ import annotations

from ibinn.v1 import admin_service_pb2 as admin
from ibinn.v1 import classification_service_pb2, model_pb2
from service.call import Call, Role, Route
from service.converters.admin import candidate_message, mode_of, served_model, server_state
from service.models.manager import ModelManager
from service.models.registry import Models

SERVICE_NAME: str = admin.DESCRIPTOR.services_by_name["AdminService"].full_name


class AdminServicer:
    """Does what operators ask; errors leave as exceptions, which the border makes into statuses.

    Args:
        manager: Changes models and mode.
    """

    def __init__(self, manager: ModelManager) -> None:
        self._manager = manager

    async def reload(self, request: admin.ReloadRequest, call: Call) -> admin.ReloadResponse:
        """Makes a bundle the default model."""
        found = await self._manager.reload(request.bundle, keep_default=request.keep_default)
        return admin.ReloadResponse(candidate=candidate_message(found), state=await self._state())

    async def rollback(self, request: admin.RollbackRequest, call: Call) -> admin.RollbackResponse:
        """Returns to the previous default model."""
        await self._manager.rollback()
        return admin.RollbackResponse(state=await self._state())

    async def set_shadow(
        self, request: admin.SetShadowRequest, call: Call
    ) -> admin.SetShadowResponse:
        """Starts, replaces or ends the shadow."""
        await self._manager.set_shadow(request.bundle, share=request.share)
        return admin.SetShadowResponse(state=await self._state())

    async def set_mode(self, request: admin.SetModeRequest, call: Call) -> admin.SetModeResponse:
        """Presses or releases the stop button."""
        abstain_all = request.mode == model_pb2.MODE_ABSTAIN_ALL
        await self._manager.set_mode(abstain_all=abstain_all, reason=request.reason)
        return admin.SetModeResponse(state=await self._state())

    async def get_status(
        self, request: admin.GetStatusRequest, call: Call
    ) -> admin.GetStatusResponse:
        """Says what is loaded and what is being done with it."""
        return admin.GetStatusResponse(state=await self._state())

    async def _state(self) -> admin.ServerState:
        return server_state(await self._manager.state())


def admin_routes(manager: ModelManager) -> list[Route]:
    """The service's methods."""
    servicer = AdminServicer(manager)
    handlers = (
        ("Reload", admin.ReloadRequest, servicer.reload),
        ("Rollback", admin.RollbackRequest, servicer.rollback),
        ("SetShadow", admin.SetShadowRequest, servicer.set_shadow),
        ("SetMode", admin.SetModeRequest, servicer.set_mode),
        ("GetStatus", admin.GetStatusRequest, servicer.get_status),
    )
    return [
        Route(method=method, role=Role.ADMIN, request=request, unary=handler)
        for method, request, handler in handlers
    ]


def describe(models: Models, response: classification_service_pb2.GetModelResponse) -> None:
    """Adds to GetModel's answer which models can be asked, and the mode."""
    response.served.extend(map(served_model, models.listed()))
    response.mode = mode_of(abstain_all=models.mode.abstain_all)
