"""What the server and a decoder process say to each other.

    request: preparer number | bytes of its pickle | count | count lengths | pickle | images
    answer:  bytes of text | bytes of pixels | text (JSON, one entry an image) | pixels

Numbers are little-endian u32. A preparer is pickled into the first request that needs it and goes
by its number from then on. The way back is never unpickled: a hostile image may have taken the
process over, so its answer is plain values, and every one is checked here before it is used.
"""

from __future__ import annotations

import json
import pickle
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ibinn.errors import ImageDecodeError, ImageError, ImageTooLargeError
from ibinn.images import FORMATS, PreparedImage
from ibinn.types import InputInfo, Region

if TYPE_CHECKING:
    from service.models.served import Preparer

MAX_IMAGES = 16
"""Images of one request, at most."""
MAX_SIDE_PX = 4096
"""Side of a prepared image, at most; as `ibinn.images.PreprocessingConfig` has it."""
READY = b"ready"
"""What a process says once, before its first answer."""

_REQUEST = struct.Struct("<III")
_ANSWER = struct.Struct("<II")
ANSWER_HEADER_BYTES = _ANSWER.size

_MAX_TEXT_BYTES = 2**14  # of one image
_MAX_MESSAGE_CHARS = 1000
_MAX_REDUCTIONS = 16
_MAX_ORIGINAL_PX = 2**31
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FIELD = re.compile(r"[a-z_.]{1,64}")
_ERRORS: Mapping[str, type[ImageError]] = {
    kind.__name__: kind for kind in (ImageTooLargeError, ImageDecodeError, ImageError)
}


class FrameError(Exception):
    """An answer that no honest decoder process gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Images to prepare, as the process reads them.

    Attributes:
        preparer: Its number.
        pickled: The preparer, where it is new to the process; else empty.
        images: Encoded bytes.
    """

    preparer: int
    pickled: bytes
    images: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """What a preparer raised that no image should make it raise.

    Attributes:
        trace: The end of its trace, printable.
    """

    trace: str


Answer = PreparedImage | ImageError | Raised


def request(number: int, preparer: Preparer | None, images: Sequence[bytes]) -> bytes:
    """A request; the preparer is given where the process does not know its number yet."""
    pickled = b"" if preparer is None else pickle.dumps(preparer)
    lengths = struct.pack(f"<{len(images)}I", *map(len, images))
    head = _REQUEST.pack(number, len(pickled), len(images))
    return b"".join((head, lengths, pickled, *images))


def read_request(stream: BinaryIO) -> Request | None:
    """The next request, or None at the end of the stream, also where that cuts one off."""
    try:
        number, pickle_bytes, count = _REQUEST.unpack(_exactly(stream, _REQUEST.size))
        lengths = struct.unpack(f"<{count}I", _exactly(stream, 4 * count))
        pickled = _exactly(stream, pickle_bytes)
        images = tuple(_exactly(stream, length) for length in lengths)
    except EOFError:
        return None
    return Request(preparer=number, pickled=pickled, images=images)


def answer(results: Sequence[Answer]) -> bytes:
    """The answer to a request, one result for each of its images."""
    text = json.dumps([_entry(result) for result in results]).encode("ascii")
    pixels = [result.pixels.tobytes() for result in results if isinstance(result, PreparedImage)]
    return b"".join((_ANSWER.pack(len(text), sum(map(len, pixels))), text, *pixels))


def answer_sizes(header: bytes | bytearray, *, count: int, side: int | None) -> tuple[int, int]:
    """Bytes of text and of pixels that follow an answer's header.

    Args:
        header: The first `ANSWER_HEADER_BYTES` of an answer.
        count: Number of images asked.
        side: Side that prepared images must have; None: any.

    Raises:
        FrameError: More than that many images can need.
    """
    text_bytes, pixel_bytes = _ANSWER.unpack_from(header)
    most = 3 * (MAX_SIDE_PX if side is None else side) ** 2
    if text_bytes > count * _MAX_TEXT_BYTES or pixel_bytes > count * most:
        raise FrameError(f"{text_bytes} bytes of text and {pixel_bytes} of pixels are too many")
    return text_bytes, pixel_bytes


