"""The command `ibinn load-test` against a server that knows no model."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from ibinn import cli
from ibinn.load_test import running
from ibinn.load_test.rendering import report_block
from ibinn.load_test.report import LoadReport, Tally
from tests.ibinn.load_test.fake_server import serving

QUICK = ["--duration", "0.4", "--warm-up", "0"]


async def load_test(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, cli.app, ["load-test", *arguments])


async def test_images_of_a_folder_are_streamed_and_the_result_is_json(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(name.encode())
    async with serving() as fake:
        result = await load_test(
            fake.address, *QUICK, "--rate", "50", "--method", "stream",
            "--images-per-message", "2", "--images", str(tmp_path), "--json",
        )  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["sent"] == report["good"] == fake.images == 20
    assert report["method"] == "/ibinn.v1.ClassificationService/ClassifyStream"


async def test_a_server_that_answers_nothing_makes_exit_code_1() -> None:
    async with serving(refused=lambda image: 8) as fake:
        result = await load_test(fake.address, *QUICK, "--concurrency", "1", "--method", "stream")
    assert result.exit_code == 1
    assert "RESOURCE_EXHAUSTED" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "0"], "rate is 0"),
        (["--rate", "5", "--concurrency", "1"], "leave one of them out"),
        (["--images", "/nowhere/x.png"], "cannot read /nowhere/x.png"),
        (["--tls-cert", __file__], "without its key"),
        (["--method", "stream", "--images-per-message", "0"], "expected 1 to 64"),
    ],
)
async def test_wrong_usage_is_told_without_a_traceback(arguments: list[str], message: str) -> None:
    result = await load_test("127.0.0.1:1", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


async def test_a_folder_without_images_is_told(tmp_path: Path) -> None:
    result = await load_test("127.0.0.1:1", "--images", str(tmp_path))
    assert result.exit_code == 2
    assert "holds no images" in result.stderr


async def test_no_server_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_CONNECT_TIMEOUT_S", 0.2)
    async with serving() as fake:
        gone = fake.address
    result = await load_test(gone, *QUICK)
    assert result.exit_code == 2
    assert "start a server there with ibinn-serve" in result.stderr


def summary(tally: Tally) -> str:
    report: LoadReport = tally.report(
        target="localhost:1",
        method="/ibinn.v1.ClassificationService/Classify",
        offered_per_s=5,
        concurrency=None,
        connections=2,
        generator_cpu_s=0.0,
    )
    out = io.StringIO()
    Console(file=out, width=120).print(report_block(report))
    return out.getvalue()


def test_the_summary_names_goodput_statuses_and_a_generator_that_was_late() -> None:
    tally = Tally(begin=0.0, duration_s=2.0, deadline_s=0.5)
    for index in range(8):
        tally.send(index / 4, index / 4 + 0.02, 1)
        tally.settle(index / 4, index / 4 + 0.05, "OK" if index < 6 else "RESOURCE_EXHAUSTED")
    text = summary(tally)
    assert "localhost:1  Classify  5 images/s for 2 s, 2 connections" in text
    assert "3.0 per second answered within 500 ms (75.0 % of those sent)" in text
    assert "RESOURCE_EXHAUSTED" in text
    assert "50.0 ms" in text
    assert "█▅" in text
    assert "did not keep up" in text


def test_the_summary_of_nothing_is_still_one() -> None:
    text = summary(Tally(begin=0.0, duration_s=2.0, deadline_s=0.5))
    assert "0 images" in text
    assert "did not keep up" not in text


def test_the_generator_needs_no_torch_and_the_command_line_no_grpc() -> None:
    code = (
        "import sys, ibinn.load_command; assert 'grpc' not in sys.modules; "
        "import ibinn.load_test; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
