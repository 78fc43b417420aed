"""What fields may hold, as the contract states it (`proto/ibinn/v1/rules.proto`), enforced.

The rules stand beside the fields in the .proto files and nowhere else. They are compiled once for
each message type; checking a message costs microseconds.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from ibinn.errors import RequestError
from ibinn.v1 import rules_pb2

Check = Callable[[Any, str], None]
"""Looks at a field's value, given its path; raises RequestError."""


def check(message: Message) -> None:
    """Holds a message, and those in it, against the contract's rules.

    Raises:
        RequestError: With the path of the first field that breaks one, such as
            ``requests[3].model``.
    """
    _check_message(message, "")


def _check_message(message: Message, prefix: str) -> None:
    for name, given, run in _compiled(message.DESCRIPTOR):
        if given is None or given(message):
            run(getattr(message, name), f"{prefix}{name}")


@functools.cache
def _compiled(kind: Descriptor) -> tuple[tuple[str, Callable[[Message], bool] | None, Check], ...]:
    found = []
    for field in kind.fields:
        rules = field.GetOptions().Extensions[rules_pb2.rules]
        checks = list(_checks(field, rules))
        if not checks:
            continue
        # A sub-message that is absent has no fields to break rules, unless it must be there.
        given: Callable[[Message], bool] | None = None
        if field.has_presence and not rules.required:
            given = functools.partial(_has, name=field.name)
        run = checks[0] if len(checks) == 1 else functools.partial(_run_all, tuple(checks))
        found.append((field.name, given, run))
    return tuple(found)


def _has(message: Message, *, name: str) -> bool:
    return bool(message.HasField(name))


def _run_all(checks: tuple[Check, ...], value: Any, path: str) -> None:
    for run in checks:
        run(value, path)


def _checks(field: FieldDescriptor, rules: rules_pb2.FieldRules) -> Iterable[Check]:
    expected = rules.expected
    if rules.required:
        yield _required
    if rules.max_items:
        yield functools.partial(_max_items, rules.max_items)
    if rules.unique:
        yield _unique
    single = list(_single_checks(field, rules, expected))
    if field.message_type is not None and _has_rules(field.message_type):
        single.append(lambda value, path: _check_message(value, f"{path}."))
    if field.is_repeated and single:
        yield functools.partial(_each, tuple(single))
    else:
        yield from single


def _single_checks(
    field: FieldDescriptor, rules: rules_pb2.FieldRules, expected: str
) -> Iterable[Check]:
    if rules.max_bytes:
        yield functools.partial(_max_bytes, rules.max_bytes, expected)
    if rules.pattern:
        yield functools.partial(_pattern, re.compile(rules.pattern), expected)
    if rules.HasField("minimum") or rules.HasField("maximum"):
        low = rules.minimum if rules.HasField("minimum") else -math.inf
        high = rules.maximum if rules.HasField("maximum") else math.inf
        yield functools.partial(_range, low, high)
    if rules.defined_only:
        names = {value.number: value.name for value in field.enum_type.values}
        yield functools.partial(_defined, names)


@functools.cache
def _has_rules(kind: Descriptor) -> bool:
    return bool(_compiled(kind))


def _required(value: Any, path: str) -> None:
    if not value and not isinstance(value, Message):
        raise RequestError(f"{path} is not given; expected a value", field=path)


def _max_items(limit: int, value: Any, path: str) -> None:
    if len(value) > limit:
        raise RequestError(
            f"{path} has {len(value)} entries; the limit is {limit}; send fewer", field=path
        )


def _unique(value: Any, path: str) -> None:
    seen: set[Any] = set()
    for item in value:
        if item in seen:
            raise RequestError(f"{path} names {_short(item)} twice; name each once", field=path)
        seen.add(item)


def _each(checks: tuple[Check, ...], value: Any, path: str) -> None:
    for index, item in enumerate(value):
        for run in checks:
            run(item, f"{path}[{index}]")


def _max_bytes(limit: int, expected: str, value: bytes | str, path: str) -> None:
    size = len(value.encode()) if isinstance(value, str) else len(value)
    if size > limit:
        raise RequestError(
            f"{path} is {size} bytes long; the limit is {limit}"
            + (f"; expected {expected}" if expected else ""),
            field=path,
        )


def _pattern(pattern: re.Pattern[str], expected: str, value: str, path: str) -> None:
    if value and pattern.fullmatch(value) is None:
        raise RequestError(
            f"{path} is {_short(value)}; expected {expected or pattern.pattern}", field=path
        )


def _range(low: float, high: float, value: float, path: str) -> None:
    if not low <= value <= high:  # also false for NaN
        raise RequestError(f"{path} is {value:g}; expected {low:g} to {high:g}", field=path)


def _defined(names: dict[int, str], value: int, path: str) -> None:
    if value not in names:
        raise RequestError(
            f"{path} is {value}; expected one of {', '.join(names.values())}", field=path
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
