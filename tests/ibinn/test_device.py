"""The same answers on an accelerator as on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ibinn import bundle


@pytest.mark.gpu
def test_answers_on_cuda_equal_those_on_the_cpu(embedded_bundle: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    on_cpu = bundle.load(embedded_bundle).score(images)
    on_cuda = bundle.load(embedded_bundle, device="cuda").score(images)
    np.testing.assert_allclose(
        np.log(on_cuda.probabilities), np.log(on_cpu.probabilities), atol=1e-2
    )
    np.testing.assert_allclose(on_cuda.bits_per_dim, on_cpu.bits_per_dim, rtol=1e-4)
    assert on_cuda.verdicts == on_cpu.verdicts


@pytest.mark.gpu
def test_heatmaps_on_cuda_add_up(embedded_bundle: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    classifier = bundle.load(embedded_bundle, device="cuda")
    assert classifier.completeness_errors(images).max() < 1e-3
