"""Protobuf messages that were never meant: random fields, and bytes that break the encoding.

A message's bytes are a list of fields; each is (number, wire type, payload). Mutations work on that
list, so that most of what they make is still parsed as far as the damage.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

VARINT, FIXED64, LENGTH, GROUP, GROUP_END, FIXED32 = range(6)

_NUMBERS = (0, 1, -1, 2, 127, 128, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 10**6, 65)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-320, 1e308, float("inf"), float("-inf"), float("nan"))
_TEXTS = (
    *("", "a", "cat", "dog", "a" * 8, "f" * 64, "g" * 64, "a" * 65, "0123456789abcdef"),
    *("\0", "\n\r", "../../etc/passwd", "{}%s%n", "ä€😀", "\ufeff", "-", "_" * 1000, "é" * 20_000),
)
_INTEGERS = {
    FieldDescriptor.TYPE_INT32: (32, True),
    FieldDescriptor.TYPE_SINT32: (32, True),
    FieldDescriptor.TYPE_SFIXED32: (32, True),
    FieldDescriptor.TYPE_ENUM: (32, True),
    FieldDescriptor.TYPE_UINT32: (32, False),
    FieldDescriptor.TYPE_FIXED32: (32, False),
    FieldDescriptor.TYPE_INT64: (64, True),
    FieldDescriptor.TYPE_SINT64: (64, True),
    FieldDescriptor.TYPE_SFIXED64: (64, True),
    FieldDescriptor.TYPE_UINT64: (64, False),
    FieldDescriptor.TYPE_FIXED64: (64, False),
}


def random_message(
    kind: type[Message], rng: random.Random, images: Sequence[bytes], *, depth: int = 0
) -> Message:
    """A message whose fields hold what their types allow, likely or not.

    Args:
        kind: Its class.
        rng: Decides.
        images: Values of bytes fields.
        depth: How deep it lies in another.
    """
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        if rng.random() < 0.45 or depth > 4:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        if field.is_repeated:
            values = getattr(message, field.name)
            for _ in range(rng.choice((1, 1, 2, 3, 70 if depth == 0 else 4))):
                if field.message_type is not None:
                    inner = type(values.add())
                    del values[-1]
                    values.append(random_message(inner, rng, images, depth=depth + 1))
                else:
                    values.append(_value(field, rng, images))
        elif field.message_type is not None:
            inner = type(getattr(message, field.name))
            value = random_message(inner, rng, images, depth=depth + 1)
            getattr(message, field.name).CopyFrom(value)
        else:
            setattr(message, field.name, _value(field, rng, images))
    return message


def _value(field: FieldDescriptor, rng: random.Random, images: Sequence[bytes]) -> Any:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rng.choice(images)
    if field.type == FieldDescriptor.TYPE_STRING:
        return rng.choice(_TEXTS)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return rng.random() < 0.5
    if field.type == FieldDescriptor.TYPE_ENUM and rng.random() < 0.7:
        return rng.choice(field.enum_type.values).number
    if field.type in _INTEGERS:
        bits, signed = _INTEGERS[field.type]
        low = -(2 ** (bits - 1)) if signed else 0
        high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
        return min(max(rng.choice(_NUMBERS), low), high)
    return rng.choice(_FLOATS[:6] if field.type == FieldDescriptor.TYPE_FLOAT else _FLOATS)


# --------------------------------------------------------------------------------- wire format

Field = tuple[int, int, bytes]


def mutated(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """A message's bytes with one to four changes.

    Args:
        data: Bytes of a message.
        rng: Decides.
        others: Bytes of other messages, to take fields from.
    """
    for _ in range(1 + min(int(rng.expovariate(0.9)), 3)):
        fields = split(data)
        data = _changed_bytes(data, rng) if fields is None else _changed(fields, rng, others)
    return _changed_bytes(data, rng) if rng.random() < 0.2 else data


def split(data: bytes) -> list[Field] | None:
    """The fields of a message, or None where the bytes are none."""
    fields, position = [], 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        start = position
        if wire_type == VARINT:
            _, position = _read_varint(data, position)
        elif wire_type == LENGTH:
            length, start = _read_varint(data, position)
            position = start + length
        elif wire_type in (FIXED32, FIXED64):
            position += 4 if wire_type == FIXED32 else 8
        elif wire_type not in (GROUP, GROUP_END):
            return None
        if position > len(data):
            return None
        fields.append((number, wire_type, data[start:position]))
    return fields


def joined(fields: Sequence[Field]) -> bytes:
    """Bytes of a message with these fields."""
    parts = []
    for number, wire_type, payload in fields:
        parts.append(varint(number << 3 | wire_type))
        if wire_type == LENGTH:
            parts.append(varint(len(payload)))
        parts.append(payload)
    return b"".join(parts)


def varint(value: int) -> bytes:
    """A number in protobuf's encoding of variable length."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data) and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position
    return value, len(data) + 1  # cut off or too long


