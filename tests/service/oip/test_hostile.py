"""Requests that do not mean what they say: each refused with the path of the field at fault."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibinn.errors import RequestError
from service.oip import inputs
from service.oip.v2 import open_inference_grpc_pb2 as oip
from tests.service.oip.fake_predictor import Asking, FakePredictor, decoded, encoded, joined, served
from tests.service.stub import INFO

Edit = Callable[[oip.ModelInferRequest], object]
BIG = 2**62


def shape(*sizes: int) -> Edit:
    def edit(request: oip.ModelInferRequest) -> None:
        del request.inputs[0].shape[:]
        request.inputs[0].shape.extend(sizes)

    return edit


def raw(content: bytes) -> Edit:
    def edit(request: oip.ModelInferRequest) -> None:
        request.raw_input_contents[0] = content

    return edit


def parameter(name: str, **value: object) -> Edit:
    return lambda request: request.parameters[name].CopyFrom(oip.InferParameter(**value))


ENCODED: list[tuple[str, Edit, str, str]] = [
    ("no input", lambda r: r.ClearField("inputs"), "inputs", "has 0 tensors"),
    ("two inputs", lambda r: r.inputs.add(name="pixels"), "inputs", "has 2 tensors"),
    (
        "unknown name",
        lambda r: setattr(r.inputs[0], "name", "picture"),
        "inputs[0].name",
        "expected 'image' or 'pixels'",
    ),
    (
        "wrong datatype",
        lambda r: setattr(r.inputs[0], "datatype", "FP32"),
        "inputs[0].datatype",
        "expected 'BYTES'",
    ),
    (
        "datatype of the other input",
        lambda r: setattr(r.inputs[0], "datatype", "UINT8"),
        "inputs[0].datatype",
        "expected 'BYTES'",
    ),
    ("no dimension", shape(), "inputs[0].shape", r"\[N\] or \[N, 1\]"),
    ("two columns", shape(1, 2), "inputs[0].shape", r"\[N\] or \[N, 1\]"),
    ("no image", shape(0), "inputs[0].shape", "expected 1 to 64 images"),
    ("negative", shape(-1), "inputs[0].shape", "expected 1 to 64 images"),
    ("too many", shape(65), "inputs[0].shape", "expected 1 to 64 images"),
    ("very many", shape(BIG), "inputs[0].shape", "expected 1 to 64 images"),
    ("many dimensions", shape(*[1] * 100_000), "inputs[0].shape", "has 100000 dimensions"),
    ("fewer elements", shape(3), "raw_input_contents[0]", "holds 2 elements"),
    ("more elements", shape(1), "raw_input_contents[0]", "bytes after the 1 elements"),
    ("empty", raw(b""), "raw_input_contents[0]", "holds 0 elements"),
    ("cut", raw(joined(b"one") + b"\0\0"), "raw_input_contents[0]", "within the length"),
    (
        "length beyond the end",
        raw(joined(b"one") + b"\xff\xff\xff\xff"),
        "raw_input_contents[0]",
        "element 1 has 4294967295 bytes, and 0 are left",
    ),
    (
        "two raw contents",
        lambda r: r.raw_input_contents.append(b""),
        "raw_input_contents",
        "has 2 entries for 1 input",
    ),
    (
        "raw and typed",
        lambda r: r.inputs[0].contents.bytes_contents.append(b"one"),
        "inputs[0].contents",
        "both given",
    ),
    (
        "neither",
        lambda r: r.ClearField("raw_input_contents"),
        "inputs[0].contents.bytes_contents",
        "has 0 elements",
    ),
    ("unknown output", lambda r: r.outputs.add(name="x"), "outputs[0].name", "expected one of"),
    (
        "output twice",
        lambda r: [r.outputs.add(name="class"), r.outputs.add(name="class")],
        "outputs[1].name",
        "a second time",
    ),
    ("sequence", parameter("sequence_id", int64_param=1), "parameters[sequence_id]", "no state"),
    ("unknown", parameter("alpha", double_param=0.5), "parameters[alpha]", "no such parameter"),
    ("policy", parameter("policy", string_param="x"), "parameters[policy]", "no such parameter"),
    ("text", parameter("timeout", string_param="1"), "parameters[timeout]", "int64_param"),
    ("no timeout", parameter("timeout"), "parameters[timeout]", "expected int64_param"),
    ("past", parameter("timeout", int64_param=-1), "parameters[timeout]", "expected 0 .none."),
    (
        "shared memory",
        lambda r: r.inputs[0].parameters["shared_memory_region"].CopyFrom(
            oip.InferParameter(string_param="x")
        ),
        "inputs[0].parameters[shared_memory_region]",
        "no shared memory",
    ),
    (
        "classification",
        lambda r: r.outputs.add(name="class").parameters["classification"].CopyFrom(
            oip.InferParameter(int64_param=3)
        ),
        "outputs[0].parameters[classification]",
        "ask for the outputs",
    ),
    (
        "timeout of a tensor",
        lambda r: r.inputs[0].parameters["timeout"].CopyFrom(oip.InferParameter(int64_param=3)),
        "inputs[0].parameters[timeout]",
        "no such parameter",
    ),
    (
        "many parameters",
        lambda r: [parameter(f"binary_data{i}", bool_param=True)(r) for i in range(17)],
        "parameters",
        "has 17 entries",
    ),
]  # fmt: skip

TYPED: list[tuple[str, Edit, str, str]] = [
    ("fewer elements", shape(3), "inputs[0].contents.bytes_contents", "has 2 elements"),
    (
        "values of another type",
        lambda r: r.inputs[0].contents.fp32_contents.append(1.0),
        "inputs[0].contents.fp32_contents",
        "stand in bytes_contents",
    ),
]

PIXELS: list[tuple[str, Edit, str, str]] = [
    ("two dimensions", shape(2, 3), "inputs[0].shape", r"\[H, W, 3\] or \[N, H, W, 3\]"),
    ("four colours", shape(2, 2, 4), "inputs[0].shape", r"\[H, W, 3\]"),
    ("colours first", shape(3, 2, 2), "inputs[0].shape", r"\[H, W, 3\]"),
    ("negative height", shape(-2, -2, 3), "inputs[0].shape", "at least 1"),
    ("zero width", shape(2, 0, 3), "inputs[0].shape", "at least 1"),
    ("negative count", shape(-1, 2, 2, 3), "inputs[0].shape", "1 to 64 images"),
    ("very many", shape(BIG, 2, 2, 3), "inputs[0].shape", "1 to 64 images"),
    ("side over the limit", shape(1, 4001, 3), "inputs[0].shape", "4000 px per side"),
    ("huge side", shape(BIG, BIG, 3), "inputs[0].shape", "4000 px per side"),
    ("pixels over the limit", shape(4000, 4000, 3), "inputs[0].shape", "1000000 pixels"),
    (
        "more than sent",
        shape(64, 1000, 1000, 3),
        "raw_input_contents[0]",
        "the shape says 192000000",
    ),
    ("less than sent", shape(1, 1, 3), "raw_input_contents[0]", "has 12 bytes"),
    (
        "wrong datatype",
        lambda r: setattr(r.inputs[0], "datatype", "BYTES"),
        "inputs[0].datatype",
        "expected 'UINT8'",
    ),
]


async def check(request: oip.ModelInferRequest, edit: Edit, field: str, message: str) -> None:
    edit(request)
    asking = Asking()
    with pytest.raises(RequestError, match=message) as caught:
        await asking.infer(request)
    assert caught.value.field == field
    assert len(str(caught.value)) < 400
    assert asking.predictor.seen == []
    assert asking.charged == []


@pytest.mark.parametrize("case", ENCODED, ids=lambda case: case[0])
async def test_a_raw_request_for_encoded_images(case: tuple[str, Edit, str, str]) -> None:
    await check(encoded(b"one", b"two"), *case[1:])


@pytest.mark.parametrize("case", TYPED, ids=lambda case: case[0])
async def test_a_typed_request_for_encoded_images(case: tuple[str, Edit, str, str]) -> None:
    await check(encoded(b"one", b"two", raw=False), *case[1:])


@pytest.mark.parametrize("case", PIXELS, ids=lambda case: case[0])
async def test_a_raw_request_for_pixels(case: tuple[str, Edit, str, str]) -> None:
    await check(decoded(np.zeros((2, 2, 3), np.uint8)), *case[1:])


async def test_typed_pixels_above_255() -> None:
    request = decoded(np.zeros((2, 2, 3), np.uint8), raw=False)

    def edit(request: oip.ModelInferRequest) -> None:
        request.inputs[0].contents.uint_contents[3] = 256

    await check(request, edit, "inputs[0].contents.uint_contents", "holds 256; expected UINT8")


async def test_more_typed_pixels_than_are_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MOST_TYPED_VALUES", 11)
    request = decoded(np.zeros((2, 2, 3), np.uint8), raw=False)
    await check(request, lambda r: None, "inputs[0].contents.uint_contents", "the limit is 11")


async def test_a_shape_costs_no_memory_before_it_is_checked() -> None:
    info = dataclasses.replace(INFO, max_side=2**40, max_pixels=2**60)
    asking = Asking(FakePredictor(served(max_side=info.max_side, max_pixels=info.max_pixels)))
    request = decoded(np.zeros((2, 2, 3), np.uint8))
    shape(64, 2**20, 2**20, 3)(request)
    tracemalloc.start()
    try:
        with pytest.raises(RequestError, match="the shape says 211106232532992"):
            await asking.infer(request)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


async def test_a_million_entries_are_refused_without_walking_through_them() -> None:
    request = encoded(b"one")
    empty = oip.ModelInferRequest()
    for _ in range(20):
        empty.outputs.add()
    outputs = oip.ModelInferRequest.FromString(empty.SerializeToString() * 50_000)
    request.MergeFrom(outputs)
    start = time.process_time()
    with pytest.raises(RequestError, match=r"outputs\[0\]\.name"):
        await Asking().infer(request)
    assert time.process_time() - start < 1.0


MESSAGES = st.builds(
    oip.ModelInferRequest,
    model_name=st.just("stub"),
    inputs=st.lists(
        st.builds(
            oip.ModelInferRequest.InferInputTensor,
            name=st.sampled_from(["image", "pixels", "x"]),
            datatype=st.sampled_from(["BYTES", "UINT8", "FP32"]),
            shape=st.lists(st.integers(-2, 4) | st.integers(-BIG, BIG), max_size=5),
            contents=st.none()
            | st.builds(
                oip.InferTensorContents,
                bytes_contents=st.lists(st.binary(max_size=8), max_size=3),
                uint_contents=st.lists(st.integers(0, 300), max_size=12),
            ),
        ),
        max_size=2,
    ),
    raw_input_contents=st.lists(
        st.binary(max_size=16) | st.lists(st.binary(max_size=4)).map(lambda e: joined(*e)),
        max_size=2,
    ),
)


@settings(max_examples=300, deadline=None)
@given(request=MESSAGES)
def test_whatever_is_sent_is_taken_or_refused(request: oip.ModelInferRequest) -> None:
    found = None
    with contextlib.suppress(RequestError):
        found = inputs.images(request, INFO)
    if found is not None:
        assert 1 <= found.count <= inputs.MOST_IMAGES
        assert all(p.dtype == np.uint8 and p.shape[2] == 3 for p in found.pixels)
