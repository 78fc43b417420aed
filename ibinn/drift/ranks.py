"""Conformal p-values of a stream: each image ranked among all before it and the calibration images.

With s_1 … s_n the calibration scores and s_(n+1), s_(n+2), … those of the stream, and τ uniform,

    u_t = (#{i < t: s_i < s_t} + τ_t (1 + #{i < t: s_i = s_t})) / t.

If all these scores are exchangeable, u_(n+1), u_(n+2), … are independent and uniform on [0, 1],
exactly and for every n (Vovk, Gammerman & Shafer, *Algorithmic Learning in a Random World*,
theorem 8.2). Ranked among the n calibration scores alone they would not be independent: the same
n scores err in the same direction for every image, and a test of uniformity is sure to reject in
the long run.

**Memory.** Scores are cut to half precision, a function fixed before any data, so whatever is
exchangeable stays so and equal cells are ties, which τ breaks. There are 65,536 cells, whatever
the number of images. Cells made from the calibration scores would not do: these would then not be
exchangeable with the stream.

A change is forgotten slowly: images after it are ranked among their like. The longer ago a change,
the less it shows; detectors have to see it when it is fresh.

Shapes: N images.
"""

from __future__ import annotations

import math
import struct
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ibinn.drift.observation import FloatArray, IntArray
from ibinn.errors import DataError

CELLS: Final = 65_536
_BLOCK: Final = 256
_CHUNK: Final = 256
_EARLIER: Final = np.tri(_CHUNK, k=-1, dtype=np.bool_)
_FEW: Final = 32
"""Fewer scores are ranked one by one, without looking through all cells."""
_LARGEST: Final = 65_504.0
_FLOAT: Final = struct.Struct("<e")
_HALF: Final = struct.Struct("<H")


def cells_of(scores: npt.NDArray[np.floating[Any]]) -> IntArray:
    """Cell of each score in 0 … 65,535, ascending with it: its half-precision number (N,).

    Half precision has 11 significant bits: steps of 0.1 % between 6e-5 and 65,504. Everything
    beyond is in the last cell.

    Raises:
        DataError: A score is NaN.

    >>> cells_of(np.array([-1.0, 0.0, 1.0, 1e9])).tolist()
    [17407, 32768, 48128, 64511]
    """
    values = np.asarray(scores, dtype=np.float64)
    if np.isnan(values).any():
        raise DataError("a score is NaN; leave out images that were not assessed")
    # + 0.0 makes a negative zero positive.
    half = (np.clip(values, -_LARGEST, _LARGEST) + 0.0).astype(np.float16).view(np.uint16)
    bits = half.astype(np.int64)
    return np.where(bits >= 32_768, 65_535 - bits, bits + 32_768)


def _cell_of(score: float) -> int:
    """`cells_of` of one score, without the cost of an array."""
    if math.isnan(score):
        raise DataError("a score is NaN; leave out images that were not assessed")
    bits: int
    (bits,) = _HALF.unpack(_FLOAT.pack(min(max(score, -_LARGEST), _LARGEST) + 0.0))
    return 65_535 - bits if bits >= 32_768 else bits + 32_768


class OnlineRanks:
    """The bag of all scores so far, and where a new one falls in it.

    Args:
        scores: Of the calibration images (n,).
        rng: Breaks ties; the only source of randomness.
    """

    def __init__(self, scores: FloatArray, rng: np.random.Generator) -> None:
        self._counts: IntArray = np.bincount(cells_of(scores), minlength=CELLS)
        self._blocks: IntArray = self._counts.reshape(-1, _BLOCK).sum(axis=1)
        self._total = len(scores)
        self.rng = rng

    def __len__(self) -> int:
        return self._total

    def observe(self, score: float) -> float:
        """The conformal p-value u in [0, 1] of a new score, which joins the bag; high = high."""
        cell = _cell_of(score)
        block = cell // _BLOCK
        below = int(self._blocks[:block].sum()) + int(self._counts[block * _BLOCK : cell].sum())
        tied = int(self._counts[cell]) + 1
        self._counts[cell] += 1
        self._blocks[block] += 1
        self._total += 1
        return float((below + self.rng.random() * tied) / self._total)

    def observe_many(self, scores: FloatArray) -> FloatArray:
        """What `observe` says of one after the other (N,), in a fraction of the time."""
        if len(scores) < _FEW:
            return np.array([self.observe(score) for score in scores.tolist()], dtype=np.float64)
        found = np.empty(len(scores))
        cells = cells_of(scores)
        for start in range(0, len(cells), _CHUNK):
            part = cells[start : start + _CHUNK]
            short = part.astype(np.uint16)
            earlier = _EARLIER[: len(part), : len(part)]
            upto = np.cumsum(self._counts)
            below = upto[part] - self._counts[part]
            below += np.count_nonzero((short < short[:, None]) & earlier, axis=1)
            tied = self._counts[part] + 1
            tied += np.count_nonzero((short == short[:, None]) & earlier, axis=1)
            total = self._total + 1 + np.arange(len(part))
            found[start : start + len(part)] = (below + self.rng.random(len(part)) * tied) / total
            self._add(part)
        return found

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """The bag: cells that hold a score, and how many (the generator goes apart)."""
        held = np.flatnonzero(self._counts)
        return {"cells": held.astype(np.uint16), "counts": self._counts[held].astype(np.int64)}

    @classmethod
    def from_arrays(
        cls, cells: IntArray, counts: IntArray, rng: np.random.Generator
    ) -> OnlineRanks:
        """What `to_arrays` wrote."""
        ranks = cls(np.empty(0), rng)
        ranks._counts[np.asarray(cells, dtype=np.int64)] = counts
        ranks._blocks = ranks._counts.reshape(-1, _BLOCK).sum(axis=1)
        ranks._total = int(ranks._counts.sum())
        return ranks

    def _add(self, cells: IntArray) -> None:
        np.add.at(self._counts, cells, 1)
        np.add.at(self._blocks, cells // _BLOCK, 1)
        self._total += len(cells)
