"""Calls with mutated images and messages, the same for a seed and a number."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from ibinn.v1 import admin_service_pb2 as admin
from ibinn.v1 import classification_service_pb2 as service
from service.oip.v2 import open_inference_grpc_pb2 as oip
from tests.fuzz import image_mutations, message_mutations

STREAMED = 8
"""Images of one message of a stream."""

OURS = "/ibinn.v1.ClassificationService/"
_ADMIN = "/ibinn.v1.AdminService/"
_OIP = "/inference.GRPCInferenceService/"

TOKEN = "ibinn_" + "f" * 43
"""Allows everything on the fuzzed server."""
AUTHORIZATION = ("authorization", f"Bearer {TOKEN}")

UNARY: dict[str, type[Message]] = {
    f"{OURS}Classify": service.ClassifyRequest,
    f"{OURS}Explain": service.ExplainRequest,
    f"{OURS}GetModel": service.GetModelRequest,
    f"{OURS}SubmitFeedback": service.SubmitFeedbackRequest,
    f"{OURS}GetRecord": service.GetRecordRequest,
    f"{OURS}ListEntries": service.ListEntriesRequest,
    f"{_ADMIN}Reload": admin.ReloadRequest,
    f"{_ADMIN}Rollback": admin.RollbackRequest,
    f"{_ADMIN}SetShadow": admin.SetShadowRequest,
    f"{_ADMIN}SetMode": admin.SetModeRequest,
    f"{_ADMIN}GetStatus": admin.GetStatusRequest,
    f"{_ADMIN}AcknowledgeDrift": admin.AcknowledgeDriftRequest,
    f"{_ADMIN}EraseImage": admin.EraseImageRequest,
    f"{_OIP}ServerLive": oip.ServerLiveRequest,
    f"{_OIP}ModelReady": oip.ModelReadyRequest,
    f"{_OIP}ModelMetadata": oip.ModelMetadataRequest,
    f"{_OIP}ModelInfer": oip.ModelInferRequest,
    "/grpc.health.v1.Health/Check": health_pb2.HealthCheckRequest,
}
STREAM: dict[str, type[Message]] = {
    f"{OURS}ClassifyStream": service.ClassifyStreamRequest,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": (
        reflection_pb2.ServerReflectionRequest
    ),
}
GRPCS_OWN = ("/grpc.",)
"""Services that come with gRPC; what they answer to bytes that are no message is gRPC's."""

Metadata = tuple[tuple[str, str | bytes], ...]

_METADATA: Metadata = (
    ("x-request-id", "r-1"),
    ("x-request-id", "not an id!"),
    ("x-request-id", "x" * 3000),
    ("authorization", "Bearer " + "t" * 40),
    ("authorization", "Basic \x7e"),
    ("traceparent", "00-0-0-0"),
    ("some-bin", b"\0\xff" * 50),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FuzzCall:
    """One call.

    Attributes:
        name: From which its bytes can be made again.
        method: Path of the method.
        stream: Whether it takes a stream of messages.
        messages: Bytes of each message; one where it takes no stream.
        metadata: Sent with it.
        inputs: Mutated images or messages it holds.
    """

    name: str
    method: str
    stream: bool
    messages: tuple[bytes, ...]
    metadata: Metadata = (AUTHORIZATION,)
    inputs: int = 1


def image_calls(seed: int, count: int, corpus: Sequence[bytes]) -> Iterator[FuzzCall]:
    """Calls with `count` images among them, sound messages all."""
    number = done = 0
    while done < count:
        name = f"image-{seed}-{number}"
        rng = random.Random(name)
        number += 1
        kind = rng.random()
        if kind < 0.5 and count - done >= STREAMED:
            images = [_image(rng, corpus) for _ in range(STREAMED)]
            message: Message = service.ClassifyStreamRequest(
                requests=[service.ClassifyRequest(image=image) for image in images]
            )
            method = f"{OURS}ClassifyStream"
        elif kind < 0.6:
            images = [_image(rng, corpus)]
            message = service.ExplainRequest(image=images[0])
            method = f"{OURS}Explain"
        else:
            images = [_image(rng, corpus)]
            message = service.ClassifyRequest(image=images[0])
            method = f"{OURS}Classify"
        done += len(images)
        yield FuzzCall(
            name=name,
            method=method,
            stream=method in STREAM,
            messages=(message.SerializeToString(),),
            inputs=len(images),
        )


def message_calls(
    seed: int, count: int, corpus: Sequence[bytes], images: Sequence[bytes]
) -> Iterator[FuzzCall]:
    """Calls with `count` messages among them, hardly one of them sound.

    Args:
        seed: Decides.
        count: How many.
        corpus: Messages that reach something, behind a byte each.
        images: For fields that hold bytes.
    """
    kinds = {**UNARY, **STREAM}
    methods = sorted(kinds)
    others = [message[1:] for message in corpus]
    for number in range(count):
        name = f"message-{seed}-{number}"
        rng = random.Random(name)
        method = rng.choice(methods) if rng.random() < 0.4 else f"{OURS}{rng.choice(_OFTEN)}"
        if rng.random() < 0.5:
            message = message_mutations.random_message(kinds[method], rng, images)
            data = message.SerializeToString()
        else:
            data = rng.choice(others)
        if rng.random() < 0.8:
            data = message_mutations.mutated(data, rng, others)
        metadata: Metadata = (AUTHORIZATION,)
        if rng.random() < 0.05:
            odd = rng.choice(_METADATA)
            metadata = (odd,) if odd[0] == "authorization" else (AUTHORIZATION, odd)
        yield FuzzCall(
            name=name,
            method=method,
            stream=method in STREAM,
            messages=(data,),
            metadata=metadata,
        )


_OFTEN = ("Classify", "ClassifyStream", "Explain", "GetModel")


def _image(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    return image_mutations.mutated(rng.choice(corpus), rng, corpus)
