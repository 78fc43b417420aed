"""The means of the classes as feature maps: what heatmaps need of a model, computed once.

Shapes: B batch, K classes, H x W x C the last feature map, D = H*W*C, P = H*W its cells, R rank.
Cell p of a map is Σ_f t_pf times the C coefficients of frequency f, t the orthonormal inverse DCT.
Everything is float64.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ibinn.errors import NotExplainableError
from ibinn.flow.pooling import dct_matrix
from ibinn.latent import GaussianMixture
from ibinn.latent_means import LatentMeans, LowRank

CHANNELS = 256
"""Channels of low-rank means that are transformed at a time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CellMeans(ABC):
    """m_pky: channel k of the mean of class y in cell p.

    Attributes:
        transform: Orthonormal inverse DCT as one matrix (cells, frequencies), P each.
        squares: ‖m_p,y‖² (P, K).
        shape: (H, W, C).
    """

    transform: Tensor
    squares: Tensor
    shape: tuple[int, int, int]

    @staticmethod
    def of(mixture: GaussianMixture, heatmap_shape: tuple[int, int, int] | None) -> CellMeans:
        """Of a mixture and the shape (H, W, C) of the last feature map.

        Raises:
            NotExplainableError: There is no such map: something other than the pooling follows it.
        """
        if heatmap_shape is None:
            raise NotExplainableError(
                "this network mixes all positions after its last feature map, so no exact "
                "heatmap exists; expected an architecture that ends in DCT pooling, such as "
                "'small'"
            )
        height, width, _ = heatmap_shape
        with torch.no_grad():
            means = mixture.latent_means()
            transform = torch.kron(dct_matrix(height).T, dct_matrix(width).T).to(means.full.device)
            if means.low_rank is None:
                return _full_cells(means, transform, heatmap_shape)
            return LowRankCells(
                transform=transform,
                squares=_low_rank_squares(means, means.low_rank, transform, heatmap_shape),
                shape=heatmap_shape,
                means=means,
                low_rank=means.low_rank,
            )

    def cells(self, z: Tensor) -> Tensor:
        """Feature maps of latent codes, (B, D) -> (B, P, C)."""
        height, width, channels = self.shape
        return self.transform @ z.double().view(-1, height * width, channels)

    @abstractmethod
    def products(self, cells: Tensor) -> Tensor:
        """Products with every class's mean in each cell, (B, P, C) -> (B, P, K)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FullCells(CellMeans):
    """Where every dimension has full means.

    Attributes:
        means: (P, C, K).
    """

    means: Tensor

    def products(self, cells: Tensor) -> Tensor:
        return torch.matmul(cells.transpose(0, 1), self.means).transpose(0, 1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LowRankCells(CellMeans):
    """Where some dimensions have low-rank means: products go through their R directions.

    With n_f of the C coefficients of frequency f among the F dimensions of full means,

        v·m_p,y = Σ_f t_pf (v[:n_f]·full_f,y + Σ_r T_yr v[n_f:]·M_r,f)   for v in cell p.

    Attributes:
        means: Of the mixture.
        low_rank: Their part of low rank.
    """

    means: LatentMeans
    low_rank: LowRank

    def products(self, cells: Tensor) -> Tensor:
        batch, count, _ = cells.shape
        weights = self.low_rank.wide_weights
        found = cells.new_zeros(batch, count, weights.shape[1])
        along = cells.new_zeros(batch, count, weights.shape[0])
        for number, part in enumerate(_frequencies(self.means, self.low_rank, self.shape)):
            share = self.transform[:, number, None]
            if part.full is not None:
                found += share * (cells[..., : part.count] @ part.full)
            if part.basis is not None:
                along += share * (cells[..., part.count :] @ part.basis.double().T)
        return found + along @ weights


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Frequency:
    """The coefficients of one frequency: `count` with full means (count, K), the rest (R, C - n)"""

    count: int
    full: Tensor | None
    basis: Tensor | None


def _frequencies(
    means: LatentMeans, low_rank: LowRank, shape: tuple[int, int, int]
) -> Iterator[_Frequency]:
    height, width, channels = shape
    first = len(means.wide)
    for start in range(0, height * width * channels, channels):
        count = min(max(first - start, 0), channels)
        begin = start + count - first
        yield _Frequency(
            count=count,
            full=means.wide[start : start + count] if count else None,
            basis=(
                low_rank.basis[:, begin : begin + channels - count] if count < channels else None
            ),
        )


def _full_cells(means: LatentMeans, transform: Tensor, shape: tuple[int, int, int]) -> FullCells:
    cells = transform @ means.wide.T.view(-1, len(transform), shape[2])
    return FullCells(
        transform=transform,
        squares=cells.square().sum(2).T.contiguous(),
        shape=shape,
        means=cells.permute(1, 2, 0).contiguous(),
    )


def _low_rank_squares(
    means: LatentMeans, low_rank: LowRank, transform: Tensor, shape: tuple[int, int, int]
) -> Tensor:
    """‖m_p,y‖² (P, K), from the means of a few channels of one cell at a time."""
    count, channels = len(transform), shape[2]
    classes, first = means.full.shape
    rank = len(low_rank.basis)
    weights = low_rank.wide_weights.T
    squares = transform.new_zeros(count, classes)
    full_frequencies = -(-first // channels)
    for begin in range(0, channels, CHANNELS):
        size = min(CHANNELS, channels - begin)
        # Of each frequency: coefficients of these channels with full means, and the directions.
        full = transform.new_zeros(full_frequencies, classes, size)
        basis = transform.new_zeros(count, rank, size)
        for number in range(count):
            start = number * channels + begin
            own = min(max(first - start, 0), size)
            if own:
                full[number, :, :own] = means.full[:, start : start + own]
            if own < size:
                basis[number, :, own:] = low_rank.basis[
                    :, start + own - first : start + size - first
                ]
        directions = (transform @ basis.view(count, -1)).view(count, rank, size)
        for cell in range(count):
            found = weights @ directions[cell]
            for number in range(full_frequencies):
                found.add_(full[number], alpha=float(transform[cell, number]))
            squares[cell] += found.square_().sum(1)
    return squares