def read_answer(
    text: bytes | bytearray, pixels: bytes | bytearray, *, count: int, side: int | None
) -> list[Answer]:
    """The results of an answer, checked.

    Args:
        text: JSON.
        pixels: uint8, one prepared image after the other.
        count: Number of images asked.
        side: Side that prepared images must have; None: any.

    Raises:
        FrameError: The answer is not one of an honest process.
    """
    try:
        entries = json.loads(text)
        _require(isinstance(entries, list) and len(entries) == count, "one entry an image")
        results, start = [], 0
        for entry in entries:
            result = _result(entry, pixels, start, side)
            if isinstance(result, PreparedImage):
                start += result.pixels.size
            results.append(result)
        _require(start == len(pixels), "no pixels left over")
        return results
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FrameError(f"malformed answer: {type(error).__name__}: {error}") from error


def printable(text: str, limit: int = _MAX_MESSAGE_CHARS) -> str:
    """Text without control characters, so that it cannot pose as something else in a log."""
    text = text[:limit]
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _entry(result: Answer) -> dict[str, Any]:
    match result:
        case Raised(trace=trace):
            return {"raised": trace[-_MAX_MESSAGE_CHARS:]}
        case ImageError():
            kind = next(name for name, kind in _ERRORS.items() if isinstance(result, kind))
            return {
                "error": kind,
                "message": str(result)[:_MAX_MESSAGE_CHARS],
                "field": result.field,
            }
    seen = result.input
    return {
        "side": result.pixels.shape[0],
        "encoded_bytes": result.encoded_bytes,
        "width": seen.width,
        "height": seen.height,
        "format": seen.format,
        "sha256_bytes": seen.sha256_bytes,
        "sha256_pixels": seen.sha256_pixels,
        "region": [seen.region.left, seen.region.top, seen.region.width, seen.region.height],
        "reductions": seen.reductions,
    }


def _result(entry: Any, pixels: bytes | bytearray, start: int, side: int | None) -> Answer:
    _require(isinstance(entry, dict), "an entry with names")
    if "raised" in entry:
        return Raised(trace=printable(_text(entry["raised"])))
    if "error" in entry:
        kind, field = _ERRORS[entry["error"]], entry["field"]
        _require(_FIELD.fullmatch(field) is not None, "a field's name")
        return kind(printable(_text(entry["message"])), field=field)
    size = _whole(entry["side"], MAX_SIDE_PX)
    _require(side is None or size == side, "the preparer's side")
    _require(start + 3 * size**2 <= len(pixels), "pixels for every image")
    values = np.frombuffer(pixels, np.uint8, 3 * size**2, start).reshape(size, size, 3)
    return PreparedImage(
        pixels=values,
        input=_input(entry),
        encoded_bytes=_whole(entry["encoded_bytes"], 2**31),
    )


def _input(entry: Mapping[str, Any]) -> InputInfo:
    width = _whole(entry["width"], _MAX_ORIGINAL_PX)
    height = _whole(entry["height"], _MAX_ORIGINAL_PX)
    left, top, right, bottom = entry["region"]
    region = Region(
        left=_whole(left, width, least=0),
        top=_whole(top, height, least=0),
        width=_whole(right, width),
        height=_whole(bottom, height),
    )
    _require(
        region.left + region.width <= width and region.top + region.height <= height,
        "a region inside the image",
    )
    for name in ("sha256_bytes", "sha256_pixels"):
        _require(_SHA256.fullmatch(entry[name]) is not None, "a sha256")
    _require(entry["format"] in FORMATS, "a format that is decoded")
    reductions = entry["reductions"]
    _require(isinstance(reductions, list) and len(reductions) <= _MAX_REDUCTIONS, "reductions")
    return InputInfo(
        width=width,
        height=height,
        format=entry["format"],
        sha256_bytes=entry["sha256_bytes"],
        sha256_pixels=entry["sha256_pixels"],
        region=region,
        reductions=tuple(printable(_text(words)) for words in reductions),
    )


def _whole(value: Any, most: int, *, least: int = 1) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"expected a number from {least} to {most}")
    return value


def _text(value: Any) -> str:
    _require(isinstance(value, str) and len(value) <= _MAX_MESSAGE_CHARS, "a short text")
    return str(value)


def _require(holds: bool, expected: str) -> None:  # noqa: FBT001 - a condition, not a switch
    if not holds:
        raise ValueError(f"expected {expected}")
