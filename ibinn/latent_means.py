"""The means of the latent mixture as factors: what asks for all of them never multiplies them out.

Shapes: B batch, K classes, D dimensions, F leading dimensions with full means, R rank of the
others. μ = [full, weights · basis]; where all means are full, F = D. At the size of ImageNet
(K = 1000, D = 150,528, R = 128) the factors take 88 MB in float32, the means 602 MB.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EXACT_ENTRIES = 1 << 20
"""Entries of a basis up to which it is kept in float64 (8 MB)."""

BLOCK = 256
"""Dimensions that are summed in float32 where the basis is larger; the sum of blocks is float64."""

GRAM_BLOCK = 8192
"""Columns of the basis that are held in float64 at a time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LowRank:
    """Means of the dimensions after the first F: weights · basis.

    Attributes:
        weights: (K, R), as the model has it.
        basis: (R, D - F), as the model has it.
        wide_weights: (R, K), float64.
        wide_basis: (D - F, R), float64, or None where the basis is large.
    """

    weights: Tensor
    basis: Tensor
    wide_weights: Tensor
    wide_basis: Tensor | None

    @staticmethod
    def of(weights: Tensor, basis: Tensor) -> LowRank:
        """From the factors of a model."""
        weights, basis = weights.detach(), basis.detach()
        exact = basis.numel() <= EXACT_ENTRIES
        return LowRank(
            weights=weights,
            basis=basis,
            wide_weights=weights.double().T,
            wide_basis=basis.double().T if exact else None,
        )

    def products(self, z: Tensor) -> Tensor:
        """z·μ_y over these dimensions, float64 (B, D - F) -> (B, K)."""
        return self._coordinates(z) @ self.wide_weights

    def gram(self) -> Tensor:
        """Inner products of the means over these dimensions, float64 (K, K)."""
        size = len(self.basis)
        basis_gram = torch.zeros(size, size, dtype=torch.float64, device=self.basis.device)
        for columns in self.basis.split(GRAM_BLOCK, dim=1):
            wide = columns.double()
            basis_gram.addmm_(wide, wide.T)
        return self.wide_weights.T @ basis_gram @ self.wide_weights

    def combined(self, shares: Tensor) -> Tensor:
        """Σ_y c_y μ_y over these dimensions, float64 (B, K) -> (B, D - F)."""
        directions = shares @ self.wide_weights.T
        parts = [directions @ part.double() for part in self.basis.split(GRAM_BLOCK, dim=1)]
        return torch.cat(parts, dim=1)

    def _coordinates(self, z: Tensor) -> Tensor:
        """z · basisᵀ (B, R), float64.

        A float64 copy of a large basis would double its memory, and making one at every call
        takes longer than the network. Products in float32 over short blocks of dimensions, added
        up in float64, are off by less than 1e-6 of a coordinate's spread.
        """
        if self.wide_basis is not None:
            return z @ self.wide_basis
        whole = self.basis.shape[1] // BLOCK * BLOCK
        blocks = self.basis[:, :whole].view(len(self.basis), -1, BLOCK).permute(1, 2, 0)
        codes = z[:, :whole].to(self.basis.dtype).view(len(z), -1, BLOCK).transpose(0, 1)
        rest = z[:, whole:] @ self.basis[:, whole:].double().T
        return torch.bmm(codes, blocks).sum(0, dtype=torch.float64) + rest


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LatentMeans:
    """All K means.

    Attributes:
        full: Means of the first F dimensions (K, F), as the model has them.
        wide: The same transposed (F, K), float64.
        low_rank: Those of the other dimensions, or None where F = D.
    """

    full: Tensor
    wide: Tensor
    low_rank: LowRank | None

    @staticmethod
    def of(full: Tensor, weights: Tensor | None = None, basis: Tensor | None = None) -> LatentMeans:
        """From the parameters of a mixture."""
        full = full.detach()
        low_rank = None if weights is None or basis is None else LowRank.of(weights, basis)
        return LatentMeans(full=full, wide=full.double().T, low_rank=low_rank)

    def products(self, z: Tensor) -> Tensor:
        """z·μ_y for every class, float64 (B, D) -> (B, K)."""
        if self.low_rank is None:
            return z @ self.wide
        dims = len(self.wide)
        return z[:, :dims] @ self.wide + self.low_rank.products(z[:, dims:])

    def gram(self) -> Tensor:
        """μ_y·μ_y' of all pairs of classes, float64 (K, K)."""
        gram = self.wide.T @ self.wide
        return gram if self.low_rank is None else gram + self.low_rank.gram()

    def combined(self, shares: Tensor) -> Tensor:
        """Σ_y c_y μ_y, float64 (B, K) -> (B, D)."""
        full = shares @ self.wide.T
        if self.low_rank is None:
            return full
        return torch.cat((full, self.low_rank.combined(shares)), dim=1)

    def __getitem__(self, classes: Tensor | int) -> Tensor:
        """The means of some classes, (B,) -> (B, D), in the model's own precision."""
        full = self.full[classes]
        if self.low_rank is None:
            return full
        return torch.cat((full, self.low_rank.weights[classes] @ self.low_rank.basis), dim=-1)
