"""Tensors are views into a file's bytes, and bytes that are no whole file are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from ibinn import tensor_file
from ibinn.errors import DataError


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    return {
        "weights": torch.randn(3, 5),
        "half": torch.randn(7).half(),
        "order": torch.arange(4),
        "scalar": torch.tensor(2.5),
        "none": torch.zeros(0, 3),
        "flags": torch.tensor([True, False, True]),
    }


def file_of(header: object, data: bytes = b"") -> bytearray:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return bytearray(len(text).to_bytes(8, "little") + text + data)


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_tensors_are_those_that_the_library_reads(tensors: dict[str, Tensor]) -> None:
    data = save(tensors, metadata={"note": "left out"})
    found, expected = tensor_file.views(bytearray(data)), load(data)
    assert found.keys() == expected.keys() == tensors.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
        assert found[name].dtype is value.dtype


def test_tensors_share_the_memory_of_the_bytes() -> None:
    buffer = bytearray(save({"a": torch.zeros(1000), "b": torch.ones(10)}))
    found = tensor_file.views(buffer)
    buffer[-4:] = bytes(torch.tensor([7.0]).numpy().tobytes())
    last = max(found.values(), key=Tensor.data_ptr)
    assert last[-1] == 7.0
    storages = {value.untyped_storage().data_ptr() for value in found.values()}
    assert len(storages) == 1


def test_tensors_at_odd_places_are_read_too() -> None:
    header = {"a": entry("U8", [1], [0, 1]), "b": entry("F32", [1], [1, 5])}
    found = tensor_file.views(file_of(header, b"\x05" + torch.tensor([1.5]).numpy().tobytes()))
    assert (found["a"].item(), found["b"].item()) == (5, 1.5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytearray(b""), "ends after 0 bytes, inside of its header"),
        (bytearray(b"\xff" * 20), "inside of its header"),
        (file_of(b"{"), "not readable as JSON"),
        (file_of(b"[1]"), "is a JSON list; expected an object"),
        (file_of(b"\xff\xfe"), "not readable as JSON"),
        (file_of(b"[" * 100_000), "not readable as JSON"),
        (file_of({"a": 3}), "'a' lacks data_offsets"),
        (file_of({"a": entry(offsets=[8, 0])}, bytes(8)), "'a' lacks data_offsets"),
        (file_of({"a": entry(offsets=["0", "8"])}, bytes(8)), "'a' lacks data_offsets"),
        (file_of({"a": entry("F31")}, bytes(8)), "'a' is of type 'F31'; expected one of F64"),
        (file_of({"a": entry(["F32"])}, bytes(8)), "'a' is of type"),
        (file_of({"a": entry(shape="2")}, bytes(8)), "'a' has shape '2'"),
        (file_of({"a": entry(shape=[-2])}, bytes(8)), "'a' has shape"),
        (file_of({"a": entry(shape=[3])}, bytes(8)), r"'a' has 8 bytes .* takes 12"),
        (file_of({"a": entry()}, bytes(7)), r"'a' has 8 bytes up to byte"),
        (file_of({"a": entry()}, bytes(9)), "its header speaks of"),
        (file_of({"a": entry(offsets=[4, 12])}, bytes(12)), "begins at byte 4 of the data, not 0"),
        (file_of({"a": entry(), "b": entry()}, bytes(8)), "begins at byte 0 of the data, not 8"),
    ],
)
def test_what_is_no_whole_file_is_refused(content: bytearray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        tensor_file.views(content)


def test_a_written_file_is_the_librarys_and_for_whoever_may_read_new_files(
    tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    path, other = tmp_path / "tensors.safetensors", tmp_path / "other"
    path.write_bytes(b"an older file")
    path.chmod(0o400)
    tensor_file.write(tensors, path)
    other.touch()
    assert path.read_bytes() == save(tensors)
    assert path.stat().st_mode == other.stat().st_mode
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name, other.name}
