from ibinn.v1 import answer_pb2 as _answer_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_ROLE_UNSPECIFIED: _ClassVar[ModelRole]
    MODEL_ROLE_DEFAULT: _ClassVar[ModelRole]
    MODEL_ROLE_PREVIOUS: _ClassVar[ModelRole]
    MODEL_ROLE_SHADOW: _ClassVar[ModelRole]
    MODEL_ROLE_PINNED: _ClassVar[ModelRole]

class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODE_UNSPECIFIED: _ClassVar[Mode]
    MODE_NORMAL: _ClassVar[Mode]
    MODE_ABSTAIN_ALL: _ClassVar[Mode]
MODEL_ROLE_UNSPECIFIED: ModelRole
MODEL_ROLE_DEFAULT: ModelRole
MODEL_ROLE_PREVIOUS: ModelRole
MODEL_ROLE_SHADOW: ModelRole
MODEL_ROLE_PINNED: ModelRole
MODE_UNSPECIFIED: Mode
MODE_NORMAL: Mode
MODE_ABSTAIN_ALL: Mode

class Model(_message.Message):
    __slots__ = ("name", "classes", "versions", "architecture", "parameters", "input_limits", "input_side", "calibrated", "calibration_count", "temperature", "alpha", "conformal_coverage", "tests", "metrics", "intended_use", "training_data", "explainable", "report", "erased", "policy")
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
    REPORT_FIELD_NUMBER: _ClassVar[int]
    ERASED_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
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
    report: ModelReport
    erased: _containers.RepeatedScalarFieldContainer[str]
    policy: PolicyInfo
    def __init__(self, name: _Optional[str] = ..., classes: _Optional[_Iterable[str]] = ..., versions: _Optional[_Union[_answer_pb2.Versions, _Mapping]] = ..., architecture: _Optional[str] = ..., parameters: _Optional[int] = ..., input_limits: _Optional[_Union[InputLimits, _Mapping]] = ..., input_side: _Optional[int] = ..., calibrated: _Optional[bool] = ..., calibration_count: _Optional[int] = ..., temperature: _Optional[float] = ..., alpha: _Optional[float] = ..., conformal_coverage: _Optional[float] = ..., tests: _Optional[_Iterable[_Union[TestInfo, _Mapping]]] = ..., metrics: _Optional[_Iterable[_Union[Metric, _Mapping]]] = ..., intended_use: _Optional[str] = ..., training_data: _Optional[str] = ..., explainable: _Optional[bool] = ..., report: _Optional[_Union[ModelReport, _Mapping]] = ..., erased: _Optional[_Iterable[str]] = ..., policy: _Optional[_Union[PolicyInfo, _Mapping]] = ...) -> None: ...

class Measured(_message.Message):
    __slots__ = ("value", "low", "high", "count", "floor")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    value: float
    low: float
    high: float
    count: int
    floor: float
    def __init__(self, value: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., count: _Optional[int] = ..., floor: _Optional[float] = ...) -> None: ...

class ModelReport(_message.Message):
    __slots__ = ("accuracy", "top_label_ece", "raw_top_label_ece", "geometric_mean", "overconfidence", "coverages", "selective_risks", "augrc", "comparisons", "worst_groups")
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    TOP_LABEL_ECE_FIELD_NUMBER: _ClassVar[int]
    RAW_TOP_LABEL_ECE_FIELD_NUMBER: _ClassVar[int]
    GEOMETRIC_MEAN_FIELD_NUMBER: _ClassVar[int]
    OVERCONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    COVERAGES_FIELD_NUMBER: _ClassVar[int]
    SELECTIVE_RISKS_FIELD_NUMBER: _ClassVar[int]
    AUGRC_FIELD_NUMBER: _ClassVar[int]
    COMPARISONS_FIELD_NUMBER: _ClassVar[int]
    WORST_GROUPS_FIELD_NUMBER: _ClassVar[int]
    accuracy: Measured
    top_label_ece: Measured
    raw_top_label_ece: Measured
    geometric_mean: Measured
    overconfidence: Measured
    coverages: _containers.RepeatedCompositeFieldContainer[MeasuredCoverage]
    selective_risks: _containers.RepeatedCompositeFieldContainer[SelectiveRisk]
    augrc: Measured
    comparisons: _containers.RepeatedCompositeFieldContainer[Comparison]
    worst_groups: _containers.RepeatedCompositeFieldContainer[WorstGroup]
    def __init__(self, accuracy: _Optional[_Union[Measured, _Mapping]] = ..., top_label_ece: _Optional[_Union[Measured, _Mapping]] = ..., raw_top_label_ece: _Optional[_Union[Measured, _Mapping]] = ..., geometric_mean: _Optional[_Union[Measured, _Mapping]] = ..., overconfidence: _Optional[_Union[Measured, _Mapping]] = ..., coverages: _Optional[_Iterable[_Union[MeasuredCoverage, _Mapping]]] = ..., selective_risks: _Optional[_Iterable[_Union[SelectiveRisk, _Mapping]]] = ..., augrc: _Optional[_Union[Measured, _Mapping]] = ..., comparisons: _Optional[_Iterable[_Union[Comparison, _Mapping]]] = ..., worst_groups: _Optional[_Iterable[_Union[WorstGroup, _Mapping]]] = ...) -> None: ...

