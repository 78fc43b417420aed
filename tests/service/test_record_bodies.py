"""What the ledger keeps reads back as it was, and says when it does not."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibinn import records
from ibinn.client import answers
from ibinn.errors import LedgerError, RequestError
from ibinn.types import Guarantee, Prediction, Receipt, ServerTiming, Verdict
from ibinn.v1 import classification_service_pb2 as service
from ibinn.v1 import record_pb2
from service.converters import records as converters
from tests.service.stub import ACCEPTED, NOT_CALIBRATED, UNKNOWN, make_prediction

TIME = datetime(2026, 3, 4, 5, 6, 7, 891011, tzinfo=UTC)
RECEIPT = Receipt(
    record_id="0123456789abcdef" * 2,
    received_time=TIME,
    timing=ServerTiming(prepare_s=0.1, queue_s=0.2, compute_s=0.3, total_s=0.6, batch_size=4),
    request_id="r-1",
    group_id="patient 7",
    token="ib1.x",
)


def answered(prediction: Prediction) -> Prediction:
    return dataclasses.replace(prediction, receipt=RECEIPT)


ANSWERS = [
    answered(make_prediction()),
    answered(make_prediction(decision=ACCEPTED)),
    answered(UNKNOWN),
    answered(NOT_CALIBRATED),
    dataclasses.replace(
        answered(make_prediction()), guarantee=Guarantee.SUSPENDED, guarantee_reason="drift"
    ),
]


@pytest.mark.parametrize("prediction", ANSWERS)
def test_an_answer_on_record_is_the_answer_that_left(prediction: Prediction) -> None:
    entry = records.AnswerEntry(
        prediction=prediction,
        caller="ann",
        method="Classify",
        group_id="patient 7",
        bundle="b",
        server="host:1/0",
        image_kept=records.ImageKept.SAMPLED,
    )
    body = converters.answer_body(entry)
    assert answers.prediction(converters.read_answer(body).classification) == prediction
    assert converters.read_answer_digest(body) == records.AnswerDigest.of(prediction)
    assert converters.answer_body(entry) == body


@pytest.mark.parametrize("prediction", ANSWERS)
def test_an_answer_in_short_reads_back(prediction: Prediction) -> None:
    digest = records.AnswerDigest.of(prediction)
    assert converters.read_digest(converters.digest_bytes(digest)) == digest


TEXTS = st.text(max_size=30).filter(lambda text: text.isprintable())
TRUTHS = st.one_of(
    st.builds(records.Truth.of_class, st.text(min_size=1, max_size=20)),
    st.sampled_from([records.OUT_OF_SCOPE, records.UNREADABLE]),
)
PROVENANCES = st.builds(
    records.Provenance,
    source=TEXTS,
    saw_answer=st.none() | st.booleans(),
    reaction=st.none() | st.sampled_from(list(records.Reaction)),
    selection=st.none() | st.sampled_from(list(records.Selection)),
    sampling_probability=st.none() | st.floats(1e-6, 1.0),
)
TIMES = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC))


@given(
    entry=st.builds(
        records.FeedbackEntry,
        feedback_id=TEXTS,
        record_id=st.just(RECEIPT.record_id),
        truth=TRUTHS,
        provenance=PROVENANCES,
        labelled_time=st.none() | TIMES,
        comment=TEXTS,
        caller=TEXTS,
        outcome=st.sampled_from(list(records.FeedbackOutcome)),
        revision=st.integers(1, 10_000),
        answer=st.just(records.AnswerDigest.of(ANSWERS[1])),
        record_known=st.booleans(),
    )
)
def test_a_statement_reads_back(entry: records.FeedbackEntry) -> None:
    assert converters.read_feedback(converters.feedback_body(entry)) == entry


def test_erasures_and_guarantees_read_back() -> None:
    erasure = records.ErasureEntry(sha256_bytes="ab" * 32, caller="ann", reason="asked", found=True)
    assert converters.read_erasure(converters.erasure_body(erasure)) == erasure
    for guarantee in Guarantee:
        change = records.GuaranteeEntry(
            calibration="cd" * 32, guarantee=guarantee, reason="why", detector="prior", caller=""
        )
        assert converters.read_guarantee(converters.guarantee_body(change)) == change


def test_a_body_that_was_changed_says_so() -> None:
    with pytest.raises(LedgerError, match="do not read as FeedbackEntry"):
        converters.read_feedback(b"\xff\xff\xff")
    newer = record_pb2.GuaranteeEntry(calibration="ab", guarantee=99).SerializeToString()
    with pytest.raises(LedgerError, match="guarantee number 99"):
        converters.read_guarantee(newer)


def statement(**changes: Any) -> Any:
    request = service.SubmitFeedbackRequest(record_id=RECEIPT.record_id, **changes)
    request.provenance.source = "lab"
    return request


@pytest.mark.parametrize("truth", [None, record_pb2.Truth(), record_pb2.Truth(class_name="")])
def test_a_statement_without_a_truth_is_refused(truth: Any) -> None:
    with pytest.raises(RequestError, match="truth is not given") as refused:
        converters.feedback_of(statement(truth=truth))
    assert refused.value.field == "truth"


def test_a_statement_that_contradicts_itself_is_refused() -> None:
    request = statement(truth=record_pb2.Truth(class_name="cat"))
    request.provenance.selection = record_pb2.SELECTION_ALL
    request.provenance.sampling_probability = 0.5
    with pytest.raises(RequestError, match="every image is labelled"):
        converters.feedback_of(request)
    request.provenance.sampling_probability = 1.0
    assert converters.feedback_of(request).provenance.weight == 1.0


def test_a_time_that_no_date_has_is_refused() -> None:
    request = statement(truth=record_pb2.Truth(class_name="cat"))
    request.labelled_time.seconds = 10**15
    with pytest.raises(RequestError, match="labelled_time"):
        converters.feedback_of(request)


def test_only_a_class_can_be_right_or_wrong() -> None:
    digest = records.AnswerDigest.of(ANSWERS[0])
    assert digest.correct(records.Truth.of_class(digest.class_name)) is True
    assert digest.correct(records.Truth.of_class("a class that nobody knows")) is False
    assert digest.correct(records.OUT_OF_SCOPE) is None
    assert digest.verdict is Verdict.NOT_FLAGGED
    assert digest.received_time - TIME == timedelta(0)


def test_kinds_that_are_none_are_refused() -> None:
    assert converters.entry_kinds([]) == frozenset(records.EntryKind)
    assert converters.entry_kinds([record_pb2.ENTRY_KIND_ANSWER]) == {records.EntryKind.ANSWER}
    with pytest.raises(RequestError, match="number 77"):
        converters.entry_kinds([77])
