"""The methods of `ibinn.v1.ClassificationService` about records: convert, call, convert."""

from __future__ import annotations

from ibinn.errors import NotPossibleError
from ibinn.v1 import classification_service_pb2 as service
from ibinn.v1 import record_pb2
from service.call import Call, Role, Route
from service.converters import records as converters
from service.records.contents import StoredRecord
from service.records.recorder import Recorder

_PAGE = 500
_PAGE_BYTES = 2 * 2**20
"""Of the entries of one response: half of what gRPC clients take if they are told nothing."""


class RecordsServicer:
    """Takes feedback and tells what is on record.

    Args:
        recorder: Keeps; None: this server keeps no records.
    """

    def __init__(self, recorder: Recorder | None) -> None:
        self._recorder = recorder

    def routes(self) -> list[Route]:
        """The service's methods."""
        return [
            Route(
                method="SubmitFeedback",
                role=Role.FEEDBACK,
                request=service.SubmitFeedbackRequest,
                unary=self.submit_feedback,
            ),
            Route(
                method="GetRecord",
                role=Role.AUDIT,
                request=service.GetRecordRequest,
                unary=self.get_record,
            ),
            Route(
                method="ListEntries",
                role=Role.AUDIT,
                request=service.ListEntriesRequest,
                unary=self.list_entries,
            ),
        ]

    async def submit_feedback(
        self, request: service.SubmitFeedbackRequest, call: Call
    ) -> service.SubmitFeedbackResponse:
        """Keeps a statement; returns once it is durable."""
        statement = converters.feedback_of(request)
        kept = await self._keeping().submit(statement, caller=call.caller.name)
        return service.SubmitFeedbackResponse(
            feedback_id=kept.feedback_id,
            outcome=converters.OUTCOMES[kept.outcome],
            revision=kept.revision,
            record_known=kept.record_known,
        )

    async def get_record(
        self, request: service.GetRecordRequest, call: Call
    ) -> service.GetRecordResponse:
        """Tells what is kept of one answer."""
        found = await self._keeping().record(request.record_id, include_image=request.include_image)
        return service.GetRecordResponse(record=_record(found))

    async def list_entries(
        self, request: service.ListEntriesRequest, call: Call
    ) -> service.ListEntriesResponse:
        """Tells entries of the ledger in order."""
        page = await self._keeping().entries(
            request.after_sequence,
            request.page_size or _PAGE,
            converters.entry_kinds(request.kinds),
        )
        response = service.ListEntriesResponse(
            head_sequence=page.head_sequence, head_hash=page.head_hash
        )
        size_bytes = 0
        for entry in page.entries:
            size_bytes += len(entry.body)
            if size_bytes > _PAGE_BYTES and response.entries:
                break
            response.entries.append(converters.entry_message(entry))
        return response

    def _keeping(self) -> Recorder:
        return keeping(self._recorder)


def keeping(recorder: Recorder | None) -> Recorder:
    """The recorder of a server that keeps records.

    Raises:
        NotPossibleError: It keeps none.
    """
    if recorder is None:
        raise NotPossibleError(
            "this server keeps no records, so it takes no feedback; its operator can give "
            "--records (IBINN_RECORDS) a database or --state-dir (IBINN_STATE_DIR) a folder"
        )
    return recorder


def _record(found: StoredRecord) -> record_pb2.Record:
    return record_pb2.Record(
        entry=converters.entry_message(found.entry),
        answer=converters.read_answer(found.entry.body),
        feedback=[converters.feedback_message(entry) for entry in found.feedback],
        image_state=converters.IMAGE_STATES[found.image_state],
        image=found.image or b"",
    )
