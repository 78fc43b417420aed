"""Tensors of a safetensors file as views into one buffer: its bytes are in memory once.

The safetensors library copies each tensor out of the bytes that it is given, or maps the file,
which may change after it was checked. Here the bytes that were checked are the tensors.

A file is: length of the header (8 bytes, little-endian), the header as JSON, the tensors' bytes.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ibinn.errors import DataError

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "I64": torch.int64,
        "I32": torch.int32,
        "I16": torch.int16,
        "I8": torch.int8,
        "U8": torch.uint8,
        "BOOL": torch.bool,
    }
)

_LENGTH = 8


def views(buffer: bytearray) -> dict[str, Tensor]:
    """The tensors of a file's bytes, by name, sharing their memory.

    Args:
        buffer: The file's bytes; not to be changed afterwards.

    Raises:
        DataError: The bytes are not a whole safetensors file.
    """
    start, entries = _header(buffer)
    whole = torch.frombuffer(buffer, dtype=torch.uint8)
    found, expected = {}, 0
    for name, entry in sorted(entries.items(), key=lambda item: _span(*item)):
        begin, end = _span(name, entry)
        if begin != expected:
            raise DataError(f"tensor {name!r} begins at byte {begin} of the data, not {expected}")
        expected = end
        found[name] = _view(whole, name, entry, start + begin, start + end)
    if start + expected != len(buffer):
        raise DataError(
            f"the file has {len(buffer)} bytes, its header speaks of {start + expected}"
        )
    return found


def write(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a file, one tensor after another, readable for whoever may read new files here."""
    path.unlink(missing_ok=True)
    path.touch()
    mode = path.stat().st_mode
    # The library's files are for the user alone, and a server may run as another.
    save_file(dict(tensors), path)
    path.chmod(mode)


def _header(buffer: bytearray) -> tuple[int, dict[str, Any]]:
    """Where the data begin, and what they are."""
    if sys.byteorder != "little":
        raise DataError("tensors are stored little-endian; this machine is big-endian")
    length = int.from_bytes(buffer[:_LENGTH], "little")
    if len(buffer) < _LENGTH or length > len(buffer) - _LENGTH:
        raise DataError(f"the file ends after {len(buffer)} bytes, inside of its header")
    try:
        header = json.loads(bytes(buffer[_LENGTH : _LENGTH + length]).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"its header is not readable as JSON ({error})") from error
    if not isinstance(header, dict):
        raise DataError(f"its header is a JSON {type(header).__name__}; expected an object")
    header.pop("__metadata__", None)
    return _LENGTH + length, header


def _span(name: str, entry: object) -> tuple[int, int]:
    match entry:
        case {"data_offsets": [int(begin), int(end)]} if 0 <= begin <= end:
            return begin, end
    raise DataError(f"tensor {name!r} lacks data_offsets, two ascending numbers")


def _view(whole: Tensor, name: str, entry: Mapping[str, Any], begin: int, end: int) -> Tensor:
    dtype, shape = DTYPES.get(str(entry.get("dtype"))), entry.get("shape")
    if dtype is None:
        raise DataError(
            f"tensor {name!r} is of type {entry.get('dtype')!r}; expected one of "
            f"{', '.join(DTYPES)}"
        )
    if not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise DataError(f"tensor {name!r} has shape {shape!r}; expected a list of sizes")
    if math.prod(shape) * dtype.itemsize != end - begin or end > len(whole):
        raise DataError(
            f"tensor {name!r} has {end - begin} bytes up to byte {end} of {len(whole)}; its shape "
            f"{shape} of {entry['dtype']} takes {math.prod(shape) * dtype.itemsize}"
        )
    part = whole[begin:end]
    if begin % dtype.itemsize:
        part = part.clone()
    return part.view(dtype).view(shape)
