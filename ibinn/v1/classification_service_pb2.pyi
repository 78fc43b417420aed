import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from ibinn.v1 import answer_pb2 as _answer_pb2
from ibinn.v1 import model_pb2 as _model_pb2
from ibinn.v1 import record_pb2 as _record_pb2
from ibinn.v1 import rules_pb2 as _rules_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TestDetail(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TEST_DETAIL_UNSPECIFIED: _ClassVar[TestDetail]
    TEST_DETAIL_ALL: _ClassVar[TestDetail]
    TEST_DETAIL_FLAGGED: _ClassVar[TestDetail]
    TEST_DETAIL_NONE: _ClassVar[TestDetail]

class HeatmapSize(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HEATMAP_SIZE_UNSPECIFIED: _ClassVar[HeatmapSize]
    HEATMAP_SIZE_GRID: _ClassVar[HeatmapSize]
    HEATMAP_SIZE_IMAGE: _ClassVar[HeatmapSize]
TEST_DETAIL_UNSPECIFIED: TestDetail
TEST_DETAIL_ALL: TestDetail
TEST_DETAIL_FLAGGED: TestDetail
TEST_DETAIL_NONE: TestDetail
HEATMAP_SIZE_UNSPECIFIED: HeatmapSize
HEATMAP_SIZE_GRID: HeatmapSize
HEATMAP_SIZE_IMAGE: HeatmapSize

class ClassifyRequest(_message.Message):
    __slots__ = ("image", "request_id", "model", "options", "timeout", "group_id")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    request_id: str
    model: str
    options: AnswerOptions
    timeout: _duration_pb2.Duration
    group_id: str
    def __init__(self, image: _Optional[bytes] = ..., request_id: _Optional[str] = ..., model: _Optional[str] = ..., options: _Optional[_Union[AnswerOptions, _Mapping]] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., group_id: _Optional[str] = ...) -> None: ...

class AnswerOptions(_message.Message):
    __slots__ = ("top_classes", "tests")
    TOP_CLASSES_FIELD_NUMBER: _ClassVar[int]
    TESTS_FIELD_NUMBER: _ClassVar[int]
    top_classes: int
    tests: TestDetail
    def __init__(self, top_classes: _Optional[int] = ..., tests: _Optional[_Union[TestDetail, str]] = ...) -> None: ...

class ClassifyStreamRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[ClassifyRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[ClassifyRequest, _Mapping]]] = ...) -> None: ...

class ClassifyStreamResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ClassifyResult]
    def __init__(self, results: _Optional[_Iterable[_Union[ClassifyResult, _Mapping]]] = ...) -> None: ...

