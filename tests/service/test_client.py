"""The client against the server itself: streams, retries, pins, several servers, tables."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ibinn import cli, errors
from ibinn.client import AdminClient, AsyncClient, Client, Retry
from ibinn.serving import Mode, ModelRole
from ibinn.tables import Format, Outcome, Row, read_table
from ibinn.types import AnswerOptions, Prediction, TestDetail
from tests.service.administered import administered
from tests.service.models import scripted
from tests.service.models.scripted import write
from tests.service.running import running
from tests.service.stub import INFO, png

IMAGES = [png(index) for index in range(150)]
PATIENT = Retry(attempts=30, base_s=0.01, max_s=0.05, budget=1000.0)


def hashes(results: Iterable[Any]) -> list[str]:
    """For each result the hash of the image that it is the answer to, or its error's name."""
    return [
        result.input.sha256_bytes if isinstance(result, Prediction) else type(result).__name__
        for result in results
    ]


def hashes_of(images: Iterable[bytes]) -> list[str]:
    return [hashlib.sha256(image).hexdigest() for image in images]


async def all_of(client: AsyncClient, images: Sequence[Any], **options: Any) -> list[Any]:
    return [result async for result in client.classify_many(images, **options)]


async def in_thread(target: str, images: Sequence[Any], **options: Any) -> list[Any]:
    def ask() -> list[Any]:
        with Client(target, timeout_s=60, retry=PATIENT) as client:
            return list(client.classify_many(images, **options))

    return await asyncio.to_thread(ask)


@pytest.mark.parametrize(("window", "per_message"), [(64, 8), (3, 1), (100, 64)])
async def test_many_images_get_their_own_answers_in_order(window: int, per_message: int) -> None:
    async with running() as run:
        options = {"window": window, "per_message": per_message}
        assert hashes(await all_of(run.client, IMAGES, **options)) == hashes_of(IMAGES)
        found = await in_thread(run.addresses.grpc, IMAGES, **options)
        assert hashes(found) == hashes_of(IMAGES)
        assert run.metric("ibinn_requests_total", method="ClassifyStream", code="OK") == 2
        await run.pending(0)
    assert window < 64 or max(run.stub.batch_sizes) > 1


async def test_images_that_are_refused_cost_the_others_nothing() -> None:
    too_large = bytes(INFO.max_bytes + 1)
    no_message = bytes(3 * INFO.max_bytes)  # gRPC itself refuses its message
    images = [IMAGES[0], b"no image", IMAGES[1], too_large, no_message, IMAGES[2]]
    expected = hashes_of(images)
    for index in (1, 3, 4):
        expected[index] = "InvalidImageError"
    async with running() as run:
        found = await all_of(run.client, images)
        assert hashes(found) == expected
        assert hashes(await in_thread(run.addresses.grpc, images)) == expected
    assert [result.reason for result in found if isinstance(result, errors.RemoteError)] == [
        "IMAGE_UNREADABLE",
        "IMAGE_TOO_LARGE",
        "",
    ]


async def test_a_full_server_gets_every_image_in_the_end() -> None:
    async with running(max_pending=4) as run:
        async with AsyncClient(run.addresses.grpc, timeout_s=60, retry=PATIENT) as client:
            found = await all_of(client, IMAGES[:60], window=60, per_message=1)
        assert hashes(found) == hashes_of(IMAGES[:60])
        refused = run.metric("ibinn_rejections_total", reason="QUEUE_FULL")
    # The client slows down; else 56 of 60 would be refused again and again.
    assert 0 < refused < 180


async def test_a_caller_over_its_rate_is_slowed_down_and_not_turned_away() -> None:
    async with running(caller_rate=100.0, caller_burst=5) as run:
        found = await in_thread(run.addresses.grpc, IMAGES[:40], window=16, per_message=1)
        assert hashes(found) == hashes_of(IMAGES[:40])
        for image in IMAGES[:10]:  # single calls wait as long as they are told
            async with AsyncClient(run.addresses.grpc, retry=PATIENT) as client:
                await client.classify(image)


async def test_a_server_that_stops_hands_the_rest_of_a_stream_to_another_one() -> None:
    async with running() as first, running() as second:
        target = f"{first.addresses.grpc},{second.addresses.grpc}"
        used = {}

        async def images() -> AsyncIterator[bytes]:
            for index, image in enumerate(IMAGES):
                if index == 60:
                    # The one that has the stream stops in the middle of it.
                    used["run"] = first if first.stub.batches else second
                    used["stop"] = asyncio.create_task(used["run"].server.stop())
                yield image

        async with AsyncClient(target, timeout_s=60, retry=PATIENT) as client:
            found = [result async for result in client.classify_many(images(), window=16)]
        assert hashes(found) == hashes_of(IMAGES)
        assert first.stub.batches
        assert second.stub.batches
        await used["stop"]


