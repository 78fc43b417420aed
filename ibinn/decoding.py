"""Bytes, files, PIL images and arrays to upright 8-bit RGB pixels, within limits.

Bytes are hostile: their format is told by their first bytes, only that format's decoder ever
sees them, sizes are checked from the header before anything is decoded, and whatever a decoder
raises becomes an `ImageDecodeError`.

Pixels are taken as sRGB; an embedded colour profile is not applied. H height, W width.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from ibinn.errors import ConfigError, ImageDecodeError, ImageError, ImageTooLargeError

Pixels = npt.NDArray[np.uint8]
ImageLike = bytes | str | os.PathLike[str] | Image.Image | npt.NDArray[np.uint8]

# The plugins' classes instead of `Image.open`: no other plugin can be reached, phone pictures
# with a second picture behind the first (MPO) stay JPEG, and Pillow's own bomb limit, a global
# that only warns below twice its value, is replaced by `Limits`.
_OPENERS: Mapping[str, Callable[[BytesIO], ImageFile.ImageFile]] = MappingProxyType(
    {
        "JPEG": JpegImagePlugin.JpegImageFile,
        "PNG": PngImagePlugin.PngImageFile,
        "WEBP": WebPImagePlugin.WebPImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
        "GIF": GifImagePlugin.GifImageFile,
    }
)
FORMATS: tuple[str, ...] = tuple(_OPENERS)
"""Formats that are decoded."""

_HOSTILE_BYTES = (  # what Pillow's decoders raise on damaged bytes
    OSError,
    SyntaxError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    EOFError,
    NotImplementedError,
    MemoryError,
    RecursionError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Warning,  # where warnings are turned into errors
)

_MAX_JPEG_SCANS = 100  # every scan of a progressive JPEG walks over all pixels again
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is accepted, checked before decoding.

    Attributes:
        max_bytes: Largest number of encoded bytes.
        max_pixels: Largest width times height.
        max_side: Largest width and height in pixels.
        min_side: Smallest width and height in pixels.
    """

    max_bytes: int = 16 * 2**20
    max_pixels: int = 40_000_000
    max_side: int = 16_384
    min_side: int = 1

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_side", "min_side"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"limit {name} is {value!r}; expected an integer of at least 1")
        if self.min_side > self.max_side:
            raise ConfigError(
                f"limit min_side is {self.min_side}, above max_side {self.max_side}; "
                "no image could be accepted"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedImage:
    """An image as pixels.

    Attributes:
        pixels: uint8 (H, W, 3), upright RGB.
        format: One of `FORMATS`; ``PIL`` or ``ARRAY`` where no bytes were decoded.
        sha256_bytes: sha256 (hex) of the encoded bytes; empty where there were none.
        sha256_pixels: `pixels_sha256` of the pixels.
        reductions: What decoding took away, in words.
    """

    pixels: Pixels
    format: str
    sha256_bytes: str
    sha256_pixels: str
    reductions: tuple[str, ...] = ()


def pixels_sha256(pixels: Pixels) -> str:
    """sha256 (hex) of the image as a binary PPM file, so of its size and its pixels.

    Args:
        pixels: uint8 (H, W, 3).

    Example:
        >>> pixels_sha256(np.zeros((1, 1, 3), np.uint8))[:8]
        '3ff6c546'
    """
    height, width, _ = pixels.shape
    digest = hashlib.sha256(f"P6\n{width} {height}\n255\n".encode("ascii"))
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def decode(data: bytes, limits: Limits) -> DecodedImage:
    """Decode JPEG, PNG, WebP, BMP or GIF bytes to upright RGB.

    Alpha is laid over white, 16 bits lose their lower 8, grey, palette and CMYK become RGB,
    the EXIF orientation is applied, an animation gives its first frame.

    Raises:
        ImageTooLargeError: Over a limit; nothing was decoded.
        ImageDecodeError: Empty, zero-sized, truncated, damaged, or not one of `FORMATS`.
    """
    pixels, name, notes = _decoded(data, limits, reduce=1)
    return DecodedImage(
        pixels=pixels,
        format=name,
        sha256_bytes=hashlib.sha256(data).hexdigest(),
        sha256_pixels=pixels_sha256(pixels),
        reductions=notes,
    )


def decode_pixels(data: bytes, limits: Limits, *, reduce: int = 1) -> Pixels:
    """The pixels of `decode` without their hashes, for jobs that read an image again and again.

    Args:
        data: An encoded image.
        limits: What is accepted.
        reduce: 1, 2, 4 or 8: a JPEG may be decoded at that fraction of its sides, rounded up,
            which leaves out most of the work; other formats keep their size.

    Returns:
        uint8 (H, W, 3), upright.

    Raises:
        ImageError: As `decode`.
    """
    return _decoded(data, limits, reduce=reduce)[0]


def _decoded(data: bytes, limits: Limits, *, reduce: int) -> tuple[Pixels, str, tuple[str, ...]]:
    if not data:
        raise ImageDecodeError("image is empty (0 bytes); send the bytes of an image file")
    _check_bytes(len(data), limits)
    name = _sniff(data)
    size = _header_size(data, name)
    if size is not None:
        _check_size(*size, limits)
    try:
        with _OPENERS[name](BytesIO(data)) as image:
            _check_size(*image.size, limits)
            _check_scans(data, name)
            if reduce > 1:
                width, height = image.size
                image.draft(None, (max(1, width // reduce), max(1, height // reduce)))
            notes = ["first frame of an animation"] if _is_animated(image) else []
            pixels, more = _upright_rgb(image)
    except ImageError:
        raise
    except _HOSTILE_BYTES as error:
        raise ImageDecodeError(
            f"image cannot be decoded: {len(data)} bytes that begin like {name} are damaged or "
            f"truncated ({type(error).__name__}: {str(error)[:120]}); send the complete file"
        ) from error
    return pixels, name, (*notes, *more)


def open_image(image: ImageLike, limits: Limits) -> DecodedImage:
    """Read an image from encoded bytes, a path (str or PathLike), a PIL image or a uint8 array.

    Args:
        image: Arrays have shape (H, W, 3) for RGB or (H, W) for grey.
        limits: What is accepted.

    Raises:
        ImageTooLargeError: Over a limit.
        ImageDecodeError: As `decode`, or a PIL image that cannot be loaded.
        ImageError: No such file, or a value of another type, dtype or shape.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return decode(bytes(image), limits)
    if isinstance(image, str | os.PathLike):
        return decode(_read(image, limits), limits)
    if isinstance(image, Image.Image):
        return _from_pil(image, limits)
    if isinstance(image, np.ndarray):
        return _from_array(image, limits)
    raise ImageError(
        f"image is a {type(image).__name__}; expected bytes, a path, a PIL image or a uint8 array"
    )


def _read(path: str | os.PathLike[str], limits: Limits) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(limits.max_bytes + 1)
            size = max(len(data), os.fstat(file.fileno()).st_size)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"image file {os.fspath(path)!r} cannot be read: {reason}") from error
    _check_bytes(size, limits)
    return data


def _from_pil(image: Image.Image, limits: Limits) -> DecodedImage:
    _check_size(*image.size, limits)
    try:
        pixels, notes = _upright_rgb(image)
    except _HOSTILE_BYTES as error:
        raise ImageDecodeError(
            f"PIL image of mode {image.mode} cannot be loaded as RGB "
            f"({type(error).__name__}: {str(error)[:120]}); convert it to RGB first"
        ) from error
    return DecodedImage(
        pixels=pixels,
        format="PIL",
        sha256_bytes="",
        sha256_pixels=pixels_sha256(pixels),
        reductions=notes,
    )


def _from_array(array: npt.NDArray[np.uint8], limits: Limits) -> DecodedImage:
    if array.dtype != np.uint8:
        raise ImageError(
            f"image array has dtype {array.dtype}; expected uint8 with values 0 to 255 "
            "(for floats in [0, 1]: np.round(255 * x).astype(np.uint8))"
        )
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] == 3):
        raise ImageError(
            f"image array has shape {array.shape}; expected (H, W, 3) for RGB or (H, W) for grey"
        )
    _check_size(array.shape[1], array.shape[0], limits)
    pixels = array if array.ndim == 3 else np.repeat(array[:, :, None], 3, axis=2)
    pixels = np.array(pixels, order="C")  # a copy: the caller may change its own
    return DecodedImage(
        pixels=pixels,
        format="ARRAY",
        sha256_bytes="",
        sha256_pixels=pixels_sha256(pixels),
    )


def _sniff(data: bytes) -> str:
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"BM"):
        return "BMP"
    raise ImageDecodeError(
        f"not an image that can be read: {len(data)} bytes beginning {data[:8].hex(' ')}; "
        f"expected {', '.join(FORMATS)}"
    )


def _header_size(data: bytes, name: str) -> tuple[int, int] | None:
    """Width and height as the header states them; None where that takes the decoder's parser.

    WebP's decoder allocates its canvas when it is made, so its size must be known before.
    """
    try:
        if name == "PNG" and data[12:16] == b"IHDR":
            width, height = struct.unpack_from(">II", data, 16)
        elif name == "GIF":
            width, height = struct.unpack_from("<HH", data, 6)
        elif name == "BMP":
            core = data[14:18] == b"\x0c\0\0\0"
            width, height = struct.unpack_from("<HH" if core else "<ii", data, 18)
        elif name == "WEBP" and data[12:16] == b"VP8X":
            width = 1 + int.from_bytes(data[24:27], "little")
            height = 1 + int.from_bytes(data[27:30], "little")
        elif name == "WEBP" and data[12:16] == b"VP8L":
            (bits,) = struct.unpack_from("<I", data, 21)
            width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        elif name == "WEBP" and data[12:16] == b"VP8 ":
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
        else:
            return None
    except struct.error:
        return None  # the decoder says what is missing
    return width, abs(height)


def _check_bytes(size: int, limits: Limits) -> None:
    if size > limits.max_bytes:
        raise ImageTooLargeError(
            f"image has {size} bytes; the limit is {limits.max_bytes} bytes; send a smaller one"
        )


def _check_size(width: int, height: int, limits: Limits) -> None:
    if width < limits.min_side or height < limits.min_side:
        raise ImageDecodeError(
            f"image is {width}×{height} px; at least {limits.min_side} px per side are needed"
        )
    if width > limits.max_side or height > limits.max_side:
        raise ImageTooLargeError(
            f"image is {width}×{height} px; the limit is {limits.max_side} px per side; "
            "send a smaller one"
        )
    if width * height > limits.max_pixels:
        raise ImageTooLargeError(
            f"image is {width}×{height} = {width * height} px; the limit is "
            f"{limits.max_pixels} px; send a smaller one"
        )


def _check_scans(data: bytes, name: str) -> None:
    """Refuse JPEGs whose many tiny scans would cost minutes of decoding."""
    if name != "JPEG":
        return
    scans, position = 0, 2
    while found := _JPEG_MARKER.search(data, position):
        code, position = found.group(1)[0], found.end()
        if code == 0xD9:  # end of image; what follows is not decoded
            break
        if code == 0xDA:
            scans += 1
        position += int.from_bytes(data[position : position + 2], "big")
    if scans > _MAX_JPEG_SCANS:
        raise ImageDecodeError(
            f"JPEG has {scans} scans; at most {_MAX_JPEG_SCANS} are decoded; save it anew"
        )


def _is_animated(image: Image.Image) -> bool:
    with contextlib.suppress(*_HOSTILE_BYTES):  # damage behind the first frame does not matter
        return bool(getattr(image, "is_animated", False))
    return False


def _upright_rgb(image: Image.Image) -> tuple[Pixels, tuple[str, ...]]:
    image.load()
    notes: list[str] = []
    if image.mode.startswith(("I", "F")):
        rgb = _from_wide_grey(image)
        notes.append("16 bits per channel reduced to 8")
    elif image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        rgb = Image.alpha_composite(white, rgba).convert("RGB")
        if rgba.getchannel("A").getextrema() != (255, 255):
            notes.append("transparency laid over white")
    else:
        rgb = image.convert("RGB")
    turn = _TURNS.get(_orientation(image))
    return np.array(rgb if turn is None else rgb.transpose(turn)), tuple(notes)


def _from_wide_grey(image: Image.Image) -> Image.Image:
    """Grey of 16 bits (in modes I;16, I;16B, I) to RGB by its upper 8, as Pillow does for RGB."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    values = np.asarray(image).astype(np.int64)
    grey = (np.clip(values, 0, 65535) >> 8).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


_TURNS: Mapping[int, Image.Transpose] = MappingProxyType(
    {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
)


def _orientation(image: Image.Image) -> int:
    with contextlib.suppress(*_HOSTILE_BYTES):  # good pixels with damaged EXIF stay usable
        value = image.getexif().get(0x0112, 1)
        return value if isinstance(value, int) else 1
    return 1
