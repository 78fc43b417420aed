"""The contract's field rules hold at the border, each with the path of the field at fault."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from ibinn.errors import RequestError
from ibinn.v1 import admin_service_pb2 as admin
from ibinn.v1 import classification_service_pb2 as service
from ibinn.v1 import model_pb2, rules_pb2
from service import rules

ENTRY = service.ClassifyRequest(image=b"x")


@pytest.mark.parametrize(
    "message",
    [
        service.ClassifyRequest(),
        service.ClassifyRequest(image=b"x", request_id="a.b:c-d_9", model="0123abcd"),
        service.ClassifyRequest(options=service.AnswerOptions(top_classes=3)),
        service.ClassifyStreamRequest(requests=[ENTRY] * 64),
        service.ExplainRequest(classes=["cat", "cat"], heatmap_size=2),
        admin.ReloadRequest(bundle="cifar10-small_2.v3"),
        admin.SetShadowRequest(bundle="", share=1),
        admin.SetModeRequest(mode=model_pb2.MODE_ABSTAIN_ALL, reason="x" * 500),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_within_the_rules_passes(message: Message) -> None:
    rules.check(message)


@pytest.mark.parametrize(
    ("message", "field", "words"),
    [
        (service.ClassifyRequest(request_id="a b"), "request_id", "expected up to 64 letters"),
        (service.ClassifyRequest(request_id="a" * 65), "request_id", "65 bytes long"),
        (service.ClassifyRequest(request_id="é" * 33), "request_id", "66 bytes long"),
        (service.ClassifyRequest(model="0123ABCD"), "model", "8 to 64 hexadecimal digits"),
        (service.ClassifyRequest(model="0123abc"), "model", "8 to 64 hexadecimal digits"),
        (
            service.ClassifyRequest(options=service.AnswerOptions(top_classes=-1)),
            "options.top_classes",
            "expected 0 to",
        ),
        (
            service.ClassifyRequest(options=service.AnswerOptions(tests=9)),  # type: ignore[arg-type]
            "options.tests",
            "expected one of TEST_DETAIL_UNSPECIFIED",
        ),
        (service.ClassifyStreamRequest(), "requests", "not given"),
        (service.ClassifyStreamRequest(requests=[ENTRY] * 65), "requests", "the limit is 64"),
        (
            service.ClassifyStreamRequest(
                requests=[ENTRY, service.ClassifyRequest(image=b"x", model="?")]
            ),
            "requests[1].model",
            "8 to 64 hexadecimal digits",
        ),
        (service.ExplainRequest(classes=["c"] * 1001), "classes", "the limit is 1000"),
        (service.ExplainRequest(classes=["a", "c" * 1001]), "classes[1]", "1001 bytes long"),
        (service.ExplainRequest(heatmap_size=7), "heatmap_size", "is 7"),  # type: ignore[arg-type]
        (admin.ReloadRequest(), "bundle", "not given"),
        (admin.ReloadRequest(bundle="../etc"), "bundle", "the name of a folder"),
        (admin.ReloadRequest(bundle=".hidden"), "bundle", "the name of a folder"),
        (admin.SetShadowRequest(share=1.5), "share", "expected 0 to 1"),
        (admin.SetShadowRequest(share=float("nan")), "share", "expected 0 to 1"),
        (admin.SetModeRequest(), "mode", "not given"),
        (admin.SetModeRequest(mode=5), "mode", "expected one of MODE_"),  # type: ignore[arg-type]
    ],
)
def test_a_message_that_breaks_one_is_refused_by_the_fields_path(
    message: Message, field: str, words: str
) -> None:
    with pytest.raises(RequestError, match=words.replace("(", r"\(")) as caught:
        rules.check(message)
    assert caught.value.field == field
    assert str(caught.value).startswith(field)


def test_a_refusal_repeats_little_of_what_was_sent() -> None:
    with pytest.raises(RequestError) as caught:
        rules.check(admin.ReloadRequest(bundle="/" * 255))
    assert len(str(caught.value)) < 250


def messages(*files: object) -> Iterator[Descriptor]:
    for file in files:
        yield from file.DESCRIPTOR.message_types_by_name.values()  # type: ignore[attr-defined]


def test_every_request_field_of_free_length_has_a_rule_or_is_the_image() -> None:
    """What a caller can make long is bounded by the contract, not only by the message limit."""
    unbounded = []
    for kind in messages(service, admin):
        if not kind.name.endswith("Request"):
            continue
        for field in kind.fields:
            found = field.GetOptions().Extensions[rules_pb2.rules]
            text = field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
            if (text and not field.is_repeated and not found.max_bytes) or (
                field.is_repeated and not found.max_items
            ):
                unbounded.append(f"{kind.name}.{field.name}")
    assert unbounded == ["ClassifyRequest.image", "ExplainRequest.image"]
