"""From what operators ask, and what a server holds and does, to messages."""

from __future__ import annotations

from ibinn.v1 import admin_service_pb2 as admin
from ibinn.v1 import model_pb2 as model
from service.converters.names import versions
from service.models.acceptance import AcceptanceFigure
from service.models.candidates import Candidate
from service.models.registry import ServedRole
from service.models.report import ServerState, ShadowState
from service.models.served import Served

_ROLES = {
    ServedRole.DEFAULT: model.MODEL_ROLE_DEFAULT,
    ServedRole.PREVIOUS: model.MODEL_ROLE_PREVIOUS,
    ServedRole.SHADOW: model.MODEL_ROLE_SHADOW,
    ServedRole.PINNED: model.MODEL_ROLE_PINNED,
}


def server_state(state: ServerState) -> admin.ServerState:
    """What the server holds and does."""
    return admin.ServerState(
        served=[served_model(served, role) for served, role in state.served],
        mode=mode_of(abstain_all=state.mode.abstain_all),
        mode_reason=state.mode.reason,
        shadow=None if state.shadow is None else _shadow(state.shadow),
        candidates=[candidate_message(found) for found in state.candidates],
        generation=state.generation,
        workers=state.workers,
        workers_agreeing=state.workers_agreeing,
    )


def candidate_message(found: Candidate) -> admin.Candidate:
    """What became of a bundle that was to be served."""
    message = admin.Candidate(
        bundle=found.bundle,
        versions=None if found.versions is None else versions(found.versions),
        accepted=found.accepted,
        reasons=found.reasons,
        figures=[_figure(figure) for figure in found.figures],
    )
    message.time.FromDatetime(found.time)
    return message


def served_model(served: Served, role: ServedRole) -> model.ServedModel:
    """A loaded model and what it is there for."""
    return model.ServedModel(
        name=served.info.name,
        versions=versions(served.info.versions),
        role=_ROLES[role],
        bundle=served.bundle,
    )


def mode_of(*, abstain_all: bool) -> model.Mode:
    """What the server does with every answer."""
    return model.MODE_ABSTAIN_ALL if abstain_all else model.MODE_NORMAL


def _figure(figure: AcceptanceFigure) -> admin.AcceptanceFigure:
    return admin.AcceptanceFigure(
        name=figure.name.value,
        candidate=figure.candidate,
        present=figure.present,
        limit=figure.limit,
        passed=figure.passed,
        count=figure.count,
    )


def _shadow(shadow: ShadowState) -> admin.Shadow:
    figures = shadow.figures
    return admin.Shadow(
        model=served_model(shadow.served, ServedRole.SHADOW),
        share=shadow.share,
        compared=figures.compared,
        class_differs=figures.class_differs,
        verdict_differs=figures.verdict_differs,
        mean_confidence_difference=figures.mean_confidence_difference,
        skipped=figures.skipped,
    )
