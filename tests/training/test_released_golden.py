"""The published reference network's own numbers, held against ours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ibinn.classifier import GenerativeClassifier
from ibinn.flow.ib_inn_50 import IbInn50Config
from ibinn.objective import class_nll, information_bottleneck
from tests.training.released import bits_equal
from training.released_file import read_tensors
from training.released_layout import class_permutation, rest_order
from training.released_model import Remainder, model_of, sizes_of, tensors_of

POOLED, CHANNELS = 4, 192
REFERENCE_POOLING = POOLED**2 * CHANNELS * math.log(0.5)
TRUE_POOLING = -2282.508


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    tensors: dict[str, Tensor]
    model: GenerativeClassifier
    remainder: Remainder
    vectors: dict[str, Tensor]
    z: Tensor
    log_det: Tensor


@pytest.fixture(scope="module")
def golden(shared_dir: Path) -> Golden:
    tensors = read_tensors(shared_dir / "golden" / "reference_tiny.avg.pt")
    imported = model_of(tensors)
    model, remainder = imported.model, imported.remainder
    with np.load(shared_dir / "golden" / "reference_tiny.npz") as file:
        vectors = {name: torch.from_numpy(np.asarray(file[name])) for name in file}
    with torch.no_grad():
        z, log_det = model(vectors["x"])
    return Golden(
        tensors=tensors,
        model=model,
        remainder=remainder,
        vectors=vectors,
        z=z,
        log_det=log_det,
    )


def reported_log_det(golden: Golden) -> Tensor:
    """What the reference reports: its own figure for the pooling in place of the true one."""
    with torch.no_grad():
        _, stages = golden.model.network.forward_by_stage(golden.vectors["x"])
    return stages[:, :-1].double().sum(1) + REFERENCE_POOLING


def test_sizes_come_from_the_tensors(golden: Golden) -> None:
    sizes = sizes_of(golden.tensors)
    assert sizes.architecture == IbInn50Config(
        side=32, width=16, blocks=(2, 1, 1, 1), strides=(1, 2, 1, 1), pooling="published"
    )
    assert (sizes.classes, sizes.mixture.rank, sizes.mixture.class_dims) == (10, 4, 192)


def test_latent_codes_are_the_references(golden: Golden) -> None:
    class_code = golden.z[:, class_permutation(192)]
    rest = golden.z[:, 192:][:, rest_order(CHANNELS, POOLED, 192)]
    assert (class_code - golden.vectors["z_fc"]).abs().max() <= 1e-5
    assert (rest - golden.vectors["z_conv"]).abs().max() <= 1e-5


def test_log_posteriors_are_the_references(golden: Golden) -> None:
    with torch.no_grad():
        ours = golden.model.mixture.logits(golden.z).log_softmax(1)
    theirs = golden.vectors["logits"].double().log_softmax(1)
    assert (ours - theirs).abs().max() <= 1e-4


def test_logits_with_the_squared_norm_are_the_references(golden: Golden) -> None:
    wide = golden.z.double()
    with torch.no_grad():
        distance = golden.model.mixture.double().class_log_likelihoods(wide)
    golden.model.mixture.float()
    constant = -0.5 * golden.model.mixture.dims * math.log(2.0 * math.pi)
    assert torch.allclose(distance - constant, golden.vectors["logits"].double(), rtol=1e-5)


def test_log_det_is_the_references_where_its_pooling_is_counted_and_the_true_one_here(
    golden: Golden,
) -> None:
    reported = reported_log_det(golden)
    assert torch.allclose(reported, golden.vectors["log_det"].double(), rtol=1e-6, atol=0.0)
    true = golden.log_det.double() - reported
    assert torch.allclose(
        true, torch.full((4,), TRUE_POOLING - REFERENCE_POOLING).double(), atol=0.02
    )


def test_log_det_of_the_pooling_is_that_of_its_matrix(golden: Golden) -> None:
    pooling = golden.model.network.layers[-1]
    identity = torch.eye(POOLED**2, dtype=torch.float64).view(-1, 1, POOLED, POOLED)
    matrix, _ = pooling.double()(identity.expand(-1, CHANNELS, -1, -1))
    pooling.float()
    one_channel = matrix.view(POOLED**2, POOLED**2, CHANNELS)[:, :, 0]
    true = CHANNELS * torch.linalg.slogdet(one_channel).logabsdet
    assert float(true) == pytest.approx(TRUE_POOLING, abs=1e-3)


def test_the_three_losses_are_the_references(golden: Golden) -> None:
    log_det = reported_log_det(golden).float()
    targets = golden.vectors["soft_targets"]
    mixture = golden.model.mixture
    with torch.no_grad():
        terms = information_bottleneck(mixture, golden.z, log_det, targets, gamma=1.0)
        by_class = class_nll(mixture, golden.z, log_det, targets)
    # Ours count the uniform weights of the classes.
    prior = math.log(mixture.classes) / mixture.dims
    assert float(terms.nll_per_dim) - prior == pytest.approx(
        float(golden.vectors["nll_joint"]), rel=1e-5
    )
    assert float(by_class.loss) - prior == pytest.approx(
        float(golden.vectors["nll_class"]), rel=1e-5
    )
    assert -float(terms.log_posterior) == pytest.approx(float(golden.vectors["cat_ce"]), rel=1e-5)


def test_the_tensors_come_back_bit_by_bit(golden: Golden) -> None:
    back = tensors_of(golden.model, Remainder.from_json(golden.remainder.to_json()))
    assert list(back) == list(golden.tensors)
    assert [k for k in back if not bits_equal(back[k], golden.tensors[k])] == []
