"""A folder through the real commands: interrupted, gone on with, and servers killed on the way."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ibinn.client import Client, Retry
from ibinn.samples import all_samples
from ibinn.tables import Format, Outcome, Row, read_table
from ibinn.types import Prediction
from tests.service.stub import png

BIN = Path(sys.executable).parent
TIMEOUT_S = 240
COUNT = 300

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * TIMEOUT_S)]


def ibinn(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "ibinn"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photographs, many times, and a file that is none."""
    images = tmp_path / "images"
    images.mkdir()
    samples = [sample.data for sample in all_samples()]
    for index in range(COUNT):
        (images / f"{index:04}.png").write_bytes(samples[index % len(samples)])
    (images / "broken.png").write_bytes(b"no image")
    return tmp_path


def rows(path: Path, form: Format) -> list[Row]:
    return list(read_table(path, form))


@pytest.mark.parametrize(
    ("kind", "form"), [(signal.SIGINT, Format.CSV), (signal.SIGTERM, Format.PARQUET)]
)
def test_a_run_that_is_stopped_is_gone_on_with(
    folder: Path, kind: signal.Signals, form: Format
) -> None:
    out = folder / f"results{form}"
    command = [str(BIN / "ibinn"), "classify", str(folder / "images"), "--out", str(out)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=in_a_terminal()
    )
    assert process.stderr is not None
    read = ""
    while not re.search(rf"[1-9]\d*/{COUNT + 1}", read):  # the bar has moved
        read += process.stderr.read(1)
        assert process.poll() is None, read
    process.send_signal(kind)
    _, rest = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, rest
    assert "--resume" in rest
    kept = {row.file for row in rows(folder / f"results{form}.part", form)}
    assert 0 < len(kept) < COUNT
    result = ibinn("classify", folder / "images", "--out", out, "--resume")
    assert result.returncode == 1, result.stderr  # broken.png
    found = rows(out, form)
    assert len({row.file for row in found}) == len(found) == COUNT + 1
    assert [row.file for row in found if row.status is Outcome.FAILED] == [
        str(folder / "images" / "broken.png")
    ]


def in_a_terminal() -> dict[str, str]:
    """What makes rich draw its bar though nobody looks."""
    return os.environ | {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "100"}


@contextmanager
def stub_server(
    computing: queue.SimpleQueue[subprocess.Popen[str]],
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process with the stub, and its address; put into the queue once it computes."""
    command = [sys.executable, "-m", "tests.service.stub_server"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        target = process.stdout.readline().strip()
        follower = threading.Thread(target=_follow, args=(process, computing))
        follower.start()
        try:
            process.stdin.write("\n")
            process.stdin.flush()
            yield process, target
        finally:
            process.kill()
            follower.join()


def _follow(
    process: subprocess.Popen[str], computing: queue.SimpleQueue[subprocess.Popen[str]]
) -> None:
    assert process.stdout is not None
    if "computing" in process.stdout.readline():
        computing.put(process)


def test_a_server_that_is_killed_loses_no_image_of_a_stream() -> None:
    retry = Retry(attempts=20, base_s=0.05, max_s=0.5, budget=1000.0)
    images = [png(index) for index in range(COUNT)]
    computing: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()
    with ExitStack() as stack:
        servers = [stack.enter_context(stub_server(computing)) for _ in range(2)]
        target = ",".join(address for _, address in servers)
        with Client(target, timeout_s=60, retry=retry) as client:
            results = client.classify_many(images, window=16)
            answered = [next(results) for _ in range(50)]
            computing.get(timeout=TIMEOUT_S).kill()  # the one that has the stream
            answered += list(results)
            other = computing.get(timeout=TIMEOUT_S)
            for image in images[:20]:
                client.classify(image)
        assert other.poll() is None
    assert len(answered) == COUNT
    assert all(isinstance(result, Prediction) for result in answered)
