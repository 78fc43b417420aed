"""The wire contract as lines of text, one for each thing that a caller can depend on.

python -m tests.contract.snapshot      records the contract as it is now
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor

from ibinn.v1 import (
    admin_service_pb2,
    answer_pb2,
    classification_service_pb2,
    model_pb2,
    rules_pb2,
)

SNAPSHOT = Path(__file__).with_name("ibinn_v1.txt")
FILES = (rules_pb2, answer_pb2, model_pb2, classification_service_pb2, admin_service_pb2)
_TYPES = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in vars(FieldDescriptor).items()
    if name.startswith("TYPE_") and isinstance(number, int)
}


def contract() -> list[str]:
    """Sorted lines: messages, fields, enum values, methods."""
    return sorted(line for module in FILES for line in _file(module.DESCRIPTOR))


def recorded() -> list[str]:
    """The lines that were recorded."""
    return SNAPSHOT.read_text(encoding="utf-8").splitlines()


def _file(file: FileDescriptor) -> Iterator[str]:
    for message in file.message_types_by_name.values():
        yield from _message(message)
    for enum in file.enum_types_by_name.values():
        yield from _enum(enum)
    for service in file.services_by_name.values():
        for method in service.methods:
            asked = ("stream " if method.client_streaming else "") + method.input_type.full_name
            told = ("stream " if method.server_streaming else "") + method.output_type.full_name
            yield f"rpc {method.full_name}({asked}) returns ({told})"


def _message(message: Descriptor) -> Iterator[str]:
    yield f"message {message.full_name}"
    for field in message.fields:
        kind = _TYPES[field.type]
        if field.message_type is not None:
            kind = field.message_type.full_name
        elif field.enum_type is not None:
            kind = field.enum_type.full_name
        if field.is_repeated:
            kind = f"repeated {kind}"
        elif field.has_presence and field.message_type is None:
            kind = f"optional {kind}"
        yield f"field {message.full_name}.{field.name} = {field.number}: {kind}"
    for nested in message.nested_types:
        yield from _message(nested)
    for enum in message.enum_types:
        yield from _enum(enum)


def _enum(enum: EnumDescriptor) -> Iterator[str]:
    for value in enum.values:
        yield f"value {enum.full_name}.{value.name} = {value.number}"


if __name__ == "__main__":
    SNAPSHOT.write_text("\n".join(contract()) + "\n", encoding="utf-8")
