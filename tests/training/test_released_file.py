"""Reading a checkpoint runs nothing of it, and damage is told."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ibinn.errors import CheckpointError
from tests.training.released import content_of, made_model, write_checkpoint
from training import released_file
from training.released_file import read_tensors
from training.released_model import tensors_of


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("whole") / "beta_1.avg.pt")


class _Creates:
    """Unpickled without care, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def test_scratch_and_optimizer_are_left_out(whole: Path) -> None:
    assert list(read_tensors(whole)) == list(tensors_of(made_model()))


def test_a_file_of_the_older_format_is_read_alike(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    content = content_of(tensors_of(made_model()))
    torch.save(content, path, _use_new_zipfile_serialization=False)
    new, old = read_tensors(whole), read_tensors(path)
    assert list(new) == list(old)
    assert all(torch.equal(new[key], old[key]) for key in new)


@pytest.mark.parametrize("newer", [True, False], ids=["zip", "older format"])
def test_a_file_that_was_written_on_an_accelerator_is_read_without_one(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, newer: bool
) -> None:
    path = tmp_path / "cuda.pt"
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
        content = content_of(tensors_of(made_model()))
        torch.save(content, path, _use_new_zipfile_serialization=newer)
    assert b"cuda:0" in path.read_bytes()
    here, there = read_tensors(whole), read_tensors(path)
    assert all(torch.equal(here[key], there[key]) for key in here)


@pytest.mark.parametrize("newer", [True, False], ids=["zip", "older format"])
@pytest.mark.parametrize("place", ["inn", "mu", "opt"])
def test_a_foreign_class_is_refused_by_name_and_nothing_is_run(
    tmp_path: Path, newer: bool, place: str
) -> None:
    made = tmp_path / "made"
    content = content_of(tensors_of(made_model()), **{place: _Creates(made)})
    path = tmp_path / "foreign.pt"
    torch.save(content, path, _use_new_zipfile_serialization=newer)
    with pytest.raises(CheckpointError, match=r"holds posix\.mkdir, .* nothing of it was run"):
        read_tensors(path)
    assert not made.exists()


@pytest.mark.parametrize("share", [0.001, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("newer", [True, False], ids=["zip", "older format"])
def test_a_truncated_file_is_refused(
    whole: Path, tmp_path: Path, share: float, newer: bool
) -> None:
    path = tmp_path / "cut.pt"
    if newer:
        data = whole.read_bytes()
    else:
        content = content_of(tensors_of(made_model()))
        torch.save(content, path, _use_new_zipfile_serialization=False)
        data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read_tensors(path)


def test_a_flipped_bit_is_refused_with_the_entry_it_is_in(whole: Path, tmp_path: Path) -> None:
    data = bytearray(whole.read_bytes())
    with zipfile.ZipFile(whole) as archive:
        entry = max(archive.infolist(), key=lambda info: info.file_size)
    name, extra = struct.unpack("<HH", data[entry.header_offset + 26 : entry.header_offset + 30])
    data[entry.header_offset + 30 + name + extra + 5] ^= 1
    path = tmp_path / "flipped.pt"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=f"entry {entry.filename} .* checksum"):
        read_tensors(path)


def test_a_compressed_archive_is_refused(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "packed.pt"
    with (
        zipfile.ZipFile(whole) as archive,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for info in archive.infolist():
            packed.writestr(info.filename, archive.read(info))
    with pytest.raises(CheckpointError, match="compressed or overlap"):
        read_tensors(path)


def test_a_folder_nothing_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a file"):
        read_tensors(tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        read_tensors(tmp_path / "none.pt")
    (tmp_path / "empty.pt").touch()
    with pytest.raises(CheckpointError, match="is empty"):
        read_tensors(tmp_path / "empty.pt")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "page.pt"
    path.write_text("<html>not found</html>")
    with pytest.raises(CheckpointError, match=r"not a file of torch\.save"):
        read_tensors(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read_tensors(path)


def test_a_file_over_the_limit_is_refused(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(released_file, "MAX_BYTES", 1000)
    with pytest.raises(CheckpointError, match="the limit is 1,000"):
        read_tensors(whole)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list; expected a dict with inn"),
        ({"inn": {}, "mu": torch.zeros(1)}, "entry 'mu_t' is missing"),
        ({"state_dict": {}}, "entry 'inn' is missing; found 'state_dict'"),
    ],
)
def test_content_of_another_shape_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "other.pt"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=message):
        read_tensors(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ema": torch.zeros(1)}, "entry 'ema' is not known"),
        ({"inn": [torch.zeros(1)]}, "entry 'inn' is a list"),
        ({"inn": {"a": 3}}, "'a' is a int; expected a dense tensor"),
        ({"inn": {"a": torch.eye(3).to_sparse()}}, "'a' is a torch.sparse_coo"),
        ({"inn": {"a": torch.zeros(1).expand(10**9, 10)}}, "'a' of shape .* no values of its own"),
    ],
)
def test_entries_that_are_no_network_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "other.pt"
    torch.save(content_of(tensors_of(made_model()), **changes), path)
    with pytest.raises(CheckpointError, match=message):
        read_tensors(path)


def test_tensors_that_share_one_storage_many_times_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "inflated.pt"
    one = torch.zeros(300_000)
    torch.save(content_of(tensors_of(made_model()), inn={str(i): one for i in range(20)}), path)
    with pytest.raises(CheckpointError, match="larger than the file"):
        read_tensors(path)
