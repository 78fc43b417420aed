"""Maps of what in an image speaks for a class: the exact heatmap, captum's methods, and controls.

All explain the same number, the calibrated log q(y|x) that an answer shows, with the network in
evaluation mode. Shapes: B batch, K classes, S side of the input, H x W cells of the last feature
map; maps are (B, S, S) float64, high = speaks for the class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import IntegratedGradients, LayerGradCam, Saliency
from torch import Tensor, nn
from torch.nn import functional as F

from ibinn.classifier import Evidence, GenerativeClassifier
from ibinn.errors import NotExplainableError
from ibinn.explain.heatmap import CellMeans, posterior_heatmaps
from training.faithfulness import FloatArray, Images, IntArray, blurred

BATCH = 64
"""Images per forward pass; captum's passes hold as many."""


class LogPosterior(nn.Module):
    """x -> log q(y|x) at a temperature, (B, C, S, S) -> (B, K), differentiable in x.

    Args:
        model: In evaluation mode; its network ends in DCT pooling.
        temperature: T of the posterior that is explained.
    """

    def __init__(self, model: GenerativeClassifier, *, temperature: float) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.last_map = nn.Identity()
        """The last feature map (B, C', H, W) passes through it: where GradCAM looks."""

    def forward(self, x: Tensor) -> Tensor:
        layers = list(self.model.network.layers)
        for layer in layers[:-1]:
            x, _ = layer(x)
        z, _ = layers[-1](self.last_map(x))
        return torch.log_softmax(self.model.mixture.logits(z) / self.temperature, dim=1)


class Subject:
    """A model whose answers are explained.

    Args:
        model: Network and mixture.
        temperature: Of the calibrated posterior.

    Attributes:
        cells: H and W of the last feature map.
        log_posterior: What captum's methods differentiate.

    Raises:
        NotExplainableError: Something other than the pooling follows the last feature map.
    """

    def __init__(self, model: GenerativeClassifier, *, temperature: float) -> None:
        if model.network.heatmap_shape is None:
            raise NotExplainableError(
                "this network mixes all positions after its last feature map; expected one that "
                "ends in DCT pooling, such as 'small'"
            )
        self.model = model.eval()
        self.temperature = temperature
        self.log_posterior = LogPosterior(model, temperature=temperature).eval()
        self.cells: tuple[int, int] = model.network.heatmap_shape[:2]
        self._subspaces = model.mixture.subspaces()
        self._cell_means = CellMeans.of(model.mixture, model.network.heatmap_shape)

    def tensor(self, array: npt.NDArray[np.generic]) -> Tensor:
        """An array on the model's device."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.model.mixture.means.device)

    def log_probabilities(self, images: Images) -> FloatArray:
        """Calibrated log q(y|x) (B, K), as answers have it."""
        with torch.no_grad():
            rows = [
                self._evidence(part).log_posterior(temperature=self.temperature)
                for part in self.tensor(images).split(BATCH)
            ]
        return _array(torch.cat(rows))

    def probability(self, images: Images, classes: IntArray) -> FloatArray:
        """q(class|image) (B,)."""
        rows = self.log_probabilities(images)
        return np.exp(rows[np.arange(len(rows)), classes])

    def heatmaps(self, images: Images) -> FloatArray:
        """Exact heatmaps Q (B, K, H, W) of every class, nats."""
        with torch.no_grad():
            rows = [
                posterior_heatmaps(
                    self._evidence(part),
                    cells=self._cell_means,
                    subspaces=self._subspaces,
                    temperature=self.temperature,
                )
                for part in self.tensor(images).split(BATCH)
            ]
        return _array(torch.cat(rows))

    def _evidence(self, x: Tensor) -> Evidence:
        return self.model.evidence(
            x,
            subspaces=self._subspaces,
            preprocessing_log_det=0.0,
            encoded_bytes=torch.zeros(len(x), dtype=torch.float64, device=x.device),
        )


class Baseline(Enum):
    """Where the path of integrated gradients starts."""

    BLURRED = "the blurred image"
    MEAN = "the mean colour"


class Sign(Enum):
    """What becomes of negative relevance."""

    SIGNED = "signed"
    POSITIVE = "positive part"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What captum's methods leave open; chosen on validation images.

    Attributes:
        pixels: Baseline of Integrated Gradients.
        cells: The same where its relevance is summed over cells.
        gradcam: Sign of GradCAM.
    """

    pixels: Baseline
    cells: Baseline
    gradcam: Sign


HEATMAP = "heatmap"
LOG_ODDS = "log_odds"
PIXELS = "integrated_gradients"
CELLS = "integrated_gradients_cells"
GRADCAM = "gradcam"

LABELS: Mapping[str, str] = MappingProxyType(
    {
        HEATMAP: "exact heatmap",
        LOG_ODDS: "exact log-odds to the runner-up",
        PIXELS: "Integrated Gradients",
        CELLS: "Integrated Gradients, summed over cells",
        GRADCAM: "GradCAM",
        "saliency": "Saliency",
        "centre": "centre, knows nothing",
        "random": "random cells, know nothing",
    }
)
"""Every method that is compared, in the order of tables."""


