"""What passes between server and decoder process: exact both ways, and nothing false gets in."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibinn.errors import ImageDecodeError, ImageError, ImageTooLargeError
from ibinn.images import PreparedImage
from service.decoding import frames
from service.decoding.frames import FrameError, Raised
from tests.service.decoding.hostile import SIDE, HostilePreparer, prepared

HEADER = frames.ANSWER_HEADER_BYTES


def split(answer: bytes) -> tuple[bytes, bytes]:
    text_bytes = int.from_bytes(answer[:4], "little")
    return answer[HEADER : HEADER + text_bytes], answer[HEADER + text_bytes :]


def read(answer: bytes, count: int, side: int | None = SIDE) -> list[Any]:
    assert sum(frames.answer_sizes(answer, count=count, side=side)) == len(answer) - HEADER
    return list(frames.read_answer(*split(answer), count=count, side=side))


def entry() -> dict[str, Any]:
    (found,) = json.loads(split(frames.answer([prepared(b"x")]))[0])
    assert isinstance(found, dict)
    return found


# ------------------------------------------------------------------------------------ requests


def test_a_request_is_read_as_it_was_written() -> None:
    images = [b"one", b"", b"three" * 1000]
    stream = io.BytesIO(
        frames.request(7, HostilePreparer(), images) + frames.request(7, None, [b"four"])
    )
    first, second = frames.read_request(stream), frames.read_request(stream)
    assert first is not None
    assert second is not None
    assert (first.preparer, first.images) == (7, tuple(images))
    assert pickle.loads(first.pickled) == HostilePreparer()
    assert (second.preparer, second.pickled, second.images) == (7, b"", (b"four",))
    assert frames.read_request(stream) is None


def test_a_request_that_was_cut_off_is_the_end() -> None:
    whole = frames.request(0, None, [b"one", b"two"])
    for length in range(len(whole)):
        assert frames.read_request(io.BytesIO(whole[:length])) is None, length


# ------------------------------------------------------------------------------------- answers


def test_an_answer_is_read_as_it_was_written() -> None:
    results = [
        prepared(b"a"),
        ImageTooLargeError("too wide", field="image.width"),
        prepared(b"b"),
        Raised(trace="a trace"),
        ImageDecodeError("damaged"),
        ImageError("refused"),
    ]
    first, wide, second, raised, damaged, refused = read(frames.answer(results), 6)
    for got, expected in ((first, prepared(b"a")), (second, prepared(b"b"))):
        assert isinstance(got, PreparedImage)
        np.testing.assert_array_equal(got.pixels, expected.pixels)
        assert (got.input, got.encoded_bytes) == (expected.input, expected.encoded_bytes)
    assert (type(wide), str(wide), wide.field) == (ImageTooLargeError, "too wide", "image.width")
    assert raised == Raised(trace="a trace")
    assert (type(damaged), type(refused)) == (ImageDecodeError, ImageError)


def test_words_of_an_answer_cannot_pose_as_something_else_in_a_log() -> None:
    (error,) = read(frames.answer([ImageError("a\r\nERROR b\x1b[31m\u2028c" + "x" * 9999)]), 1)
    assert str(error).isprintable()
    assert len(str(error)) == 1000


def changed(**changes: Any) -> Callable[[], tuple[list[Any], int]]:
    return lambda: ([{**entry(), **changes}], 12)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ({}, 12),
        lambda: ([], 0),
        lambda: ([entry(), entry()], 24),
        lambda: ([None], 0),
        lambda: ([[]], 0),
        lambda: ([{}], 0),
        lambda: ([entry()], 11),
        lambda: ([entry()], 13),
        lambda: ([entry()], 0),
        lambda: ([{"error": "KeyError", "message": "m", "field": "image"}], 0),
        lambda: ([{"error": "ImageError", "message": 3, "field": "image"}], 0),
        lambda: ([{"error": "ImageError", "message": "m" * 1001, "field": "image"}], 0),
        lambda: ([{"error": "ImageError", "message": "m", "field": "\n"}], 0),
        lambda: ([{"error": "ImageError", "message": "m", "field": None}], 0),
        lambda: ([{"error": "ImageError", "message": "m"}], 0),
        lambda: ([{"raised": 1}], 0),
        changed(side=0),
        changed(side=3),
        changed(side=True),
        changed(side=2.0),
        changed(side=10**9),
        changed(encoded_bytes=-1),
        changed(encoded_bytes=1e400),
        changed(width=0),
        changed(height=2**40),
        changed(region=[0, 0, 5, 3]),
        changed(region=[2, 0, 3, 3]),
        changed(region=[0, 0, 3]),
        changed(region=None),
        changed(format="EXE"),
        changed(format=[]),
        changed(sha256_bytes="A" * 64),
        changed(sha256_pixels="a" * 63),
        changed(sha256_pixels=None),
        changed(reductions="words"),
        changed(reductions=["word"] * 17),
        changed(reductions=[1]),
        changed(reductions=["w" * 1001]),
    ],
)
def test_a_false_answer_is_found_out(make: Callable[[], tuple[Any, int]]) -> None:
    entries, pixel_bytes = make()
    with pytest.raises(FrameError):
        frames.read_answer(json.dumps(entries).encode(), bytes(pixel_bytes), count=1, side=SIDE)


@pytest.mark.parametrize("text", [b"", b"[", b"\xff", b"[" * 9999, b"1" * 9999, b"[NaN]"])
def test_text_that_is_no_json_is_found_out(text: bytes) -> None:
    with pytest.raises(FrameError):
        frames.read_answer(text, b"", count=1, side=SIDE)


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from([*entry(), "error", "raised"]), inner)
        ),
    ),
    st.integers(0, 30),
)
def test_any_other_answer_is_found_out_or_has_the_right_form(value: Any, pixel_bytes: int) -> None:
    text = json.dumps([value]).encode()
    try:
        (result,) = frames.read_answer(text, bytes(pixel_bytes), count=1, side=SIDE)
    except FrameError:
        return
    assert isinstance(result, PreparedImage | ImageError | Raised)


@pytest.mark.parametrize(
    ("text_bytes", "pixel_bytes"), [(2**14 * 2 + 1, 0), (2**32 - 1, 0), (10, 2 * 12 + 1)]
)
def test_more_than_the_images_can_need_is_not_waited_for(text_bytes: int, pixel_bytes: int) -> None:
    header = text_bytes.to_bytes(4, "little") + pixel_bytes.to_bytes(4, "little")
    with pytest.raises(FrameError, match="too many"):
        frames.answer_sizes(header, count=2, side=SIDE)
