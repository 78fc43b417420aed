"""What is measured: IB-INN-50 of a thousand classes with random weights, its bundle, photographs.

Shapes: D = 150,528 dimensions, K = 1000 classes.
"""

from __future__ import annotations

import dataclasses
import io
import math
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from ibinn import bundle, samples
from ibinn.classifier import Evidence, GenerativeClassifier, gather_evidence
from ibinn.flow.architectures import to_dict
from ibinn.flow.base import InvertibleNetwork, Observed
from ibinn.flow.ib_inn_50 import IbInn50Config
from ibinn.flow.mixing import SoftplusActNorm
from ibinn.images import Preprocessing, PreprocessingConfig
from ibinn.latent import MixtureConfig, Subspaces
from ibinn.manifest import Manifest, Training
from ibinn.reference import Reference
from tests.ibinn.networks import random_mixture, randomise
from training.calibrate import calibrate
from training.image_set import ImageSet

CLASSES = 1000
ARCHITECTURE = IbInn50Config(pooling="published")
MIXTURE = MixtureConfig(rank=128, class_dims=3072)
PREPROCESSING = PreprocessingConfig(
    side=ARCHITECTURE.side,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    shorter_side=256,
    levels=255,
)
MULTIPLY_ADDS = 6.917e9
"""In the convolutions of one pass over one 224×224 image (held by a test of the architecture)."""

JPEG_QUALITY = 90
CALIBRATION_IMAGES = 64


def model() -> GenerativeClassifier:
    """The released size with random weights, in evaluation mode, laid out as it is loaded.

    Act-norms are set by the photographs, so that latent codes have the size of a trained network's:
    without, they grow to thousands, and float32 alone is off by more than the agreement asked for.
    """
    network = ARCHITECTURE.build()
    randomise(network)
    made = GenerativeClassifier(network, random_mixture(CLASSES, network.dims, MIXTURE)).eval()
    made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    made.requires_grad_(requires_grad=False)
    _normalise(network, inputs(len(photographs())))
    return made


@torch.no_grad()
def _normalise(network: InvertibleNetwork, x: Tensor) -> None:
    """Let each act-norm give channels of mean 0 and variance 1 for these images, in one pass."""

    def set_by(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, SoftplusActNorm)
        deviation, mean = torch.std_mean(arguments[0], dim=(0, 2, 3))
        wanted = 1.0 / deviation.clamp_min(1e-3)
        # The inverse of 0.1 softplus(raw, beta=0.5).
        layer.raw_scale.copy_((5.0 * wanted.double()).expm1().log().mul(2.0))
        layer.offset.copy_(-mean * layer.scale)

    norms = [layer for layer in network.modules() if isinstance(layer, SoftplusActNorm)]
    hooks = [layer.register_forward_pre_hook(set_by) for layer in norms]
    network.observe(x)
    for hook in hooks:
        hook.remove()


def preprocessing() -> Preprocessing:
    """That of the released networks."""
    return Preprocessing(PREPROCESSING)


@cache
def photographs() -> tuple[bytes, ...]:
    """Photographs as JPEG of quality 90 at their own sizes, 300 to 640 pixels a side."""
    found = []
    for sample in samples.photographs():
        buffer = io.BytesIO()
        image = Image.open(io.BytesIO(sample.data)).convert("RGB")
        image.save(buffer, format="JPEG", quality=JPEG_QUALITY)
        found.append(buffer.getvalue())
    return tuple(found)


def inputs(count: int) -> Tensor:
    """Preprocessed photographs in turn, then mirrored, (count, 3, 224, 224)."""
    steps = preprocessing()
    pixels = [steps.fit_size(np.asarray(Image.open(io.BytesIO(data)))) for data in photographs()]
    pixels += [np.ascontiguousarray(image[:, ::-1]) for image in pixels]
    chosen = np.stack([pixels[i % len(pixels)] for i in range(count)])
    return steps.to_tensor(torch.from_numpy(chosen))


def write_bundle(made: GenerativeClassifier, folder: Path, *, calibrated: bool) -> None:
    """A bundle of the model, its calibration drawn at random if there is one.

    Scores calibrated so mean nothing; they cost what real ones cost.
    """
    found = Manifest(
        name="ib-inn-50-random",
        architecture=to_dict(ARCHITECTURE),
        mixture=dataclasses.asdict(MIXTURE),
        preprocessing=PREPROCESSING.to_dict(),
        classes=tuple(f"class {k}" for k in range(CLASSES)),
        taxonomy_version="1",
        alpha=0.05,
        conformal_coverage=0.9,
        intended_use="Benchmarks.",
        training_data="None: random weights.",
        training=Training(
            command="none", seconds=0.0, machine="any", config={}, split_sha256={}, libraries={}
        ),
    )
    bundle.save(found, made, drawn_calibration(made) if calibrated else None, folder)


def drawn_calibration(made: GenerativeClassifier) -> Reference:
    """A calibration on latent codes drawn at random: no network has to run for it."""
    rng = np.random.default_rng(0)
    noise: npt.NDArray[np.uint8] = rng.integers(
        0, 256, (2 * CALIBRATION_IMAGES, 8, 8, 3), dtype=np.uint8
    )
    images = ImageSet.from_array(
        noise,
        class_names=[f"class {k}" for k in range(CLASSES)],
        labels=rng.integers(0, CLASSES, len(noise)),
        name="noise",
    )
    stand_in = _Drawn(made.network, made.mixture).eval()
    halves = (
        images.subset(range(CALIBRATION_IMAGES)),
        images.subset(range(CALIBRATION_IMAGES, len(images))),
    )
    small = Preprocessing(dataclasses.replace(PREPROCESSING, side=8, shorter_side=None))
    return calibrate(stand_in, small, *halves)


class _Drawn(GenerativeClassifier):
    """The classifier, but for its pass: latent codes of random classes, spread as N(0, I)."""

    def evidence(
        self,
        x: Tensor,
        *,
        subspaces: Subspaces,
        preprocessing_log_det: float,
        encoded_bytes: Tensor,
    ) -> Evidence:
        count = len(x)
        labels = torch.randint(0, CLASSES, (count,))
        stages = len(self.network.stage_names)
        scale = math.sqrt(self.mixture.dims)
        drawn = Observed(
            z=self.mixture.sample(labels),
            stage_log_dets=scale * torch.randn(count, stages),
            activations=0.3 * torch.randn(count, self.network.observed_channels),
        )
        return gather_evidence(
            drawn,
            subspaces=subspaces,
            preprocessing_log_det=preprocessing_log_det,
            encoded_bytes=encoded_bytes,
        )