def maps_of(
    subject: Subject,
    images: Images,
    classes: IntArray,
    options: Options,
    *,
    steps: int,
    seed: int = 0,
) -> dict[str, FloatArray]:
    """Maps (B, S, S) of every method in `LABELS`.

    Args:
        subject: Whose log q(y|x) is explained.
        images: Preprocessed images (B, C, S, S).
        classes: y (B,).
        options: Of captum's methods.
        steps: Of the path of Integrated Gradients.
        seed: Of the random maps.
    """
    paths = {
        baseline: integrated_gradients(subject, images, classes, baseline, steps=steps)[0]
        for baseline in {options.pixels, options.cells}
    }
    return {
        HEATMAP: heatmap(subject, images, classes),
        LOG_ODDS: log_odds(subject, images, classes),
        PIXELS: paths[options.pixels],
        CELLS: over_cells(paths[options.cells], subject.cells),
        GRADCAM: gradcam(subject, images, classes, options.gradcam),
        "saliency": saliency(subject, images, classes),
        "centre": centre(len(images), images.shape[-1]),
        "random": random_cells(len(images), images.shape[-1], subject.cells, seed=seed),
    }


def heatmap(subject: Subject, images: Images, classes: IntArray) -> FloatArray:
    """Q(k, l, y) less its mean share log q(y|x)/(HW), enlarged bilinearly."""
    found = subject.heatmaps(images)[np.arange(len(images)), classes]
    return enlarged(deviations(found), images.shape[-1])


def log_odds(subject: Subject, images: Images, classes: IntArray) -> FloatArray:
    """Q(y) - Q(y'), y' the most probable other class, less its mean, enlarged bilinearly."""
    found = subject.heatmaps(images)
    totals = found.sum(axis=(2, 3))
    rows = np.arange(len(images))
    totals[rows, classes] = -np.inf
    odds = found[rows, classes] - found[rows, totals.argmax(axis=1)]
    return enlarged(deviations(odds), images.shape[-1])


def deviations(cells: FloatArray) -> FloatArray:
    """Cells (B, H, W) minus each map's mean: what a cell adds beyond an even share."""
    result: FloatArray = cells - cells.mean(axis=(1, 2), keepdims=True)
    return result


def enlarged(cells: FloatArray, side: int) -> FloatArray:
    """(B, H, W) -> (B, S, S), bilinear."""
    found = F.interpolate(
        torch.from_numpy(cells)[:, None], size=(side, side), mode="bilinear", align_corners=False
    )
    return _array(found[:, 0])


def integrated_gradients(
    subject: Subject, images: Images, classes: IntArray, baseline: Baseline, *, steps: int
) -> tuple[FloatArray, FloatArray]:
    """Integrated Gradients (Sundararajan et al. 2017), summed over channels.

    Args:
        subject: Whose log q(y|x) is explained.
        images: (B, C, S, S).
        classes: y (B,).
        baseline: Where the path starts.
        steps: Points of the Gauss-Legendre rule.

    Returns:
        Maps (B, S, S), and how far each one's sum is from log q(y|x) - log q(y|baseline), (B,).
    """
    start = np.zeros_like(images) if baseline is Baseline.MEAN else blurred(images)
    method = IntegratedGradients(subject.log_posterior)
    maps, errors = [], []
    for part in _parts(len(images)):
        found, delta = method.attribute(
            subject.tensor(images[part]),
            baselines=subject.tensor(start[part]),
            target=subject.tensor(classes[part]),
            n_steps=steps,
            internal_batch_size=2 * BATCH,
            return_convergence_delta=True,
        )
        maps.append(_array(found.sum(1)))
        errors.append(_array(delta))
    return np.concatenate(maps), np.concatenate(errors)


def saliency(subject: Subject, images: Images, classes: IntArray) -> FloatArray:
    """Largest |∂ log q(y|x)/∂x| over the channels (Simonyan et al. 2014)."""
    method = Saliency(subject.log_posterior)
    return np.concatenate(
        [
            _array(
                method.attribute(
                    subject.tensor(images[part]).requires_grad_(),
                    target=subject.tensor(classes[part]),
                ).amax(1)
            )
            for part in _parts(len(images))
        ]
    )


def gradcam(
    subject: Subject, images: Images, classes: IntArray, sign: Sign = Sign.POSITIVE
) -> FloatArray:
    """GradCAM (Selvaraju et al. 2017) of the last feature map before the pooling."""
    module = subject.log_posterior
    method = LayerGradCam(module, module.last_map)
    maps = [
        _array(
            method.attribute(
                subject.tensor(images[part]),
                target=subject.tensor(classes[part]),
                relu_attributions=sign is Sign.POSITIVE,
            )[:, 0]
        )
        for part in _parts(len(images))
    ]
    return enlarged(np.concatenate(maps), images.shape[-1])


def centre(count: int, side: int) -> FloatArray:
    """A bump in the middle of every image: where photographers put things, without looking."""
    offset = (np.arange(side) + 0.5) / side - 0.5
    bump = np.exp(-8.0 * (offset[:, None] ** 2 + offset[None, :] ** 2))
    return np.repeat(bump[None], count, axis=0)


def random_cells(count: int, side: int, cells: tuple[int, int], *, seed: int = 0) -> FloatArray:
    """Random values per cell, enlarged as the heatmap is: its smoothness without its content."""
    return enlarged(np.random.default_rng(seed).standard_normal((count, *cells)), side)


def over_cells(maps: FloatArray, cells: tuple[int, int]) -> FloatArray:
    """Maps (B, S, S) summed over H x W cells and enlarged again as the heatmap is."""
    count, side, _ = maps.shape
    height, width = cells
    blocks = maps.reshape(count, height, side // height, width, side // width)
    return enlarged(blocks.sum(axis=(2, 4)), side)


def _parts(count: int) -> list[slice]:
    return [slice(start, start + BATCH) for start in range(0, count, BATCH)]


def _array(tensor: Tensor) -> FloatArray:
    result: FloatArray = tensor.detach().double().cpu().numpy()
    return result
