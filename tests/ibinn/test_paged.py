"""Paged memory keeps what it is given, also when its pages are taken, and says where it cannot."""

from __future__ import annotations

import errno
import gc
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ibinn import bundle, paged, weights
from ibinn.inference import Engine
from ibinn.paged import ALIGNMENT, PagedMemory
from ibinn.trusted import TrustedClassifier
from tests.ibinn.bundles import write_bundle
from tests.ibinn.networks import CONFIGS, random_classifier

MIB = 1 << 20


def resident_files() -> int:
    """Bytes of files that are in this process's memory."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssFile"))


def test_arrays_come_back_from_the_file_after_their_pages_were_taken() -> None:
    memory = PagedMemory(40 * MIB)
    before = resident_files()
    given = np.random.default_rng(0).random((5, MIB // 2))
    stored = memory.store(given)
    assert resident_files() - before < MIB  # not in memory before it is looked at
    assert np.array_equal(stored, given)
    assert resident_files() - before > 19 * MIB
    memory.give_back()
    assert resident_files() - before < MIB
    assert np.array_equal(stored, given)


def test_arrays_keep_shape_type_order_and_alignment() -> None:
    memory = PagedMemory(1 << 16)
    for given in (
        np.arange(5, dtype=np.int64),
        np.float32(3.5),
        np.zeros((0, 3), np.float16),
        np.arange(12.0).reshape(3, 4).T,
        np.array([True, False]),
    ):
        stored = memory.store(given)
        assert (stored.shape, stored.dtype) == (np.shape(given), np.asarray(given).dtype)
        assert np.array_equal(stored, given)
        assert stored.ctypes.data % ALIGNMENT == 0
        assert stored.flags.c_contiguous


def test_an_array_outlives_the_memory_it_lies_in() -> None:
    memory = PagedMemory(1 << 16)
    stored = memory.store(np.arange(1000))
    del memory
    gc.collect()
    assert np.array_equal(stored, np.arange(1000))


def test_what_has_no_room_stays_where_it_is() -> None:
    memory = PagedMemory(100)
    given = np.arange(10)
    assert not np.shares_memory(memory.store(given), given)
    assert np.shares_memory(memory.store(given), given)


def test_a_full_disk_is_told_once_and_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    memory = PagedMemory(MIB)
    first = memory.store(np.arange(10))

    def full(_file: int, _content: memoryview, _place: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(paged.os, "pwrite", full)
    given = np.arange(20)
    for _ in range(3):
        assert np.shares_memory(memory.store(given), given)
    assert caplog.text.count("weights stay in memory") == 1
    assert "No space left" in caplog.text
    assert np.array_equal(first, np.arange(10))


def test_short_writes_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite
    monkeypatch.setattr(
        paged.os, "pwrite", lambda file, content, place: write(file, content[:1000], place)
    )
    memory = PagedMemory(MIB)
    assert np.array_equal(memory.store(np.arange(5000)), np.arange(5000))


def test_without_a_folder_for_temporary_files_there_is_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    assert paged.room(MIB) is None
    assert "no temporary file can be made" in caplog.text


@pytest.mark.parametrize("name", CONFIGS)
def test_a_moved_model_is_the_same_and_holds_nothing_else(name: str) -> None:
    model = random_classifier(CONFIGS[name], classes=10)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    memory = PagedMemory(weights.size_of(model))
    weights.move_to(memory, model)
    memory.give_back()
    storages = {value.untyped_storage().data_ptr() for value in model.state_dict().values()}
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
        assert value.dtype is before[key].dtype, key
    assert max(storages) - min(storages) < memory.size


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_bundle(tmp_path)
    return tmp_path


def test_large_models_are_paged_and_answer_the_same(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    engines: list[Engine] = ["openvino", "folded", "auto", "plain"]
    expected = {engine: bundle.load(folder, engine=engine) for engine in engines}
    rooms: list[PagedMemory] = []

    def room(size: int) -> PagedMemory:
        rooms.append(PagedMemory(size))
        return rooms[-1]

    monkeypatch.setattr(bundle, "PAGED_BYTES", 0)
    monkeypatch.setattr(paged, "room", room)
    for engine in engines:
        found: TrustedClassifier = bundle.load(folder, engine=engine)
        assert bool(rooms) == (engine != "plain")
        rooms.clear()
        plain = expected[engine]
        assert np.array_equal(found.score(pixels).logits, plain.score(pixels).logits)
        assert found.round_trip_errors(pixels).max() < 1e-4
        assert found.info == plain.info
