"""What a stream of images is to be, and how its calls begin and fail."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import grpc

from ibinn.client.calls import Caller, new_request_id
from ibinn.client.failures import remote_error
from ibinn.client.ledger import Ledger
from ibinn.client.payload import Payload, to_bytes
from ibinn.client.requests import classify_request
from ibinn.errors import DeadlineError, ImageError, RemoteError, UnavailableError
from ibinn.types import AnswerOptions
from ibinn.v1 import classification_service_pb2 as service

GOODBYE_S = 5.0
"""For the server to end a stream whose images are all answered."""
_GRACE_S = 5.0
"""Beyond an image's time, for its way there and back."""

GroupIds = str | Callable[[int], str]
"""One group for all images of a stream, or what says each one's by its position; empty: none."""
Source = service.ClassifyRequest | ImageError
Event = service.ClassifyStreamResponse | RemoteError
Message = service.ClassifyStreamRequest | None  # None: no more will follow


@dataclass(frozen=True, slots=True, kw_only=True)
class Opener:
    """Opens streams of one client, each under a name of its own.

    Attributes:
        caller: The client's.
        method: ``ClassifyStream`` of its stub.
        timeout_s: Time of each image; None: no end.
    """

    caller: Caller
    method: Any
    timeout_s: float | None

    @property
    def silence_s(self) -> float:
        """Time without any answer after which the server is given up; may be infinite."""
        return math.inf if self.timeout_s is None else self.timeout_s + _GRACE_S

    def begin(self, messages: object, request_id: str) -> Any:
        """A call of gRPC that sends `messages`."""
        connection = self.caller.connection
        return self.method(
            messages,
            metadata=connection.metadata(request_id),
            wait_for_ready=connection.wait_for_ready,
        )

    def failure(self, error: Any, request_id: str) -> RemoteError:
        """The exception for a stream that broke."""
        target = self.caller.connection.target
        return remote_error(error, target=target, timeout_s=self.timeout_s, request_id=request_id)

    def silent(self, request_id: str) -> RemoteError:
        """The exception for a server that gave no sign for too long."""
        return DeadlineError(
            f"no answer from {self.caller.connection.target} within {self.silence_s} s; give the "
            "images a larger timeout_s",
            code=grpc.StatusCode.DEADLINE_EXCEEDED.name,
            request_id=request_id,
        )

    def ended(self, request_id: str) -> RemoteError:
        """The exception for a stream that the server ended without need."""
        return UnavailableError(
            f"{self.caller.connection.target} ended the stream before every image was answered",
            code=grpc.StatusCode.UNAVAILABLE.name,
            request_id=request_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one stream of images is to be; used once.

    Attributes:
        opener: Opens it.
        ledger: Keeps its state.
        model: The model that must answer; empty: the server's default.
        options: How much the answers tell.
        group_id: Of the images.
    """

    opener: Opener
    ledger: Ledger
    model: str
    options: AnswerOptions
    group_id: GroupIds

    @classmethod
    def of(
        cls,
        caller: Caller,
        method: Any,
        *,
        model: str,
        options: AnswerOptions,
        group_id: GroupIds,
        timeout_s: float | None,
        window: int,
        per_message: int,
        in_order: bool,
    ) -> Self:
        """A plan of the options of `Client.classify_many`.

        Raises:
            ConfigError: `window` or `per_message` is out of range.
        """
        timeout_s = caller.timeout_s if timeout_s is None else timeout_s
        ledger = Ledger(
            window=window,
            per_message=per_message,
            in_order=in_order,
            retry=caller.retry,
            budget=caller.budget,
            longest_wait_s=timeout_s,
        )
        opener = Opener(caller=caller, method=method, timeout_s=timeout_s)
        return cls(opener=opener, ledger=ledger, model=model, options=options, group_id=group_id)

    def source(self, index: int, image: Payload) -> Source:
        """The request for the image at a position, or why it cannot be sent."""
        try:
            encoded = to_bytes(image)
        except ImageError as error:
            return error
        return classify_request(
            encoded,
            request_id=new_request_id(),
            model=self.model,
            options=self.options,
            group_id=self.group_id if isinstance(self.group_id, str) else self.group_id(index),
            timeout_s=self.opener.timeout_s,
        )

    def add(self, image: Source | None) -> bool:
        """Takes the next image; whether there was one."""
        if isinstance(image, ImageError):
            self.ledger.add_failure(image)
        elif image is not None:
            self.ledger.add(image)
        return image is not None
