"""What the records export is what they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import ibinn
from ibinn import feedback_export
from ibinn.errors import DataError
from ibinn.feedback_export import Export, Filters
from ibinn.records import (
    OUT_OF_SCOPE,
    AnswerDigest,
    FeedbackOutcome,
    ImageKept,
    Provenance,
    Reaction,
    Selection,
)
from service.records import export as exporting
from service.records import labels
from service.records.export import Exported
from service.records.images import ImageStore
from service.records.ledger import Ledger
from service.records.rows import model_name
from tests.service.records import made


@pytest.fixture
def ledger(records_url: str) -> Iterator[Ledger]:
    found = Ledger.open(records_url, timeout_s=10)
    yield found
    found.close()


@pytest.fixture
def images(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "kept", quota_bytes=10**6, ttl_s=1000)


def keep(ledger: Ledger, images: ImageStore, *numbers: int) -> None:
    ledger.append_answers([made.new_answer(number, kept=ImageKept.ALL) for number in numbers])
    for number in numbers:
        images.put(sha256(number), made.image(number))


def sha256(number: int) -> str:
    return hashlib.sha256(made.image(number)).hexdigest()


def say(ledger: Ledger, number: int, *args: object, **changes: object) -> None:
    statement = made.statement(number, *args, **changes)  # type: ignore[arg-type]
    digest = AnswerDigest.of(made.prediction(number))
    ledger.append_feedback(statement, caller="app", digest=digest)


def export(
    ledger: Ledger, images: ImageStore | None, folder: Path, **filters: object
) -> tuple[Exported, Export]:
    done = exporting.export(
        ledger,
        images,
        folder,
        filters=Filters(**filters),  # type: ignore[arg-type]
    )
    return done, feedback_export.read(folder)


def test_every_statement_is_exported_as_it_was_made(
    ledger: Ledger, images: ImageStore, tmp_path: Path
) -> None:
    keep(ledger, images, 1, 2, 3)
    provenance = Provenance(
        source="ann",
        saw_answer=False,
        reaction=Reaction.NOT_USED,
        selection=Selection.RANDOM,
        sampling_probability=0.25,
    )
    labelled_time = made.SOME_TIME - timedelta(days=1)
    say(ledger, 2, "dog", provenance=provenance, labelled_time=labelled_time, comment="blurred")
    say(ledger, 1, "cat")
    say(ledger, 1, OUT_OF_SCOPE, source="bob")
    say(ledger, 2, "frog")

    done, found = export(ledger, images, tmp_path / "out")
    second, first = found.images
    assert second.answer == AnswerDigest.of(made.prediction(2))
    assert second.caller == "ann"
    assert [s.truth.text for s in second.statements] == ["dog", "frog"]
    assert second.statements[0].outcome is FeedbackOutcome.FIRST
    assert second.statements[1].outcome is FeedbackOutcome.CORRECTED
    said = second.statements[0]
    assert (said.source, said.caller, said.comment) == ("ann", "app", "blurred")
    assert (said.saw_answer, said.reaction) == (False, Reaction.NOT_USED)
    assert (said.selection, said.sampling_probability) == (Selection.RANDOM, 0.25)
    assert said.labelled_time == labelled_time
    assert said.feedback_id
    entries = {e.sequence: e for e in ledger.all_entries()}
    assert said.time == entries[4].time
    assert second.truth is not None
    assert second.truth.class_name == "frog"
    assert first.conflict
    assert done.conflicts == 1
    assert done.images == 2
    path = found.path(second)
    assert path is not None
    assert path.read_bytes() == made.image(2)
    head = ledger.entries(0, 0)
    assert (found.info.sequence, found.info.hash) == (head.head_sequence, head.head_hash)
    assert (found.info.count, found.info.software) == (2, ibinn.__version__)


def test_an_answer_whose_record_was_lost_is_exported_from_its_receipt(
    ledger: Ledger, images: ImageStore, tmp_path: Path
) -> None:
    say(ledger, 1)
    (image,) = export(ledger, images, tmp_path / "out")[1].images
    assert image.answer == AnswerDigest.of(made.prediction(1))
    assert (image.caller, image.image) == ("", None)


def test_images_that_expired_or_were_erased_are_not_exported(
    ledger: Ledger, images: ImageStore, tmp_path: Path
) -> None:
    keep(ledger, images, 1, 2, 3)
    for number in (1, 2, 3):
        say(ledger, number)
    images.delete(sha256(1))
    ledger.append_erasure(made.record_id(1), reason="asked", caller="ann", found=True)
    images.delete(sha256(2))
    ledger.images_gone([sha256(2)])
    # Somebody else sent the erased image once more; this answer's image stays erased.
    images.put(sha256(1), made.image(1))
    done, found = export(ledger, images, tmp_path / "out")
    assert [image.image is None for image in found.images] == [True, True, False]
    assert done.images == 1


def test_without_a_place_of_images_the_labels_are_exported(
    ledger: Ledger, images: ImageStore, tmp_path: Path
) -> None:
    keep(ledger, images, 1)
    say(ledger, 1)
    assert export(ledger, None, tmp_path / "out")[1].images[0].image is None


def test_a_damaged_image_is_left_out_and_told(
    ledger: Ledger, images: ImageStore, tmp_path: Path
) -> None:
    keep(ledger, images, 1, 2)
    say(ledger, 1)
    say(ledger, 2)
    (tmp_path / "kept" / sha256(1)[:2] / sha256(1)).write_bytes(b"poison")
    done, found = export(ledger, images, tmp_path / "out")
    assert [image.image is None for image in found.images] == [True, False]
    (told,) = done.damaged
    assert sha256(1) in told


def test_filters_choose_by_the_time_of_the_answer_and_its_model(
    ledger: Ledger, images: ImageStore, tmp_path: Path
) -> None:
    keep(ledger, images, *range(6))
    for number in range(6):
        say(ledger, number)
    begin, end = (made.SOME_TIME + timedelta(seconds=number) for number in (2, 4))
    model = model_name(made.prediction(0).versions)
    _, some = export(ledger, images, tmp_path / "some", since=begin, until=end, model=model)
    assert [image.record_id for image in some.images] == [made.record_id(2), made.record_id(3)]
    assert some.info.filters == Filters(since=begin, until=end, model=model)
    _, none = export(ledger, images, tmp_path / "none", model="0" * 12 + "-" + "0" * 12)
    assert none.images == ()


def test_nothing_is_exported_over_something_else(
    ledger: Ledger, images: ImageStore, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        exporting.export(ledger, images, tmp_path / "out", filters=Filters())


def test_more_than_a_page_of_answers_is_exported(
    ledger: Ledger, images: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "_PAGE", 3)
    ledger.append_answers([made.new_answer(number) for number in range(7)])
    for number in range(7):
        say(ledger, number)
    done, found = export(ledger, images, tmp_path / "out")
    assert done.info == found.info
    assert [image.record_id for image in found.images] == [made.record_id(n) for n in range(7)]
