import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_NOT_ASSESSED: _ClassVar[Verdict]
    VERDICT_UNKNOWN: _ClassVar[Verdict]
    VERDICT_AMBIGUOUS: _ClassVar[Verdict]
    VERDICT_NOT_FLAGGED: _ClassVar[Verdict]

class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTION_UNSPECIFIED: _ClassVar[Action]
    ACTION_ACCEPT: _ClassVar[Action]
    ACTION_DEFER: _ClassVar[Action]
    ACTION_REJECT_INPUT: _ClassVar[Action]

class SetMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SET_METHOD_UNSPECIFIED: _ClassVar[SetMethod]
    SET_METHOD_PLAIN: _ClassVar[SetMethod]
    SET_METHOD_RAPS: _ClassVar[SetMethod]

class TestGroup(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TEST_GROUP_UNSPECIFIED: _ClassVar[TestGroup]
    TEST_GROUP_PIXEL: _ClassVar[TestGroup]
    TEST_GROUP_STYLE: _ClassVar[TestGroup]
    TEST_GROUP_SEMANTIC: _ClassVar[TestGroup]
    TEST_GROUP_COMBINED: _ClassVar[TestGroup]

class TestKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TEST_KIND_UNSPECIFIED: _ClassVar[TestKind]
    TEST_KIND_HIGH_IS_UNUSUAL: _ClassVar[TestKind]
    TEST_KIND_LOW_IS_UNUSUAL: _ClassVar[TestKind]
    TEST_KIND_TYPICALITY: _ClassVar[TestKind]
    TEST_KIND_TWO_TAILED: _ClassVar[TestKind]

class Guarantee(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GUARANTEE_UNSPECIFIED: _ClassVar[Guarantee]
    GUARANTEE_HELD: _ClassVar[Guarantee]
    GUARANTEE_SUSPENDED: _ClassVar[Guarantee]
VERDICT_UNSPECIFIED: Verdict
VERDICT_NOT_ASSESSED: Verdict
VERDICT_UNKNOWN: Verdict
VERDICT_AMBIGUOUS: Verdict
VERDICT_NOT_FLAGGED: Verdict
ACTION_UNSPECIFIED: Action
ACTION_ACCEPT: Action
ACTION_DEFER: Action
ACTION_REJECT_INPUT: Action
SET_METHOD_UNSPECIFIED: SetMethod
SET_METHOD_PLAIN: SetMethod
SET_METHOD_RAPS: SetMethod
TEST_GROUP_UNSPECIFIED: TestGroup
TEST_GROUP_PIXEL: TestGroup
TEST_GROUP_STYLE: TestGroup
TEST_GROUP_SEMANTIC: TestGroup
TEST_GROUP_COMBINED: TestGroup
TEST_KIND_UNSPECIFIED: TestKind
TEST_KIND_HIGH_IS_UNUSUAL: TestKind
TEST_KIND_LOW_IS_UNUSUAL: TestKind
TEST_KIND_TYPICALITY: TestKind
TEST_KIND_TWO_TAILED: TestKind
GUARANTEE_UNSPECIFIED: Guarantee
GUARANTEE_HELD: Guarantee
GUARANTEE_SUSPENDED: Guarantee

class Classification(_message.Message):
    __slots__ = ("record_id", "received_time", "classes", "entropy_nats", "temperature", "bits_per_dim", "conformal_set", "tests", "combined_test", "verdict", "verdict_reason", "observed_accuracy", "versions", "calibration_count", "input", "timing", "conformal_sets", "decision", "driver", "request_id", "guarantee", "guarantee_reason", "receipt", "group_id")
    RECORD_ID_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_TIME_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    ENTROPY_NATS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    BITS_PER_DIM_FIELD_NUMBER: _ClassVar[int]
    CONFORMAL_SET_FIELD_NUMBER: _ClassVar[int]
    TESTS_FIELD_NUMBER: _ClassVar[int]
    COMBINED_TEST_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    VERDICT_REASON_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_COUNT_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    CONFORMAL_SETS_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    GUARANTEE_FIELD_NUMBER: _ClassVar[int]
    GUARANTEE_REASON_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    record_id: str
    received_time: _timestamp_pb2.Timestamp
    classes: _containers.RepeatedCompositeFieldContainer[ClassScore]
    entropy_nats: float
    temperature: float
    bits_per_dim: float
    conformal_set: ConformalSet
    tests: _containers.RepeatedCompositeFieldContainer[TestResult]
    combined_test: TestResult
    verdict: Verdict
    verdict_reason: str
    observed_accuracy: ObservedAccuracy
    versions: Versions
    calibration_count: int
    input: InputInfo
    timing: ServerTiming
    conformal_sets: _containers.RepeatedCompositeFieldContainer[ConformalSet]
    decision: Decision
    driver: TestGroup
    request_id: str
    guarantee: Guarantee
    guarantee_reason: str
    receipt: str
    group_id: str
    def __init__(self, record_id: _Optional[str] = ..., received_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., classes: _Optional[_Iterable[_Union[ClassScore, _Mapping]]] = ..., entropy_nats: _Optional[float] = ..., temperature: _Optional[float] = ..., bits_per_dim: _Optional[float] = ..., conformal_set: _Optional[_Union[ConformalSet, _Mapping]] = ..., tests: _Optional[_Iterable[_Union[TestResult, _Mapping]]] = ..., combined_test: _Optional[_Union[TestResult, _Mapping]] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., verdict_reason: _Optional[str] = ..., observed_accuracy: _Optional[_Union[ObservedAccuracy, _Mapping]] = ..., versions: _Optional[_Union[Versions, _Mapping]] = ..., calibration_count: _Optional[int] = ..., input: _Optional[_Union[InputInfo, _Mapping]] = ..., timing: _Optional[_Union[ServerTiming, _Mapping]] = ..., conformal_sets: _Optional[_Iterable[_Union[ConformalSet, _Mapping]]] = ..., decision: _Optional[_Union[Decision, _Mapping]] = ..., driver: _Optional[_Union[TestGroup, str]] = ..., request_id: _Optional[str] = ..., guarantee: _Optional[_Union[Guarantee, str]] = ..., guarantee_reason: _Optional[str] = ..., receipt: _Optional[str] = ..., group_id: _Optional[str] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("action", "class_name", "rule", "reason", "expected_cost")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_COST_FIELD_NUMBER: _ClassVar[int]
    action: Action
    class_name: str
    rule: str
    reason: str
    expected_cost: float
    def __init__(self, action: _Optional[_Union[Action, str]] = ..., class_name: _Optional[str] = ..., rule: _Optional[str] = ..., reason: _Optional[str] = ..., expected_cost: _Optional[float] = ...) -> None: ...

class ClassScore(_message.Message):
    __slots__ = ("index", "name", "probability", "raw_probability", "log_likelihood_nats", "p_value")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    RAW_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    LOG_LIKELIHOOD_NATS_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    index: int
    name: str
    probability: float
    raw_probability: float
    log_likelihood_nats: float
    p_value: float
    def __init__(self, index: _Optional[int] = ..., name: _Optional[str] = ..., probability: _Optional[float] = ..., raw_probability: _Optional[float] = ..., log_likelihood_nats: _Optional[float] = ..., p_value: _Optional[float] = ...) -> None: ...

class ConformalSet(_message.Message):
    __slots__ = ("classes", "target_coverage", "measured_coverage", "method")
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    TARGET_COVERAGE_FIELD_NUMBER: _ClassVar[int]
    MEASURED_COVERAGE_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    classes: _containers.RepeatedScalarFieldContainer[str]
    target_coverage: float
    measured_coverage: float
    method: SetMethod
    def __init__(self, classes: _Optional[_Iterable[str]] = ..., target_coverage: _Optional[float] = ..., measured_coverage: _Optional[float] = ..., method: _Optional[_Union[SetMethod, str]] = ...) -> None: ...

class TestResult(_message.Message):
    __slots__ = ("name", "group", "kind", "statistic", "p_value", "p_adjusted", "smallest_p", "alpha", "flagged")
    NAME_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATISTIC_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    P_ADJUSTED_FIELD_NUMBER: _ClassVar[int]
    SMALLEST_P_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    FLAGGED_FIELD_NUMBER: _ClassVar[int]
    name: str
    group: TestGroup
    kind: TestKind
    statistic: float
    p_value: float
    p_adjusted: float
    smallest_p: float
    alpha: float
    flagged: bool
    def __init__(self, name: _Optional[str] = ..., group: _Optional[_Union[TestGroup, str]] = ..., kind: _Optional[_Union[TestKind, str]] = ..., statistic: _Optional[float] = ..., p_value: _Optional[float] = ..., p_adjusted: _Optional[float] = ..., smallest_p: _Optional[float] = ..., alpha: _Optional[float] = ..., flagged: _Optional[bool] = ...) -> None: ...

class ObservedAccuracy(_message.Message):
    __slots__ = ("accuracy", "low", "high", "count")
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    accuracy: float
    low: float
    high: float
    count: int
    def __init__(self, accuracy: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., count: _Optional[int] = ...) -> None: ...

class Versions(_message.Message):
    __slots__ = ("weights", "calibration", "policy", "taxonomy", "software")
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    TAXONOMY_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    weights: str
    calibration: str
    policy: str
    taxonomy: str
    software: str
    def __init__(self, weights: _Optional[str] = ..., calibration: _Optional[str] = ..., policy: _Optional[str] = ..., taxonomy: _Optional[str] = ..., software: _Optional[str] = ...) -> None: ...

class InputInfo(_message.Message):
    __slots__ = ("width", "height", "format", "sha256_bytes", "sha256_pixels", "region", "reductions")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    SHA256_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_PIXELS_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    REDUCTIONS_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    format: str
    sha256_bytes: str
    sha256_pixels: str
    region: Region
    reductions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., format: _Optional[str] = ..., sha256_bytes: _Optional[str] = ..., sha256_pixels: _Optional[str] = ..., region: _Optional[_Union[Region, _Mapping]] = ..., reductions: _Optional[_Iterable[str]] = ...) -> None: ...

class Region(_message.Message):
    __slots__ = ("left", "top", "width", "height")
    LEFT_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    left: int
    top: int
    width: int
    height: int
    def __init__(self, left: _Optional[int] = ..., top: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class ServerTiming(_message.Message):
    __slots__ = ("prepare_s", "queue_s", "compute_s", "total_s", "batch_size")
    PREPARE_S_FIELD_NUMBER: _ClassVar[int]
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_S_FIELD_NUMBER: _ClassVar[int]
    TOTAL_S_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    prepare_s: float
    queue_s: float
    compute_s: float
    total_s: float
    batch_size: int
    def __init__(self, prepare_s: _Optional[float] = ..., queue_s: _Optional[float] = ..., compute_s: _Optional[float] = ..., total_s: _Optional[float] = ..., batch_size: _Optional[int] = ...) -> None: ...

class Heatmap(_message.Message):
    __slots__ = ("class_name", "height", "width", "values", "log_posterior", "completeness_error")
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    LOG_POSTERIOR_FIELD_NUMBER: _ClassVar[int]
    COMPLETENESS_ERROR_FIELD_NUMBER: _ClassVar[int]
    class_name: str
    height: int
    width: int
    values: _containers.RepeatedScalarFieldContainer[float]
    log_posterior: float
    completeness_error: float
    def __init__(self, class_name: _Optional[str] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., values: _Optional[_Iterable[float]] = ..., log_posterior: _Optional[float] = ..., completeness_error: _Optional[float] = ...) -> None: ...

class Contrast(_message.Message):
    __slots__ = ("class_name", "versus", "height", "width", "values", "log_odds", "completeness_error")
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    VERSUS_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    LOG_ODDS_FIELD_NUMBER: _ClassVar[int]
    COMPLETENESS_ERROR_FIELD_NUMBER: _ClassVar[int]
    class_name: str
    versus: str
    height: int
    width: int
    values: _containers.RepeatedScalarFieldContainer[float]
    log_odds: float
    completeness_error: float
    def __init__(self, class_name: _Optional[str] = ..., versus: _Optional[str] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., values: _Optional[_Iterable[float]] = ..., log_odds: _Optional[float] = ..., completeness_error: _Optional[float] = ...) -> None: ...

class NearbyClass(_message.Message):
    __slots__ = ("class_name", "distance", "overlap")
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_FIELD_NUMBER: _ClassVar[int]
    class_name: str
    distance: float
    overlap: float
    def __init__(self, class_name: _Optional[str] = ..., distance: _Optional[float] = ..., overlap: _Optional[float] = ...) -> None: ...

class DecisionSpace(_message.Message):
    __slots__ = ("x", "y", "boundary", "dims", "means")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    BOUNDARY_FIELD_NUMBER: _ClassVar[int]
    DIMS_FIELD_NUMBER: _ClassVar[int]
    MEANS_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    boundary: float
    dims: int
    means: _containers.RepeatedCompositeFieldContainer[ClassPoint]
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ..., boundary: _Optional[float] = ..., dims: _Optional[int] = ..., means: _Optional[_Iterable[_Union[ClassPoint, _Mapping]]] = ...) -> None: ...

class ClassPoint(_message.Message):
    __slots__ = ("class_name", "x", "y", "radius", "probability")
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    RADIUS_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    class_name: str
    x: float
    y: float
    radius: float
    probability: float
    def __init__(self, class_name: _Optional[str] = ..., x: _Optional[float] = ..., y: _Optional[float] = ..., radius: _Optional[float] = ..., probability: _Optional[float] = ...) -> None: ...

class SeenImage(_message.Message):
    __slots__ = ("side", "rgb")
    SIDE_FIELD_NUMBER: _ClassVar[int]
    RGB_FIELD_NUMBER: _ClassVar[int]
    side: int
    rgb: bytes
    def __init__(self, side: _Optional[int] = ..., rgb: _Optional[bytes] = ...) -> None: ...
