"""What a caller says or asks about answers on record, as messages."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from ibinn import records
from ibinn.client.names import ENTRY_KINDS, REACTIONS, SELECTIONS
from ibinn.errors import RequestError
from ibinn.types import Prediction
from ibinn.v1 import classification_service_pb2 as service
from ibinn.v1 import record_pb2 as record

_KINDS = {name: number for number, name in ENTRY_KINDS.items()}
_REACTIONS = {name: number for number, name in REACTIONS.items()}
_SELECTIONS = {name: number for number, name in SELECTIONS.items()}
_WORDS = {
    truth.text.replace("_", "-"): truth for truth in (records.OUT_OF_SCOPE, records.UNREADABLE)
}


def truth_of(said: records.Truth | str) -> records.Truth:
    """A truth in a word: ``out-of-scope``, ``unreadable``, or else the name of a class.

    For a class of such a name: `ibinn.records.Truth.of_class`.

    Raises:
        RequestError: Nothing is said.

    >>> truth_of("out-of-scope").kind, truth_of("cat").class_name
    (<TruthKind.OUT_OF_SCOPE: 'out_of_scope'>, 'cat')
    """
    if isinstance(said, records.Truth):
        return said
    return _WORDS.get(said.replace("_", "-")) or records.Truth.of_class(said)


def feedback_request(
    about: str | Prediction,
    truth: records.Truth | str,
    *,
    provenance: records.Provenance | str,
    receipt: str,
    feedback_id: str,
    labelled_time: datetime | None,
    comment: str,
    request_id: str,
) -> service.SubmitFeedbackRequest:
    """The request that makes a statement; see `ibinn.client.Client.submit_feedback`.

    Raises:
        RequestError: The answer has no record id, no truth is given, or a time has no zone.
    """
    if isinstance(about, Prediction):
        given = about.receipt
        if given is None or not given.record_id:
            raise RequestError(
                "the answer has no record id: no server gave it; give the record id of an answer "
                "of a server",
                field="record_id",
            )
        about, receipt = given.record_id, receipt or given.token
    if isinstance(provenance, str):
        provenance = records.Provenance(source=provenance)
    return service.SubmitFeedbackRequest(
        record_id=about,
        truth=_truth(truth_of(truth)),
        provenance=record.Provenance(
            source=provenance.source,
            saw_answer=provenance.saw_answer,
            reaction=_REACTIONS[provenance.reaction],  # type: ignore[arg-type]
            selection=_SELECTIONS[provenance.selection],  # type: ignore[arg-type]
            sampling_probability=provenance.sampling_probability,
        ),
        feedback_id=feedback_id or uuid.uuid4().hex,
        receipt=receipt,
        labelled_time=None if labelled_time is None else _timestamp(labelled_time),
        comment=comment,
        request_id=request_id,
    )


def list_request(
    *, after: int, page_size: int, kinds: Iterable[records.EntryKind]
) -> service.ListEntriesRequest:
    """The request for some entries of the ledger."""
    return service.ListEntriesRequest(
        after_sequence=after,
        page_size=page_size,
        kinds=[_KINDS[kind] for kind in kinds],
    )


def _truth(truth: records.Truth) -> record.Truth:
    match truth.kind:
        case records.TruthKind.CLASS:
            return record.Truth(class_name=truth.class_name)
        case records.TruthKind.OUT_OF_SCOPE:
            return record.Truth(out_of_scope=record.OutOfScope())
        case records.TruthKind.UNREADABLE:
            return record.Truth(unreadable=record.Unreadable())


def _timestamp(time: datetime) -> Timestamp:
    if time.tzinfo is None:
        raise RequestError(
            f"labelled_time is {time.isoformat()}, which says no time zone; give one, such as "
            f"{time.isoformat()}Z",
            field="labelled_time",
        )
    found = Timestamp()
    found.FromDatetime(time)
    return found
