"""`Client`: asks a server and waits for the answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import grpc

from ibinn.client import answers, models, records, states, streams
from ibinn.client.calls import DEFAULT_TIMEOUT_S, Caller, new_request_id
from ibinn.client.channels import ClientTls, Connection
from ibinn.client.ledger import Answered
from ibinn.client.payload import Payload, to_bytes
from ibinn.client.plans import GroupIds, Plan
from ibinn.client.records import Page
from ibinn.client.requests import classify_request, explain_request
from ibinn.client.retries import Retry
from ibinn.client.statements import feedback_request, list_request
from ibinn.errors import ImageError, RemoteError
from ibinn.records import Acknowledgement, Entry, EntryKind, Provenance, Record, Truth
from ibinn.serving import ServerInfo
from ibinn.types import (
    AnswerOptions,
    ContrastChoice,
    ExplainOptions,
    Explanation,
    HeatmapSize,
    ModelInfo,
    Prediction,
)
from ibinn.v1 import classification_service_pb2 as service
from ibinn.v1.classification_service_pb2_grpc import ClassificationServiceStub

DEFAULT_WINDOW = 64
DEFAULT_PER_MESSAGE = 8


class Client:
    """Asks a server; blocks until the answer is there.

    One client keeps one connection (to each address, where several take turns) and is meant to be
    kept for many calls. It may be used from several threads at a time. After a `os.fork`, make a
    new one.

    Args:
        target: The server's address, ``host:port``; see `Connection` for others.
        timeout_s: Time for each call with all its attempts, unless the call says otherwise; None
            waits for ever.
        tls: For a server behind TLS; None sends in the clear.
        credentials: In place of `tls`, for what it cannot say.
        token: Sent with every call; empty: none.
        allow_plaintext_token: See `Connection`.
        wait_for_ready: See `Connection`.
        model: The model that must answer, by the first 8 to 64 digits of its weights digest, unless
            the call says otherwise; empty: the server's default.
        options: How much answers tell, unless the call says otherwise.
        retry: How often and how soon a failed call is tried again.

    Every call raises a subclass of `ibinn.errors.RemoteError` if there is no result, and
    `ibinn.errors.ImageError` if an image cannot even be read here. The request's name in the
    server's logs is `RemoteError.request_id`, and `Receipt.request_id` in an answer.

    Raises:
        ConfigError: Address, TLS or token are not valid, or the token would be readable.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        tls: ClientTls | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        token: str = "",
        allow_plaintext_token: bool = False,
        wait_for_ready: bool = False,
        model: str = "",
        options: AnswerOptions | None = None,
        retry: Retry | None = None,
    ) -> None:
        connection = Connection(
            target=target,
            tls=tls,
            credentials=credentials,
            token=token,
            allow_plaintext_token=allow_plaintext_token,
            wait_for_ready=wait_for_ready,
        )
        self._caller = Caller.of(connection, retry=retry or Retry(), timeout_s=timeout_s)
        self._model = model
        self._options = options or AnswerOptions()
        self._channel = connection.channel()
        self._stub: Any = ClassificationServiceStub(self._channel)

    def classify(
        self,
        image: Payload,
        *,
        request_id: str | None = None,
        model: str | None = None,
        options: AnswerOptions | None = None,
        group_id: str = "",
        timeout_s: float | None = None,
    ) -> Prediction:
        """The answer for one image.

        Args:
            image: Encoded bytes, a path, a PIL image, or a uint8 array (H, W, 3) or (H, W).
            request_id: Names the request in the answer and in the server's logs, up to 64 letters,
                digits and ``._:-``; None: made here.
            model: The model that must answer; None: the client's.
            options: How much the answer tells; None: the client's.
            group_id: Names what images belong together, such as a patient or a lot: drift tests
                count a group once. Up to 128 bytes; empty: nothing does.
            timeout_s: Time for this call; None: the client's.
        """
        request_id = request_id or new_request_id()
        request = classify_request(
            to_bytes(image),
            request_id=request_id,
            model=self._model if model is None else model,
            options=options or self._options,
            group_id=group_id,
        )
        response: service.ClassifyResponse = self._caller.call(
            self._stub.Classify, request, request_id=request_id, timeout_s=timeout_s
        )
        return answers.prediction(response.classification)

    def classify_many(
        self,
        images: Iterable[Payload],
        *,
        window: int = DEFAULT_WINDOW,
        per_message: int = DEFAULT_PER_MESSAGE,
        model: str | None = None,
        options: AnswerOptions | None = None,
        group_id: GroupIds = "",
        timeout_s: float | None = None,
    ) -> Iterator[Prediction | RemoteError | ImageError]:
        """Answers for many images over one call, in the order of the images.

        An image that cannot be answered yields its error; the others go on. At most `window` images
        are held here, so that `images` may be endless; they are taken by the thread that iterates.
        Images that the server has no room for are sent again, more slowly, and those unanswered
        when the connection breaks are sent over a new one, both as `Retry` allows.

        Args:
            images: Each as for `classify`.
            window: Most images taken from `images` whose results were not yet returned.
            per_message: Most images of one message, 1 to 64; more cost less, fewer are sent sooner
                where images come slowly.
            model: The model that must answer; None: the client's.
            options: How much the answers tell; None: the client's.
            group_id: As for `classify`, of all these images; or a function from an image's
                position, from 0, to its group.
            timeout_s: Time for each image since it was sent; None: the client's.

        Raises:
            RemoteError: While iterating: the connection is lost for good, or the server refuses
                the whole call.
        """
        plan = self._plan(
            model,
            options,
            timeout_s,
            group_id=group_id,
            window=window,
            per_message=per_message,
            in_order=True,
        )
        return (answered.result for answered in streams.answered(plan, images))

    def classify_as_ready(
        self,
        images: Iterable[Payload],
        *,
        window: int = DEFAULT_WINDOW,
        per_message: int = DEFAULT_PER_MESSAGE,
        model: str | None = None,
        options: AnswerOptions | None = None,
        group_id: GroupIds = "",
        timeout_s: float | None = None,
    ) -> Iterator[Answered]:
        """As `classify_many`, in the order in which results come; each says whose it is."""
        plan = self._plan(
            model,
            options,
            timeout_s,
            group_id=group_id,
            window=window,
            per_message=per_message,
            in_order=False,
        )
        return streams.answered(plan, images)

    def explain(
        self,
        image: Payload,
        *,
        classes: Sequence[str] | None = None,
        contrast: ContrastChoice | None = None,
        heatmap_size: HeatmapSize = HeatmapSize.GRID,
        request_id: str | None = None,
        model: str | None = None,
        options: AnswerOptions | None = None,
        group_id: str = "",
        timeout_s: float | None = None,
    ) -> Explanation:
        """Heatmaps for one image, and its answer.

        Args:
            image: As for `classify`.
            classes: Names of the classes to explain; None: the three most probable.
            contrast: Two classes to weigh against each other; None: no contrast.
            heatmap_size: How finely heatmaps and contrast are drawn.
            request_id: As for `classify`.
            model: As for `classify`.
            options: As for `classify`.
            group_id: As for `classify`.
            timeout_s: Time for this call; None: the client's.
        """
        request_id = request_id or new_request_id()
        request = explain_request(
            to_bytes(image),
            ExplainOptions(
                classes=tuple(classes or ()), contrast=contrast, heatmap_size=heatmap_size
            ),
            request_id=request_id,
            model=self._model if model is None else model,
            answer=options or self._options,
            group_id=group_id,
        )
        response: service.ExplainResponse = self._caller.call(
            self._stub.Explain, request, request_id=request_id, timeout_s=timeout_s
        )
        return answers.explanation(response)

    def model(self, *, model: str | None = None, timeout_s: float | None = None) -> ModelInfo:
        """What the server's model is.

        Args:
            model: Which model; None: the client's.
            timeout_s: Time for this call; None: the client's.
        """
        return models.model_info(self._get_model(model, timeout_s).model)

    def served(self, *, model: str | None = None, timeout_s: float | None = None) -> ServerInfo:
        """What the server's model is, which others it has loaded, and what it does with answers.

        Args:
            model: As for `model`.
            timeout_s: Time for this call; None: the client's.
        """
        return states.server_info(self._get_model(model, timeout_s))

    def submit_feedback(
        self,
        record: str | Prediction,
        truth: Truth | str,
        *,
        provenance: Provenance | str,
        receipt: str = "",
        feedback_id: str = "",
        labelled_time: datetime | None = None,
        comment: str = "",
        request_id: str | None = None,
        timeout_s: float | None = None,
    ) -> Acknowledgement:
        """Says what is true of an image that was answered; the statement is durable on return.

        Args:
            record: The answer, or its record id. Whoever keeps only the id should keep the receipt
                (`Receipt.token`) too: with it, feedback is taken even if the record was lost.
            truth: ``out-of-scope``, ``unreadable``, or the name of a class, also of one that the
                model does not know; or a `Truth`.
            provenance: Who says so and how it came about; a text: who, and nothing more.
            receipt: The answer's; not needed with an answer.
            feedback_id: Names the statement, so that sending it again cannot count twice, up to 64
                letters, digits and ``._:-``; empty: made here, for all attempts of this call.
            labelled_time: When the truth was found, with a time zone; None: not said.
            comment: Free text, up to 2000 bytes.
            request_id: As for `classify`.
            timeout_s: Time for this call; None: the client's.

        Raises:
            RequestError: The answer has no record id, or no truth is given.
        """
        request_id = request_id or new_request_id()
        request = feedback_request(
            record,
            truth,
            provenance=provenance,
            receipt=receipt,
            feedback_id=feedback_id,
            labelled_time=labelled_time,
            comment=comment,
            request_id=request_id,
        )
        response: service.SubmitFeedbackResponse = self._caller.call(
            self._stub.SubmitFeedback, request, request_id=request_id, timeout_s=timeout_s
        )
        return records.acknowledgement(response)

    def get_record(
        self, record_id: str, *, include_image: bool = False, timeout_s: float | None = None
    ) -> Record:
        """What is kept of one answer, and what was said about it.

        Args:
            record_id: The answer's.
            include_image: Whether the image is sent too, where it is kept.
            timeout_s: Time for this call; None: the client's.

        Raises:
            LedgerError: The record does not read.
        """
        request = service.GetRecordRequest(record_id=record_id, include_image=include_image)
        response: service.GetRecordResponse = self._caller.call(
            self._stub.GetRecord, request, request_id=new_request_id(), timeout_s=timeout_s
        )
        return records.kept_record(response.record)

    def list_entries(
        self,
        *,
        after: int = 0,
        page_size: int = 0,
        kinds: Iterable[EntryKind] = (),
        timeout_s: float | None = None,
    ) -> Page:
        """Some entries of the ledger, in order.

        Args:
            after: Those after this one; 0: from the beginning.
            page_size: At most so many, up to 5000; 0: the server's choice.
            kinds: Only these; none: all.
            timeout_s: Time for this call; None: the client's.
        """
        request = list_request(after=after, page_size=page_size, kinds=kinds)
        response: service.ListEntriesResponse = self._caller.call(
            self._stub.ListEntries, request, request_id=new_request_id(), timeout_s=timeout_s
        )
        return records.page(response)

    def entries(
        self, *, after: int = 0, page_size: int = 0, kinds: Iterable[EntryKind] = ()
    ) -> Iterator[Entry]:
        """All entries up to the newest at the time of the first call, page by page.

        Args:
            after: As for `list_entries`, like the others.
        """
        kinds = tuple(kinds)
        last: int | None = None
        while last is None or after < last:
            page = self.list_entries(after=after, page_size=page_size, kinds=kinds)
            if not page.entries:
                return
            last = page.head_sequence if last is None else last
            yield from page.entries
            after = page.entries[-1].sequence

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _get_model(self, model: str | None, timeout_s: float | None) -> service.GetModelResponse:
        request = service.GetModelRequest(model=self._model if model is None else model)
        response: service.GetModelResponse = self._caller.call(
            self._stub.GetModel, request, request_id=new_request_id(), timeout_s=timeout_s
        )
        return response

    def _plan(
        self,
        model: str | None,
        options: AnswerOptions | None,
        timeout_s: float | None,
        *,
        group_id: GroupIds,
        window: int,
        per_message: int,
        in_order: bool,
    ) -> Plan:
        return Plan.of(
            self._caller,
            self._stub.ClassifyStream,
            model=self._model if model is None else model,
            options=options or self._options,
            group_id=group_id,
            timeout_s=timeout_s,
            window=window,
            per_message=per_message,
            in_order=in_order,
        )
