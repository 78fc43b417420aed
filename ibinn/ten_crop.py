"""10-crop: the mean posterior over ten views of an image, at ten times the cost.

Four corners and the centre, each with its mirror image; the posteriors are averaged, as in the
released code (the thesis's text says the logits). Verdicts and heatmaps are of the one full view:
crops are enlarged, so their densities are not those of calibration.

Where the preprocessing resizes the shorter side, the views are the standard ones: windows of the
network's size out of the resized original. Else they are windows of `CROP_SHARE` of the fitted
image, enlarged.

Shapes: N images, H and W of an original, S side of the network's input, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from ibinn.errors import DataError
from ibinn.images import Preprocessing
from ibinn.trusted import TrustedClassifier

FloatArray = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]

CROP_SHARE = 0.875
"""Side of a crop as a share of the side of the image."""

VIEWS = 10
"""Views of an image, and so the factor by which the cost grows."""

_BATCH = 10


def ten_crops(image: Pixels, preprocessing: Preprocessing) -> Pixels:
    """The ten views of an image, through the rest of the preprocessing.

    Args:
        image: uint8 (S, S, 3), before the JPEG step; where the preprocessing resizes the shorter
            side, the original (H, W, 3).
        preprocessing: That of the model; its filter resizes the crops.

    Returns:
        uint8 (10, S, S, 3): top left, top right, bottom left, bottom right and centre, then their
        mirror images.

    Raises:
        DataError: The image is not of the network's size, or no image.
    """
    if preprocessing.config.shorter_side is None:
        views = _enlarged(image, preprocessing)
    elif image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise DataError(f"image has shape {image.shape}; 10-crop expects (H, W, 3)")
    else:
        views = preprocessing.five_windows(image)
    views += [np.ascontiguousarray(view[:, ::-1]) for view in views]
    return np.stack([preprocessing.finish(view) for view in views])


def _enlarged(image: Pixels, preprocessing: Preprocessing) -> list[Pixels]:
    side = preprocessing.config.side
    if image.shape != (side, side, 3):
        raise DataError(
            f"image has shape {image.shape}; 10-crop expects {(side, side, 3)}: use "
            "`Preprocessing.fit_size` first"
        )
    crop = max(1, round(CROP_SHARE * side))
    far, middle = side - crop, (side - crop) // 2
    corners = ((0, 0), (0, far), (far, 0), (far, far), (middle, middle))
    return [
        preprocessing.fit_size(image[top : top + crop, left : left + crop]) for top, left in corners
    ]


@torch.no_grad()
def ten_crop_probabilities(
    classifier: TrustedClassifier, images: Pixels | Sequence[Pixels]
) -> FloatArray:
    """Mean calibrated posterior over the ten views.

    The temperature is that of single views: the mean of ten posteriors is less sure than each.

    Args:
        classifier: The model.
        images: uint8 (N, S, S, 3), or (S, S, 3) for one, before the JPEG step; where the
            preprocessing resizes the shorter side, originals (H, W, 3) in a sequence.

    Returns:
        Shape (N, K), or (K,) for one; rows add up to 1.

    Raises:
        DataError: The images are not of the network's size.
    """
    if isinstance(images, np.ndarray) and images.ndim == 3:
        one: FloatArray = ten_crop_probabilities(classifier, images[None])[0]
        return one
    temperature = classifier.reference.temperature if classifier.reference else 1.0
    found = np.empty((len(images), len(classifier.info.classes)))
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        views = np.concatenate([ten_crops(image, classifier.preprocessing) for image in batch])
        pixels = torch.from_numpy(views).to(classifier.device)
        z, _ = classifier.network(classifier.preprocessing.to_tensor(pixels))
        logits = classifier.model.mixture.logits(z)
        posteriors = torch.softmax(logits.double() / temperature, dim=1).cpu().numpy()
        found[start : start + len(batch)] = posteriors.reshape(len(batch), VIEWS, -1).mean(axis=1)
    return found
