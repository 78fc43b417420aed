from ibinn.v1 import answer_pb2 as _answer_pb2
from ibinn.v1 import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

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
    __slots__ = ("image", "classes")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    classes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, image: _Optional[bytes] = ..., classes: _Optional[_Iterable[str]] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("classification", "heatmaps", "image")
    CLASSIFICATION_FIELD_NUMBER: _ClassVar[int]
    HEATMAPS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    classification: _answer_pb2.Classification
    heatmaps: _containers.RepeatedCompositeFieldContainer[_answer_pb2.Heatmap]
    image: _answer_pb2.SeenImage
    def __init__(self, classification: _Optional[_Union[_answer_pb2.Classification, _Mapping]] = ..., heatmaps: _Optional[_Iterable[_Union[_answer_pb2.Heatmap, _Mapping]]] = ..., image: _Optional[_Union[_answer_pb2.SeenImage, _Mapping]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _model_pb2.Model
    def __init__(self, model: _Optional[_Union[_model_pb2.Model, _Mapping]] = ...) -> None: ...
