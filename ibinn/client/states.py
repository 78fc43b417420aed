"""From the wire to the library's types: what a server holds and does."""

from __future__ import annotations

from datetime import UTC

from ibinn import serving
from ibinn.client.models import model_info
from ibinn.client.names import GUARANTEES, MODES, ROLES, known, versions
from ibinn.v1 import admin_service_pb2 as admin
from ibinn.v1 import classification_service_pb2 as service
from ibinn.v1 import model_pb2 as model


def server_info(message: service.GetModelResponse) -> serving.ServerInfo:
    """What a server answers with."""
    return serving.ServerInfo(
        model=model_info(message.model),
        served=tuple(_served(found) for found in message.served),
        mode=known(MODES, message.mode, "mode"),
    )


def server_state(message: admin.ServerState) -> serving.ServerState:
    """What a server holds and does."""
    return serving.ServerState(
        served=tuple(_served(found) for found in message.served),
        mode=known(MODES, message.mode, "mode"),
        mode_reason=message.mode_reason,
        shadow=_shadow(message.shadow) if message.HasField("shadow") else None,
        candidates=tuple(candidate(found) for found in message.candidates),
        generation=message.generation,
        workers=message.workers,
        workers_agreeing=message.workers_agreeing,
        drift=_drift(message.drift),
        records=_records(message.records),
    )


def candidate(message: admin.Candidate) -> serving.Candidate:
    """A bundle that was to become the default."""
    return serving.Candidate(
        bundle=message.bundle,
        versions=versions(message.versions) if message.HasField("versions") else None,
        accepted=message.accepted,
        reasons=tuple(message.reasons),
        figures=tuple(_figure(found) for found in message.figures),
        time=message.time.ToDatetime(tzinfo=UTC),
    )


def _served(message: model.ServedModel) -> serving.ServedModel:
    return serving.ServedModel(
        name=message.name,
        versions=versions(message.versions),
        role=known(ROLES, message.role, "role of a model"),
        bundle=message.bundle,
    )


def _figure(message: admin.AcceptanceFigure) -> serving.AcceptanceFigure:
    return serving.AcceptanceFigure(
        name=message.name,
        candidate=message.candidate,
        present=message.present if message.HasField("present") else None,
        limit=message.limit,
        passed=message.passed,
        count=message.count,
    )


def _shadow(message: admin.Shadow) -> serving.Shadow:
    return serving.Shadow(
        model=_served(message.model),
        share=message.share,
        compared=message.compared,
        class_differs=message.class_differs,
        verdict_differs=message.verdict_differs,
        mean_confidence_difference=message.mean_confidence_difference,
        skipped=message.skipped,
    )


def _drift(message: admin.Drift) -> serving.Drift:
    return serving.Drift(
        guarantee=known(GUARANTEES, message.guarantee, "guarantee"),
        reason=message.reason,
        since=message.since.ToDatetime(tzinfo=UTC) if message.HasField("since") else None,
        detectors=tuple(
            serving.Detector(
                name=found.name,
                count=found.count,
                log_evidence=found.log_evidence,
                log_threshold=found.log_threshold,
                alarmed=found.alarmed,
            )
            for found in message.detectors
        ),
    )


def _records(message: admin.Records) -> serving.RecordsState:
    return serving.RecordsState(
        audit=message.audit,
        database=message.database,
        reachable=message.reachable,
        waiting=message.waiting,
        dropped=message.dropped,
    )
