"""One forward pass and everything that answers derive from."""

import math

import pytest
import torch

from ibinn.classifier import GenerativeClassifier
from ibinn.latent import MixtureConfig
from tests.ibinn.networks import CONFIGS, SIDE, evidence_of, random_classifier

LOG_DET = 12.5
MIXTURES = {
    "full": MixtureConfig(),
    "learned weights": MixtureConfig(learned_weights=True),
    "low rank": MixtureConfig(rank=3, class_dims=20, learned_weights=True),
}


@pytest.fixture(params=[(a, m) for a in CONFIGS for m in MIXTURES], ids=" with ".join)
def model(request) -> GenerativeClassifier:
    architecture, mixture = request.param
    return random_classifier(CONFIGS[architecture], mixture=MIXTURES[mixture])


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(7, 3, SIDE, SIDE)


def test_an_image_has_the_same_evidence_alone_and_among_others(model, images):
    # Random heads push codes so far out that log-posteriors are hundreds of nats: float32 keeps
    # about seven digits of them.
    among = evidence_of(model, images, log_det=LOG_DET)
    for i in range(len(images)):
        alone = evidence_of(model, images[i : i + 1], log_det=LOG_DET)
        torch.testing.assert_close(
            alone.log_posterior()[0], among.log_posterior()[i], rtol=5e-6, atol=1e-4
        )
        torch.testing.assert_close(alone.log_q_x[0], among.log_q_x[i], rtol=1e-6, atol=1e-3)


def test_the_order_of_a_batch_does_not_matter(model, images):
    forwards, backwards = evidence_of(model, images), evidence_of(model, images.flip(0))
    torch.testing.assert_close(
        forwards.log_posterior(), backwards.log_posterior().flip(0), rtol=5e-6, atol=1e-4
    )


def test_logits_and_class_likelihoods_give_the_same_posterior(model, images):
    evidence = evidence_of(model, images, log_det=LOG_DET)
    joint = evidence.class_log_likelihoods + model.mixture.log_weights.double()
    torch.testing.assert_close(evidence.logits.softmax(1), joint.softmax(1), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(joint.logsumexp(1), evidence.log_q_x)


def test_likelihoods_are_the_mixtures_and_the_networks(model, images):
    evidence = evidence_of(model, images, log_det=LOG_DET)
    z, log_det = model(images)
    torch.testing.assert_close(evidence.z, z)
    torch.testing.assert_close(evidence.log_det, log_det.double() + LOG_DET, rtol=1e-6, atol=1e-4)
    wide = model.mixture.double()
    torch.testing.assert_close(evidence.log_q_z, wide.log_prob(z.double()))
    torch.testing.assert_close(evidence.log_q_x, evidence.log_q_z + evidence.log_det)
    torch.testing.assert_close(evidence.mean_products, wide.mean_products(z.double()))
    torch.testing.assert_close(evidence.stage_log_dets.sum(1) + LOG_DET, evidence.log_det)


def test_subspaces_add_up_to_the_latent_density(model, images):
    evidence = evidence_of(model, images)
    torch.testing.assert_close(
        evidence.subspaces.log_q_class + evidence.subspaces.log_q_style,
        evidence.log_q_z,
        rtol=1e-10,
        atol=1e-8,
    )


def test_bits_per_dim_are_those_of_the_likelihood(model, images):
    evidence = evidence_of(model, images, log_det=LOG_DET)
    dims = 3 * SIDE**2
    torch.testing.assert_close(
        evidence.bits_per_dim, 8.0 - evidence.log_q_x / (dims * math.log(2.0))
    )


def test_scores_are_float64_and_carry_no_gradient(model, images):
    evidence = evidence_of(model, images)
    assert len(evidence) == 7
    for name in ("log_det", "logits", "class_log_likelihoods", "log_q_x", "bits_per_dim"):
        value = getattr(evidence, name)
        assert value.dtype == torch.float64, name
        assert not value.requires_grad, name


def test_temperature_divides_the_log_odds(model, images):
    evidence = evidence_of(model, images)
    cold, warm = evidence.log_posterior(), evidence.log_posterior(temperature=2.5)
    torch.testing.assert_close(cold.diff(dim=1), 2.5 * warm.diff(dim=1))
    torch.testing.assert_close(warm.exp().sum(1), torch.ones(7, dtype=torch.float64))


def test_samples_are_images_whose_codes_lie_at_their_class(model):
    labels = torch.tensor([0, 2])
    images = model.sample(labels, temperature=0.0)
    assert images.shape == (2, 3, SIDE, SIDE)
    z, _ = model(images)
    torch.testing.assert_close(z, model.mixture.dense_means()[labels], rtol=1e-3, atol=1e-3)
