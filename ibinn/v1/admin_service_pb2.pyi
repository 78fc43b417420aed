import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from ibinn.v1 import answer_pb2 as _answer_pb2
from ibinn.v1 import model_pb2 as _model_pb2
from ibinn.v1 import rules_pb2 as _rules_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReloadRequest(_message.Message):
    __slots__ = ("bundle", "keep_default")
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    KEEP_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    bundle: str
    keep_default: bool
    def __init__(self, bundle: _Optional[str] = ..., keep_default: _Optional[bool] = ...) -> None: ...

class ReloadResponse(_message.Message):
    __slots__ = ("candidate", "state")
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    candidate: Candidate
    state: ServerState
    def __init__(self, candidate: _Optional[_Union[Candidate, _Mapping]] = ..., state: _Optional[_Union[ServerState, _Mapping]] = ...) -> None: ...

class RollbackRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RollbackResponse(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: ServerState
    def __init__(self, state: _Optional[_Union[ServerState, _Mapping]] = ...) -> None: ...

class SetShadowRequest(_message.Message):
    __slots__ = ("bundle", "share")
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    bundle: str
    share: float
    def __init__(self, bundle: _Optional[str] = ..., share: _Optional[float] = ...) -> None: ...

class SetShadowResponse(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: ServerState
    def __init__(self, state: _Optional[_Union[ServerState, _Mapping]] = ...) -> None: ...

class SetModeRequest(_message.Message):
    __slots__ = ("mode", "reason")
    MODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    mode: _model_pb2.Mode
    reason: str
    def __init__(self, mode: _Optional[_Union[_model_pb2.Mode, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class SetModeResponse(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: ServerState
    def __init__(self, state: _Optional[_Union[ServerState, _Mapping]] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: ServerState
    def __init__(self, state: _Optional[_Union[ServerState, _Mapping]] = ...) -> None: ...

class ServerState(_message.Message):
    __slots__ = ("served", "mode", "mode_reason", "shadow", "candidates", "generation", "workers", "workers_agreeing", "drift", "records")
    SERVED_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    MODE_REASON_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_AGREEING_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    served: _containers.RepeatedCompositeFieldContainer[_model_pb2.ServedModel]
    mode: _model_pb2.Mode
    mode_reason: str
    shadow: Shadow
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    generation: int
    workers: int
    workers_agreeing: int
    drift: Drift
    records: Records
    def __init__(self, served: _Optional[_Iterable[_Union[_model_pb2.ServedModel, _Mapping]]] = ..., mode: _Optional[_Union[_model_pb2.Mode, str]] = ..., mode_reason: _Optional[str] = ..., shadow: _Optional[_Union[Shadow, _Mapping]] = ..., candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., generation: _Optional[int] = ..., workers: _Optional[int] = ..., workers_agreeing: _Optional[int] = ..., drift: _Optional[_Union[Drift, _Mapping]] = ..., records: _Optional[_Union[Records, _Mapping]] = ...) -> None: ...

class Drift(_message.Message):
    __slots__ = ("guarantee", "reason", "since", "detectors")
    GUARANTEE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    DETECTORS_FIELD_NUMBER: _ClassVar[int]
    guarantee: _answer_pb2.Guarantee
    reason: str
    since: _timestamp_pb2.Timestamp
    detectors: _containers.RepeatedCompositeFieldContainer[Detector]
    def __init__(self, guarantee: _Optional[_Union[_answer_pb2.Guarantee, str]] = ..., reason: _Optional[str] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., detectors: _Optional[_Iterable[_Union[Detector, _Mapping]]] = ...) -> None: ...

class Detector(_message.Message):
    __slots__ = ("name", "count", "log_evidence", "log_threshold", "alarmed")
    NAME_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    LOG_EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    LOG_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    ALARMED_FIELD_NUMBER: _ClassVar[int]
    name: str
    count: int
    log_evidence: float
    log_threshold: float
    alarmed: bool
    def __init__(self, name: _Optional[str] = ..., count: _Optional[int] = ..., log_evidence: _Optional[float] = ..., log_threshold: _Optional[float] = ..., alarmed: _Optional[bool] = ...) -> None: ...

class Records(_message.Message):
    __slots__ = ("audit", "database", "reachable", "waiting", "dropped")
    AUDIT_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    REACHABLE_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    audit: str
    database: str
    reachable: bool
    waiting: int
    dropped: int
    def __init__(self, audit: _Optional[str] = ..., database: _Optional[str] = ..., reachable: _Optional[bool] = ..., waiting: _Optional[int] = ..., dropped: _Optional[int] = ...) -> None: ...

class AcknowledgeDriftRequest(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class AcknowledgeDriftResponse(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: ServerState
    def __init__(self, state: _Optional[_Union[ServerState, _Mapping]] = ...) -> None: ...

class EraseImageRequest(_message.Message):
    __slots__ = ("record_id", "reason")
    RECORD_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    record_id: str
    reason: str
    def __init__(self, record_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class EraseImageResponse(_message.Message):
    __slots__ = ("found", "records")
    FOUND_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    found: bool
    records: int
    def __init__(self, found: _Optional[bool] = ..., records: _Optional[int] = ...) -> None: ...

class Candidate(_message.Message):
    __slots__ = ("bundle", "versions", "accepted", "reasons", "figures", "time")
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    bundle: str
    versions: _answer_pb2.Versions
    accepted: bool
    reasons: _containers.RepeatedScalarFieldContainer[str]
    figures: _containers.RepeatedCompositeFieldContainer[AcceptanceFigure]
    time: _timestamp_pb2.Timestamp
    def __init__(self, bundle: _Optional[str] = ..., versions: _Optional[_Union[_answer_pb2.Versions, _Mapping]] = ..., accepted: _Optional[bool] = ..., reasons: _Optional[_Iterable[str]] = ..., figures: _Optional[_Iterable[_Union[AcceptanceFigure, _Mapping]]] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class AcceptanceFigure(_message.Message):
    __slots__ = ("name", "candidate", "present", "limit", "passed", "count")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    name: str
    candidate: float
    present: float
    limit: float
    passed: bool
    count: int
    def __init__(self, name: _Optional[str] = ..., candidate: _Optional[float] = ..., present: _Optional[float] = ..., limit: _Optional[float] = ..., passed: _Optional[bool] = ..., count: _Optional[int] = ...) -> None: ...

class Shadow(_message.Message):
    __slots__ = ("model", "share", "compared", "class_differs", "verdict_differs", "mean_confidence_difference", "skipped")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    COMPARED_FIELD_NUMBER: _ClassVar[int]
    CLASS_DIFFERS_FIELD_NUMBER: _ClassVar[int]
    VERDICT_DIFFERS_FIELD_NUMBER: _ClassVar[int]
    MEAN_CONFIDENCE_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    model: _model_pb2.ServedModel
    share: float
    compared: int
    class_differs: int
    verdict_differs: int
    mean_confidence_difference: float
    skipped: int
    def __init__(self, model: _Optional[_Union[_model_pb2.ServedModel, _Mapping]] = ..., share: _Optional[float] = ..., compared: _Optional[int] = ..., class_differs: _Optional[int] = ..., verdict_differs: _Optional[int] = ..., mean_confidence_difference: _Optional[float] = ..., skipped: _Optional[int] = ...) -> None: ...
