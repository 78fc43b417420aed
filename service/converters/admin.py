"""From what a server holds and does to messages."""

from __future__ import annotations

from ibinn import serving
from ibinn.v1 import admin_service_pb2 as admin
from ibinn.v1 import model_pb2 as model
from service.converters.names import GUARANTEES, versions

_ROLES = {
    serving.ModelRole.DEFAULT: model.MODEL_ROLE_DEFAULT,
    serving.ModelRole.PREVIOUS: model.MODEL_ROLE_PREVIOUS,
    serving.ModelRole.SHADOW: model.MODEL_ROLE_SHADOW,
    serving.ModelRole.PINNED: model.MODEL_ROLE_PINNED,
}
_MODES = {
    serving.Mode.NORMAL: model.MODE_NORMAL,
    serving.Mode.ABSTAIN_ALL: model.MODE_ABSTAIN_ALL,
}


def server_state(state: serving.ServerState) -> admin.ServerState:
    """What the server holds and does."""
    return admin.ServerState(
        served=[served_model(served) for served in state.served],
        mode=_MODES[state.mode],
        mode_reason=state.mode_reason,
        shadow=None if state.shadow is None else _shadow(state.shadow),
        candidates=[candidate_message(found) for found in state.candidates],
        generation=state.generation,
        workers=state.workers,
        workers_agreeing=state.workers_agreeing,
        drift=_drift(state.drift),
        records=admin.Records(
            audit=state.records.audit,
            database=state.records.database,
            reachable=state.records.reachable,
            waiting=state.records.waiting,
            dropped=state.records.dropped,
        ),
    )


def candidate_message(found: serving.Candidate) -> admin.Candidate:
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


def served_model(served: serving.ServedModel) -> model.ServedModel:
    """A loaded model and what it is there for."""
    return model.ServedModel(
        name=served.name,
        versions=versions(served.versions),
        role=_ROLES[served.role],
        bundle=served.bundle,
    )


def mode_of(*, abstain_all: bool) -> model.Mode:
    """What the server does with every answer."""
    return model.MODE_ABSTAIN_ALL if abstain_all else model.MODE_NORMAL


def _figure(figure: serving.AcceptanceFigure) -> admin.AcceptanceFigure:
    return admin.AcceptanceFigure(
        name=figure.name,
        candidate=figure.candidate,
        present=figure.present,
        limit=figure.limit,
        passed=figure.passed,
        count=figure.count,
    )


def _drift(drift: serving.Drift) -> admin.Drift:
    message = admin.Drift(
        reason=drift.reason,
        detectors=[
            admin.Detector(
                name=detector.name,
                count=detector.count,
                log_evidence=detector.log_evidence,
                log_threshold=detector.log_threshold,
                alarmed=detector.alarmed,
            )
            for detector in drift.detectors
        ],
    )
    if drift.guarantee is not None:
        message.guarantee = GUARANTEES[drift.guarantee]
    if drift.since is not None:
        message.since.FromDatetime(drift.since)
    return message


def _shadow(shadow: serving.Shadow) -> admin.Shadow:
    return admin.Shadow(
        model=served_model(shadow.model),
        share=shadow.share,
        compared=shadow.compared,
        class_differs=shadow.class_differs,
        verdict_differs=shadow.verdict_differs,
        mean_confidence_difference=shadow.mean_confidence_difference,
        skipped=shadow.skipped,
    )
