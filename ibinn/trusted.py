"""The classifier that people use: images in, answers with their trust in them out.

Shapes: B batch, S side of the network's input, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, TypeGuard, cast, overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from ibinn.assessment import Ranking, Scores, Significance, predictions, score
from ibinn.classifier import Evidence, GenerativeClassifier, gather_evidence, images_at_once
from ibinn.errors import ImageError, NotExplainableError, UnknownClassError
from ibinn.explain.decision_space import decision_spaces
from ibinn.explain.heatmap import CellMeans, completeness_error, posterior_heatmaps
from ibinn.explain.similarity import mean_distances, nearby_classes
from ibinn.flow.base import InvertibleNetwork
from ibinn.images import (
    ImageLike,
    ImagePreparer,
    Limits,
    PreparedImage,
    Preprocessing,
    open_image,
    png_size,
)
from ibinn.ood.registry import Statistic, statistics_of
from ibinn.ood.statistics import StatisticContext
from ibinn.reference import Reference
from ibinn.types import Explanation, Heatmap, ModelInfo, Prediction, Versions

if TYPE_CHECKING:
    from ibinn.inference import InferenceForm

Pixels = npt.NDArray[np.uint8]

NEARBY = 5
"""Classes near the most probable one in an explanation."""

RECEPTIVE_FIELD = "receptive_field_px"
"""Figure of a bundle: radius that holds half of what a heatmap's cell responds to, in pixels."""

CHUNK = 64
"""Images per forward pass, at most; more only costs memory."""


