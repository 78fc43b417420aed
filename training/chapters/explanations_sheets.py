"""Sheets of images that the model makes: classes at several temperatures, and ways between them.

No image of a data set is among them, so that a report may show them.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from ibinn.explain.prototypes import class_sheet, decode, interpolate
from ibinn.images import Pixels
from ibinn.trusted import TrustedClassifier

TEMPERATURES = (0.0, 0.5, 0.8, 1.0)
MOST_ROWS = 10
STEPS = 9
WAYS = 4
WAY_TEMPERATURE = 0.7
COLOURS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Images in rows and columns, as one picture.

    Attributes:
        rows: Name of each row.
        columns: Name of each column; empty names where there is nothing to say.
        gap_px: White pixels between images.
        png: The sheet as PNG of 128 colours, base64; one image pixel is one pixel.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    gap_px: int
    png: str

    def pixels(self) -> Pixels:
        """The sheet, uint8 (height, width, 3)."""
        with Image.open(io.BytesIO(base64.b64decode(self.png))) as image:
            return np.array(image.convert("RGB"))


def sheet(images: Pixels, rows: tuple[str, ...], columns: tuple[str, ...]) -> Sheet:
    """Lay images (rows, columns, S, S, 3) out on white."""
    side = images.shape[2]
    gap = max(1, side // 16)
    height, width = (count * (side + gap) - gap for count in images.shape[:2])
    page = np.full((height, width, 3), 255, dtype=np.uint8)
    for row, line in enumerate(images):
        for column, image in enumerate(line):
            top, left = row * (side + gap), column * (side + gap)
            page[top : top + side, left : left + side] = image
    buffer = io.BytesIO()
    Image.fromarray(page).quantize(COLOURS).save(buffer, format="PNG", optimize=True)
    return Sheet(
        rows=rows,
        columns=columns,
        gap_px=gap,
        png=base64.b64encode(buffer.getvalue()).decode("ascii"),
    )


def samples(classifier: TrustedClassifier, *, seed: int) -> Sheet:
    """Each class at `TEMPERATURES`, the same noise along a row (figure 5.9)."""
    names = classifier.info.classes[:MOST_ROWS]
    images = np.stack(
        [
            class_sheet(
                classifier.model,
                classifier.preprocessing,
                label,
                temperatures=TEMPERATURES,
                count=1,
                seed=seed + label,
            )[:, 0]
            for label in range(len(names))
        ]
    )
    return sheet(images, tuple(names), tuple(f"T = {t:g}" for t in TEMPERATURES))


def interpolations(classifier: TrustedClassifier, *, seed: int) -> Sheet:
    """The straight line between samples of two classes, for a few pairs (figure 5.10)."""
    names, mixture = classifier.info.classes, classifier.model.mixture
    generator = np.random.default_rng(seed)
    ways = min(WAYS, len(names) // 2)
    ends = generator.permutation(len(names))[: 2 * ways].reshape(ways, 2)
    noise = torch.Generator(device=classifier.device).manual_seed(seed)
    lines = []
    for pair in ends:
        labels = torch.from_numpy(pair).to(classifier.device)
        with torch.no_grad():
            codes = mixture.sample(labels, temperature=WAY_TEMPERATURE, generator=noise)
        line = interpolate(codes[0], codes[1], STEPS)
        lines.append(decode(classifier.model, classifier.preprocessing, line))
    rows = tuple(f"{names[a]} – {names[b]}" for a, b in ends)
    return sheet(np.stack(lines), rows, ("",) * STEPS)
