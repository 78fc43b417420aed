"""Published results (thesis, tables 5.1, 5.2, 5.5 and 5.6), to stand beside ours.

Those on CIFAR were measured on the original images, not on images that went through JPEG, and
their drawings are QuickDraw, their noise Gaussian of 0.015 of the pixel range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRow:
    """One row; percent, bits and nats as printed, None where the table has a dash.

    Attributes:
        model: Name.
        error: Top-1 error, %.
        bits_per_dim: Bits per dimension.
        geometric_mean: Of ECE, MCE and ICE, %.
        ece: %.
        mce: %.
        ice: %.
        entropy_increase: Mean over the out-of-distribution sets, nats.
        auroc: RGB rotation, drawings, noise, ImageNet, %, by typicality of log q(x).
    """

    model: str
    error: float | None
    bits_per_dim: float | None
    geometric_mean: float | None
    ece: float | None
    mce: float | None
    ice: float | None
    entropy_increase: float | None
    auroc: tuple[float | None, float | None, float | None, float | None]


def _row(model: str, *values: float | None) -> PublishedRow:
    error, bits, gm, ece, mce, ice, entropy, rgb, draw, noise, imagenet = values
    return PublishedRow(
        model=model,
        error=error,
        bits_per_dim=bits,
        geometric_mean=gm,
        ece=ece,
        mce=mce,
        ice=ice,
        entropy_increase=entropy,
        auroc=(rgb, draw, noise, imagenet),
    )


_NO = None
CIFAR10 = (
    _row("IB-INN γ = 1", 10.27, 5.25, 1.26, 0.54, 3.25, 1.13, 0.38, 78.80, 67.30, 77.19, 54.59),
    _row("γ = 0", _NO, 4.80, _NO, _NO, _NO, _NO, _NO, 70.68, 85.74, 91.14, 55.82),
    _row("γ → ∞", 8.72, 17.27, 3.98, 0.81, 13.94, 5.57, 0.28, 57.04, 90.29, 50.24, 54.40),
    _row("class-NLL", 61.75, 4.81, 12.61, 4.17, 30.58, 15.70, 0.03, 70.65, 83.31, 90.97, 55.76),
    _row(
        "class-NLL, fixed means",
        40.04, 4.83, 24.75, 7.13, 70.63, 30.11, 0.01, 69.33, 85.13, 91.04, 55.88,
    ),
    _row("VIB", 6.83, _NO, 6.66, 0.81, 26.56, 13.75, 0.17, _NO, _NO, _NO, _NO),
    _row("ResNet", 6.51, _NO, 6.23, 0.76, 29.29, 10.92, 0.18, _NO, _NO, _NO, _NO),
    _row("i-RevNet", 9.22, _NO, 4.19, 0.79, 16.68, 5.54, 0.24, _NO, _NO, _NO, _NO),
)  # fmt: skip

CIFAR100 = (
    _row("IB-INN γ = 0.1", 42.57, 4.94, 2.60, *(_NO,) * 8),
    _row("ResNet", 29.27, _NO, 5.13, *(_NO,) * 8),
)
"""Table 5.2, what of it is quoted here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedSeriesRow:
    """A model of the γ series on ImageNet (tables 5.5 and 5.6); percent and bits as printed.

    Attributes:
        model: Name.
        gamma: γ; None for the ResNet.
        top1: Accuracy over ten crops, %.
        bits_per_dim: Bits per dimension.
        oce: Overconfidence error; 1 is calibrated at the threshold.
        mce: %.
    """

    model: str
    gamma: float | None
    top1: float | None
    bits_per_dim: float | None
    oce: float | None
    mce: float | None


def _series(
    gamma: float | None,
    top1: float | None,
    bits: float | None,
    oce: float | None,
    mce: float | None,
) -> PublishedSeriesRow:
    name = "ResNet-50" if gamma is None else f"γ = {'∞' if math.isinf(gamma) else f'{gamma:g}'}"
    return PublishedSeriesRow(
        model=name, gamma=gamma, top1=top1, bits_per_dim=bits, oce=oce, mce=mce
    )


IMAGENET = (
    _series(0.0, _NO, 2.59, _NO, _NO),
    _series(1.0, 67.30, 4.34, 3.87, 5.54),
    _series(2.0, 71.73, 6.14, 4.13, 3.13),
    _series(4.0, 73.69, 8.72, 4.31, 5.47),
    _series(8.0, 74.59, 12.35, 4.73, 4.57),
    _series(16.0, 75.54, 17.43, 4.15, 5.50),
    _series(32.0, 76.18, 22.68, 4.94, 5.28),
    _series(math.inf, 76.27, 47.01, 5.12, 5.10),
    _series(None, 77.40, _NO, 6.75, 7.72),
)
"""Tables 5.5 and 5.6."""

CIFAR10_CLASSES = frozenset(
    {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"}
)
