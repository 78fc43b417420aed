"""Windows of an image whose shorter side has been resized, without resizing the whole.

The usual way to look at a photograph: resize its shorter side to R px, keep the proportions, and
cut windows of S px out of that. Here each window is resized alone, from its place in the
original, so that a panorama of 4096x1 px costs no more than a square; the pixels are those of the
two steps. H and W are height and width of the original.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """An original as it would be after its shorter side is resized.

    Attributes:
        height: H.
        width: W.
        shorter_side: R.
        side: S, of the windows, at most R.
    """

    height: int
    width: int
    shorter_side: int
    side: int

    @property
    def resized(self) -> tuple[int, int]:
        """Height and width after the resize; the longer one is rounded down."""
        short = min(self.height, self.width)
        return (
            self.shorter_side * self.height // short,
            self.shorter_side * self.width // short,
        )

    @property
    def centre(self) -> tuple[int, int]:
        """Top and left of the centre window, in the resized image."""
        height, width = self.resized
        return round((height - self.side) / 2), round((width - self.side) / 2)

    @property
    def five(self) -> tuple[tuple[int, int], ...]:
        """Top and left of the four corner windows (row by row) and of the centre one."""
        height, width = self.resized
        bottom, right = height - self.side, width - self.side
        return ((0, 0), (0, right), (bottom, 0), (bottom, right), self.centre)

    def box(self, place: tuple[int, int]) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of a window in the original, in its pixels.

        Args:
            place: Top and left in the resized image.
        """
        height, width = self.resized
        down, across = self.height / height, self.width / width
        top, left = place
        return (
            left * across,
            top * down,
            min((left + self.side) * across, float(self.width)),
            min((top + self.side) * down, float(self.height)),
        )

    def pixels_of(self, box: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
        """The whole pixels that a box touches: left, top, width, height."""
        left, top = math.floor(box[0] + 1e-6), math.floor(box[1] + 1e-6)
        right, bottom = math.ceil(box[2] - 1e-6), math.ceil(box[3] - 1e-6)
        return left, top, right - left, bottom - top

    def window(
        self, image: Image.Image, place: tuple[int, int], resampling: Image.Resampling
    ) -> Pixels:
        """A window of the resized image, uint8 (S, S, 3).

        Args:
            image: The original, RGB.
            place: Top and left in the resized image.
            resampling: Filter; it averages when it shrinks.
        """
        return np.array(image.resize((self.side, self.side), resampling, box=self.box(place)))
