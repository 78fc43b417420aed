"""Whole answers of the embedded bundle: what a faster form may change is within stated bounds."""

from __future__ import annotations

import numpy as np
import pytest

from ibinn import bundle
from ibinn.inference import Engine
from ibinn.samples import thumbnails
from ibinn.types import Prediction


@pytest.fixture(scope="module")
def expected() -> list[Prediction]:
    return answers("plain")


def answers(engine: Engine) -> list[Prediction]:
    classifier = bundle.load(bundle.embedded_path(), engine=engine)
    found = classifier.classify([sample.data for sample in thumbnails()])
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("engine", ["folded", "openvino"])
def test_answers_of_the_embedded_bundle_are_those_of_the_plain_form(
    engine: Engine, expected: list[Prediction]
) -> None:
    for got, plain in zip(answers(engine), expected, strict=True):
        ours, theirs = (
            {entry.index: np.log(entry.raw_probability) for entry in answer.classes}
            for answer in (got, plain)
        )
        assert ours == pytest.approx(theirs, abs=1e-3)
        assert got.bits_per_dim == pytest.approx(plain.bits_per_dim, abs=1e-5)
        for ours_test, plain_test in zip(got.tests, plain.tests, strict=True):
            # A score between two calibration scores may move past one on either side.
            step = 2 / (plain.calibration_count + 1)
            assert ours_test.p_value == pytest.approx(plain_test.p_value, abs=step)
        assert got.verdict == plain.verdict
