"""A real network behind the service gives the answers that it gives in the process."""

from __future__ import annotations

import asyncio
import dataclasses

import numpy as np
import pytest
import torch

from ibinn.assessment import Significance
from ibinn.bundle import assemble
from ibinn.classifier import GenerativeClassifier
from ibinn.errors import InvalidImageError
from ibinn.flow.architectures import SmallConfig, to_dict
from ibinn.images import PreprocessingConfig
from ibinn.latent import GaussianMixture, MixtureConfig
from ibinn.manifest import Manifest, Training
from ibinn.trusted import TrustedClassifier
from ibinn.types import Prediction, Verdict
from tests.service.running import running
from tests.service.stub import CLASSES, png


@pytest.fixture
def classifier() -> TrustedClassifier:
    """A small untrained, uncalibrated network."""
    torch.manual_seed(0)
    config = SmallConfig(side=8, widths=(4, 4), blocks=(1, 1))
    network = config.build()
    mixture = MixtureConfig()
    model = GenerativeClassifier(network, GaussianMixture(len(CLASSES), network.dims, mixture))
    preprocessing = PreprocessingConfig(side=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    manifest = Manifest(
        name="tiny",
        architecture=to_dict(config),
        mixture=dataclasses.asdict(mixture),
        preprocessing=preprocessing.to_dict(),
        classes=CLASSES,
        taxonomy_version="1",
        alpha=0.01,
        conformal_coverage=0.95,
        intended_use="tests",
        training_data="none",
        training=Training(
            command="none", seconds=0.0, machine="any", config={}, split_sha256={}, libraries={}
        ),
    )
    return assemble(manifest, model, None, settings=Significance(alpha=0.01, coverage=0.95))


def assert_same(remote: Prediction, local: Prediction) -> None:
    assert remote.receipt is not None
    assert [score.name for score in remote.classes] == [score.name for score in local.classes]
    for got, want in zip(remote.classes, local.classes, strict=True):
        assert got.probability == pytest.approx(want.probability, abs=1e-5)
        assert got.log_likelihood == pytest.approx(want.log_likelihood, abs=1e-2)
    assert remote.bits_per_dim == pytest.approx(local.bits_per_dim, abs=1e-4)
    assert (remote.verdict, remote.reason) == (local.verdict, local.reason)
    assert (remote.input, remote.versions) == (local.input, local.versions)


async def test_service_and_library_answer_alike(classifier: TrustedClassifier) -> None:
    images = [png(value, width=20, height=12) for value in range(0, 250, 50)]
    async with running() as run:
        await run.server.load(lambda: classifier)
        remote = await asyncio.gather(*(run.client.classify(image) for image in images))
        explained = await run.client.explain(images[0])
        assert await run.client.model() == classifier.info
        with pytest.raises(InvalidImageError, match="empty"):
            await run.client.classify(b"")
    for answer, image in zip(remote, images, strict=True):
        assert answer.verdict is Verdict.NOT_ASSESSED
        local = classifier.classify(image)
        assert isinstance(local, Prediction)
        assert_same(answer, local)
    local_explanation = classifier.explain(images[0])
    assert_same(explained.prediction, local_explanation.prediction)
    np.testing.assert_array_equal(explained.image, local_explanation.image)
    for heatmap in explained.heatmaps:
        assert heatmap.completeness_error < 1e-3
        assert heatmap.values.sum() == pytest.approx(heatmap.log_posterior, abs=1e-3)
