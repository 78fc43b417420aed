"""From a request's input to images, every size checked before anything is made of it.

N images, H and W height and width in pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ibinn.errors import RequestError
from ibinn.types import ModelInfo
from service.oip.text import shown
from service.oip.v2 import open_inference_grpc_pb2 as oip

Pixels = npt.NDArray[np.uint8]

IMAGE = "image"
PIXELS = "pixels"
DATATYPES = {IMAGE: "BYTES", PIXELS: "UINT8"}
MOST_IMAGES = 64
"""As many as one message of our own stream may hold."""
MOST_TYPED_VALUES = 3 * 2**20
"""Typed contents are a number for each value, which costs time to unpack; more come raw."""

_CONTENTS = {"BYTES": "bytes_contents", "UINT8": "uint_contents"}
_MOST_DIMENSIONS = 4
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """What a request wants classified; exactly one of the two holds images.

    Attributes:
        encoded: Encoded images.
        pixels: Decoded ones, uint8 (H, W, 3).
        field: Path of the field they came in.
        raw: Whether they came raw; the answer then is raw too.
    """

    encoded: tuple[bytes, ...] = ()
    pixels: tuple[Pixels, ...] = ()
    field: str
    raw: bool

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.encoded) + len(self.pixels)

    def all(self) -> list[bytes | Pixels]:
        """In the order of the request."""
        return [*self.encoded, *self.pixels]


def images(request: oip.ModelInferRequest, info: ModelInfo) -> Images:
    """The images of a request.

    Args:
        request: As it came.
        info: Whose limits apply.

    Raises:
        RequestError: With the path of the field that is wrong.
    """
    tensor = only_input(request)
    shape = _dimensions(tensor)
    raw = bool(request.raw_input_contents)
    if raw and tensor.HasField("contents"):
        raise RequestError(
            "inputs[0].contents and raw_input_contents are both given; send one of them",
            field="inputs[0].contents",
        )
    if raw and len(request.raw_input_contents) != 1:
        raise RequestError(
            f"raw_input_contents has {len(request.raw_input_contents)} entries for 1 input; "
            "send one for each input",
            field="raw_input_contents",
        )
    field = "raw_input_contents[0]" if raw else f"inputs[0].contents.{_CONTENTS[tensor.datatype]}"
    if tensor.name == IMAGE:
        count = _image_count(shape)
        encoded = (
            _split(request.raw_input_contents[0], count)
            if raw
            else _typed_bytes(tensor.contents, count)
        )
        return Images(encoded=encoded, field=field, raw=raw)
    count, height, width = _pixel_sizes(shape, info)
    values = count * height * width * 3
    flat = (
        _raw_values(request.raw_input_contents[0], values)
        if raw
        else _typed_values(tensor.contents, values)
    )
    return Images(pixels=tuple(flat.reshape(count, height, width, 3)), field=field, raw=raw)


def only_input(request: oip.ModelInferRequest) -> oip.ModelInferRequest.InferInputTensor:
    """The input of a request that has one, of a known name and its datatype.

    Raises:
        RequestError: It is another one, or there are several.
    """
    if len(request.inputs) != 1:
        raise RequestError(
            f"inputs has {len(request.inputs)} tensors; expected 1, either {IMAGE!r} (BYTES, "
            f"encoded images) or {PIXELS!r} (UINT8, decoded ones)",
            field="inputs",
        )
    tensor = request.inputs[0]
    if tensor.name not in DATATYPES:
        raise RequestError(
            f"inputs[0].name is {shown(tensor.name)}; expected {IMAGE!r} or {PIXELS!r}",
            field="inputs[0].name",
        )
    expected = DATATYPES[tensor.name]
    if tensor.datatype != expected:
        raise RequestError(
            f"inputs[0].datatype is {shown(tensor.datatype)}; expected {expected!r} for "
            f"{tensor.name!r}",
            field="inputs[0].datatype",
        )
    return tensor


def _dimensions(tensor: oip.ModelInferRequest.InferInputTensor) -> tuple[int, ...]:
    if len(tensor.shape) > _MOST_DIMENSIONS:
        raise RequestError(
            f"inputs[0].shape has {len(tensor.shape)} dimensions; expected at most "
            f"{_MOST_DIMENSIONS}",
            field="inputs[0].shape",
        )
    return tuple(tensor.shape)


def _image_count(shape: Sequence[int]) -> int:
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1):
        raise _shape_error(shape, f"expected [N] or [N, 1] for {IMAGE!r}")
    return _checked_count(shape[0], shape)


def _pixel_sizes(shape: Sequence[int], info: ModelInfo) -> tuple[int, int, int]:
    if len(shape) not in (3, 4) or shape[-1] != 3:
        raise _shape_error(shape, f"expected [H, W, 3] or [N, H, W, 3] for {PIXELS!r}")
    count = _checked_count(shape[0], shape) if len(shape) == 4 else 1
    height, width = shape[-3], shape[-2]
    if min(height, width) < 1:
        raise _shape_error(shape, "expected a height and a width of at least 1")
    if max(height, width) > info.max_side:
        raise _shape_error(shape, f"the limit is {info.max_side} px per side")
    if height * width > info.max_pixels:
        raise _shape_error(shape, f"the limit is {info.max_pixels} pixels in an image")
    return count, height, width


def _checked_count(count: int, shape: Sequence[int]) -> int:
    if not 1 <= count <= MOST_IMAGES:
        raise _shape_error(shape, f"expected 1 to {MOST_IMAGES} images")
    return count


def _shape_error(shape: Sequence[int], expected: str) -> RequestError:
    return RequestError(f"inputs[0].shape is {list(shape)}; {expected}", field="inputs[0].shape")


def _split(raw: bytes, count: int) -> tuple[bytes, ...]:
    """The elements of a BYTES tensor, each after its length in four bytes."""
    found: list[bytes] = []
    start = 0
    while start < len(raw) and len(found) < count:
        if len(raw) - start < _LENGTH.size:
            raise _raw_error(f"ends within the length of element {len(found)}")
        (length,) = _LENGTH.unpack_from(raw, start)
        start += _LENGTH.size
        if length > len(raw) - start:
            raise _raw_error(
                f"says that element {len(found)} has {length} bytes, and {len(raw) - start} are "
                "left"
            )
        found.append(raw[start : start + length])
        start += length
    if len(found) < count:
        raise _raw_error(f"holds {len(found)} elements, and the shape says {count}")
    if start < len(raw):
        raise _raw_error(f"has {len(raw) - start} bytes after the {count} elements of the shape")
    return tuple(found)


def _raw_error(what: str) -> RequestError:
    return RequestError(
        f"raw_input_contents[0] {what}; expected for each element its length in 4 bytes, "
        "little-endian, then its bytes",
        field="raw_input_contents[0]",
    )


def _typed_bytes(contents: oip.InferTensorContents, count: int) -> tuple[bytes, ...]:
    _only_field(contents, "bytes_contents", count)
    return tuple(contents.bytes_contents)


def _raw_values(raw: bytes, values: int) -> Pixels:
    if len(raw) != values:
        raise RequestError(
            f"raw_input_contents[0] has {len(raw)} bytes, and the shape says {values}; send "
            "one byte for each value",
            field="raw_input_contents[0]",
        )
    return np.frombuffer(raw, dtype=np.uint8)


def _typed_values(contents: oip.InferTensorContents, values: int) -> Pixels:
    path = "inputs[0].contents.uint_contents"
    _only_field(contents, "uint_contents", values)
    if values > MOST_TYPED_VALUES:
        raise RequestError(
            f"{path} has {values} values; the limit is {MOST_TYPED_VALUES}; send "
            "raw_input_contents instead",
            field=path,
        )
    found = np.fromiter(contents.uint_contents, dtype=np.uint32, count=values)
    if int(found.max()) > 255:
        raise RequestError(f"{path} holds {int(found.max())}; expected UINT8, 0 to 255", field=path)
    return found.astype(np.uint8)


def _only_field(contents: oip.InferTensorContents, name: str, count: int) -> None:
    for field, _ in contents.ListFields():
        if field.name != name:
            raise RequestError(
                f"inputs[0].contents.{field.name} is given; the datatype's values stand in {name}",
                field=f"inputs[0].contents.{field.name}",
            )
    found = len(getattr(contents, name))
    if found != count:
        raise RequestError(
            f"inputs[0].contents.{name} has {found} elements, and the shape says {count}; send "
            "as many as the shape says",
            field=f"inputs[0].contents.{name}",
        )
