import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from ibinn.v1 import answer_pb2 as _answer_pb2
from ibinn.v1 import rules_pb2 as _rules_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EntryKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENTRY_KIND_UNSPECIFIED: _ClassVar[EntryKind]
    ENTRY_KIND_ANSWER: _ClassVar[EntryKind]
    ENTRY_KIND_FEEDBACK: _ClassVar[EntryKind]
    ENTRY_KIND_ERASURE: _ClassVar[EntryKind]
    ENTRY_KIND_GUARANTEE: _ClassVar[EntryKind]

class ImageKept(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IMAGE_KEPT_UNSPECIFIED: _ClassVar[ImageKept]
    IMAGE_KEPT_ALL: _ClassVar[ImageKept]
    IMAGE_KEPT_FLAGGED: _ClassVar[ImageKept]
    IMAGE_KEPT_SAMPLED: _ClassVar[ImageKept]

class Reaction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REACTION_UNSPECIFIED: _ClassVar[Reaction]
    REACTION_FOLLOWED: _ClassVar[Reaction]
    REACTION_OVERRULED: _ClassVar[Reaction]
    REACTION_NOT_USED: _ClassVar[Reaction]

class Selection(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SELECTION_UNSPECIFIED: _ClassVar[Selection]
    SELECTION_ALL: _ClassVar[Selection]
    SELECTION_RANDOM: _ClassVar[Selection]
    SELECTION_FLAGGED: _ClassVar[Selection]
    SELECTION_UNCERTAIN: _ClassVar[Selection]
    SELECTION_COMPLAINT: _ClassVar[Selection]
    SELECTION_OTHER: _ClassVar[Selection]

class FeedbackOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FEEDBACK_OUTCOME_UNSPECIFIED: _ClassVar[FeedbackOutcome]
    FEEDBACK_OUTCOME_FIRST: _ClassVar[FeedbackOutcome]
    FEEDBACK_OUTCOME_REPEATED: _ClassVar[FeedbackOutcome]
    FEEDBACK_OUTCOME_CONFIRMED: _ClassVar[FeedbackOutcome]
    FEEDBACK_OUTCOME_CORRECTED: _ClassVar[FeedbackOutcome]
    FEEDBACK_OUTCOME_CONFLICTING: _ClassVar[FeedbackOutcome]

class ImageState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IMAGE_STATE_UNSPECIFIED: _ClassVar[ImageState]
    IMAGE_STATE_NOT_KEPT: _ClassVar[ImageState]
    IMAGE_STATE_KEPT: _ClassVar[ImageState]
    IMAGE_STATE_ERASED: _ClassVar[ImageState]
    IMAGE_STATE_EXPIRED: _ClassVar[ImageState]
ENTRY_KIND_UNSPECIFIED: EntryKind
ENTRY_KIND_ANSWER: EntryKind
ENTRY_KIND_FEEDBACK: EntryKind
ENTRY_KIND_ERASURE: EntryKind
ENTRY_KIND_GUARANTEE: EntryKind
IMAGE_KEPT_UNSPECIFIED: ImageKept
IMAGE_KEPT_ALL: ImageKept
IMAGE_KEPT_FLAGGED: ImageKept
IMAGE_KEPT_SAMPLED: ImageKept
REACTION_UNSPECIFIED: Reaction
REACTION_FOLLOWED: Reaction
REACTION_OVERRULED: Reaction
REACTION_NOT_USED: Reaction
SELECTION_UNSPECIFIED: Selection
SELECTION_ALL: Selection
SELECTION_RANDOM: Selection
SELECTION_FLAGGED: Selection
SELECTION_UNCERTAIN: Selection
SELECTION_COMPLAINT: Selection
SELECTION_OTHER: Selection
FEEDBACK_OUTCOME_UNSPECIFIED: FeedbackOutcome
FEEDBACK_OUTCOME_FIRST: FeedbackOutcome
FEEDBACK_OUTCOME_REPEATED: FeedbackOutcome
FEEDBACK_OUTCOME_CONFIRMED: FeedbackOutcome
FEEDBACK_OUTCOME_CORRECTED: FeedbackOutcome
FEEDBACK_OUTCOME_CONFLICTING: FeedbackOutcome
IMAGE_STATE_UNSPECIFIED: ImageState
IMAGE_STATE_NOT_KEPT: ImageState
IMAGE_STATE_KEPT: ImageState
IMAGE_STATE_ERASED: ImageState
IMAGE_STATE_EXPIRED: ImageState

class Entry(_message.Message):
    __slots__ = ("sequence", "kind", "record_id", "time", "body", "previous_hash", "hash")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    RECORD_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_HASH_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    kind: EntryKind
    record_id: str
    time: _timestamp_pb2.Timestamp
    body: bytes
    previous_hash: str
    hash: str
    def __init__(self, sequence: _Optional[int] = ..., kind: _Optional[_Union[EntryKind, str]] = ..., record_id: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., body: _Optional[bytes] = ..., previous_hash: _Optional[str] = ..., hash: _Optional[str] = ...) -> None: ...

class AnswerEntry(_message.Message):
    __slots__ = ("classification", "caller", "method", "group_id", "bundle", "server", "image_kept")
    CLASSIFICATION_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    IMAGE_KEPT_FIELD_NUMBER: _ClassVar[int]
    classification: _answer_pb2.Classification
    caller: str
    method: str
    group_id: str
    bundle: str
    server: str
    image_kept: ImageKept
    def __init__(self, classification: _Optional[_Union[_answer_pb2.Classification, _Mapping]] = ..., caller: _Optional[str] = ..., method: _Optional[str] = ..., group_id: _Optional[str] = ..., bundle: _Optional[str] = ..., server: _Optional[str] = ..., image_kept: _Optional[_Union[ImageKept, str]] = ...) -> None: ...

class Truth(_message.Message):
    __slots__ = ("class_name", "out_of_scope", "unreadable")
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_SCOPE_FIELD_NUMBER: _ClassVar[int]
    UNREADABLE_FIELD_NUMBER: _ClassVar[int]
    class_name: str
    out_of_scope: OutOfScope
    unreadable: Unreadable
    def __init__(self, class_name: _Optional[str] = ..., out_of_scope: _Optional[_Union[OutOfScope, _Mapping]] = ..., unreadable: _Optional[_Union[Unreadable, _Mapping]] = ...) -> None: ...

class OutOfScope(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Unreadable(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Provenance(_message.Message):
    __slots__ = ("source", "saw_answer", "reaction", "selection", "sampling_probability")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SAW_ANSWER_FIELD_NUMBER: _ClassVar[int]
    REACTION_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    source: str
    saw_answer: bool
    reaction: Reaction
    selection: Selection
    sampling_probability: float
    def __init__(self, source: _Optional[str] = ..., saw_answer: _Optional[bool] = ..., reaction: _Optional[_Union[Reaction, str]] = ..., selection: _Optional[_Union[Selection, str]] = ..., sampling_probability: _Optional[float] = ...) -> None: ...

class FeedbackEntry(_message.Message):
    __slots__ = ("feedback_id", "record_id", "truth", "provenance", "labelled_time", "comment", "caller", "outcome", "revision", "answer", "record_known")
    FEEDBACK_ID_FIELD_NUMBER: _ClassVar[int]
    RECORD_ID_FIELD_NUMBER: _ClassVar[int]
    TRUTH_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    LABELLED_TIME_FIELD_NUMBER: _ClassVar[int]
    COMMENT_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    RECORD_KNOWN_FIELD_NUMBER: _ClassVar[int]
    feedback_id: str
    record_id: str
    truth: Truth
    provenance: Provenance
    labelled_time: _timestamp_pb2.Timestamp
    comment: str
    caller: str
    outcome: FeedbackOutcome
    revision: int
    answer: AnswerDigest
    record_known: bool
    def __init__(self, feedback_id: _Optional[str] = ..., record_id: _Optional[str] = ..., truth: _Optional[_Union[Truth, _Mapping]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ..., labelled_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., comment: _Optional[str] = ..., caller: _Optional[str] = ..., outcome: _Optional[_Union[FeedbackOutcome, str]] = ..., revision: _Optional[int] = ..., answer: _Optional[_Union[AnswerDigest, _Mapping]] = ..., record_known: _Optional[bool] = ...) -> None: ...

class AnswerDigest(_message.Message):
    __slots__ = ("record_id", "received_time", "versions", "class_name", "confidence", "verdict", "action", "sha256_bytes", "sha256_pixels", "p_value", "group_id")
    RECORD_ID_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_TIME_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    SHA256_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_PIXELS_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    record_id: str
    received_time: _timestamp_pb2.Timestamp
    versions: _answer_pb2.Versions
    class_name: str
    confidence: float
    verdict: _answer_pb2.Verdict
    action: _answer_pb2.Action
    sha256_bytes: str
    sha256_pixels: str
    p_value: float
    group_id: str
    def __init__(self, record_id: _Optional[str] = ..., received_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., versions: _Optional[_Union[_answer_pb2.Versions, _Mapping]] = ..., class_name: _Optional[str] = ..., confidence: _Optional[float] = ..., verdict: _Optional[_Union[_answer_pb2.Verdict, str]] = ..., action: _Optional[_Union[_answer_pb2.Action, str]] = ..., sha256_bytes: _Optional[str] = ..., sha256_pixels: _Optional[str] = ..., p_value: _Optional[float] = ..., group_id: _Optional[str] = ...) -> None: ...

class ErasureEntry(_message.Message):
    __slots__ = ("sha256_bytes", "caller", "reason", "found")
    SHA256_BYTES_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    sha256_bytes: str
    caller: str
    reason: str
    found: bool
    def __init__(self, sha256_bytes: _Optional[str] = ..., caller: _Optional[str] = ..., reason: _Optional[str] = ..., found: _Optional[bool] = ...) -> None: ...

class GuaranteeEntry(_message.Message):
    __slots__ = ("calibration", "guarantee", "reason", "detector", "caller")
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    GUARANTEE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    calibration: str
    guarantee: _answer_pb2.Guarantee
    reason: str
    detector: str
    caller: str
    def __init__(self, calibration: _Optional[str] = ..., guarantee: _Optional[_Union[_answer_pb2.Guarantee, str]] = ..., reason: _Optional[str] = ..., detector: _Optional[str] = ..., caller: _Optional[str] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ("entry", "answer", "feedback", "image_state", "image")
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_FIELD_NUMBER: _ClassVar[int]
    IMAGE_STATE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    entry: Entry
    answer: AnswerEntry
    feedback: _containers.RepeatedCompositeFieldContainer[FeedbackEntry]
    image_state: ImageState
    image: bytes
    def __init__(self, entry: _Optional[_Union[Entry, _Mapping]] = ..., answer: _Optional[_Union[AnswerEntry, _Mapping]] = ..., feedback: _Optional[_Iterable[_Union[FeedbackEntry, _Mapping]]] = ..., image_state: _Optional[_Union[ImageState, str]] = ..., image: _Optional[bytes] = ...) -> None: ...
