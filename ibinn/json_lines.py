"""Results as JSON, one line each, for programs."""

from __future__ import annotations

import dataclasses
import json
import math
from datetime import datetime
from typing import TypeAlias

import numpy as np

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


def json_line(value: object, **first: Json) -> str:
    """``value`` (a result dataclass) as one line of JSON, keys in the order of its fields.

    Args:
        value: A dataclass of `ibinn.types`.
        first: Keys set before the fields, such as the file's name.

    Arrays become lists of rows. Numbers that JSON does not have (NaN, infinities) become null.
    """
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"expected a result dataclass, got {type(value).__name__}")
    fields = _plain(dataclasses.asdict(value))
    assert isinstance(fields, dict)
    return json.dumps({**first, **fields}, ensure_ascii=False, allow_nan=False)


def _plain(value: object) -> Json:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no JSON form here")
