"""Ranks in many sorted references at once: what `ibinn.ood.p_values` says, in one search.

An image is held against dozens of references. One search through all of them costs about as much
as one search in one of them, and far less than the calls around it.

Shapes: B images, T references.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ibinn.ood.p_values import FloatArray, check_centre
from ibinn.types import TestKind

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SortedReferences:
    """Several ascending references in one searchable array.

    Complex numbers are ordered by their real part and then by their imaginary one: with the
    number of the reference in the first and the value in the second, one ascending array holds
    all references, and values are compared exactly.

    Attributes:
        keys: number + i * value, ascending (Σ n,).
        starts: Position of each reference's first value (T,).
        counts: n of each (T,).
    """

    keys: npt.NDArray[np.complex128]
    starts: IntArray
    counts: IntArray

    @classmethod
    def of(cls, references: Sequence[FloatArray]) -> SortedReferences:
        """From ascending references (n,), of different lengths if need be."""
        counts = np.array([len(values) for values in references], dtype=np.int64)
        keys = np.empty(int(counts.sum()), dtype=np.complex128)
        keys.real = np.repeat(np.arange(len(references)), counts)
        keys.imag = np.concatenate((*references, np.empty(0)))
        return cls(keys=keys, starts=np.cumsum(counts) - counts, counts=counts)

    def below(self, values: FloatArray) -> IntArray:
        """#{ref < value} for values (B, T) without NaN, each in its own reference."""
        found: IntArray = np.searchsorted(self.keys, self._keys_of(values), side="left")
        return found - self.starts

    def up_to(self, values: FloatArray) -> IntArray:
        """#{ref <= value}; otherwise as `below`."""
        found: IntArray = np.searchsorted(self.keys, self._keys_of(values), side="right")
        return found - self.starts

    def _keys_of(self, values: FloatArray) -> npt.NDArray[np.complex128]:
        keys = np.empty(values.shape, dtype=np.complex128)
        keys.real = np.arange(values.shape[1])
        keys.imag = values
        return keys


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranker:
    """p-values of several tests at once, equal to those of `ibinn.ood.p_values.p_values`.

    Attributes:
        references: Of every test.
        centres: Of the typicality tests, else 0 (T,).
        typicality: Which tests are of |value - centre| (T,).
        low: Which are one-tailed with low values unusual (T,).
        two_tailed: Which are two-tailed (T,).
    """

    references: SortedReferences
    centres: FloatArray
    typicality: npt.NDArray[np.bool_]
    low: npt.NDArray[np.bool_]
    two_tailed: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, tests: Sequence[tuple[FloatArray, TestKind, float | None]]) -> Ranker:
        """From (reference of `ibinn.ood.p_values.reference`, kind, centre) of every test.

        A test with an empty reference has no p-value.

        Raises:
            ConfigError: A centre is missing, or given where it means nothing.
        """
        for _, kind, centre in tests:
            check_centre(kind, centre)

        def of_kind(wanted: TestKind) -> npt.NDArray[np.bool_]:
            return np.array([kind is wanted for _, kind, _ in tests], dtype=np.bool_)

        return cls(
            references=SortedReferences.of([values for values, _, _ in tests]),
            centres=np.array([centre or 0.0 for _, _, centre in tests]),
            typicality=of_kind(TestKind.TYPICALITY),
            low=of_kind(TestKind.LOW_IS_UNUSUAL),
            two_tailed=of_kind(TestKind.TWO_TAILED),
        )

    def p_values(self, values: FloatArray) -> FloatArray:
        """Of the tests' statistics (B, T), shape (B, T); NaN where a statistic is not finite."""
        counts = self.references.counts
        usable = np.isfinite(values) & (counts > 0)
        known = np.where(usable, values, 0.0)
        scores = np.where(self.typicality, np.abs(known - self.centres), known)
        slots = counts + 1
        at_least = slots - self.references.below(scores)
        at_most = 1 + self.references.up_to(scores)
        tail = np.where(self.low, at_most, at_least) / slots
        both = np.minimum(1.0, 2 * np.minimum(at_least, at_most) / slots)
        p: FloatArray = np.where(usable, np.where(self.two_tailed, both, tail), np.nan)
        return p
