"""How a gradient passes the JPEG step: only through what the step's tables leave of a small change.

JPEG rounds the cosine coefficients of 8x8 blocks to multiples of its tables' entries. A change
survives where it moves a coefficient by half an entry or more, which a change of a few grey
levels does for fine entries only. An attacker who lets the gradient pass unchanged spends nearly
all of the change on coefficients that the step erases. Here the step is replaced, for the
gradient, by the linear map that keeps the coefficients with fine entries and drops the others
(backward pass differentiable approximation, Athalye et al. 2018).

Shapes: B images, S side; gradients are float32 (B, S, S, 3).
"""

from __future__ import annotations

from functools import cache
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.fft import dctn, idctn

from ibinn.images import JpegStep

Gradient = npt.NDArray[np.float32]

TO_YCBCR = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)
"""RGB column vectors to luma and two colour differences (JFIF)."""

HALVED = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:2:0": (2, 2)}
"""Subsampling -> by how much the colour differences are reduced, rows and columns."""


def through_jpeg(gradient: Gradient, step: JpegStep, *, coarsest: float) -> Gradient:
    """The gradient with respect to the step's input, given that with respect to its output.

    With A the colour transform and P the projection onto the coefficients whose table entry is
    at most `coarsest`, the step is taken for A⁻¹ P A and the gradient passes its transpose.

    Args:
        gradient: (B, S, S, 3).
        step: The JPEG step.
        coarsest: Largest table entry that passes, in grey levels.
    """
    luma, chroma = quantization(step)
    side = gradient.shape[1]
    margin = -side % 16
    pads = ((0, 0), (0, margin), (0, margin), (0, 0))
    planes = np.pad(gradient.astype(np.float64), pads) @ np.linalg.inv(TO_YCBCR)
    planes[..., 0] = _projected(planes[..., 0], luma <= coarsest, (1, 1))
    for channel in (1, 2):
        planes[..., channel] = _projected(
            planes[..., channel], chroma <= coarsest, HALVED[step.subsampling]
        )
    passed = (planes @ TO_YCBCR)[:, :side, :side]
    return passed.astype(np.float32)


@cache
def quantization(step: JpegStep) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Tables of luma and of colour differences, (8, 8) each, rows are vertical frequencies."""
    buffer = BytesIO()
    Image.new("RGB", (16, 16)).save(
        buffer, format="JPEG", quality=step.quality, subsampling=step.subsampling
    )
    with Image.open(buffer, formats=("JPEG",)) as image:
        tables = image.quantization  # type: ignore[attr-defined]
    luma, chroma = (np.array(tables[i], dtype=np.int64).reshape(8, 8) for i in (0, 1))
    return luma, chroma


def _projected(
    plane: npt.NDArray[np.float64], kept: npt.NDArray[np.bool_], reduced: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """A plane (B, H, W) averaged over cells, without the coefficients that are not kept."""
    rows, columns = reduced
    count, height, width = plane.shape
    cells = plane.reshape(count, height // rows, rows, width // columns, columns).mean((2, 4))
    blocks = cells.reshape(count, cells.shape[1] // 8, 8, cells.shape[2] // 8, 8)
    spectrum = dctn(blocks, axes=(2, 4), norm="ortho") * kept[:, None, :]
    smooth = idctn(spectrum, axes=(2, 4), norm="ortho").reshape(cells.shape)
    return smooth.repeat(rows, axis=1).repeat(columns, axis=2)