class MeasuredCoverage(_message.Message):
    __slots__ = ("method", "target", "coverage", "not_flagged", "mean_size")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    NOT_FLAGGED_FIELD_NUMBER: _ClassVar[int]
    MEAN_SIZE_FIELD_NUMBER: _ClassVar[int]
    method: _answer_pb2.SetMethod
    target: float
    coverage: Measured
    not_flagged: Measured
    mean_size: float
    def __init__(self, method: _Optional[_Union[_answer_pb2.SetMethod, str]] = ..., target: _Optional[float] = ..., coverage: _Optional[_Union[Measured, _Mapping]] = ..., not_flagged: _Optional[_Union[Measured, _Mapping]] = ..., mean_size: _Optional[float] = ...) -> None: ...

class SelectiveRisk(_message.Message):
    __slots__ = ("coverage", "risk")
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    RISK_FIELD_NUMBER: _ClassVar[int]
    coverage: float
    risk: Measured
    def __init__(self, coverage: _Optional[float] = ..., risk: _Optional[_Union[Measured, _Mapping]] = ...) -> None: ...

class Comparison(_message.Message):
    __slots__ = ("comparator", "figure", "theirs", "difference")
    COMPARATOR_FIELD_NUMBER: _ClassVar[int]
    FIGURE_FIELD_NUMBER: _ClassVar[int]
    THEIRS_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    comparator: str
    figure: str
    theirs: float
    difference: Measured
    def __init__(self, comparator: _Optional[str] = ..., figure: _Optional[str] = ..., theirs: _Optional[float] = ..., difference: _Optional[_Union[Measured, _Mapping]] = ...) -> None: ...

class WorstGroup(_message.Message):
    __slots__ = ("figure", "group", "value")
    FIGURE_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    figure: str
    group: str
    value: Measured
    def __init__(self, figure: _Optional[str] = ..., group: _Optional[str] = ..., value: _Optional[_Union[Measured, _Mapping]] = ...) -> None: ...

class PolicyInfo(_message.Message):
    __slots__ = ("digest", "alpha", "max_risk", "delta", "costs", "priors", "name", "threshold")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    MAX_RISK_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    COSTS_FIELD_NUMBER: _ClassVar[int]
    PRIORS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    digest: str
    alpha: float
    max_risk: float
    delta: float
    costs: _containers.RepeatedScalarFieldContainer[str]
    priors: _containers.RepeatedCompositeFieldContainer[ClassPrior]
    name: str
    threshold: float
    def __init__(self, digest: _Optional[str] = ..., alpha: _Optional[float] = ..., max_risk: _Optional[float] = ..., delta: _Optional[float] = ..., costs: _Optional[_Iterable[str]] = ..., priors: _Optional[_Iterable[_Union[ClassPrior, _Mapping]]] = ..., name: _Optional[str] = ..., threshold: _Optional[float] = ...) -> None: ...

class ClassPrior(_message.Message):
    __slots__ = ("class_name", "prior")
    CLASS_NAME_FIELD_NUMBER: _ClassVar[int]
    PRIOR_FIELD_NUMBER: _ClassVar[int]
    class_name: str
    prior: float
    def __init__(self, class_name: _Optional[str] = ..., prior: _Optional[float] = ...) -> None: ...

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

class ServedModel(_message.Message):
    __slots__ = ("name", "versions", "role", "bundle")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    versions: _answer_pb2.Versions
    role: ModelRole
    bundle: str
    def __init__(self, name: _Optional[str] = ..., versions: _Optional[_Union[_answer_pb2.Versions, _Mapping]] = ..., role: _Optional[_Union[ModelRole, str]] = ..., bundle: _Optional[str] = ...) -> None: ...
