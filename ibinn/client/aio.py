"""`AsyncClient`: the same calls, results and errors as `Client`, from asyncio code."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from contextlib import aclosing
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import grpc

from ibinn.client import aio_streams, answers, models, records, states
from ibinn.client.calls import DEFAULT_TIMEOUT_S, Caller, new_request_id
from ibinn.client.channels import ClientTls, Connection
from ibinn.client.clients import DEFAULT_PER_MESSAGE, DEFAULT_WINDOW
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


class AsyncClient:
    """Asks a server from asyncio code; the same calls, results and errors as `Client`.

    One client belongs to one event loop and keeps one connection (to each address, where several
    take turns); any number of its calls may be under way.

    Args:
        target: As for `Client`, like all others.
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
        self._channel = connection.aio_channel()
        self._stub: Any = ClassificationServiceStub(self._channel)

    async def classify(
        self,
        image: Payload,
        *,
        request_id: str | None = None,
        model: str | None = None,
        options: AnswerOptions | None = None,
        group_id: str = "",
        timeout_s: float | None = None,
    ) -> Prediction:
        """The answer for one image; see `Client.classify`."""
        request_id = request_id or new_request_id()
        request = classify_request(
            to_bytes(image),
            request_id=request_id,
            model=self._model if model is None else model,
            options=options or self._options,
            group_id=group_id,
        )
        response: service.ClassifyResponse = await self._caller.call_async(
            self._stub.Classify, request, request_id=request_id, timeout_s=timeout_s
        )
        return answers.prediction(response.classification)

    async def classify_many(
        self,
        images: Iterable[Payload] | AsyncIterable[Payload],
        *,
        window: int = DEFAULT_WINDOW,
        per_message: int = DEFAULT_PER_MESSAGE,
        model: str | None = None,
        options: AnswerOptions | None = None,
        group_id: GroupIds = "",
        timeout_s: float | None = None,
    ) -> AsyncGenerator[Prediction | RemoteError | ImageError, None]:
        """Answers for many images over one call, in their order; see `Client.classify_many`.

        Whoever stops before the end closes the iterator (`contextlib.aclosing`), which ends the
        call; else it goes on until the iterator is collected.
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
        async with aclosing(aio_streams.answered(plan, images)) as found:
            async for answered in found:
                yield answered.result

    async def classify_as_ready(
        self,
        images: Iterable[Payload] | AsyncIterable[Payload],
        *,
        window: int = DEFAULT_WINDOW,
        per_message: int = DEFAULT_PER_MESSAGE,
        model: str | None = None,
        options: AnswerOptions | None = None,
        group_id: GroupIds = "",
        timeout_s: float | None = None,
    ) -> AsyncGenerator[Answered, None]:
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
        async with aclosing(aio_streams.answered(plan, images)) as found:
            async for answered in found:
                yield answered

    async def explain(
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
        """Heatmaps for one image, and its answer; see `Client.explain`."""
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
        response: service.ExplainResponse = await self._caller.call_async(
            self._stub.Explain, request, request_id=request_id, timeout_s=timeout_s
        )
        return answers.explanation(response)

    async def model(self, *, model: str | None = None, timeout_s: float | None = None) -> ModelInfo:
        """What the server's model is; see `Client.model`."""
        return models.model_info((await self._get_model(model, timeout_s)).model)

    async def served(
        self, *, model: str | None = None, timeout_s: float | None = None
    ) -> ServerInfo:
        """What the server's models are and what it does with answers; see `Client.served`."""
        return states.server_info(await self._get_model(model, timeout_s))

    async def submit_feedback(
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
        """Says what is true of an image that was answered; see `Client.submit_feedback`."""
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
        response: service.SubmitFeedbackResponse = await self._caller.call_async(
            self._stub.SubmitFeedback, request, request_id=request_id, timeout_s=timeout_s
        )
        return records.acknowledgement(response)

    async def get_record(
        self, record_id: str, *, include_image: bool = False, timeout_s: float | None = None
    ) -> Record:
        """What is kept of one answer, and what was said about it; see `Client.get_record`."""
        request = service.GetRecordRequest(record_id=record_id, include_image=include_image)
        response: service.GetRecordResponse = await self._caller.call_async(
            self._stub.GetRecord, request, request_id=new_request_id(), timeout_s=timeout_s
        )
        return records.kept_record(response.record)

    async def list_entries(
        self,
        *,
        after: int = 0,
        page_size: int = 0,
        kinds: Iterable[EntryKind] = (),
        timeout_s: float | None = None,
    ) -> Page:
        """Some entries of the ledger, in order; see `Client.list_entries`."""
        request = list_request(after=after, page_size=page_size, kinds=kinds)
        response: service.ListEntriesResponse = await self._caller.call_async(
            self._stub.ListEntries, request, request_id=new_request_id(), timeout_s=timeout_s
        )
        return records.page(response)

    async def entries(
        self, *, after: int = 0, page_size: int = 0, kinds: Iterable[EntryKind] = ()
    ) -> AsyncGenerator[Entry, None]:
        """All entries up to the newest at the time of the first call; see `Client.entries`."""
        kinds = tuple(kinds)
        last: int | None = None
        while last is None or after < last:
            page = await self.list_entries(after=after, page_size=page_size, kinds=kinds)
            if not page.entries:
                return
            last = page.head_sequence if last is None else last
            for entry in page.entries:
                yield entry
            after = page.entries[-1].sequence

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _get_model(
        self, model: str | None, timeout_s: float | None
    ) -> service.GetModelResponse:
        request = service.GetModelRequest(model=self._model if model is None else model)
        response: service.GetModelResponse = await self._caller.call_async(
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