class ClassifyResult(_message.Message):
    __slots__ = ("request_id", "index", "classification", "error")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    CLASSIFICATION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    index: int
    classification: _answer_pb2.Classification
    error: _status_pb2.Status
    def __init__(self, request_id: _Optional[str] = ..., index: _Optional[int] = ..., classification: _Optional[_Union[_answer_pb2.Classification, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("classification",)
    CLASSIFICATION_FIELD_NUMBER: _ClassVar[int]
    classification: _answer_pb2.Classification
    def __init__(self, classification: _Optional[_Union[_answer_pb2.Classification, _Mapping]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("image", "classes", "contrast", "heatmap_size", "request_id", "model", "options", "group_id")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    CONTRAST_FIELD_NUMBER: _ClassVar[int]
    HEATMAP_SIZE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    classes: _containers.RepeatedScalarFieldContainer[str]
    contrast: ContrastRequest
    heatmap_size: HeatmapSize
    request_id: str
    model: str
    options: AnswerOptions
    group_id: str
    def __init__(self, image: _Optional[bytes] = ..., classes: _Optional[_Iterable[str]] = ..., contrast: _Optional[_Union[ContrastRequest, _Mapping]] = ..., heatmap_size: _Optional[_Union[HeatmapSize, str]] = ..., request_id: _Optional[str] = ..., model: _Optional[str] = ..., options: _Optional[_Union[AnswerOptions, _Mapping]] = ..., group_id: _Optional[str] = ...) -> None: ...

class ContrastRequest(_message.Message):
    __slots__ = ("class_name", "versus")
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    VERSUS_FIELD_NUMBER: _ClassVar[int]
    class_name: str
    versus: str
    def __init__(self, class_name: _Optional[str] = ..., versus: _Optional[str] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("classification", "heatmaps", "image", "contrast", "nearby", "receptive_field_px", "decision_space")
    CLASSIFICATION_FIELD_NUMBER: _ClassVar[int]
    HEATMAPS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    CONTRAST_FIELD_NUMBER: _ClassVar[int]
    NEARBY_FIELD_NUMBER: _ClassVar[int]
    RECEPTIVE_FIELD_PX_FIELD_NUMBER: _ClassVar[int]
    DECISION_SPACE_FIELD_NUMBER: _ClassVar[int]
    classification: _answer_pb2.Classification
    heatmaps: _containers.RepeatedCompositeFieldContainer[_answer_pb2.Heatmap]
    image: _answer_pb2.SeenImage
    contrast: _answer_pb2.Contrast
    nearby: _containers.RepeatedCompositeFieldContainer[_answer_pb2.NearbyClass]
    receptive_field_px: float
    decision_space: _answer_pb2.DecisionSpace
    def __init__(self, classification: _Optional[_Union[_answer_pb2.Classification, _Mapping]] = ..., heatmaps: _Optional[_Iterable[_Union[_answer_pb2.Heatmap, _Mapping]]] = ..., image: _Optional[_Union[_answer_pb2.SeenImage, _Mapping]] = ..., contrast: _Optional[_Union[_answer_pb2.Contrast, _Mapping]] = ..., nearby: _Optional[_Iterable[_Union[_answer_pb2.NearbyClass, _Mapping]]] = ..., receptive_field_px: _Optional[float] = ..., decision_space: _Optional[_Union[_answer_pb2.DecisionSpace, _Mapping]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model", "served", "mode")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SERVED_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    model: _model_pb2.Model
    served: _containers.RepeatedCompositeFieldContainer[_model_pb2.ServedModel]
    mode: _model_pb2.Mode
    def __init__(self, model: _Optional[_Union[_model_pb2.Model, _Mapping]] = ..., served: _Optional[_Iterable[_Union[_model_pb2.ServedModel, _Mapping]]] = ..., mode: _Optional[_Union[_model_pb2.Mode, str]] = ...) -> None: ...

class SubmitFeedbackRequest(_message.Message):
    __slots__ = ("record_id", "truth", "provenance", "feedback_id", "receipt", "labelled_time", "comment", "request_id")
    RECORD_ID_FIELD_NUMBER: _ClassVar[int]
    TRUTH_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_ID_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    LABELLED_TIME_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    record_id: str
    truth: _record_pb2.Truth
    provenance: _record_pb2.Provenance
    feedback_id: str
    receipt: str
    labelled_time: _timestamp_pb2.Timestamp
    comment: str
    request_id: str
    def __init__(self, record_id: _Optional[str] = ..., truth: _Optional[_Union[_record_pb2.Truth, _Mapping]] = ..., provenance: _Optional[_Union[_record_pb2.Provenance, _Mapping]] = ..., feedback_id: _Optional[str] = ..., receipt: _Optional[str] = ..., labelled_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., comment: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class SubmitFeedbackResponse(_message.Message):
    __slots__ = ("feedback_id", "outcome", "revision", "record_known")
    FEEDBACK_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    RECORD_KNOWN_FIELD_NUMBER: _ClassVar[int]
    feedback_id: str
    outcome: _record_pb2.FeedbackOutcome
    revision: int
    record_known: bool
    def __init__(self, feedback_id: _Optional[str] = ..., outcome: _Optional[_Union[_record_pb2.FeedbackOutcome, str]] = ..., revision: _Optional[int] = ..., record_known: _Optional[bool] = ...) -> None: ...

class GetRecordRequest(_message.Message):
    __slots__ = ("record_id", "include_image")
    RECORD_ID_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_IMAGE_FIELD_NUMBER: _ClassVar[int]
    record_id: str
    include_image: bool
    def __init__(self, record_id: _Optional[str] = ..., include_image: _Optional[bool] = ...) -> None: ...

class GetRecordResponse(_message.Message):
    __slots__ = ("record",)
    RECORD_FIELD_NUMBER: _ClassVar[int]
    record: _record_pb2.Record
    def __init__(self, record: _Optional[_Union[_record_pb2.Record, _Mapping]] = ...) -> None: ...

class ListEntriesRequest(_message.Message):
    __slots__ = ("after_sequence", "page_size", "kinds")
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    after_sequence: int
    page_size: int
    kinds: _containers.RepeatedScalarFieldContainer[_record_pb2.EntryKind]
    def __init__(self, after_sequence: _Optional[int] = ..., page_size: _Optional[int] = ..., kinds: _Optional[_Iterable[_Union[_record_pb2.EntryKind, str]]] = ...) -> None: ...

class ListEntriesResponse(_message.Message):
    __slots__ = ("entries", "head_sequence", "head_hash")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    HEAD_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HEAD_HASH_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[_record_pb2.Entry]
    head_sequence: int
    head_hash: str
    def __init__(self, entries: _Optional[_Iterable[_Union[_record_pb2.Entry, _Mapping]]] = ..., head_sequence: _Optional[int] = ..., head_hash: _Optional[str] = ...) -> None: ...
