"""The discriminative baselines of table 5.1 beside the ResNet: a linear head on the invertible
network (i-RevNet), and the deep variational information bottleneck (VIB).

Shapes: B batch, D dimensions of an image, E of a stochastic code, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibinn.flow.architectures import ArchitectureConfig
from ibinn.flow.base import InvertibleNetwork
from training.discriminative import SoftmaxClassifier, resnet

CODE_DIMS = 64
"""E: enough for tens of classes, small beside the features of the encoder."""

BETA = 1e-3
"""Weight of the rate: the best of Alemi et al. 2017 for errors."""


class _Codes(nn.Module):
    """z = g(x) without its Jacobian: what a softmax loss sees of an invertible network."""

    def __init__(self, network: InvertibleNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D)."""
        z: Tensor = self.network(x)[0]
        return z


def linear_head(architecture: ArchitectureConfig, classes: int) -> SoftmaxClassifier:
    """The invertible network with a linear head and a softmax loss (i-RevNet, Jacobsen 2018).

    Nothing in its loss asks for a density, so that it has none worth reading.

    Args:
        architecture: Of the invertible network.
        classes: K.
    """
    network = architecture.build()
    return SoftmaxClassifier(nn.Sequential(_Codes(network), nn.Linear(network.dims, classes)))


class VariationalBottleneck(SoftmaxClassifier):
    """VIB (Alemi et al. 2017): cross-entropy + β KL(N(m, diag s²) ‖ N(0, I)), in nats.

    The encoder gives m and s of a code e ~ N(m, diag s²), and a linear layer classifies e. While
    training, one code is drawn per image from the global generator, as dropout does; for answers
    e = m, so that one image has one answer.

    Args:
        encoder: Images (B, C, H, W) -> (B, 2E), m beside the raw values of s.
        classes: K.
        code_dims: E.
        beta: β.
    """

    def __init__(
        self, encoder: nn.Module, classes: int, *, code_dims: int = CODE_DIMS, beta: float = BETA
    ) -> None:
        super().__init__(encoder)
        self.decoder = nn.Linear(code_dims, classes)
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of the mean code."""
        logits: Tensor = self.decoder(self._code(x)[0])
        return logits

    def loss(self, x: Tensor, labels: Tensor, *, label_smoothing: float) -> tuple[Tensor, Tensor]:
        """(cross-entropy of one drawn code + β·rate, logits (B, K)) of labels (B,)."""
        mean, scale = self._code(x)
        logits = self.decoder(mean + scale * torch.randn_like(mean))
        rate = 0.5 * (mean.square() + scale.square() - 2.0 * scale.log() - 1.0).sum(1).mean()
        error = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        return error + self.beta * rate, logits

    def _code(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.network(x).chunk(2, dim=1)
        # Shifted as published, so that the first codes are nearly certain.
        return mean, F.softplus(raw - 5.0) + 1e-6


def variational_bottleneck(
    classes: int, side: int, *, width: int = 24, code_dims: int = CODE_DIMS, beta: float = BETA
) -> VariationalBottleneck:
    """VIB with the encoder of `training.discriminative.resnet`.

    Args:
        classes: K.
        side: Side of the input in pixels.
        width: Of the encoder's first stage.
        code_dims: E.
        beta: Weight of the rate.
    """
    encoder = resnet(2 * code_dims, side, width=width).network
    return VariationalBottleneck(encoder, classes, code_dims=code_dims, beta=beta)
