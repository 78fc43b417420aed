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
        numbers: 0 ... T - 1.
    """

    keys: npt.NDArray[np.complex128]
    starts: IntArray
    counts: IntArray
    numbers: IntArray

    @classmethod
    def of(cls, references: Sequence[FloatArray]) -> SortedReferences:
        """From ascending references (n,), of different lengths if need be."""
        counts = np.array([len(values) for values in references], dtype=np.int64)
        keys = np.empty(int(counts.sum()), dtype=np.complex128)
        numbers = np.arange(len(references))
        keys.real = np.repeat(numbers, counts)
        keys.imag = np.concatenate((*references, np.empty(0)))
        return cls(keys=keys, starts=np.cumsum(counts) - counts, counts=counts, numbers=numbers)

    def below(self, values: FloatArray) -> IntArray:
        """#{ref < value} for values (B, T) without NaN, each in its own reference."""
        return self.keys.searchsorted(self._keys_of(values), side="left") - self.starts

    def below_and_up_to(self, values: FloatArray) -> tuple[IntArray, IntArray]:
        """#{ref < value} and #{ref <= value}; otherwise as `below`."""
        sought = self._keys_of(values)
        below = self.keys.searchsorted(sought, side="left") - self.starts
        return below, self.keys.searchsorted(sought, side="right") - self.starts

    def _keys_of(self, values: FloatArray) -> npt.NDArray[np.complex128]:
        keys = np.empty(values.shape, dtype=np.complex128)
        keys.real = self.numbers
        keys.imag = values
        return keys


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranker:
    """p-values of several tests at once, equal to those of `ibinn.ood.p_values.p_values`.

    p = min(1, tails · min(high - #{ref < s}, low + #{ref <= s})/(n + 1)) with high = n + 1 and
    low = 1; for a tail that a test does not look at, they are beyond any count.

    Attributes:
        references: Of every test.
        centres: Of the typicality tests, else 0 (T,).
        typicality: Which tests are of |value - centre| (T,).
        high: See above (T,).
        low: See above (T,).
        tails: Tails that a test looks at, 1 or 2 (T,).
        slots: n + 1 (T,).
        usable: Which have a reference (T,).
    """

    references: SortedReferences
    centres: FloatArray
    typicality: npt.NDArray[np.bool_]
    high: IntArray
    low: IntArray
    tails: IntArray
    slots: IntArray
    usable: npt.NDArray[np.bool_]

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

        references = SortedReferences.of([values for values, _, _ in tests])
        low, two_tailed = of_kind(TestKind.LOW_IS_UNUSUAL), of_kind(TestKind.TWO_TAILED)
        slots = references.counts + 1
        beyond = len(references.keys) + 1
        return cls(
            references=references,
            centres=np.array([centre or 0.0 for _, _, centre in tests]),
            typicality=of_kind(TestKind.TYPICALITY),
            high=slots + np.where(low, beyond, 0),
            low=np.where(low | two_tailed, 1, beyond),
            tails=np.where(two_tailed, 2, 1),
            slots=slots,
            usable=references.counts > 0,
        )

    def p_values(self, values: FloatArray) -> FloatArray:
        """Of the tests' statistics (B, T), shape (B, T); NaN where a statistic is not finite."""
        usable = np.isfinite(values) & self.usable
        all_usable = bool(usable.all())
        scores = (values if all_usable else np.where(usable, values, 0.0)) - self.centres
        np.abs(scores, out=scores, where=self.typicality)
        below, up_to = self.references.below_and_up_to(scores)
        extreme = np.minimum(self.high - below, self.low + up_to)
        p: FloatArray = np.minimum(1.0, self.tails * extreme / self.slots)
        return p if all_usable else np.where(usable, p, np.nan)
