"""What is true of an image by those whose statements count."""

from __future__ import annotations

from ibinn.records import OUT_OF_SCOPE, UNREADABLE, Selection
from tests.training.retraining.said import candidate, say
from training.retraining.candidates import Candidate
from training.retraining.labels import Settled, settle


def settled(*candidates: Candidate) -> Settled:
    return settle(candidates, trusted={"anna", "carl"}, released={"ben"})


def test_sources_that_agree_settle_a_label_and_the_trusted_one_is_credited() -> None:
    found = settled(candidate(0, say("ben", "nut"), say("anna", "nut", minute=1)))
    (label,) = found.labelled
    assert (label.class_name, label.source, label.trusted) == ("nut", "anna", True)


def test_sources_that_disagree_leave_the_image_out_and_are_listed() -> None:
    found = settled(candidate(0, say("anna", "nut"), say("ben", "bolt", minute=1)))
    assert found.labelled == ()
    assert found.disputed[0].said == (("anna", "nut"), ("ben", "bolt"))
    assert found.disputed[0].record_ids == ("r00000",)


def test_the_last_word_of_a_source_counts() -> None:
    found = settled(candidate(0, say("anna", "nut"), say("anna", "bolt", minute=1)))
    assert [label.class_name for label in found.labelled] == ["bolt"]


def test_a_quarantined_source_neither_settles_nor_disputes() -> None:
    found = settled(
        candidate(0, say("eve", "nut")), candidate(1, say("anna", "bolt"), say("eve", "nut"))
    )
    assert found.unheard == 1
    assert [label.class_name for label in found.labelled] == ["bolt"]
    assert found.disputed == ()


def test_answers_about_the_same_pixels_are_one_image() -> None:
    found = settled(
        candidate(0, say("anna", "nut"), id="same"), candidate(1, say("ben", "nut"), id="same")
    )
    assert len(found.labelled) == 1
    assert found.repeated == 1
    against = settled(
        candidate(0, say("anna", "nut"), id="same"), candidate(1, say("ben", "bolt"), id="same")
    )
    assert against.labelled == ()
    assert against.disputed[0].record_ids == ("r00000", "r00001")


def test_images_of_no_class_are_kept_apart() -> None:
    found = settled(
        candidate(0, say("anna", OUT_OF_SCOPE)),
        candidate(1, say("anna", UNREADABLE)),
        candidate(2, say("anna", OUT_OF_SCOPE), say("carl", "nut")),
    )
    assert found.apart == (("out_of_scope", "r00000"), ("unreadable", "r00001"))
    assert len(found.disputed) == 1


def test_the_chance_of_a_label_becomes_its_weight() -> None:
    found = settled(
        candidate(0, say("anna", "nut", selection=Selection.RANDOM, sampling_probability=0.25)),
        candidate(1, say("anna", "nut", selection=Selection.FLAGGED)),
        candidate(2, say("anna", "nut")),
    )
    assert [label.weight for label in found.labelled] == [4.0, None, 1.0]
