"""The JPEG step of the preprocessing, done by torchvision where it gives the very same pixels.

`Preprocessing.finish` defines the step. For small images most of its time is Pillow's Python
around the codec; torchvision's bindings to the same codec take about a quarter of it (28
instead of 130 µs at 32 x 32). Whether both give the same bits depends on how the two packages
were built, so it is tried on real images before it is relied on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torchvision.io import decode_jpeg, encode_jpeg

from ibinn.images import Preprocessing
from training.image_set import Pixels


def finisher(preprocessing: Preprocessing, samples: Iterable[Pixels]) -> Callable[[Pixels], Pixels]:
    """The fastest function that gives what `preprocessing.finish` gives.

    Args:
        preprocessing: Whose step is wanted.
        samples: Images (S, S, 3), uint8, on which both ways are compared; a few tens will do.
    """
    step = preprocessing.config.jpeg
    if step is None:
        return preprocessing.finish
    quality = step.quality

    def fast(pixels: Pixels) -> Pixels:
        planes = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        decoded = decode_jpeg(encode_jpeg(planes, quality))
        return decoded.numpy().transpose(1, 2, 0)

    try:
        same = all(np.array_equal(fast(image), preprocessing.finish(image)) for image in samples)
    except RuntimeError:  # torchvision was built without a JPEG codec
        same = False
    return fast if same else preprocessing.finish
