"""Capital that grows when numbers that should be uniform are not: a test martingale.

A bet f on u in [0, 1] has ∫f = 1, so that the capital f(u) is 1 on average where u is uniform. The
capital here is spread over a *passive* part, which bets nothing, and over bets f_j:

- beta densities over a grid of both parameters: too many small, large, extreme or middling u;
- histograms of the last u's with three different memories, for any other shape.

The spread follows a Markov chain that is fixed beforehand. Before the first image half the
capital is in the bets. Then the passive part goes into the bets at the rate 1/(c + t) (a change
may begin at any time; a late one costs log t, not t), and a hundredth of what is in the bets is
spread over them again every 16 images (the change may change). The total

    M_t = passive_t + Σ_j active_(j,t)

is the mean over that chain of products of bets, so E[M_t | u_1 … u_(t-1)] = M_(t-1) where the u's
are independent and uniform, and by Ville's inequality P(M_t >= 1/δ for any t) <= δ. No restart
and no maximum over starting times is taken, which would break it: the chain is what restarts.

Bets are steps of width 1/1,000, each with mean exactly 1. Between two spreads, that is for 16
images, they are fixed; histograms are made of u's before, never of scores, because only the u's
are independent of each other given what came before.

Sources: Volkhonskiy et al. 2017 and Vovk et al. 2021 (conformal test martingales, the Simple
Jumper); Herbster & Warmuth 1998 (fixed share).

Shapes: J beta bets, R histograms, N numbers.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import betainc

from ibinn.drift.observation import FloatArray, IntArray
from ibinn.errors import DataError

STEPS: Final = 1_000
SPREAD_EVERY: Final = 16
"""Images between two spreads of the capital."""

_FEW: Final = 6
"""Fewer numbers are bet on one by one, which is faster then."""
_ACTIVE_AT_START: Final = 0.5
_CHANGE_SCALE: Final = 4_000.0
_RESHUFFLED: Final = 0.01
_BINS: Final = 20
_STEPS_PER_BIN: Final = STEPS // _BINS
_MEMORIES: Final = (128.0, 512.0, 2_048.0)
_KEPT: Final = 1.0 - SPREAD_EVERY / np.array(_MEMORIES)[:, None]
_PRIOR_PER_BIN: Final = 2.0
_SHAPES: Final = (0.4, 0.7, 0.9, 1.0, 1.15, 1.5, 2.5, 5.0)
_TO_HISTOGRAMS: Final = 0.3


@cache
def _beta_bets() -> FloatArray:
    """Mean of each beta density in each step, (STEPS, J); every column has mean 1.

    One row per step, so that a look-up reads one piece of memory.
    """
    edges = np.linspace(0.0, 1.0, STEPS + 1)
    shapes = [(a, b) for a in _SHAPES for b in _SHAPES if (a, b) != (1.0, 1.0)]
    rows = np.stack([np.diff(betainc(a, b, edges)) for a, b in shapes]) * STEPS
    bets: FloatArray = np.ascontiguousarray((rows / rows.mean(axis=1, keepdims=True)).T)
    bets.setflags(write=False)
    return bets


class Capital:
    """The martingale's state.

    Args:
        beta_bets: Whether the beta densities are among the bets; histograms always are.

    Attributes:
        count: Numbers seen.
        highest: Largest log M so far.
    """

    def __init__(self, *, beta_bets: bool = True) -> None:
        self._table = _beta_bets() if beta_bets else np.empty((STEPS, 0))
        betas = self._table.shape[1]
        histograms = len(_MEMORIES)
        share = _TO_HISTOGRAMS if beta_bets else 1.0
        self._base = np.concatenate(
            (np.full(betas, (1 - share) / max(1, betas)),
             np.full(histograms, share / histograms))
        )  # fmt: skip
        self._passive = 1.0 - _ACTIVE_AT_START
        self._active = _ACTIVE_AT_START * self._base
        self._log_scale = 0.0
        self._seen = np.zeros((histograms, _BINS))
        self._recent = np.zeros(_BINS)
        self._rows = self._histogram_rows()
        self.count = 0
        self.highest = 0.0

    @property
    def log_value(self) -> float:
        """log M_t."""
        return self._log_scale + math.log(self._passive + float(self._active.sum()))

    def observe(self, u: float) -> None:
        """Bet on one more number in [0, 1]."""
        step = min(int(u * STEPS), STEPS - 1)
        bin_ = step // _STEPS_PER_BIN
        betas = self._table.shape[1]
        self._active[:betas] *= self._table[step]
        self._active[betas:] *= self._rows[bin_]
        self._recent[bin_] += 1
        self.count += 1
        value = self.log_value
        if value > self.highest:
            self.highest = value
        if self.count % SPREAD_EVERY == 0:
            self._spread()

    def observe_many(self, u: FloatArray) -> FloatArray:
        """What `observe` makes of one after the other; log M after each (N,)."""
        steps = np.minimum((u * STEPS).astype(np.int64), STEPS - 1)
        path = np.empty(len(steps))
        if len(steps) < _FEW:
            for i, number in enumerate(u.tolist()):
                self.observe(number)
                path[i] = self.log_value
            return path
        start = 0
        while start < len(steps):
            room = SPREAD_EVERY - self.count % SPREAD_EVERY
            part = steps[start : start + room]
            path[start : start + len(part)] = self._block(part)
            start += len(part)
        if len(path):
            self.highest = max(self.highest, float(path.max()))
        return path

    def _block(self, steps: IntArray) -> FloatArray:
        """Numbers of one block, during which all bets are fixed."""
        bins = steps // _STEPS_PER_BIN
        betas = self._table.shape[1]
        bets = np.empty((len(steps), len(self._active)))
        bets[:, :betas] = self._table[steps]
        bets[:, betas:] = self._rows[bins]
        bets[0] *= self._active
        grown = np.multiply.accumulate(bets, axis=0, out=bets)
        self._active = grown[-1].copy()
        log_path: FloatArray = self._log_scale + np.log(self._passive + grown.sum(axis=1))
        self._recent += np.bincount(bins, minlength=_BINS)
        self.count += len(steps)
        if self.count % SPREAD_EVERY == 0:
            self._spread()
        return log_path

    def _spread(self) -> None:
        """One step of the chain: passive into bets, bets among themselves; then the histograms."""
        total = self._passive + float(self._active.sum())
        self._log_scale += math.log(total)
        begins = SPREAD_EVERY / (_CHANGE_SCALE + self.count)
        moved = begins * self._passive + _RESHUFFLED * float(self._active.sum())
        self._active = ((1 - _RESHUFFLED) * self._active + moved * self._base) / total
        self._passive *= (1 - begins) / total
        self._seen *= _KEPT
        self._seen += self._recent
        self._recent[:] = 0
        self._rows = self._histogram_rows()

    def _histogram_rows(self) -> FloatArray:
        """Density of each histogram in each bin (BINS, R), mean 1 over the bins."""
        raised = self._seen + _PRIOR_PER_BIN
        raised *= _BINS / raised.sum(axis=1, keepdims=True)
        rows: FloatArray = raised.T
        return rows

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything that changes, exactly."""
        return {
            "capital": np.array([self._passive, self._log_scale, self.highest, float(self.count)]),
            "active": self._active.copy(),
            "seen": self._seen.copy(),
            "recent": self._recent.copy(),
        }

    def restore(self, arrays: dict[str, npt.NDArray[np.generic]]) -> None:
        """Go on from what `to_arrays` wrote.

        Raises:
            DataError: It was written by a capital with other bets.
        """
        for name, present in (
            ("active", self._active),
            ("seen", self._seen),
            ("recent", self._recent),
        ):
            if arrays[name].shape != present.shape:
                raise DataError(
                    f"a detector's state has {name} of shape {arrays[name].shape}, expected "
                    f"{present.shape}: it is of another version; begin anew"
                )
        passive, log_scale, highest, count = np.asarray(arrays["capital"], np.float64).tolist()
        self._passive, self._log_scale, self.highest = passive, log_scale, highest
        self.count = int(count)
        self._active = np.array(arrays["active"], dtype=np.float64)
        self._seen = np.array(arrays["seen"], dtype=np.float64)
        self._recent = np.array(arrays["recent"], dtype=np.float64)
        self._rows = self._histogram_rows()
