"""Policy files: JSON with a format version and its own sha256. Nothing in them is executed."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from ibinn.errors import ConfigError, PolicyFormatError
from ibinn.policy.values import (
    FORMAT_VERSION,
    Certificate,
    Costs,
    Origin,
    Policy,
    Priors,
    content,
    content_digest,
)

FILE = "policy.json"
"""Usual name of the file beside a bundle."""

MAX_BYTES = 64 * 2**20
"""Larger files are refused unread; the costs of 1,000 classes take about 8 MiB."""


def write(policy: Policy, path: Path) -> None:
    """Write a policy, atomically."""
    text = json.dumps({**content(policy), "sha256": policy.digest}, indent=1, ensure_ascii=False)
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(path)


def read(path: Path) -> Policy:
    """Read what `write` wrote.

    Raises:
        PolicyFormatError: No such file, another format version, changed since it was written, or
            a missing, unknown or malformed entry; the message names it.
    """
    return from_bytes(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """The bytes of a policy file, for `from_bytes` or to check a signature of.

    Raises:
        PolicyFormatError: They cannot be read, or are more than `MAX_BYTES`.
    """
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise PolicyFormatError(
                f"{path} has {size} bytes; the limit is {MAX_BYTES}; this is no policy file"
            )
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def from_bytes(data: bytes, path: Path) -> Policy:
    """The policy in the bytes of a file; see `read`. The path names it in errors."""
    try:
        return from_json(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _unreadable(path, error) from error
    except PolicyFormatError as error:
        raise PolicyFormatError(f"{path}: {error}") from error


def _unreadable(path: Path, error: Exception) -> PolicyFormatError:
    return PolicyFormatError(
        f"policy {path} cannot be read ({error}); expected a file that `ibinn policy fit` wrote"
    )


def from_json(text: str) -> Policy:
    """The policy in the text of a file; see `read`."""
    try:
        values = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        if not isinstance(values, dict):
            raise PolicyFormatError(
                f"holds {_kind(values)}, expected a JSON object; fit the policy again"
            )
        stated = values.pop("sha256", None)
        found = content_digest(values)
    except (ValueError, RecursionError) as error:
        raise PolicyFormatError(f"not readable as JSON ({error}); fit the policy again") from error
    version = values.get("format_version")
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise PolicyFormatError(
            f"format version is {version!r}, this software reads {FORMAT_VERSION}; use the version "
            "of ibinn that wrote it, or fit the policy again"
        )
    if stated != found:
        raise PolicyFormatError(
            f"its entries have sha256 {found[:16]}…, it states {str(stated)[:16]}…; it was changed "
            "or damaged: change the costs and fit the policy again"
        )
    del values["format_version"]
    _named(values, Policy, "")
    try:
        return Policy(
            name=_text(values, "name"),
            classes=tuple(_text_value(name, "classes") for name in _list(values, "classes")),
            origin=_part(values, "origin", Origin, _text_value),
            alpha=_number(values["alpha"], "alpha"),
            class_alphas=tuple(
                None if alpha is None else _number(alpha, "class_alphas")
                for alpha in _list(values, "class_alphas")
            ),
            coverage=_number(values["coverage"], "coverage"),
            costs=_costs(values["costs"]),
            priors=_part(values, "priors", Priors, _numbers),
            certificate=_part(values, "certificate", Certificate, _certified),
        )
    except ConfigError as error:
        raise PolicyFormatError(f"{error}; fit the policy again") from error


def _costs(value: object) -> Costs:
    entries = _named(value, Costs, "costs")
    return Costs(
        act=tuple(_numbers(row, "costs.act") for row in _list(entries, "act")),
        defer=_number(entries["defer"], "costs.defer"),
        reject=_number(entries["reject"], "costs.reject"),
        unknown=_number(entries["unknown"], "costs.unknown"),
    )


def _part(values: Mapping[str, Any], name: str, kind: type, convert: Any) -> Any:
    """A dataclass of like fields, or None."""
    if values[name] is None:
        return None
    entries = _named(values[name], kind, name)
    return kind(**{entry: convert(value, f"{name}.{entry}") for entry, value in entries.items()})


def _named(value: object, kind: type, where: str) -> dict[str, Any]:
    """`value` if it is an object with exactly the fields of `kind`."""
    inside = f" of {where}" if where else ""
    if not isinstance(value, dict):
        raise PolicyFormatError(
            f"entry {where!r} is {_kind(value)}; expected an object; fit the policy again"
        )
    known = {field.name for field in dataclasses.fields(kind)}
    if wrong := sorted(known.symmetric_difference(value)):
        raise PolicyFormatError(
            f"entry {wrong[0]!r}{inside} is {'missing' if wrong[0] in known else 'unknown'}; "
            f"expected: {', '.join(sorted(known))}; fit the policy again"
        )
    return value


def _certified(value: object, where: str) -> float | int:
    if where.rpartition(".")[2] not in ("images", "accepted", "errors"):
        return _number(value, where)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _malformed(where, value, "a whole number")
    return value


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _malformed(where, value, "a number")
    try:
        number = float(value)
    except OverflowError as error:
        raise _malformed(where, value, "a number that is finite") from error
    if not math.isfinite(number):
        raise _malformed(where, value, "a number that is finite")
    return number


def _numbers(value: object, where: str) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise _malformed(where, value, "a list of numbers")
    return tuple(_number(item, where) for item in value)


def _list(values: Mapping[str, Any], name: str) -> list[Any]:
    if not isinstance(values[name], list):
        raise _malformed(name, values[name], "a list")
    return list(values[name])


def _text(values: Mapping[str, Any], name: str) -> str:
    return _text_value(values[name], name)


def _text_value(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise _malformed(where, value, "text")
    return value


def _malformed(where: str, value: object, expected: str) -> PolicyFormatError:
    return PolicyFormatError(
        f"entry {where!r} is {_kind(value)}; expected {expected}; fit the policy again"
    )


def _kind(value: object) -> str:
    return repr(value) if isinstance(value, bool | None) else f"a {type(value).__name__}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise PolicyFormatError(f"entry {twice!r} stands twice; expected once")
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise PolicyFormatError(f"holds {name}; expected numbers that are finite")
