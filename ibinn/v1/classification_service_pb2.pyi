from ibinn.v1 import answer_pb2 as _answer_pb2
from ibinn.v1 import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HeatmapSize(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HEATMAP_SIZE_UNSPECIFIED: _ClassVar[HeatmapSize]
    HEATMAP_SIZE_GRID: _ClassVar[HeatmapSize]
    HEATMAP_SIZE_IMAGE: _ClassVar[HeatmapSize]
HEATMAP_SIZE_UNSPECIFIED: HeatmapSize
HEATMAP_SIZE_GRID: HeatmapSize
HEATMAP_SIZE_IMAGE: HeatmapSize

class ClassifyRequest(_message.Message):
    __slots__ = ("image",)
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    def __init__(self, image: _Optional[bytes] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("classification",)
    CLASSIFICATION_FIELD_NUMBER: _ClassVar[int]
    classification: _answer_pb2.Classification
    def __init__(self, classification: _Optional[_Union[_answer_pb2.Classification, _Mapping]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("image", "classes", "contrast", "heatmap_size")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    CONTRAST_FIELD_NUMBER: _ClassVar[int]
    HEATMAP_SIZE_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    classes: _containers.RepeatedScalarFieldContainer[str]
    contrast: ContrastRequest
    heatmap_size: HeatmapSize
    def __init__(self, image: _Optional[bytes] = ..., classes: _Optional[_Iterable[str]] = ..., contrast: _Optional[_Union[ContrastRequest, _Mapping]] = ..., heatmap_size: _Optional[_Union[HeatmapSize, str]] = ...) -> None: ...

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
    __slots__ = ()
    def __init__(self) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _model_pb2.Model
    def __init__(self, model: _Optional[_Union[_model_pb2.Model, _Mapping]] = ...) -> None: ...
