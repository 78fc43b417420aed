"""Decoder processes: the same answers as threads, and no image hurts more than itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from ibinn.errors import (
    ConfigError,
    ImageDecodeError,
    ImageError,
    ImageTooLargeError,
    NotServingError,
    QueueFullError,
)
from ibinn.images import ImagePreparer, JpegStep, Limits, PreparedImage, PreprocessingConfig
from service.decoding.decoders import Decoders, decoders_of
from service.decoding.pool import ProcessDecoders
from service.decoding.threads import ThreadDecoders
from service.settings import Settings
from tests.ibinn.test_images_decoding import encode, picture
from tests.service.decoding.hostile import AnyPreparer, HostilePreparer
from tests.service.running import until

HOSTILE = HostilePreparer()
REAL = ImagePreparer(
    config=PreprocessingConfig(
        side=16, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), jpeg=JpegStep(quality=80)
    ),
    limits=Limits(max_pixels=10_000),
)


class Counter:
    """Stands for the monitor."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def decoder_fault(self, kind: str) -> None:
        self.faults.append(str(kind))


def children() -> set[int]:
    """Process ids of the decoder processes of this one."""
    found = set()
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "service.decoding.child" in process.cmdline():
                found.add(process.pid)
    return found


def runs(pid: int) -> bool:
    """Whether a process still computes; where nobody collects it, it stays as a zombie."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


@contextlib.asynccontextmanager
async def pool(
    counter: Counter | None = None, processes: int = 1, **changes: Any
) -> AsyncIterator[ProcessDecoders]:
    options = {"timeout_s": 30.0, "max_pixels": 1_000_000, "max_bytes": 2**20, **changes}
    decoders = ProcessDecoders(processes, monitor=counter or Counter(), **options)
    await decoders.start()
    try:
        async with asyncio.timeout(60):
            yield decoders
    finally:
        await decoders.stop()
        assert children() == set()


def firsts(answers: Sequence[PreparedImage | ImageError]) -> list[Any]:
    """The first byte of each image that was prepared, the kind of each error."""
    return [
        bytes([answer.pixels[0, 0, 0]]) if isinstance(answer, PreparedImage) else type(answer)
        for answer in answers
    ]


def letters(count: int) -> list[bytes]:
    return [bytes([65 + i]) for i in range(count)]


async def told(decoders: Decoders) -> dict[str, Any]:
    """What a decoder process says of itself."""
    (answer,) = await decoders.prepare(HOSTILE, [b"tell"])
    found = json.loads(str(answer))
    assert isinstance(found, dict)
    return found


# -------------------------------------------------------------------------------- good answers


async def test_processes_and_threads_prepare_alike() -> None:
    wide = encode(picture(200, 100), "PNG")
    images = [
        encode(picture(), "PNG"),
        encode(picture(), "JPEG", quality=90, progressive=True),
        encode(picture(60, 90), "WEBP", quality=80),
        encode(picture().convert("P"), "GIF"),
        encode(picture(16, 16), "BMP"),
        wide,
        b"",
        b"hello",
        encode(picture(), "PNG")[:-30],
        encode(picture().convert("RGBA"), "PNG"),
    ]
    threads = ThreadDecoders(1, monitor=Counter())
    await threads.start()
    async with pool() as processes:
        expected = await threads.prepare(REAL, images)
        got = await processes.prepare(REAL, images)
    await threads.stop()
    assert [type(answer) for answer in got] == [type(answer) for answer in expected]
    assert firsts(got)[5:9] == [ImageTooLargeError, *[ImageDecodeError] * 3]
    for ours, theirs in zip(got, expected, strict=True):
        if isinstance(ours, PreparedImage):
            assert isinstance(theirs, PreparedImage)
            np.testing.assert_array_equal(ours.pixels, theirs.pixels)
            assert (ours.input, ours.encoded_bytes) == (theirs.input, theirs.encoded_bytes)
        else:
            assert isinstance(theirs, ImageError)
            assert (str(ours), ours.field) == (str(theirs), theirs.field)


async def test_answers_keep_their_order_however_many_there_are() -> None:
    images = [bytes([i % 250 + 1]) * (i + 1) for i in range(100)]
    async with pool(processes=2) as decoders:
        answers = await decoders.prepare(HOSTILE, images)
        assert await decoders.prepare(HOSTILE, []) == []
    assert firsts(answers) == [image[:1] for image in images]
    assert [
        answer.encoded_bytes - 70 for answer in answers if isinstance(answer, PreparedImage)
    ] == (list(range(1, 101)))


async def test_images_larger_than_a_socket_holds_get_through() -> None:
    images = [bytes([65 + i]) * 3_000_000 for i in range(4)]
    async with pool(max_bytes=4 * 2**20) as decoders:
        assert firsts(await decoders.prepare(HOSTILE, images)) == letters(4)


async def test_many_calls_at_once_get_their_own_answers() -> None:
    async with pool(processes=2) as decoders:
        answers = await asyncio.gather(
            *(decoders.prepare(HOSTILE, [letter, b"refuse", letter]) for letter in letters(26))
        )
    assert list(map(firsts, answers)) == [[x, ImageTooLargeError, x] for x in letters(26)]


async def test_slots_work_at_once() -> None:
    async with pool(processes=2) as decoders:
        assert decoders.slots == 2
        slow = asyncio.create_task(decoders.prepare(HOSTILE, [b"sleep:30"]))
        await asyncio.sleep(0)
        assert firsts(await decoders.prepare(HOSTILE, [b"A"])) == [b"A"]
        assert not slow.done()
        slow.cancel()


async def test_refusals_come_with_message_and_field_and_touch_no_other_image() -> None:
    counter = Counter()
    async with pool(counter) as decoders:
        first, wide, odd, last = await decoders.prepare(
            HOSTILE, [b"A", b"refuse", b"refuse oddly", b"B"]
        )
    assert firsts([first, last]) == [b"A", b"B"]
    assert isinstance(wide, ImageTooLargeError)
    assert (str(wide), wide.field) == ("image is too large for the test", "image.width")
    assert type(odd) is ImageDecodeError
    assert str(odd).isprintable()
    assert counter.faults == []


# -------------------------------------------------------------------------------------- faults

DEADLY = ["segfault", "exit:0", "exit:3", "kill"]
FALSE = {
    "no answer": b"raw:hello world, this is no answer",
    "too much announced": b"raw:\xff\xff\xff\xff\xff\xff\xff\xff",
    "another count": b"raw:\x02\0\0\0\0\0\0\0[]",
    "no json": b"raw:\x02\0\0\0\0\0\0\0[[",
    "pickle": b"raw:\x04\0\0\0\0\0\0\0\x80\x04N.",
    "twice": b"raw:\x02\0\0\0\0\0\0\0[]\x02\0\0\0\0\0\0\0[]",
    "something first": b"raw then answer:x",
    "without end": b"endless",
}


@pytest.mark.parametrize("image", [*map(str.encode, DEADLY), *FALSE.values()], ids=repr)
async def test_an_image_that_takes_its_process_with_it_is_refused_alone(image: bytes) -> None:
    counter = Counter()
    async with pool(counter, timeout_s=5.0) as decoders:
        answers = await decoders.prepare(HOSTILE, [b"A", image, b"B"])
        assert firsts(answers) == [b"A", ImageDecodeError, b"B"]
        assert "the decoder broke down on it" in str(answers[1])
        assert firsts(await decoders.prepare(HOSTILE, [b"C"])) == [b"C"]
    assert counter.faults == ["crash", "crash"]  # among the others, then alone


@pytest.mark.parametrize("image", [b"spin", b"spin deaf", b"sleep:60"])
async def test_an_image_that_takes_too_long_alone_is_refused_after_one_try(image: bytes) -> None:
    counter = Counter()
    async with pool(counter, timeout_s=0.3) as decoders:
        (answer,) = await decoders.prepare(HOSTILE, [image])
        assert isinstance(answer, ImageDecodeError)
        assert "did not finish within 0.3 s" in str(answer)
        assert firsts(await decoders.prepare(HOSTILE, [b"C"])) == [b"C"]
    assert counter.faults == ["timeout"]


async def test_an_image_that_takes_too_long_among_others_is_refused_alone() -> None:
    counter = Counter()
    async with pool(counter, timeout_s=0.3) as decoders:
        answers = await decoders.prepare(HOSTILE, [b"A", b"sleep:60", b"B"])
    assert firsts(answers) == [b"A", ImageDecodeError, b"B"]
    assert counter.faults == ["timeout", "timeout"]


async def test_an_image_that_eats_memory_finds_a_limit() -> None:
    counter = Counter()
    async with pool(counter) as decoders:
        answers = await decoders.prepare(HOSTILE, [b"A", b"allocate", b"B"])
    assert firsts(answers) == [b"A", ImageDecodeError, b"B"]
    assert counter.faults == ["crash"]  # a MemoryError; the process lives on


async def test_an_exception_of_ours_is_logged_and_refuses_one_image(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counter = Counter()
    async with pool(counter) as decoders:
        answers = await decoders.prepare(HOSTILE, [b"A", b"bug", b"B"])
        wrong = await decoders.prepare(AnyPreparer(), [b"A"])
    assert firsts(answers) == [b"A", ImageDecodeError, b"B"]
    assert firsts(wrong) == [ImageDecodeError]
    assert counter.faults == ["crash", "crash"]
    assert "ZeroDivisionError: a fault of ours" in caplog.text
    assert "\x1b" not in caplog.text
    assert "no PreparedImage" in caplog.text


async def test_several_deadly_images_in_one_call_are_each_refused() -> None:
    async with pool(processes=2) as decoders:
        answers = await decoders.prepare(HOSTILE, [b"kill", b"A", b"exit:0", b"B"])
    assert firsts(answers) == [ImageDecodeError, b"A", ImageDecodeError, b"B"]


async def test_calls_beside_a_deadly_image_go_on() -> None:
    async with pool(processes=2) as decoders:
        hit = asyncio.create_task(decoders.prepare(HOSTILE, [b"segfault"]))
        answers = [await decoders.prepare(HOSTILE, [letter]) for letter in letters(20)]
        assert firsts(await hit) == [ImageDecodeError]
    assert [firsts(answer) for answer in answers] == [[letter] for letter in letters(20)]


async def test_an_idle_process_that_ends_is_replaced_before_anyone_asks() -> None:
    counter = Counter()
    async with pool(counter) as decoders:
        (victim,) = children()
        os.kill(victim, signal.SIGKILL)
        await until(lambda: bool(children() - {victim}))
        assert firsts(await decoders.prepare(HOSTILE, [b"A"])) == [b"A"]
    assert counter.faults == ["crash"]


async def test_when_too_many_end_calls_are_turned_away_and_then_taken_again() -> None:
    counter = Counter()
    async with pool(counter) as decoders:
        turned_away: QueueFullError | None = None
        for _ in range(20):
            try:
                assert firsts(await decoders.prepare(HOSTILE, [b"kill"])) == [ImageDecodeError]
            except QueueFullError as error:
                turned_away = error
                break
        assert turned_away is not None
        assert 0 < turned_away.retry_after_s <= 5
        assert "try again" in str(turned_away)
        await asyncio.sleep(turned_away.retry_after_s)
        assert firsts(await decoders.prepare(HOSTILE, [b"A"])) == [b"A"]
    assert len(counter.faults) < 15


# ---------------------------------------------------------------------------- leaving and end


async def test_a_call_that_is_given_up_leaves_the_answers_of_others_alone() -> None:
    async with pool() as decoders:
        given_up = asyncio.create_task(decoders.prepare(HOSTILE, [b"sleep:0.3", b"X"]))
        waiting = asyncio.create_task(decoders.prepare(HOSTILE, [b"Y"]))
        others = [asyncio.create_task(decoders.prepare(HOSTILE, [x])) for x in letters(5)]
        await asyncio.sleep(0)
        given_up.cancel()
        waiting.cancel()
        assert [firsts(await other) for other in others] == [[x] for x in letters(5)]
        for task in (given_up, waiting):
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_a_call_given_up_while_its_images_are_tried_again_leaves_no_process() -> None:
    counter = Counter()
    async with pool(counter) as decoders:
        call = asyncio.create_task(decoders.prepare(HOSTILE, [b"kill", b"sleep:30"]))
        await until(lambda: len(counter.faults) == 2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: len(children()) == 1)
        assert firsts(await decoders.prepare(HOSTILE, [b"A"])) == [b"A"]


async def test_stop_ends_every_process_and_every_call() -> None:
    counter = Counter()
    decoders = ProcessDecoders(
        2, timeout_s=60.0, max_pixels=1_000_000, max_bytes=2**20, monitor=counter
    )
    with pytest.raises(NotServingError):
        await decoders.prepare(HOSTILE, [b"A"])
    await decoders.start()
    calls = [
        asyncio.create_task(decoders.prepare(HOSTILE, images))
        for images in ([b"kill", b"sleep:30"], [b"sleep:30"], [b"sleep:30"], [b"A"])
    ]
    await until(lambda: len(counter.faults) == 2)
    await decoders.stop()
    assert children() == set()
    for call in calls:
        with pytest.raises(NotServingError):
            await call
    with pytest.raises(NotServingError):
        await decoders.prepare(HOSTILE, [b"A"])
    await decoders.stop()


async def test_a_process_that_cannot_start_says_what_to_do(monkeypatch: Any) -> None:
    decoders = ProcessDecoders(
        2, timeout_s=1.0, max_pixels=1_000_000, max_bytes=2**20, monitor=Counter()
    )
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ConfigError, match=r"exit status 1.*--decode-in thread"):
        await decoders.start()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ConfigError, match="No such file"):
        await decoders.start()
    assert children() == set()


async def test_processes_end_with_a_server_that_is_killed() -> None:
    script = (
        "import asyncio, sys\n"
        "from tests.service.decoding.test_processes import *\n"
        "async def main():\n"
        "    async with pool(processes=2) as decoders:\n"
        "        print(*children(), flush=True)\n"
        "        await decoders.prepare(HOSTILE, [b'spin'])\n"
        "asyncio.run(main())\n"
    )
    root = Path(__file__).resolve().parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=root, text=True
    ) as server:
        assert server.stdout is not None
        pids = list(map(int, server.stdout.readline().split()))
        assert len(pids) == 2
        server.kill()
    await until(lambda: not any(map(runs, pids)))


# ---------------------------------------------------------------------------- what they are


async def test_a_process_has_given_up_what_decoding_does_not_need(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("IBINN_SECRET", "hush")
    async with pool(max_pixels=1_000_000) as decoders:
        found = await told(decoders)
        (refused,) = await decoders.prepare(HOSTILE, [f"write:{tmp_path / 'file'}".encode()])
    limits = {name: values[0] for name, values in found["limits"].items()}
    assert limits["RLIMIT_AS"] < 1.5 * 2**30
    assert limits["RLIMIT_CORE"] == limits["RLIMIT_FSIZE"] == limits["RLIMIT_NPROC"] == 0
    assert limits["RLIMIT_NOFILE"] <= 24
    assert found["limits"]["RLIMIT_AS"][0] == found["limits"]["RLIMIT_AS"][1]
    assert found["no_new_privs"] == 1
    assert found["oom"] >= 900
    assert set(found["environment"]) <= {
        *("PYTHONPATH", "OPENBLAS_NUM_THREADS", "LD_LIBRARY_PATH", "LC_CTYPE"),
        *("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"),
    }
    assert found["modules"] == []
    assert found["cwd"] == "/"
    assert found["nice"] == os.nice(0)
    assert "refused" in str(refused)
    assert not (tmp_path / "file").exists() or (tmp_path / "file").stat().st_size == 0


async def test_signals_for_the_server_do_not_end_its_decoders() -> None:
    counter = Counter()
    async with pool(counter) as decoders:
        (pid,) = children()
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        assert (await told(decoders))["pid"] == pid
    assert counter.faults == []


@pytest.mark.parametrize(("mode", "format"), [("RGBA", "PNG"), ("I;16", "PNG"), ("RGBA", "WEBP")])
async def test_the_memory_limit_leaves_room_for_the_largest_image(mode: str, format: str) -> None:
    side = 2000
    largest = ImagePreparer(
        config=REAL.config, limits=Limits(max_pixels=side * side, max_bytes=2**20)
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"lossless": True, "quality": 0, "method": 0} if format == "WEBP" else {}
    data = encode(Image.new(mode, (side, side)), format, exif=exif, **options)
    async with pool(max_pixels=side * side) as decoders:
        (answer,) = await decoders.prepare(largest, [data])
    assert isinstance(answer, PreparedImage), answer
    assert (answer.input.width, answer.input.height) == (side, side)


# --------------------------------------------------------------------------------- the choice


def test_settings_choose_processes_or_threads() -> None:
    assert isinstance(decoders_of(Settings(), Counter()), ProcessDecoders)
    threads = decoders_of(Settings(decode_in="thread", decode_threads=3), Counter())
    assert isinstance(threads, ThreadDecoders)
    assert threads.slots == 3
