"""A checkpoint is whole or refused, and nothing in it is run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from ibinn.errors import CheckpointError
from training import checkpoint as checkpoints
from training.checkpoint import Checkpoint, CurvePoint, OpenPoint

POINT = CurvePoint(
    step=3,
    epoch=0.1,
    loss=0.1 + 0.2,
    nll_per_dim=-2.0,
    log_posterior=-1.0,
    accuracy=0.5,
    learning_rate=1e-3,
    images_per_s=100.0,
)


def make_checkpoint(step: int = 3) -> Checkpoint:
    torch.manual_seed(step)
    layer = torch.nn.Linear(50, 50)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.randn(2, 50)).sum().backward()
    optimizer.step()
    return Checkpoint(
        config_digest="c" * 64,
        split_digest="s" * 64,
        step=step,
        seconds=12.5,
        model=layer.state_dict(),
        average={},
        optimizer=optimizer.state_dict(),
        curve=(POINT, dataclasses.replace(POINT, step=4, validation_accuracy=0.75)),
        open_point=OpenPoint(figures=(0.1, 0.2, 0.3, 4.0), images=8, waited_s=0.5, seconds=1.5),
        memory="checkpoint",
    )


def test_a_checkpoint_reads_back_to_the_bit(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    written = make_checkpoint()
    checkpoints.save(written, path)
    found = checkpoints.load(path)
    same = ("config_digest", "split_digest", "step", "seconds", "average", "curve")
    for name in (*same, "open_point", "memory"):
        assert getattr(found, name) == getattr(written, name)
    for name, value in written.model.items():
        assert torch.equal(found.model[name], value)
    for key, entries in written.optimizer["state"].items():
        for name, value in entries.items():
            assert torch.equal(found.optimizer["state"][key][name], value)
    assert found.optimizer["param_groups"] == written.optimizer["param_groups"]
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_checkpoint_of_an_earlier_version_is_at_a_point(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoints.save(make_checkpoint(), path)
    content = torch.load(path)
    del content["open_point"], content["memory"]
    torch.save(content, path)
    found = checkpoints.load(path)
    assert (found.open_point, found.memory) == (OpenPoint(), "store")


def test_an_interrupted_write_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoints.save(make_checkpoint(3), path)

    def half(content: Any, file: Any) -> None:
        file.write(b"PK half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(make_checkpoint(4), path)
    assert checkpoints.load(path).step == 3


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoints.save(make_checkpoint(), path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (b"", b"text", whole[:-100], whole[: len(whole) // 2], bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(
            CheckpointError, match=r"checkpoint\.pt: not a readable checkpoint .*delete it"
        ):
            checkpoints.load(path)


def test_another_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save({"format": 99}, path)
    with pytest.raises(CheckpointError, match="checkpoint format is 99, expected 1; resume with"):
        checkpoints.load(path)
    torch.save({"format": 1, "step": 3}, path)
    with pytest.raises(CheckpointError, match="config_digest"):
        checkpoints.load(path)


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": 1, "step": Payload()}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError):
        checkpoints.load(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "executed").exists()
