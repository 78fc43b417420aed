"""The softmax classifier beside ours: the same data, about the same time."""

from __future__ import annotations

import time

import pytest
import torch

from ibinn.images import Preprocessing
from tests.training.tiny_runs import digits, tiny_config
from training.baseline import resnet, train_baseline


@pytest.mark.parametrize(("side", "features"), [(32, 4), (128, 4)])
def test_small_images_keep_their_resolution_in_the_first_layer(side: int, features: int) -> None:
    network = resnet(10, side).eval()
    seen = {}
    network.get_submodule("layer4").register_forward_hook(
        lambda _module, _input, output: seen.update(side=output.shape[-1])
    )
    with torch.no_grad():
        assert network(torch.zeros(1, 3, side, side)).shape == (1, 10)
    assert seen["side"] == features


def test_a_baseline_is_trained_for_its_time_and_tested_on_every_image() -> None:
    config = tiny_config(batch_size=32)
    images, test = digits().subset(range(400)), digits().subset(range(400, 460))
    started = time.monotonic()
    baseline = train_baseline(
        images,
        test,
        Preprocessing(config.preprocessing),
        config,
        seconds=1.0,
        device=torch.device("cpu"),
    )
    assert 1.0 <= baseline.train_seconds <= time.monotonic() - started
    assert baseline.accuracy.count == 60
    assert baseline.accuracy.value is not None
    assert "steps of 32 images" in baseline.description