async def test_pins_options_and_names_reach_the_server_and_come_back() -> None:
    options = AnswerOptions(top_classes=1, tests=TestDetail.NONE)
    pin = INFO.versions.weights[:12]
    async with running() as run:
        answer = await run.client.classify(IMAGES[0], request_id="a:1", model=pin, options=options)
        assert answer.receipt is not None
        assert (answer.receipt.request_id, len(answer.classes), answer.tests) == ("a:1", 1, ())
        explained = await run.client.explain(IMAGES[0], request_id="a:2", options=options)
        assert explained.prediction.receipt is not None
        assert explained.prediction.receipt.request_id == "a:2"
        assert len(explained.prediction.classes) == 1
        (streamed,) = await all_of(run.client, IMAGES[:1], options=options, model=pin)
        assert (len(streamed.classes), streamed.tests) == (1, ())
        assert (await run.client.model(model=pin)) == INFO
        for call in (
            run.client.classify(IMAGES[0], model="00000000", request_id="a:3"),
            run.client.model(model="00000000"),
        ):
            with pytest.raises(errors.NotFoundError) as caught:
                await call
            assert caught.value.reason == "MODEL_UNKNOWN"
            assert caught.value.request_id
        (refused,) = await all_of(run.client, IMAGES[:1], model="00000000")
        assert isinstance(refused, errors.NotFoundError)


async def test_a_fault_of_the_server_has_the_requests_name_and_the_incidents() -> None:
    async with running() as run:
        run.stub.error = RuntimeError("secret")
        with pytest.raises(errors.InternalServerError, match=r"incident [0-9a-f]{32}") as caught:
            await run.client.classify(IMAGES[0], request_id="mine")
    assert (caught.value.request_id, caught.value.reason) == ("mine", "INTERNAL")


async def test_an_operator_manages_a_server(tmp_path: Path) -> None:
    def tell(target: str, token: str) -> None:
        with (
            AdminClient(target, token=token, timeout_s=60) as admin,
            Client(target, token=token) as client,
        ):
            assert [served.role for served in admin.status().served] == [ModelRole.DEFAULT]
            before = client.model().versions.weights
            done = admin.reload("second")
            assert done.candidate.accepted
            assert done.state.served[0].versions.weights != before
            assert client.classify(scripted.image()).versions.weights != before
            state = admin.set_mode(Mode.ABSTAIN_ALL, reason="a test")
            assert (state.mode, state.mode_reason) == (Mode.ABSTAIN_ALL, "a test")
            decision = client.classify(scripted.image()).decision
            assert decision is not None
            assert "a test" in decision.reason
            assert client.served().mode is Mode.ABSTAIN_ALL
            admin.set_mode(Mode.NORMAL)
            assert admin.rollback().served[0].versions.weights == before
            with pytest.raises(errors.NotFoundError):
                admin.reload("no-such-bundle")

    async with administered(tmp_path) as server:
        write(server.models, "second")
        await asyncio.to_thread(tell, server.target, server.token)


def ibinn(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def rows(out: Path) -> list[Row]:
    return list(read_table(out, Format.of(out)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty images and a broken one."""
    images = tmp_path / "images"
    images.mkdir()
    for index in range(30):
        (images / f"{index:02}.png").write_bytes(IMAGES[index])
    (images / "broken.png").write_bytes(b"no image")
    return tmp_path


@pytest.mark.parametrize("form", Format)
async def test_a_folder_is_classified_by_a_server_into_a_table(folder: Path, form: Format) -> None:
    out = folder / f"results{form}"
    async with running() as run:
        server = ("--server", run.addresses.grpc)
        result = await asyncio.to_thread(
            ibinn, "classify", folder / "images", "--out", out, *server
        )
        again = await asyncio.to_thread(
            ibinn, "classify", folder / "images", "--out", out, "--resume", *server
        )
    assert (result.exit_code, again.exit_code) == (1, 1), result.output + again.output
    assert "30 kept from before" in again.stdout
    found = rows(out)
    assert len(found) == 31
    assert {row.weights for row in found if row.status is Outcome.OK} == {INFO.versions.weights}
    assert len({row.record_id for row in found if row.status is Outcome.OK}) == 30
    (broken,) = [row for row in found if row.status is Outcome.FAILED]
    assert Path(broken.file).name == "broken.png"
    assert broken.error
    assert broken.request_id


async def test_a_folder_over_the_callers_rate_takes_longer_and_has_no_holes(folder: Path) -> None:
    (folder / "images" / "broken.png").unlink()
    out = folder / "results.jsonl"
    async with running(caller_rate=40.0, caller_burst=2) as run:
        result = await asyncio.to_thread(
            ibinn, "classify", folder / "images", "--out", out, "--server", run.addresses.grpc
        )
        assert run.metric("ibinn_rejections_total", reason="RATE_LIMITED") > 0
    assert result.exit_code == 0, result.output
    assert len(rows(out)) == 30


async def test_an_operator_commands_a_server(tmp_path: Path) -> None:
    async with administered(tmp_path) as server:
        (tmp_path / "token").write_text(server.token)
        there = ("--server", server.target, "--token-file", tmp_path / "token")

        async def admin(*arguments: object) -> Result:
            return await asyncio.to_thread(ibinn, "admin", *arguments, *there)

        status = await admin("status", "--json")
        assert status.exit_code == 0, status.output
        assert json.loads(status.stdout)["mode"] == "normal"
        stopped = await admin("mode", "abstain-all", "--reason", "a test")
        assert "ABSTAINS: every decision is left to people: a test" in stopped.stdout
        refused = await admin("rollback")
        assert refused.exit_code == 1
        assert "ibinn: " in refused.stderr
        missing = await admin("reload", "none")
        assert missing.exit_code == 2
        assert re.search(r" \(request [0-9a-f]{32}\)\n$", missing.stderr)
        unknown = await asyncio.to_thread(ibinn, "admin", "status", "--server", server.target)
        assert unknown.exit_code == 2
        assert "token" in unknown.stderr
