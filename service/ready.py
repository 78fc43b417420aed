"""The line that says that a server is ready, and where; scripts wait for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ibinn.types import ModelInfo

_DIGEST_CHARACTERS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What is served where.

    Attributes:
        grpc: ``host:port``.
        metrics: URL for Prometheus; empty where there is none.
        model: Name of the default model.
        weights: Digest of its weights.
        alpha: Significance of its verdict.
        policy: Digest of its policy; empty where there is none.
    """

    grpc: str
    metrics: str
    model: str
    weights: str
    alpha: float
    policy: str

    @classmethod
    def of(cls, info: ModelInfo, *, grpc: str, metrics: str) -> Self:
        """The line's content for a model that is served."""
        return cls(
            grpc=grpc,
            metrics=metrics,
            model=info.name,
            weights=info.versions.weights,
            alpha=info.alpha,
            policy=info.policy.digest if info.policy else "",
        )

    def line(self) -> str:
        """The line."""
        policy = f" policy={self.policy[:_DIGEST_CHARACTERS]}" if self.policy else ""
        return (
            f"ready grpc={self.grpc} metrics={self.metrics or 'off'} model={self.model} "
            f"weights={self.weights[:_DIGEST_CHARACTERS]} alpha={self.alpha:g}{policy}"
        )
