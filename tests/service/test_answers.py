"""Answers come through the wire whole."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ibinn.client import Client
from ibinn.errors import ImageError, InternalServerError
from ibinn.types import (
    Action,
    ContrastChoice,
    Group,
    HeatmapSize,
    Prediction,
    SetMethod,
    TestKind,
    Verdict,
)
from ibinn.v1 import answer_pb2, classification_service_pb2
from service import converters
from tests.service.running import running
from tests.service.stub import (
    ACCEPTED,
    DEFERRED,
    INFO,
    NEARBY,
    NOT_CALIBRATED,
    SPACE,
    UNKNOWN,
    StubClassifier,
    make_heatmap,
    make_prediction,
    make_test,
    png,
)


def without_receipt(prediction: Prediction, like: Prediction) -> Prediction:
    """The prediction as the stub holds it: no receipt, the stub's own input hash."""
    return dataclasses.replace(prediction, receipt=None, input=like.input)


@pytest.mark.parametrize(
    "prediction",
    [
        make_prediction(),
        NOT_CALIBRATED,
        UNKNOWN,
        make_prediction(verdict=Verdict.AMBIGUOUS),
        make_prediction(decision=ACCEPTED),
        make_prediction(decision=DEFERRED),
        make_prediction(decision=dataclasses.replace(DEFERRED, action=Action.REJECT_INPUT)),
        make_prediction(tests=tuple(make_test(kind.name, kind=kind) for kind in TestKind)),
        make_prediction(tests=tuple(make_test(group.name, group=group) for group in Group)),
    ],
    ids=[
        *("not_flagged", "not_calibrated", "unknown", "ambiguous"),
        *("accepted", "deferred", "input_rejected", "all_kinds", "all_groups"),
    ],
)
async def test_client_returns_the_prediction_that_the_model_gave(prediction: Prediction) -> None:
    async with running(StubClassifier(prediction)) as run:
        answer = await run.client.classify(png())
    assert without_receipt(answer, prediction) == prediction


async def test_answer_has_a_receipt_with_record_id_time_and_timing() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    async with running() as run:
        first, second = [(await run.client.classify(png())).receipt for _ in range(2)]
    assert first is not None
    assert second is not None
    assert uuid.UUID(hex=first.record_id).version == 4
    assert re.fullmatch("[0-9a-f]{32}", first.record_id)
    assert first.record_id != second.record_id
    assert before <= first.received_time <= second.received_time <= datetime.now(UTC)
    timing = first.timing
    assert timing.batch_size == 1
    assert min(timing.prepare_s, timing.queue_s, timing.compute_s) >= 0
    assert timing.prepare_s + timing.queue_s + timing.compute_s <= timing.total_s


async def test_explanation_comes_through_bit_by_bit() -> None:
    async with running() as run:
        answer = await run.client.explain(png(), classes=["ship", "cat"])
        expected = run.stub.explain_prepared([run.stub.preparer(png())], ["ship", "cat"])[0]
    assert [heatmap.class_name for heatmap in answer.heatmaps] == ["ship", "cat"]
    for got, want in zip(answer.heatmaps, expected.heatmaps, strict=True):
        np.testing.assert_array_equal(got.values, want.values)
        assert (got.log_posterior, got.completeness_error) == (
            want.log_posterior,
            want.completeness_error,
        )
    np.testing.assert_array_equal(answer.image, expected.image)
    assert answer.image.dtype == np.uint8
    assert (answer.nearby, answer.decision_space) == (NEARBY, SPACE)
    assert (answer.receptive_field_px, answer.contrast) == (5.5, None)
    assert answer.prediction.receipt is not None
    assert dataclasses.replace(answer.prediction, receipt=None) == expected.prediction


async def test_explain_without_classes_lets_the_model_choose() -> None:
    async with running() as run:
        answer = await run.client.explain(png())
    assert [heatmap.class_name for heatmap in answer.heatmaps] == list(INFO.classes)


@pytest.mark.parametrize("size", HeatmapSize)
@pytest.mark.parametrize("classes", [None, ["ship"]])
async def test_contrast_and_size_are_those_that_were_asked_for(
    size: HeatmapSize, classes: list[str] | None
) -> None:
    contrast = ContrastChoice(class_name="ship")
    async with running() as run:
        answer = await run.client.explain(
            png(), classes=classes, contrast=contrast, heatmap_size=size
        )
    shape = (8, 8) if size is HeatmapSize.IMAGE else (3, 4)
    shown = classes or ["dog", "cat"]  # the classes of the stub's answer, most probable first
    assert [heatmap.class_name for heatmap in answer.heatmaps] == shown
    for heatmap in answer.heatmaps:
        whole = make_heatmap(heatmap.class_name)
        assert heatmap.values.shape == shape
        assert heatmap.values.sum() == pytest.approx(whole.values.sum(), abs=1e-12)
        assert heatmap.completeness_error < 1e-11
    assert answer.contrast is not None
    assert (answer.contrast.class_name, answer.contrast.versus) == ("ship", "dog")
    assert answer.contrast.values.shape == shape
    odds = make_heatmap("ship").log_posterior - make_heatmap("dog").log_posterior
    assert answer.contrast.log_odds == pytest.approx(odds)
    assert answer.contrast.values.sum() == pytest.approx(odds, abs=1e-12)