def _changed(fields: list[Field], rng: random.Random, others: Sequence[bytes]) -> bytes:
    change = rng.randrange(11)
    if change == 0 or not fields:
        fields.insert(rng.randrange(len(fields) + 1), _unknown(rng))
        return joined(fields)
    at = rng.randrange(len(fields))
    number, wire_type, payload = fields[at]
    if change == 1:
        del fields[at]
    elif change == 2:
        fields[at:at] = [fields[at]] * rng.choice((1, 2, 100))
    elif change == 3:
        rng.shuffle(fields)
    elif change == 4:
        fields[at] = (rng.choice((0, number + 1, 15, 16, 2047, 2**29 - 1)), wire_type, payload)
    elif change == 5:
        fields[at] = (number, rng.randrange(8), payload)
    elif change == 6 and wire_type == LENGTH:
        inner = mutated(payload, rng, others) if len(payload) < 4096 else payload
        fields[at] = (number, LENGTH, inner)
    elif change == 7 and wire_type == LENGTH:
        wrong = rng.choice((len(payload) + 1, 2**31, 2**32 - 1, 2**63, max(0, len(payload) - 1)))
        head = varint(number << 3 | LENGTH) + varint(wrong) + payload
        return joined(fields[:at]) + head + joined(fields[at + 1 :])
    elif change == 8:
        extra = split(rng.choice(others)) or []
        fields[at:at] = extra[:8]
    elif change == 9:
        deep = payload
        for _ in range(rng.choice((3, 90, 110, 2000))):
            deep = varint(number << 3 | LENGTH) + varint(len(deep)) + deep
        return joined(fields[:at]) + deep + joined(fields[at + 1 :])
    else:
        fields[at] = (number, wire_type, _changed_bytes(payload, rng))
    return joined(fields)


def _unknown(rng: random.Random) -> Field:
    number = rng.choice((1000, 51090, 2**29 - 1, 19_000))
    match rng.randrange(5):
        case 0:
            return number, VARINT, b"\xff" * rng.choice((9, 10, 11)) + b"\x01"
        case 1:
            return number, FIXED64, struct.pack("<d", rng.choice(_FLOATS))
        case 2:
            return number, LENGTH, rng.randbytes(rng.choice((0, 1, 100, 10_000)))
        case 3:
            depth = rng.choice((1, 50, 101, 5000))
            ends = varint(number << 3 | GROUP_END) * (depth - rng.randrange(2))
            return number, GROUP, varint(number << 3 | GROUP) * (depth - 1) + ends
        case _:
            return number, FIXED32, rng.randbytes(4)


def _changed_bytes(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return rng.randbytes(rng.randrange(1, 16))
    at = rng.randrange(len(data))
    match rng.randrange(4):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        case 2:
            return data[:at] + rng.randbytes(rng.randrange(1, 9)) + data[at:]
        case _:
            return data[:at] + data[at + rng.randrange(1, 9) :]
