"""The bytes that a client sends for an image."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ibinn.errors import ImageError

Payload = bytes | str | os.PathLike[str] | Image.Image | npt.NDArray[np.uint8]
"""Encoded bytes, a path, a PIL image, or a uint8 array (H, W, 3) or (H, W)."""


def to_bytes(image: Payload) -> bytes:
    """Encoded bytes of one image; files and bytes as they are, pixels as PNG (lossless).

    Raises:
        ImageError: A file cannot be read, or an array is not an image.
    """
    match image:
        case bytes():
            return image
        case Image.Image():
            return _png(image)
        case np.ndarray():
            return _png(_from_array(image))
        case _:
            return _read(Path(image))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(
            f"cannot read image {path}: {error.strerror or error}; give the path of an image file"
        ) from error


def _from_array(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    rgb = pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.dtype != np.uint8 or not (rgb or pixels.ndim == 2) or pixels.size == 0:
        raise ImageError(
            f"array of {pixels.dtype} {pixels.shape} is not one image; "
            "expected uint8 of shape (H, W, 3) or (H, W)"
        )
    return Image.fromarray(pixels)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    try:
        image.save(buffer, format="PNG")
    except (OSError, ValueError) as error:
        raise ImageError(
            f"PIL image of mode {image.mode} and size {image.size} cannot be sent: {error}; "
            "convert it to RGB"
        ) from error
    return buffer.getvalue()
