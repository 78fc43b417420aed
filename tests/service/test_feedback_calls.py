"""Records, feedback and the guarantee over the wire, with a server of one process."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ibinn.errors import InvalidImageError, NotFoundError, PreconditionError, RemoteError
from ibinn.records import OUT_OF_SCOPE, FeedbackOutcome, ImageState, Provenance, Truth
from tests.service.running import running
from tests.service.stub import INFO, StubClassifier, png

LAB = Provenance(source="lab")


async def test_an_answer_is_on_record_and_takes_feedback(tmp_path: Path) -> None:
    async with running(state_dir=tmp_path, keep_images="all", audit="required") as found:
        image = png()
        prediction = await found.client.classify(image, group_id="patient 7")
        receipt = prediction.receipt
        assert receipt is not None
        assert receipt.token
        record = await found.client.get_record(receipt.record_id, include_image=True)
        assert record.answer.prediction == prediction
        assert record.answer.method == "Classify"
        assert record.answer.group_id == "patient 7"
        assert record.image_state is ImageState.KEPT
        assert record.image == image
        assert record.feedback == ()

        truth = Truth.of_class(prediction.top.name)
        first = await found.client.submit_feedback(prediction, truth, provenance=LAB)
        assert first.outcome is FeedbackOutcome.FIRST
        assert first.record_known
        again = await found.client.submit_feedback(prediction, truth, provenance=LAB)
        assert again.outcome is FeedbackOutcome.REPEATED
        other = await found.client.submit_feedback(prediction, OUT_OF_SCOPE, provenance=LAB)
        assert other.outcome is FeedbackOutcome.CORRECTED
        record = await found.client.get_record(receipt.record_id)
        assert [entry.truth for entry in record.feedback] == [truth, OUT_OF_SCOPE]


async def test_every_way_to_an_answer_leaves_a_record(tmp_path: Path) -> None:
    async with running(state_dir=tmp_path, audit="required") as found:
        await found.client.explain(png(), classes=INFO.classes[:1], group_id="lot 3")
        async for answer in found.client.classify_many([png(), png()], group_id="lot 4"):
            assert not isinstance(answer, Exception)
        page = await found.client.list_entries()
        methods = []
        for entry in page.entries:
            record = await found.client.get_record(entry.record_id)
            methods.append((record.answer.method, record.answer.group_id))
        assert methods[0] == ("Explain", "lot 3")
        assert methods[1:] == [("ClassifyStream", "lot 4")] * 2


async def test_a_receipt_stands_in_for_a_record_that_was_lost(tmp_path: Path) -> None:
    async with running(state_dir=tmp_path / "a", records="none") as found:
        with pytest.raises(PreconditionError, match="keeps no records"):
            await found.client.submit_feedback("0" * 32, "cat", provenance=LAB)
    key = tmp_path / "key"
    key.write_text("ab" * 32 + "\n")
    key.chmod(0o600)
    async with running(state_dir=tmp_path / "b", receipt_key=key) as lost:
        prediction = await lost.client.classify(png())
    async with running(state_dir=tmp_path / "c", receipt_key=key) as found:
        assert prediction.receipt is not None
        with pytest.raises(NotFoundError):
            await found.client.submit_feedback(prediction.receipt.record_id, "cat", provenance=LAB)
        kept = await found.client.submit_feedback(prediction, "cat", provenance=LAB)
        assert kept.outcome is FeedbackOutcome.FIRST
        assert not kept.record_known
        forged = dataclasses.replace(
            prediction,
            receipt=dataclasses.replace(prediction.receipt, token=prediction.receipt.token[:-2]),
        )
        with pytest.raises(InvalidImageError, match="receipt"):
            await found.client.submit_feedback(forged, "dog", provenance=LAB)


async def test_what_is_not_on_record_is_not_found(tmp_path: Path) -> None:
    async with running(state_dir=tmp_path) as found:
        with pytest.raises(NotFoundError, match="record"):
            await found.client.get_record("0" * 32)
        with pytest.raises(RemoteError, match="record_id"):
            await found.client.get_record("not an id")


async def test_a_stub_without_calibration_scores_is_not_watched(tmp_path: Path) -> None:
    async with running(stub=StubClassifier(), state_dir=tmp_path) as found:
        prediction = await found.client.classify(png())
        assert prediction.guarantee is None
        assert prediction.guarantee_reason == ""
