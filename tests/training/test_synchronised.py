"""Batch norm and dropout of two processes are those of one with all images."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from tests.training.one_of_two import PARTS, inputs, make_norm, one_of_two, through
from training.placed import PlacedDropout, noise, place_dropout
from training.synchronised import SynchronisedBatchNorm, synchronise_batch_norm


def test_two_processes_normalise_as_one_with_all_images(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(one_of_two, (str(tmp_path),), nprocs=PARTS)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(PARTS)]
    x, grad = inputs()
    norm = make_norm()
    expected = through(norm, x, grad)
    for name in ("y", "x"):
        joined = torch.cat([part[name] for part in parts])
        torch.testing.assert_close(joined, expected[name], rtol=1e-5, atol=1e-4)
    for name in ("weight", "bias"):
        # Left to the exchange of gradients, as those of all parameters.
        torch.testing.assert_close(
            sum(part[name] for part in parts), expected[name], rtol=1e-4, atol=1e-4
        )
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        for part in parts:
            torch.testing.assert_close(part[name], expected[name], rtol=1e-5, atol=1e-6)
    low = torch.cat([part["low y"] for part in parts])
    assert low.dtype is torch.bfloat16
    in_evaluation = norm.eval()(x)
    torch.testing.assert_close(torch.cat([part["alone"] for part in parts]), in_evaluation)
    torch.manual_seed(4)
    dropped = nn.Dropout2d(0.5)(x)
    assert torch.equal(torch.cat([part["dropped"] for part in parts]), dropped)


def test_names_of_weights_stay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.2))
    before = list(model.state_dict())
    synchronise_batch_norm(model)
    place_dropout(model, rank=0, world_size=1)
    assert list(model.state_dict()) == before
    assert isinstance(model[1], SynchronisedBatchNorm)
    assert isinstance(model[2], PlacedDropout)


def test_dropout_of_one_process_is_torchs_own() -> None:
    x = torch.randn(6, 5)
    for module, placed in (
        (nn.Dropout(0.3), PlacedDropout(0.3, channels=False, rank=0, world_size=1)),
        (nn.Dropout2d(0.3), PlacedDropout(0.3, channels=True, rank=0, world_size=1)),
    ):
        images = x if isinstance(module, nn.Dropout) else x[:, :, None, None]
        torch.manual_seed(1)
        expected = module(images)
        torch.manual_seed(1)
        assert torch.equal(placed(images), expected)
        assert torch.equal(placed.eval()(images), images)


def test_noise_depends_on_the_place_in_the_step_alone() -> None:
    cpu = torch.device("cpu")
    whole = noise(0, 8, (3, 4, 4), seed=5, device=cpu)
    parts = [noise(first, 2, (3, 4, 4), seed=5, device=cpu) for first in range(0, 8, 2)]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(noise(0, 8, (3, 4, 4), seed=6, device=cpu), whole)
    assert 0.0 <= float(whole.min()) < float(whole.max()) < 1.0