async def test_model_without_report_and_policy_says_so() -> None:
    info = dataclasses.replace(INFO, report=None, policy=None, erased=())
    async with running(StubClassifier(info=info)) as run:
        assert await run.client.model() == info


async def test_model_info_comes_through_whole() -> None:
    async with running() as run:
        assert await run.client.model() == INFO


async def test_synchronous_client_gives_the_same_answers() -> None:
    def ask(target: str) -> None:
        with Client(target, timeout_s=20) as client:
            assert client.model() == INFO
            prediction = client.classify(png())
            assert without_receipt(prediction, make_prediction()) == make_prediction()
            explained = client.explain(
                png(),
                classes=["dog"],
                contrast=ContrastChoice(versus="cat"),
                heatmap_size=HeatmapSize.IMAGE,
            )
            assert explained.heatmaps[0].class_name == "dog"
            assert explained.heatmaps[0].values.shape == (8, 8)
            assert explained.contrast is not None
            assert explained.contrast.versus == "cat"

    async with running() as run:
        await asyncio.to_thread(ask, run.addresses.grpc)


async def test_client_takes_bytes_paths_pil_images_and_arrays(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(png())
    images = [
        png(),
        path,
        str(path),
        Image.new("RGB", (4, 4)),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((4, 4), np.uint8),
    ]
    async with running() as run:
        for image in images:
            assert (await run.client.classify(image)).top.name == "dog"


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("no/such/file.png", "cannot read image no/such/file.png"),
        (np.zeros((4, 4, 3), np.float32), "array of float32"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"\(2, 4, 4, 3\) is not one image"),
        (Image.new("CMYK", (4, 4)), "mode CMYK"),
    ],
)
def test_client_names_an_image_that_it_cannot_send(image: object, message: str) -> None:
    with Client("localhost:1") as client, pytest.raises(ImageError, match=message):
        client.classify(image)  # type: ignore[arg-type]


async def test_out_of_distribution_is_an_answer() -> None:
    async with running(StubClassifier(UNKNOWN)) as run:
        answer = await run.client.classify(png())
        assert run.metric("ibinn_requests_total", method="Classify", code="OK") == 1
    assert answer.verdict is Verdict.UNKNOWN
    assert answer.observed_accuracy is None


def test_client_does_not_take_a_verdict_it_does_not_know_for_another() -> None:
    from ibinn.client import answers

    message = converters.classify_response(make_prediction()).classification
    message.verdict = 99  # type: ignore[assignment]
    with pytest.raises(InternalServerError, match="verdict number 99"):
        answers.prediction(message)


def test_client_does_not_act_on_an_action_it_does_not_know() -> None:
    from ibinn.client import answers

    message = converters.classify_response(make_prediction(decision=ACCEPTED)).classification
    message.decision.action = 99  # type: ignore[assignment]
    with pytest.raises(InternalServerError, match="action number 99"):
        answers.prediction(message)


def test_sets_of_a_server_that_knows_no_methods_are_plain() -> None:
    from ibinn.client import answers

    message = converters.classify_response(make_prediction()).classification
    message.conformal_set.ClearField("method")
    read = answers.prediction(message)
    assert read.conformal is not None
    assert read.conformal.method is SetMethod.PLAIN


@pytest.mark.parametrize(
    ("ours", "wire", "prefix"),
    [
        (Verdict, answer_pb2.Verdict, "VERDICT_"),
        (Group, answer_pb2.TestGroup, "TEST_GROUP_"),
        (TestKind, answer_pb2.TestKind, "TEST_KIND_"),
        (Action, answer_pb2.Action, "ACTION_"),
        (SetMethod, answer_pb2.SetMethod, "SET_METHOD_"),
        (HeatmapSize, classification_service_pb2.HeatmapSize, "HEATMAP_SIZE_"),
    ],
)
def test_every_name_has_a_number_on_the_wire(ours: type, wire: object, prefix: str) -> None:
    names = {prefix + member.name for member in ours}  # type: ignore[attr-defined]
    assert names | {prefix + "UNSPECIFIED"} == set(wire.keys())  # type: ignore[attr-defined]
