"""How long a batch takes, learned from those just computed."""

from __future__ import annotations


class BatchCost:
    """seconds(n) ≈ fixed + each · n, by least squares over recent batches.

    Weights fall by `decay` with each batch, so that the estimate follows the machine's load. With
    batches of one size only, the slope cannot be told from the offset; then everything counts as
    fixed for that size and below, and grows in proportion above.

    Args:
        decay: Weight of a batch relative to the one after it, in (0, 1).
    """

    def __init__(self, decay: float = 0.95) -> None:
        self._decay = decay
        self._weight = self._n = self._s = self._nn = self._ns = 0.0
        self._largest = 0
        self._line: tuple[float, float] | None = (0.0, 0.0)

    def observe(self, size: int, seconds: float) -> None:
        """A batch of that size took that long."""
        decay = self._decay
        self._weight = self._weight * decay + 1
        self._n = self._n * decay + size
        self._s = self._s * decay + seconds
        self._nn = self._nn * decay + size * size
        self._ns = self._ns * decay + size * seconds
        self._largest = max(self._largest, size)
        self._line = None

    def line(self) -> tuple[float, float]:
        """(fixed, each) in seconds, neither negative; zeros before the first batch."""
        if self._line is None:
            self._line = self._fitted()
        return self._line

    def _fitted(self) -> tuple[float, float]:
        mean_n, mean_s = self._n / self._weight, self._s / self._weight
        variance = self._nn / self._weight - mean_n * mean_n
        if variance < 1e-3 * mean_n * mean_n:
            return mean_s, 0.0
        each = max(0.0, (self._ns / self._weight - mean_n * mean_s) / variance)
        fixed = mean_s - each * mean_n
        if fixed < 0:
            return 0.0, mean_s / mean_n
        return fixed, each

    def seconds(self, size: int) -> float:
        """Estimated seconds of a batch; 0 before the first one."""
        fixed, each = self.line()
        if each == 0 and size > self._largest > 0:
            return fixed * size / self._largest
        return fixed + each * size

    @property
    def fixed_s(self) -> float:
        """Estimated seconds that a batch takes before its first image."""
        return self.line()[0]
