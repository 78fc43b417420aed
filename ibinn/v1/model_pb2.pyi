from ibinn.v1 import answer_pb2 as _answer_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Model(_message.Message):
    __slots__ = ("name", "classes", "versions", "architecture", "parameters", "input_limits", "input_side", "calibrated", "calibration_count", "temperature", "alpha", "conformal_coverage", "tests", "metrics", "intended_use", "training_data", "explainable")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    INPUT_LIMITS_FIELD_NUMBER: _ClassVar[int]
    INPUT_SIDE_FIELD_NUMBER: _ClassVar[int]
    CALIBRATED_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_COUNT_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    CONFORMAL_COVERAGE_FIELD_NUMBER: _ClassVar[int]
    TESTS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    INTENDED_USE_FIELD_NUMBER: _ClassVar[int]
    TRAINING_DATA_FIELD_NUMBER: _ClassVar[int]
    EXPLAINABLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    classes: _containers.RepeatedScalarFieldContainer[str]
    versions: _answer_pb2.Versions
    architecture: str
    parameters: int
    input_limits: InputLimits
    input_side: int
    calibrated: bool
    calibration_count: int
    temperature: float
    alpha: float
    conformal_coverage: float
    tests: _containers.RepeatedCompositeFieldContainer[TestInfo]
    metrics: _containers.RepeatedCompositeFieldContainer[Metric]
    intended_use: str
    training_data: str
    explainable: bool
    def __init__(self, name: _Optional[str] = ..., classes: _Optional[_Iterable[str]] = ..., versions: _Optional[_Union[_answer_pb2.Versions, _Mapping]] = ..., architecture: _Optional[str] = ..., parameters: _Optional[int] = ..., input_limits: _Optional[_Union[InputLimits, _Mapping]] = ..., input_side: _Optional[int] = ..., calibrated: _Optional[bool] = ..., calibration_count: _Optional[int] = ..., temperature: _Optional[float] = ..., alpha: _Optional[float] = ..., conformal_coverage: _Optional[float] = ..., tests: _Optional[_Iterable[_Union[TestInfo, _Mapping]]] = ..., metrics: _Optional[_Iterable[_Union[Metric, _Mapping]]] = ..., intended_use: _Optional[str] = ..., training_data: _Optional[str] = ..., explainable: _Optional[bool] = ...) -> None: ...

class InputLimits(_message.Message):
    __slots__ = ("max_bytes", "max_pixels", "max_side", "formats")
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MAX_SIDE_FIELD_NUMBER: _ClassVar[int]
    FORMATS_FIELD_NUMBER: _ClassVar[int]
    max_bytes: int
    max_pixels: int
    max_side: int
    formats: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, max_bytes: _Optional[int] = ..., max_pixels: _Optional[int] = ..., max_side: _Optional[int] = ..., formats: _Optional[_Iterable[str]] = ...) -> None: ...

class TestInfo(_message.Message):
    __slots__ = ("name", "group", "kind", "alpha", "smallest_p", "miss_rates", "auroc")
    NAME_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    SMALLEST_P_FIELD_NUMBER: _ClassVar[int]
    MISS_RATES_FIELD_NUMBER: _ClassVar[int]
    AUROC_FIELD_NUMBER: _ClassVar[int]
    name: str
    group: _answer_pb2.TestGroup
    kind: _answer_pb2.TestKind
    alpha: float
    smallest_p: float
    miss_rates: _containers.RepeatedCompositeFieldContainer[MissRate]
    auroc: _containers.RepeatedCompositeFieldContainer[Auroc]
    def __init__(self, name: _Optional[str] = ..., group: _Optional[_Union[_answer_pb2.TestGroup, str]] = ..., kind: _Optional[_Union[_answer_pb2.TestKind, str]] = ..., alpha: _Optional[float] = ..., smallest_p: _Optional[float] = ..., miss_rates: _Optional[_Iterable[_Union[MissRate, _Mapping]]] = ..., auroc: _Optional[_Iterable[_Union[Auroc, _Mapping]]] = ...) -> None: ...

class MissRate(_message.Message):
    __slots__ = ("set_name", "alpha", "miss_rate")
    SET_NAME_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    MISS_RATE_FIELD_NUMBER: _ClassVar[int]
    set_name: str
    alpha: float
    miss_rate: float
    def __init__(self, set_name: _Optional[str] = ..., alpha: _Optional[float] = ..., miss_rate: _Optional[float] = ...) -> None: ...

class Auroc(_message.Message):
    __slots__ = ("set_name", "auroc")
    SET_NAME_FIELD_NUMBER: _ClassVar[int]
    AUROC_FIELD_NUMBER: _ClassVar[int]
    set_name: str
    auroc: float
    def __init__(self, set_name: _Optional[str] = ..., auroc: _Optional[float] = ...) -> None: ...

class Metric(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
