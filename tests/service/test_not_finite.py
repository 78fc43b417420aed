"""What is not finite is not assessed: behind the real server, with a network that is broken."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from ibinn import bundle
from ibinn.classifier import Evidence
from ibinn.deciding import DecidingClassifier
from ibinn.errors import BundleFormatError
from ibinn.ood.registry import Statistic
from ibinn.ood.statistics import StatisticContext
from ibinn.trusted import TrustedClassifier
from ibinn.types import Action, Prediction, Verdict
from tests.ibinn.bundles import make_manifest, make_model, make_reference, write_bundle
from tests.ibinn.test_deciding import digit_policy
from tests.service.running import running
from tests.service.stub import png

IMAGES = [png(value, width=20, height=12) for value in (0, 100, 200)]


@pytest.fixture
def classifier(tmp_path: Path) -> TrustedClassifier:
    """A calibrated classifier of its own for each test, to be broken."""
    write_bundle(tmp_path)
    return bundle.load(tmp_path)


async def ask(classifier: object) -> list[Prediction]:
    async with running() as run:
        await run.server.load(lambda: classifier)
        found = await asyncio.gather(*(run.client.classify(image) for image in IMAGES))
        assert run.metric("ibinn_verdicts_total", verdict="NOT_ASSESSED") == len(IMAGES)
        assert run.metric("ibinn_verdicts_total", verdict="NOT_FLAGGED") == 0
        assert run.metric("ibinn_requests_total", method="Classify", code="OK") == len(IMAGES)
    return found


def break_weight(classifier: TrustedClassifier, position: int, value: float) -> None:
    with torch.no_grad():
        tensor = list(classifier.model.parameters())[position]
        tensor[(0,) * tensor.dim()] = value


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
# The last parameter, the means, is copied when the model is loaded; an infinite weight of the
# first convolution may be clamped to something finite.
@pytest.mark.parametrize(("position", "value"), [(0, math.nan), (-2, math.nan), (-2, math.inf)])
async def test_network_that_breaks_in_use_is_never_not_flagged(
    classifier: TrustedClassifier, position: int, value: float
) -> None:
    break_weight(classifier, position, value)
    for answer in await ask(classifier):
        assert answer.verdict is Verdict.NOT_ASSESSED
        assert answer.reason.startswith("Not finite for this image: ")
        assert answer.observed_accuracy is None
        assert answer.combined is not None
        assert (answer.combined.p_value, answer.combined.flagged) == (None, False)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
async def test_class_means_that_break_in_use_are_never_not_flagged(
    classifier: TrustedClassifier,
) -> None:
    # Parameter and the copy that was made of it when the model was loaded.
    break_weight(classifier, -1, math.nan)
    classifier._subspaces.means.wide[0, 0] = math.nan
    for answer in await ask(classifier):
        assert answer.verdict is Verdict.NOT_ASSESSED


def with_broken(statistics: Sequence[Statistic], name: str, value: float) -> tuple[Statistic, ...]:
    def compute(evidence: Evidence, context: StatisticContext) -> torch.Tensor:
        return torch.full((len(evidence),), value, dtype=torch.float64)

    return tuple(
        dataclasses.replace(statistic, compute=compute) if statistic.name == name else statistic
        for statistic in statistics
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
async def test_statistic_that_is_not_finite_is_named_on_the_wire(
    classifier: TrustedClassifier, value: float
) -> None:
    sound = classifier.statistics
    for statistic in {s.group: s for s in sound}.values():  # one of each group
        classifier.statistics = with_broken(sound, statistic.name, value)
        for answer in await ask(DecidingClassifier(classifier, digit_policy())):
            assert answer.verdict is Verdict.NOT_ASSESSED
            assert answer.reason == f"Not finite for this image: {statistic.name}."
            named = [test for test in answer.tests if test.name.startswith(f"{statistic.name}.")]
            assert named
            assert [(test.p_value, test.flagged) for test in named] == [(None, False)] * len(named)
            assert answer.decision is not None
            assert (answer.decision.action, answer.decision.rule) == (Action.DEFER, "not_assessed")
            assert statistic.name in answer.decision.reason


async def test_explanation_of_a_broken_network_is_an_answer_too(
    classifier: TrustedClassifier,
) -> None:
    break_weight(classifier, 0, math.nan)
    async with running() as run:
        await run.server.load(lambda: classifier)
        explained = await run.client.explain(IMAGES[0])
    assert explained.prediction.verdict is Verdict.NOT_ASSESSED
    assert not np.isfinite(explained.heatmaps[0].values).all()


def test_weights_that_are_not_finite_are_not_loaded(tmp_path: Path) -> None:
    for position in (0, -1):
        model = make_model()
        with torch.no_grad():
            tensor = list(model.parameters())[position]
            tensor[(0,) * tensor.dim()] = math.nan
        bundle.save(make_manifest(), model, make_reference(), tmp_path)
        with pytest.raises(BundleFormatError, match="holds values that are not finite"):
            bundle.load(tmp_path)


@pytest.mark.parametrize("seed", range(3))
async def test_corrupted_bytes_crash_nothing(classifier: TrustedClassifier, seed: int) -> None:
    """Bytes of good images, flipped at random: an answer or INVALID_ARGUMENT, nothing else."""
    rng = np.random.default_rng(seed)
    codes = ("OK", "INVALID_ARGUMENT")
    async with running() as run:
        await run.server.load(lambda: classifier)
        for _ in range(40):
            data = bytearray(IMAGES[1])
            for place in rng.integers(0, len(data), rng.integers(1, 6)):
                data[place] ^= int(rng.integers(1, 256))
            await asyncio.gather(run.client.classify(bytes(data)), return_exceptions=True)
        counted = sum(
            value
            for (name, labels), value in (await run.scrape()).items()
            if name == "ibinn_requests_total" and dict(labels)["code"] in codes
        )
        assert counted == 40
        assert (await run.client.classify(IMAGES[0])).verdict is not Verdict.NOT_ASSESSED