class TrustedClassifier:
    """A calibrated generative classifier with its preprocessing; `ibinn.bundle.load` makes it.

    Thread-safe: what explanations need is made once, at the first of them; else nothing changes
    after construction.

    Args:
        model: Network and mixture, in evaluation mode on its device.
        preprocessing: The one preprocessing of training and serving.
        reference: Calibration, or None: every verdict is then NOT_ASSESSED.
        significance: Settings that answers are made under.
        info: Description of the model.
        limits: Largest images accepted.
        measured: Figures of the bundle by name, such as the coverage of its prediction sets.
        form: The network as answers are computed with it (`ibinn.inference`); None: as it is.

    Example:
        >>> from ibinn import bundle
        >>> classifier = bundle.load(bundle.embedded_path())
        >>> answer = classifier.classify(np.zeros((32, 32, 3), np.uint8))
        >>> answer.verdict
        <Verdict.UNKNOWN: 'UNKNOWN'>
    """

    def __init__(
        self,
        *,
        model: GenerativeClassifier,
        preprocessing: Preprocessing,
        reference: Reference | None,
        significance: Significance,
        info: ModelInfo,
        limits: Limits,
        measured: Mapping[str, float] | None = None,
        form: InferenceForm | None = None,
    ) -> None:
        self.model = model
        self.form = form
        self.preprocessing = preprocessing
        self.reference = reference
        self.significance = significance
        self.info = info
        self.limits = limits
        self._measured = dict(measured or {})
        network = model.network
        self._subspaces = model.mixture.subspaces()
        self._cell_means: CellMeans | None = None
        self._making_cell_means = Lock()
        self._mean_distances = mean_distances(self._subspaces)
        self._context = StatisticContext.of(
            model.mixture,
            self._subspaces,
            network.heatmap_shape,
            reference.fitted if reference else None,
        )
        self.statistics: tuple[Statistic, ...] = statistics_of(network)
        self._ranking = Ranking.of(self.statistics, reference) if reference else None

    @property
    def network(self) -> InvertibleNetwork:
        """g: preprocessed images (B, 3, S, S) -> (z (B, D), log|det J| (B,)); has an inverse."""
        return self.model.network

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.model.mixture.means.device

    @property
    def computed_by(self) -> str:
        """What computes the network's pass, in words: an engine, and what making its form took."""
        if self.form is None:
            return "plain"
        return f"{self.form.engine} (made in {self.form.seconds:.2f} s)"

    @property
    def versions(self) -> Versions:
        """Digests of weights, calibration and settings."""
        return self.info.versions

    @property
    def preparer(self) -> ImagePreparer:
        """What turns encoded bytes into this model's input; works without the model."""
        return ImagePreparer(config=self.preprocessing.config, limits=self.limits)

    def prepare(self, image: ImageLike) -> PreparedImage:
        """Open, check and preprocess one image; CPU only.

        Raises:
            ImageError: The image is not readable or over a limit.
        """
        return self.preprocessing.prepare(open_image(image, self.limits))

    def evidence(self, prepared: Sequence[PreparedImage]) -> Evidence:
        """One forward pass over prepared images."""
        pixels = np.stack([image.pixels for image in prepared])
        sizes = [image.encoded_bytes for image in prepared]
        return self._evidence(pixels, sizes)

    def assess(self, prepared: Sequence[PreparedImage]) -> list[Prediction]:
        """Answers for prepared images, one forward pass per `CHUNK` of them."""
        answers: list[Prediction] = []
        for chunk in self._chunks(prepared):
            answers += self._predictions(self.evidence(chunk), chunk)
        return answers

    def explain_prepared(
        self, prepared: Sequence[PreparedImage], classes: Sequence[str] | None = None
    ) -> list[Explanation]:
        """Answers with heatmaps of the probability shown.

        Args:
            prepared: From `prepare`.
            classes: Names of the classes to explain; None: each image's three most probable.

        Raises:
            UnknownClassError: A class that the model does not have.
            NotExplainableError: This network has no heatmap.
        """
        names = self.info.classes
        for name in classes or ():
            if name not in names:
                raise UnknownClassError(
                    f"class is {name!r}; this model has: {', '.join(names)}; choose among them"
                )
        if not self.info.explainable:
            raise NotExplainableError(
                f"architecture {self.info.architecture!r} mixes all positions after its last "
                "feature map; expected one that ends in DCT pooling; ask for the answer alone"
            )
        explanations: list[Explanation] = []
        for chunk in self._chunks(prepared):
            evidence = self.evidence(chunk)
            maps = self._heatmaps(evidence)
            log_posterior = evidence.log_posterior(temperature=self._temperature).cpu().numpy()
            values = maps.cpu().numpy()
            spaces = decision_spaces(
                evidence,
                subspaces=self._subspaces,
                class_names=names,
                temperature=self._temperature,
            )
            for i, answer in enumerate(self._predictions(evidence, chunk)):
                wanted = classes if classes else [c.name for c in answer.classes[:3]]
                explanations.append(
                    Explanation(
                        prediction=answer,
                        heatmaps=tuple(
                            _heatmap(name, values[i, k], float(log_posterior[i, k]))
                            for name in wanted
                            for k in (names.index(name),)
                        ),
                        image=chunk[i].pixels,
                        nearby=nearby_classes(
                            self._mean_distances, names, answer.top.name, count=NEARBY
                        ),
                        receptive_field_px=self._measured.get(RECEPTIVE_FIELD),
                        decision_space=spaces[i],
                    )
                )
        return explanations

    @overload
    def classify(self, images: Sequence[ImageLike]) -> list[Prediction]: ...
    @overload
    def classify(self, images: ImageLike) -> Prediction | list[Prediction]: ...
    def classify(self, images: ImageLike | Sequence[ImageLike]) -> Prediction | list[Prediction]:
        """Classify one image or many.

        Args:
            images: A path, bytes, PIL image or uint8 array (H, W, 3) for one answer; a sequence
                of these or a uint8 array (B, H, W, 3) for a list.

        Raises:
            ImageError: An image is not readable or over a limit; the message says which one.
        """
        if _is_one(images):
            return self.assess([self.prepare(images)])[0]
        return self.assess(self._prepare_all(cast(Sequence[ImageLike], images)))

    def explain(self, image: ImageLike, classes: Sequence[str] | None = None) -> Explanation:
        """Answer and heatmaps for one image; see `explain_prepared`."""
        return self.explain_prepared([self.prepare(image)], classes)[0]

    def score(self, pixels: Pixels) -> Scores:
        """Numbers behind the answers for finished pixels, for evaluation and calibration.

        Args:
            pixels: uint8 (B, S, S, 3), already through `Preprocessing.finish`.
        """
        return self._score(self._evidence(pixels, [png_size(image) for image in pixels]))

    def completeness_errors(self, pixels: Pixels) -> npt.NDArray[np.float64]:
        """max_y |Σ heatmap - log q(y|x)| per image of finished pixels (B,), nats."""
        evidence = self._evidence(pixels, [0] * len(pixels))
        errors = completeness_error(
            self._heatmaps(evidence), evidence.log_posterior(temperature=self._temperature)
        )
        return errors.cpu().numpy()

    def round_trip_errors(self, pixels: Pixels) -> npt.NDArray[np.float64]:
        """Largest |image - inverse(network(image))| per image (B,), in units of pixel range."""
        with torch.no_grad():
            x = self._tensor(pixels)
            back, _ = self.network.inverse(self.network(x)[0])
            std = torch.tensor(self.preprocessing.config.std).view(1, -1, 1, 1).to(x)
            errors = ((back - x) * std).abs().flatten(1).amax(1)
        result: npt.NDArray[np.float64] = errors.double().cpu().numpy()
        return result

    def sample(
        self, class_name: str, count: int, *, temperature: float = 1.0, seed: int = 0
    ) -> Pixels:
        """Images that the model makes of a class, uint8 (count, S, S, 3) (figure 5.9)."""
        if class_name not in self.info.classes:
            raise UnknownClassError(
                f"class is {class_name!r}; this model has: {', '.join(self.info.classes)}"
            )
        generator = torch.Generator(device=self.device).manual_seed(seed)
        labels = torch.full((count,), self.info.classes.index(class_name), device=self.device)
        x = self.model.sample(labels, temperature=temperature, generator=generator)
        return self.preprocessing.to_pixels(x)

    @property
    def _temperature(self) -> float:
        return self.reference.temperature if self.reference else 1.0

    def _prepare_all(self, images: Sequence[ImageLike]) -> list[PreparedImage]:
        prepared = []
        for position, image in enumerate(images):
            try:
                prepared.append(self.prepare(image))
            except ImageError as error:
                raise type(error)(f"image {position}: {error}", field=error.field) from error
        return prepared

    def _chunks(self, prepared: Sequence[PreparedImage]) -> Iterator[Sequence[PreparedImage]]:
        size = images_at_once(self.network.dims, most=CHUNK)
        for start in range(0, len(prepared), size):
            yield prepared[start : start + size]

    def _tensor(self, pixels: Pixels) -> Tensor:
        return self.preprocessing.to_tensor(torch.from_numpy(pixels).to(self.device))

    def _evidence(self, pixels: Pixels, encoded_bytes: Sequence[int]) -> Evidence:
        with torch.no_grad():
            observed = (self.form or self.network).observe(self._tensor(pixels))
        return gather_evidence(
            observed,
            subspaces=self._subspaces,
            preprocessing_log_det=self.preprocessing.log_det,
            encoded_bytes=torch.tensor(encoded_bytes, dtype=torch.float64, device=self.device),
        )

    def _score(self, evidence: Evidence) -> Scores:
        return score(
            evidence,
            statistics=self.statistics,
            context=self._context,
            reference=self.reference,
            significance=self.significance,
            ranking=self._ranking,
        )

    def _predictions(
        self, evidence: Evidence, prepared: Sequence[PreparedImage]
    ) -> list[Prediction]:
        return predictions(
            self._score(evidence),
            [image.input for image in prepared],
            statistics=self.statistics,
            reference=self.reference,
            significance=self.significance,
            class_names=self.info.classes,
            versions=self.info.versions,
            measured=self._measured,
        )

    def _heatmaps(self, evidence: Evidence) -> Tensor:
        return posterior_heatmaps(
            evidence,
            cells=self._cells(),
            subspaces=self._subspaces,
            temperature=self._temperature,
        )

    def _cells(self) -> CellMeans:
        # A second's work for a thousand classes, and needed by explanations only.
        with self._making_cell_means:
            if self._cell_means is None:
                self._cell_means = CellMeans.of(self.model.mixture, self.network.heatmap_shape)
            return self._cell_means


def _heatmap(name: str, values: npt.NDArray[np.float64], log_posterior: float) -> Heatmap:
    return Heatmap(
        class_name=name,
        values=values,
        log_posterior=log_posterior,
        completeness_error=abs(float(values.sum()) - log_posterior),
    )


def _is_one(images: ImageLike | Sequence[ImageLike]) -> TypeGuard[ImageLike]:
    if isinstance(images, np.ndarray):
        return images.ndim != 4
    return isinstance(images, str | bytes | os.PathLike | Image.Image)
