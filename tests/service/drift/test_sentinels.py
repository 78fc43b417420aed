"""Laws of the sentinels: known images through the whole path, counted apart from all else."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from pathlib import Path

import pytest

from ibinn.errors import ConfigError, QueueFullError
from service.drift.sentinels import Sentinels, read
from service.models.registry import Models
from service.models.served import Served
from service.monitoring import Monitor, model_label
from tests.service.drift.calibrated import Calibrated, make_watch
from tests.service.running import running, settings
from tests.service.stub import UNKNOWN, VERSIONS, StubClassifier, make_prediction, png

LABEL = {"model": model_label(VERSIONS)}


def sentinel_folder(folder: Path, **images: int) -> Path:
    """`images` PNGs of each class; those of ``flat`` lie in the folder itself."""
    number = 0
    for name, count in images.items():
        place = folder if name == "flat" else folder / name
        place.mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            (place / f"{number}.png").write_bytes(png(number))
            number += 1
    return folder


def make(folder: Path, background, **changes) -> tuple[Sentinels, Monitor]:
    models, monitor = Models(), Monitor()
    models.set_default(Served.of(StubClassifier()))
    made = Sentinels(
        settings(sentinels=folder, **changes),
        models=models,
        background=background,
        monitor=monitor,
    )
    return made, monitor


def counted(monitor: Monitor) -> tuple[float | None, ...]:
    return tuple(
        monitor.registry.get_sample_value(f"ibinn_sentinel{name}_total", LABEL)
        for name in ("s", "_flags", "_wrong")
    )


async def test_flags_and_wrong_answers_of_known_images_are_counted(tmp_path):
    folder = sentinel_folder(tmp_path / "held-out", cat=2, dog=3, flat=1)

    async def background(served, image, *, patience_s):
        return UNKNOWN if image == png(5) else make_prediction()

    sentinels, monitor = make(folder, background)
    for _ in range(6):
        await sentinels.send()
    assert counted(monitor) == (6, 1, 2)  # "dog" is answered to all; the flat one has no class
    await sentinels.send()
    assert counted(monitor)[0] == 7


async def test_every_image_is_sent_once_before_any_is_sent_again(tmp_path):
    folder, sent = sentinel_folder(tmp_path / "held-out", cat=4, dog=4), []

    async def background(served, image, *, patience_s):
        sent.append(image)
        return make_prediction()

    sentinels, _ = make(folder, background)
    for _ in range(16):
        await sentinels.send()
    assert set(sent[:8]) == set(sent[8:]) == {png(number) for number in range(8)}


async def test_an_image_that_fails_is_logged_once_and_counted_each_time(tmp_path, caplog):
    folder = sentinel_folder(tmp_path / "held-out", dog=1)
    (folder / "dog" / "0.png").write_bytes(b"no image")

    async with running(sentinels=None) as server:
        sentinels, monitor = make(folder, server.server.predictor.in_background)
        for _ in range(3):
            await sentinels.send()
    assert monitor.registry.get_sample_value("ibinn_sentinel_failures_total") == 3
    assert caplog.text.count("0.png cannot be classified") == 1
    assert counted(monitor) in {(0, 0, 0), (None, None, None)}


async def test_a_busy_server_costs_a_sentinel_and_no_log_entry(tmp_path, caplog):
    async def background(served, image, *, patience_s):
        raise QueueFullError("the queue is full", retry_after_s=1.0)

    sentinels, monitor = make(sentinel_folder(tmp_path / "held-out", dog=1), background)
    await sentinels.send()
    assert monitor.registry.get_sample_value("ibinn_sentinel_failures_total") == 1
    assert "sentinel" not in caplog.text


async def test_images_of_a_class_that_the_model_does_not_know_are_left_out(tmp_path, caplog):
    async def background(served, image, *, patience_s):
        raise AssertionError("not to be asked")

    sentinels, monitor = make(sentinel_folder(tmp_path / "held-out", zebra=2), background)
    await sentinels.send()
    await sentinels.send()
    assert caplog.text.count("is no class of the model") == 1
    assert counted(monitor) in {(0, 0, 0), (None, None, None)}


async def test_one_worker_of_a_server_sends_and_another_takes_its_place(tmp_path):
    folder = sentinel_folder(tmp_path / "held-out", dog=2)

    async def background(served, image, *, patience_s):
        return make_prediction()

    one, first = make(folder, background, state_dir=tmp_path / "state")
    other, second = make(folder, background, state_dir=tmp_path / "state")
    for sentinels in (one, other, one, other):
        await sentinels.send()
    assert counted(first)[0] == 2
    assert counted(second)[0] is None
    one.close()
    await other.send()
    other.close()
    assert counted(second)[0] == 1


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_without_images_is_refused_at_the_start(tmp_path, exists):
    folder = tmp_path / "held-out"
    if exists:
        folder.mkdir()
    with pytest.raises(ConfigError, match=r"sentinel folder .*held-out"):
        make_watch(sentinels=folder)


def test_hidden_files_are_no_images(tmp_path):
    folder = sentinel_folder(tmp_path / "held-out", dog=1)
    (folder / ".DS_Store").write_bytes(b"")
    (folder / "dog" / ".hidden").write_bytes(b"")
    assert [(found.path.name, found.class_name) for found in read(folder)] == [("0.png", "dog")]


async def test_sentinels_of_a_server_are_in_no_answer_counter_and_no_detector(tmp_path):
    folder = sentinel_folder(tmp_path / "held-out", dog=3)
    model = Calibrated()
    model.prediction = dataclasses.replace(model.prediction, versions=model.info.versions)
    async with running(
        model, sentinels=folder, sentinel_interval_s=0.01, state_dir=tmp_path / "state"
    ) as server:

        def value(name: str) -> float:
            return server.server.monitor.registry.get_sample_value(name, LABEL) or 0.0

        async with asyncio.timeout(30):
            while value("ibinn_sentinels_total") < 5:
                await asyncio.sleep(0.01)
        assert value("ibinn_answered_total") == 0
        assert value("ibinn_sentinel_wrong_total") == 0
        with contextlib.suppress(IndexError):
            assert server.server.drift.state().detectors[0].count == 0
        written = server.server.monitor.registry.get_sample_value(
            "ibinn_records_written_total", {"kind": "answer"}
        )
        assert written == 0
