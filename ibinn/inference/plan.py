"""A network as an inference engine computes it: steps with everything constant folded.

Shapes: B batch, C channels, H and W sides, D dimensions. Maps are (B, H, W, C), channels fastest;
vectors of D dimensions are maps of one pixel (B, 1, 1, D).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Activation = Literal["none", "relu", "tanh"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """scale * x + offset per channel, then perhaps a ReLU.

    Attributes:
        scale: (C,); None leaves scale and offset out.
        offset: (C,); None like `scale`.
        relu: Whether a ReLU follows.
    """

    scale: Tensor | None
    offset: Tensor | None
    relu: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """A convolution and what follows it in the same pass; fully connected layers are 1x1.

    Attributes:
        weight: (C_out, C_in, k, k).
        bias: (C_out,), or None.
        stride: Its stride.
        padding: Zeros on each side.
        activation: What is applied to the sum.
    """

    weight: Tensor
    bias: Tensor | None
    stride: int = 1
    padding: int = 0
    activation: Activation = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    """What one half of the channels does to the other: y = x * exp(log-scale + log_gain) + shift.

    The log-scale is amplitude * bound(u) with u = log_scale(trunk); the clamp's inner factor lies
    in the weights of `log_scale`, the factor on the shift in those of `shift`. Of an act-norm that
    follows the coupling, `log_gain` is the log of its scale, and the rest lies in `shift`.

    Attributes:
        trunk: Layers that both outputs share, in order.
        log_scale: Gives u; where the bound is a tanh, that is its activation.
        shift: Gives the shift.
        bound: The clamp's function.
        amplitude: Largest |log-scale| for tanh, 2/π of it for atan.
        log_gain: (C,), or None for 0.
    """

    trunk: tuple[Affine | Convolution, ...]
    log_scale: Convolution
    shift: Convolution
    bound: Literal["tanh", "atan"]
    amplitude: float
    log_gain: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Coupling:
    """y2 from x1, then perhaps y1 from y2; between resolutions both after space-to-depth.

    Space-to-depth is in the order (row, column, channel), so that whole pixels are moved; the
    weights around know.

    Attributes:
        split: Channels of x1 and of x2.
        first: Transforms x2 by x1.
        second: Transforms x1 by y2; None leaves x1 as it is.
        down: Whether resolution is halved.
        kept: What an act-norm after the coupling does to the half that was not transformed last.
    """

    split: tuple[int, int]
    first: Half
    second: Half | None = None
    down: bool = False
    kept: Affine | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """A convolution of the whole map: wavelets, rotations, with act-norms folded."""

    convolution: Convolution


@dataclass(frozen=True, slots=True, kw_only=True)
class Reorder:
    """y[..., i] = x[..., index[i]].

    Attributes:
        index: (C,), whole numbers.
    """

    index: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The map as a vector, y[(m, c)] = Σ_n matrix[m, n] x[n, c] over the pixels n.

    Attributes:
        matrix: (H*W, H*W).
    """

    matrix: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Observe:
    """The map here is one whose energy per channel is told."""


Step = Affine | Coupling | Mix | Observe | Pool | Reorder


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of the network.

    Attributes:
        steps: What it computes, in order.
        log_det: The part of its log-determinant that no image changes.
    """

    steps: tuple[Step, ...]
    log_det: float
