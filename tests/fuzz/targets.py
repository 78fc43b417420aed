"""What is fuzzed inside this process, and what may come of it."""

from __future__ import annotations

import random
from collections.abc import Iterator

from google.protobuf.message import DecodeError, Message

from ibinn.decoding import Limits
from ibinn.errors import ImageError, RequestError
from ibinn.images import ImagePreparer, JpegStep, PreprocessingConfig
from ibinn.v1 import admin_service_pb2 as admin
from ibinn.v1 import classification_service_pb2 as service
from service import rules
from service.converters import records, requests
from service.oip import inputs, outputs, parameters
from service.oip.v2 import open_inference_grpc_pb2 as oip
from tests.fuzz import image_mutations, message_mutations, seeds
from tests.service.stub import INFO

LIMITS = Limits(max_bytes=2**18, max_pixels=2**20, max_side=4096)
PREPARER = ImagePreparer(
    config=PreprocessingConfig(
        side=32, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), jpeg=JpegStep(quality=75)
    ),
    limits=LIMITS,
)
MAX_WORDS_BYTES = 1500
REQUESTS: tuple[type[Message], ...] = (
    service.ClassifyRequest,
    service.ClassifyStreamRequest,
    service.ExplainRequest,
    service.GetModelRequest,
    service.SubmitFeedbackRequest,
    service.GetRecordRequest,
    service.ListEntriesRequest,
    admin.ReloadRequest,
    admin.RollbackRequest,
    admin.SetShadowRequest,
    admin.SetModeRequest,
    admin.GetStatusRequest,
    admin.AcknowledgeDriftRequest,
    admin.EraseImageRequest,
    oip.ModelInferRequest,
)


def image_seeds() -> tuple[bytes, ...]:
    """Encoded images."""
    return seeds.images()


def message_seeds(rng: random.Random) -> Iterator[bytes]:
    """Requests of every kind, each behind a byte that says which."""
    images = [image for image in seeds.images() if len(image) < 600]
    for number, kind in enumerate(REQUESTS):
        for _ in range(12):
            message = message_mutations.random_message(kind, rng, images)
            seed = bytes([number]) + message.SerializeToString()
            if len(seed) <= image_mutations.MAX_BYTES:
                yield seed


def decode_one(data: bytes) -> None:
    """Prepares an image; what is refused is refused by an ImageError that can be sent."""
    try:
        prepared = PREPARER(data)
    except ImageError as error:
        _check_words(error)
        return
    assert prepared.pixels.shape == (32, 32, 3)
    assert prepared.input.width * prepared.input.height <= LIMITS.max_pixels


def check_one(data: bytes) -> None:
    """Parses, checks and converts a request; what is refused is refused by a RequestError."""
    kind = REQUESTS[data[0] % len(REQUESTS)] if data else REQUESTS[0]
    try:
        message = kind.FromString(data[1:])
    except DecodeError:
        return
    try:
        rules.check(message)
        if isinstance(message, service.ClassifyRequest):
            requests.timeout_s(message)
        if isinstance(message, service.ExplainRequest):
            requests.explain_options(message)
        if isinstance(message, service.SubmitFeedbackRequest):
            records.feedback_of(message)
        if isinstance(message, service.ListEntriesRequest):
            records.entry_kinds(message.kinds)
        if isinstance(message, oip.ModelInferRequest):
            parameters.timeout_s(message)
            outputs.wanted(message)
            inputs.images(message, INFO)
    except RequestError as error:
        _check_words(error)


def _check_words(error: Exception) -> None:
    """Errors travel in trailing metadata, thrice, of which callers take 8 KB."""
    length = len(str(error).encode())
    assert 0 < length < MAX_WORDS_BYTES, f"a message of {length} bytes"
