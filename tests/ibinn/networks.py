"""Small networks with random weights for the laws: nothing in them is the identity."""

import torch
from torch import Tensor, nn

from ibinn.classifier import GenerativeClassifier
from ibinn.flow.architectures import ArchitectureConfig, CifarConfig, SmallConfig
from ibinn.flow.ib_inn_50 import IbInn50Config
from ibinn.flow.mixing import ActNorm, SoftplusActNorm
from ibinn.latent import GaussianMixture, MixtureConfig

SIDE = 8
SMALL = SmallConfig(side=SIDE, widths=(6, 8), blocks=(2, 2), initial_scale=1.0)
CIFAR = CifarConfig(side=SIDE, blocks=(1, 2, 1), widths=(4, 5, 6), hidden=16, initial_scale=1.0)
IB_INN_50 = IbInn50Config(side=SIDE, width=4, blocks=(2, 2), strides=(1, 2), pooling="published")
CONFIGS: dict[str, ArchitectureConfig] = {
    "small": SMALL,
    "cifar": CIFAR,
    "ib-inn-50": IB_INN_50,
}


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights, biases, batch-norm statistics and act-norms of scale about 1; evaluation
    mode. Layers that start at zero no longer do. Rotations and permutations stay."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: Tensor, scale: float, mean: float = 0.0) -> None:
        drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        tensor.copy_(mean + scale * drawn)

    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                normal(layer.weight, 1.5 * layer.weight[0].numel() ** -0.5)
                if layer.bias is not None:
                    normal(layer.bias, 0.3)
            elif isinstance(layer, nn.BatchNorm2d):
                normal(layer.weight, 0.2, mean=1.0)
                normal(layer.bias, 0.2)
                normal(layer.running_mean, 0.2)
                normal(layer.running_var, 0.2)
                layer.running_var.exp_()
            elif isinstance(layer, ActNorm):
                normal(layer.log_scale, 0.1)
                normal(layer.offset, 0.2)
            elif isinstance(layer, SoftplusActNorm):
                # A raw step of 1 changes the log-scale by about 0.1.
                normal(layer.raw_scale, 1.0, mean=10.0)
                normal(layer.offset, 0.2)
    return module.eval()


def random_mixture(classes: int, dims: int, config: MixtureConfig | None = None, seed: int = 1):
    """A mixture with random means of length about 5/sqrt(2) and, if learned, random weights."""
    generator = torch.Generator().manual_seed(seed)
    mixture = GaussianMixture(classes, dims, config, generator=generator)
    with torch.no_grad():
        if mixture.config.rank is not None:
            mixture.mean_weights.normal_(0.0, 2.0, generator=generator)
        if mixture.config.learned_weights:
            mixture.phi.normal_(0.0, 1.0, generator=generator)
    return mixture


def random_classifier(
    config: ArchitectureConfig = SMALL,
    *,
    classes: int = 4,
    mixture: MixtureConfig | None = None,
    seed: int = 0,
) -> GenerativeClassifier:
    """An untrained classifier whose every layer does something, in evaluation mode."""
    network = config.build()
    randomise(network, seed)
    return GenerativeClassifier(network, random_mixture(classes, network.dims, mixture)).eval()


def evidence_of(model: GenerativeClassifier, x: Tensor, *, log_det: float = 0.0):
    """Evidence of preprocessed images whose encodings are 100, 101, ... bytes long."""
    return model.evidence(
        x,
        subspaces=model.mixture.subspaces(),
        preprocessing_log_det=log_det,
        encoded_bytes=torch.arange(100, 100 + len(x)),
    )
