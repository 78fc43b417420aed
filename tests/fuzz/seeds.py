"""What mutations begin with, made by code: every format in its varieties, every kind of message."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

_ORIENTATION = 0x0112


@functools.cache
def images() -> tuple[bytes, ...]:
    """Encoded images: sound, odd, cut off, and larger than they look."""
    return tuple(dict.fromkeys((*_sound(), *_odd(), *_broken())))


def good() -> bytes:
    """An image that every server takes."""
    return _encode(_picture(8, 8), "PNG")


def _sound() -> Iterator[bytes]:
    for side in ((8, 8), (33, 17)):
        picture = _picture(*side)
        for mode in ("RGB", "L", "CMYK"):
            yield _encode(picture.convert(mode), "JPEG", quality=85)
        yield _encode(picture, "JPEG", quality=85, progressive=True)
        yield _encode(picture, "JPEG", quality=40, subsampling=2, restart_marker_blocks=1)
        yield _encode(picture, "JPEG", qtables=[list(range(1, 65))] * 2)
        for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
            yield _encode(_in_mode(picture, mode), "PNG")
        yield _encode(picture.convert("P"), "PNG", bits=2, transparency=1)
        yield _encode(picture, "PNG", compress_level=0)
        for mode in ("RGB", "RGBA"):
            yield _encode(_in_mode(picture, mode), "WEBP", quality=60)
            yield _encode(_in_mode(picture, mode), "WEBP", lossless=True)
        for mode in ("1", "L", "P", "RGB", "RGBA"):
            yield _encode(_in_mode(picture, mode), "BMP")
        yield _encode(picture.convert("P"), "GIF")
        yield _encode(picture.convert("P"), "GIF", interlace=0, transparency=3)
    frames = [_picture(9, 7, turn=turn) for turn in range(3)]
    for format in ("GIF", "WEBP", "PNG"):
        yield _encode(frames[0], format, save_all=True, append_images=frames[1:], duration=10)


def _odd() -> Iterator[bytes]:
    picture = _picture(12, 8)
    for format in ("JPEG", "PNG", "WEBP"):
        for orientation in range(1, 10):
            exif = Image.Exif()
            exif[_ORIENTATION] = orientation
            yield _encode(picture, format, exif=exif)
    yield _encode(picture, "JPEG", exif=b"Exif\0\0MM\0*" + b"\xff" * 6)
    yield _encode(picture, "JPEG", comment=b"c" * 300, icc_profile=b"i" * 500, dpi=(1, 65535))
    yield _encode(picture, "PNG", icc_profile=b"i" * 500, dpi=(1, 1))
    jpeg = _encode(picture, "JPEG")
    yield jpeg[:2] + b"\xff\xe2\0\x58MPF\0" + bytes(82) + jpeg[2:]
    png = _encode(picture, "PNG")
    text = (
        (b"tEXt", b"Comment\0" + b"t" * 200),
        (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(5000))),
        (b"iTXt", b"Comment\0\1\0en\0x\0" + zlib.compress(bytes(5000))),
        (b"iCCP", b"name\0\0" + zlib.compress(bytes(5000))),
        (b"gAMA", struct.pack(">I", 0)),
        (b"pHYs", struct.pack(">IIB", 0, 2**32 - 1, 1)),
        (b"acTL", struct.pack(">II", 2**31 - 1, 0)),
        (b"eXIf", b"MM\0*" + bytes(20)),
    )
    for kind, body in text:
        yield png[:33] + png_chunk(kind, body) + png[33:]


def _broken() -> Iterator[bytes]:
    picture = _picture(16, 16)
    for format in ("JPEG", "PNG", "WEBP", "BMP", "GIF"):
        data = _encode(picture, format)
        for part in (3, len(data) // 4, len(data) // 2, len(data) - 3):
            yield data[:part]
    for side, depth in ((2000, 1), (10_000, 1), (2**31 - 1, 8), (0, 8)):
        yield png_of(side, side, depth=depth, rows=min(side, 2000))
    gif = _encode(picture.convert("P"), "GIF")
    yield gif[:6] + b"\xff\xff\xff\xff" + gif[10:]
    bmp = _encode(picture, "BMP")
    yield bmp[:18] + struct.pack("<ii", 2**31 - 1, -(2**31)) + bmp[26:]
    yield bmp[:28] + struct.pack("<HI", 8, 1) + bmp[34:]  # says that it is run-length encoded
    webp = _encode(picture, "WEBP", lossless=True)
    yield webp[:21] + b"\xff\xff\xff\x0f" + webp[25:]
    jpeg = _encode(picture, "JPEG", progressive=True)
    scan = jpeg.index(b"\xff\xda")
    yield jpeg[:-2] + jpeg[scan:-2] * 150 + b"\xff\xd9"
    yield b""
    yield b"\x89PNG\r\n\x1a\n"
    yield b"%!PS-Adobe-3.0 EPSF-3.0\n"
    yield b"II*\0" + bytes(40)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG file with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(width: int, height: int, *, depth: int, rows: int) -> bytes:
    """A grey PNG file of one colour; `rows` of its rows are there."""
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    row = bytes(1 + min((width * depth + 7) // 8, 10_000))
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(row * rows, 9))
        + png_chunk(b"IEND", b"")
    )


def _picture(width: int, height: int, *, turn: int = 0) -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height + turn)
    values = rng.integers(0, 256, (height, width, 3), np.uint8)
    values[: height // 2] //= 16  # half of it nearly flat, so that encoders show both faces
    return Image.fromarray(values)


def _in_mode(picture: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    if mode in ("RGBA", "LA"):
        image = picture.convert(mode)
        image.putalpha(picture.convert("L"))
        return image
    return picture.convert(mode)


def _encode(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()
