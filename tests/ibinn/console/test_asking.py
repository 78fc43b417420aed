"""What the page asks, with a stub in place of the client."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from ibinn.client.payload import to_bytes
from ibinn.console.asking import Asker, Looked, complaint, group_of
from ibinn.console.corruption import SEVERITIES, Corruption
from ibinn.console.truths import Said, statement
from ibinn.errors import (
    ImageTooLargeError,
    InvalidImageError,
    NotAllowedError,
    NotAuthenticatedError,
    OverloadedError,
    RemoteError,
    UnavailableError,
)
from ibinn.records import Acknowledgement, FeedbackOutcome, Provenance, Reaction, Truth
from ibinn.types import (
    Explanation,
    Heatmap,
    ModelInfo,
    Prediction,
    Receipt,
    Region,
    ServerTiming,
)
from tests.ibinn.answers import make_info, make_prediction

IMAGE = to_bytes(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))


def answer() -> Prediction:
    found = make_prediction()
    timing = ServerTiming(prepare_s=0, queue_s=0, compute_s=0, total_s=0, batch_size=1)
    return dataclasses.replace(
        found,
        input=dataclasses.replace(
            found.input, width=32, height=32, region=Region(left=0, top=0, width=32, height=32)
        ),
        receipt=Receipt(
            record_id="a" * 32, received_time=datetime.now(UTC), timing=timing, token="ib1.x"
        ),
    )


class StubClient:
    """Answers every image alike, and remembers what it was asked."""

    def __init__(self, info: ModelInfo) -> None:
        self.info = info
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.fails_at: int | None = None
        self.may_explain = True

    def model(self) -> ModelInfo:
        return self.info

    def classify(self, image: bytes, **options: Any) -> Prediction:
        self.asked.append(("classify", options))
        return answer()

    def explain(self, image: bytes, *, classes: Any, **options: Any) -> Explanation:
        self.asked.append(("explain", {"classes": classes, **options}))
        if not self.may_explain:
            raise NotAllowedError("no role explain", code="PERMISSION_DENIED")
        maps = tuple(
            Heatmap(
                class_name=name,
                values=np.zeros((4, 4)),
                log_posterior=0.0,
                completeness_error=0.0,
            )
            for name in classes or self.info.classes[:3]
        )
        return Explanation(
            prediction=answer(), heatmaps=maps, image=np.zeros((32, 32, 3), np.uint8)
        )

    def classify_many(self, images: Iterable[Any], **options: Any) -> Iterator[Any]:
        self.asked.append(("classify_many", options))
        for position, _ in enumerate(images):
            full = OverloadedError("the queue is full", code="RESOURCE_EXHAUSTED")
            yield full if position == self.fails_at else answer()

    def submit_feedback(self, record: Prediction, truth: Truth, **said: Any) -> Acknowledgement:
        self.asked.append(("submit_feedback", {"record": record, "truth": truth, **said}))
        return Acknowledgement(
            feedback_id="f", outcome=FeedbackOutcome.FIRST, revision=1, record_known=True
        )


def asker(client: StubClient) -> Asker:
    return Asker(client, target="here:1")  # type: ignore[arg-type]


def looked(client: StubClient) -> Looked:
    return asker(client).look(IMAGE, "x.png")


def test_a_few_classes_are_all_explained_at_once_by_the_model_that_was_described() -> None:
    client = StubClient(make_info())
    found = looked(client)
    ((method, asked),) = client.asked
    assert (method, asked["classes"]) == ("explain", client.info.classes)
    assert asked["model"] == client.info.versions.weights
    assert found.heatmap("truck") is not None
    assert asker(client).with_heatmap(found, "truck") is found


def test_of_many_classes_one_more_is_explained_when_it_is_chosen() -> None:
    classes = tuple(f"class-{number}" for number in range(100))
    client = StubClient(dataclasses.replace(make_info(), classes=classes))
    found = looked(client)
    assert client.asked[0][1]["classes"] is None
    assert found.heatmap("class-99") is None
    found = asker(client).with_heatmap(found, "class-99")
    assert found.heatmap("class-99") is not None
    assert found.heatmap("class-0") is not None
    assert client.asked[1][1]["classes"] == ("class-99",)


def test_a_model_without_heatmaps_is_asked_to_classify() -> None:
    client = StubClient(dataclasses.replace(make_info(), explainable=False))
    found = looked(client)
    assert client.asked[0][0] == "classify"
    assert found.explanation is None
    assert asker(client).with_heatmap(found, "cat") is found


def test_a_token_that_is_good_for_answers_alone_gets_them() -> None:
    client = StubClient(make_info())
    client.may_explain = False
    found = looked(client)
    assert [method for method, _ in client.asked] == ["explain", "classify"]
    assert found.explanation is None
    assert found.prediction.top.name == "cat"


def test_an_image_over_the_servers_limit_is_not_sent() -> None:
    client = StubClient(dataclasses.replace(make_info(), max_bytes=10))
    with pytest.raises(ImageTooLargeError, match="at most 10"):
        looked(client)
    assert client.asked == []


def test_an_image_and_all_that_is_made_of_it_are_one_group_for_drift() -> None:
    client = StubClient(make_info())
    found = looked(client)
    damaged = asker(client).damage(found, Corruption.BLUR)
    assert len(damaged.images) == len(damaged.answers) == len(SEVERITIES)
    assert {asked["group_id"] for _, asked in client.asked} == {group_of(IMAGE)}
    assert group_of(IMAGE) != group_of(b"other")


def test_damage_without_an_answer_is_an_error() -> None:
    client = StubClient(make_info())
    found = looked(client)
    client.fails_at = 3
    with pytest.raises(OverloadedError):
        asker(client).damage(found, Corruption.NOISE)


def test_a_truth_is_told_with_the_answer_seen_and_its_receipt() -> None:
    client = StubClient(make_info())
    found = looked(client)
    said = statement(
        Said.KNOWN, known="dog", unknown="", source="me", reaction="Overruled it", comment="c"
    )
    asker(client).tell(found, said)
    _, told = client.asked[-1]
    assert told["record"] is found.prediction  # the client takes id and receipt from it
    assert told["truth"] == Truth.of_class("dog")
    assert told["provenance"] == Provenance(
        source="me", saw_answer=True, reaction=Reaction.OVERRULED
    )
    assert told["labelled_time"].tzinfo is not None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UnavailableError("failed to connect", code="UNAVAILABLE"), "at here:1 is away. Start it"),
        (
            UnavailableError("the records wait", code="UNAVAILABLE", reason="RECORDS_UNAVAILABLE"),
            "cannot do this now: the records wait",
        ),
        (NotAuthenticatedError("no token", code="UNAUTHENTICATED"), "wants a token (--token-file)"),
        (NotAllowedError("no role", code="PERMISSION_DENIED"), "may not do this at here:1"),
        (InvalidImageError("not an image", code="INVALID_ARGUMENT", request_id="r1"), "request r1"),
    ],
)
def test_what_went_wrong_is_said_with_what_to_do(error: RemoteError, words: str) -> None:
    assert words in complaint(error, "here:1")
