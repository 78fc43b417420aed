"""The Open Inference Protocol's methods, against a predictor that answers at once."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import numpy as np
import pytest

from ibinn.errors import (
    ExpiredError,
    ImageDecodeError,
    NotServingError,
    QueueFullError,
    UnknownModelError,
)
from service.call import Role
from service.models.registry import Models
from service.oip import SERVICE_NAME, oip_routes
from service.oip.v2 import open_inference_grpc_pb2 as oip
from tests.service.oip.fake_predictor import (
    Asking,
    FakePredictor,
    decoded,
    encoded,
    numbers,
    served,
    texts,
)
from tests.service.stub import ACCEPTED, INFO, NOT_CALIBRATED, make_prediction

OTHER = "b" * 64


@pytest.fixture
def asking() -> Asking:
    return Asking()


def test_only_inference_needs_a_role() -> None:
    roles = {route.method: route.role for route in oip_routes(FakePredictor())}
    assert roles == {
        "ServerLive": None,
        "ServerReady": None,
        "ModelReady": None,
        "ServerMetadata": None,
        "ModelMetadata": Role.CLASSIFY,
        "ModelInfer": Role.CLASSIFY,
    }
    assert SERVICE_NAME == "inference.GRPCInferenceService"
    service = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert set(roles) == {method.name for method in service.methods}


async def test_readiness_ends_with_draining_and_liveness_does_not(asking: Asking) -> None:
    async def state() -> tuple[bool, bool, bool]:
        return (
            (await asking.ask("ServerLive", oip.ServerLiveRequest())).live,
            (await asking.ask("ServerReady", oip.ServerReadyRequest())).ready,
            (await asking.ask("ModelReady", oip.ModelReadyRequest(name="stub"))).ready,
        )

    assert await state() == (True, True, True)
    asking.predictor.draining = True
    assert await state() == (True, False, False)
    asking.predictor.draining = False
    asking.predictor.models = Models()
    assert await state() == (True, False, False)


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [
        ("stub", "", True),
        ("ibinn", "", True),
        ("stub", "a" * 8, True),
        ("ibinn", "a" * 64, True),
        ("other", "", False),
        ("", "", False),
        ("stub", "1", False),
        ("stub", "a" * 7, False),
        ("stub", "a" * 65, False),
        ("stub", OTHER, False),
    ],
)
async def test_a_model_is_ready_by_its_name_and_version(
    asking: Asking, name: str, version: str, ready: bool
) -> None:
    request = oip.ModelReadyRequest(name=name, version=version)
    assert (await asking.ask("ModelReady", request)).ready is ready


async def test_the_server_says_what_it_is(asking: Asking) -> None:
    found = await asking.ask("ServerMetadata", oip.ServerMetadataRequest())
    assert (found.name, list(found.extensions)) == ("ibinn", [])
    assert found.version


async def test_metadata_states_inputs_outputs_and_every_loaded_version() -> None:
    asking = Asking(FakePredictor(served(), served(weights=OTHER), served(name="third")))
    found = await asking.ask("ModelMetadata", oip.ModelMetadataRequest(name="stub"))
    assert list(found.versions) == ["a" * 64, OTHER]
    assert found.platform == "ibinn"
    assert [(t.name, t.datatype, list(t.shape)) for t in found.inputs] == [
        ("image", "BYTES", [-1]),
        ("pixels", "UINT8", [-1, -1, -1, 3]),
    ]
    assert [(t.name, t.datatype, list(t.shape)) for t in found.outputs] == [
        ("posterior", "FP64", [-1, 3]),
        ("log_likelihood", "FP64", [-1, 3]),
        ("p_values", "FP64", [-1, 2]),
        ("bits_per_dim", "FP64", [-1]),
        ("class", "BYTES", [-1]),
        ("verdict", "BYTES", [-1]),
        ("decision", "BYTES", [-1]),
        ("record_id", "BYTES", [-1]),
    ]


async def test_metadata_of_an_unknown_model_is_not_found(asking: Asking) -> None:
    with pytest.raises(UnknownModelError, match="no model named 'nothing'"):
        await asking.ask("ModelMetadata", oip.ModelMetadataRequest(name="nothing"))


async def test_answers_stand_in_the_order_of_images_and_of_class_indices(asking: Asking) -> None:
    response = await asking.infer(encoded(b"one", b"two", id="mine"))
    assert (response.id, response.model_name, response.model_version) == ("mine", "stub", "a" * 64)
    posterior = numbers(response, "posterior")
    assert posterior.shape == (2, 3)
    # The stub's answer lists dog (1) before cat (0), and no ship (2).
    np.testing.assert_array_equal(posterior[0], [0.3, 0.7, math.nan])
    np.testing.assert_array_equal(numbers(response, "log_likelihood")[1], [-100.5, -99.5, math.nan])
    np.testing.assert_array_equal(numbers(response, "bits_per_dim"), [4.4, 4.4])
    assert texts(response, "class") == ["dog", "dog"]
    assert texts(response, "verdict") == ["NOT_FLAGGED", "NOT_FLAGGED"]
    assert texts(response, "record_id") == ["record-1", "record-2"]
    assert [image for image, _, _ in asking.predictor.seen] == [b"one", b"two"]
    parameters = {name: value.string_param for name, value in response.parameters.items()}
    assert json.loads(parameters["classes"]) == list(INFO.classes)
    assert json.loads(parameters["tests"]) == ["log_q_x.typicality", "combined"]
    assert parameters["calibration"] == INFO.versions.calibration


async def test_p_values_are_those_of_the_named_tests_and_nan_where_there_is_none(
    asking: Asking,
) -> None:
    response = await asking.infer(encoded(b"one"))
    np.testing.assert_array_equal(numbers(response, "p_values"), [[0.5, 0.5]])
    asking.predictor.prediction = NOT_CALIBRATED
    response = await asking.infer(encoded(b"one"))
    np.testing.assert_array_equal(numbers(response, "p_values"), [[math.nan, math.nan]])
    assert texts(response, "verdict") == ["NOT_ASSESSED"]


async def test_a_decision_is_its_action_and_empty_without_a_policy(asking: Asking) -> None:
    assert texts(await asking.infer(encoded(b"one")), "decision") == [""]
    asking.predictor.prediction = make_prediction(decision=ACCEPTED)
    assert texts(await asking.infer(encoded(b"one")), "decision") == ["ACCEPT"]


async def test_typed_contents_get_a_typed_answer_with_the_same_values(asking: Asking) -> None:
    raw = await asking.infer(encoded(b"one", b"two"))
    typed = await asking.infer(encoded(b"one", b"two", raw=False))
    assert list(typed.raw_output_contents) == []
    for output in typed.outputs:
        if output.datatype == "FP64":
            expected = numbers(raw, output.name).ravel()
            np.testing.assert_array_equal(output.contents.fp64_contents, expected)
        elif output.name != "record_id":
            found = [value.decode() for value in output.contents.bytes_contents]
            assert found == texts(raw, output.name)
    assert not any(output.HasField("contents") for output in raw.outputs)


async def test_only_the_outputs_asked_for_are_sent_in_that_order(asking: Asking) -> None:
    request = encoded(b"one")
    request.outputs.add(name="verdict")
    request.outputs.add(name="posterior")
    response = await asking.infer(request)
    assert [output.name for output in response.outputs] == ["verdict", "posterior"]
    assert len(response.raw_output_contents) == 2


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 3), (2, 2, 3, 3), (1, 2, 3, 3)])
async def test_pixels_arrive_as_they_were_sent(
    asking: Asking, shape: tuple[int, ...], raw: bool
) -> None:
    pixels = np.arange(math.prod(shape), dtype=np.uint8).reshape(shape)
    response = await asking.infer(decoded(pixels, raw=raw))
    expected = pixels.reshape(-1, 2, 3, 3)
    assert len(asking.predictor.seen) == len(expected)
    for (seen, _, _), image in zip(asking.predictor.seen, expected, strict=True):
        assert isinstance(seen, np.ndarray)
        np.testing.assert_array_equal(seen, image)
    assert bool(response.raw_output_contents) is raw
    assert response.outputs[0].shape[0] == len(expected)


async def test_many_typed_pixels_are_unpacked_in_a_thread(asking: Asking) -> None:
    pixels = np.full((150, 150, 3), 255, dtype=np.uint8)
    await asking.infer(decoded(pixels, raw=False))
    np.testing.assert_array_equal(asking.predictor.seen[0][0], pixels)


async def test_every_image_is_charged_and_a_refused_request_is_not(asking: Asking) -> None:
    await asking.infer(encoded(b"one", b"two", b"three"))
    assert asking.charged == [3]
    request = encoded(b"one")
    request.inputs[0].shape[0] = 5
    with pytest.raises(Exception, match="shape"):
        await asking.infer(request)
    assert asking.charged == [3]


async def test_the_timeout_parameter_is_microseconds(asking: Asking) -> None:
    request = encoded(b"one")
    request.parameters["timeout"].int64_param = 2_000_000
    await asking.infer(request)
    before = time.monotonic()
    await asking.infer(request, deadline=before + 0.5)
    (_, first, _), (_, second, _) = asking.predictor.seen
    assert before - 60 < first.deadline - 2 <= before
    assert second.deadline == before + 0.5


async def test_a_timeout_of_zero_is_none(asking: Asking) -> None:
    request = encoded(b"one")
    request.parameters["timeout"].int64_param = 0
    await asking.infer(request)
    assert asking.predictor.seen[0][1].deadline == math.inf


async def test_what_common_clients_send_along_is_ignored(asking: Asking) -> None:
    request = encoded(b"one")
    request.parameters["priority"].uint64_param = 3
    request.parameters["binary_data_output"].bool_param = True
    request.inputs[0].parameters["binary_data_size"].int64_param = 7
    request.outputs.add(name="class").parameters["binary_data"].bool_param = True
    assert texts(await asking.infer(request), "class") == ["dog"]


async def test_a_pinned_version_answers_and_is_named() -> None:
    asking = Asking(FakePredictor(served(), served(weights=OTHER)))
    response = await asking.infer(encoded(b"one", model_version=OTHER[:8]))
    assert response.model_version == OTHER
    assert asking.predictor.seen[0][2] == OTHER


async def test_models_with_other_names_are_found_by_theirs() -> None:
    asking = Asking(FakePredictor(served(), served(name="older", weights=OTHER)))
    request = encoded(b"one")
    request.model_name = "older"
    assert (await asking.infer(request)).model_version == OTHER


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("nothing", "", "no model named 'nothing'"),
        ("stub", "1", "no version '1'; a version is the first 8 to 64 digits"),
        ("stub", "c" * 8, "no model named 'stub' with version 'cccccccc'"),
        ("x" * 500, "", "no model named 'xxx"),
    ],
)
async def test_an_unknown_model_is_not_answered_by_the_default(
    asking: Asking, name: str, version: str, message: str
) -> None:
    request = encoded(b"one", model_version=version)
    request.model_name = name
    with pytest.raises(UnknownModelError, match=message) as caught:
        await asking.infer(request)
    assert len(str(caught.value)) < 400
    assert asking.predictor.seen == []


async def test_one_model_answers_all_images_of_a_request_whatever_is_exchanged_meanwhile() -> None:
    asking = Asking()
    models = asking.predictor.models

    def exchange() -> None:
        models.set_default(served(weights=OTHER))

    asking.predictor.before = exchange
    response = await asking.infer(encoded(b"one"))
    assert response.model_version == "a" * 64
    assert {model for _, _, model in asking.predictor.seen} == {"a" * 64}


async def test_nothing_is_answered_while_the_server_stops(asking: Asking) -> None:
    asking.predictor.draining = True
    with pytest.raises(NotServingError):
        await asking.infer(encoded(b"one"))


@pytest.mark.parametrize(
    ("raw", "field"),
    [(True, "raw_input_contents[0]"), (False, "inputs[0].contents.bytes_contents[1]")],
)
async def test_an_image_that_fails_fails_the_request_and_is_named(
    asking: Asking, raw: bool, field: str
) -> None:
    with pytest.raises(ImageDecodeError, match=r"image 1 of 3 \(from 0\): image cannot") as caught:
        await asking.infer(encoded(b"one", b"bad", b"three", raw=raw))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "error",
    [QueueFullError("full", retry_after_s=1.0), ExpiredError("too late")],
)
async def test_what_befalls_a_request_is_told_as_it_is(asking: Asking, error: Any) -> None:
    asking.predictor.errors[b"two"] = error
    with pytest.raises(type(error)) as caught:
        await asking.infer(encoded(b"one", b"two"))
    assert caught.value is error


async def test_a_fault_of_ours_is_not_taken_for_the_callers(asking: Asking) -> None:
    asking.predictor.errors[b"two"] = RuntimeError("bug")  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="bug"):
        await asking.infer(encoded(b"one", b"two"))
