"""Which images of a list are unknown, with a bound on the share of false names in it.

Shapes: M images of a list, n calibration images.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ibinn.errors import ConfigError, NotCalibratedError

FloatArray = npt.NDArray[np.float64]


def bh_adjusted(p: npt.NDArray[np.floating[Any]]) -> FloatArray:
    """Adjusted p-values of Benjamini and Hochberg (1995).

    With M p-values in ascending order, the i-th becomes min over j >= i of min(1, M p_(j)/j). The
    images whose adjusted value is at most q are named unknown; the expected share of usual images
    among them (the false discovery rate) is then at most q.

    That holds although all p-values come from one calibration set: rank p-values of independent
    images against a common reference are positively regression dependent (PRDS; Bates et al.
    2021, theorem 2), which is what the procedure needs (Benjamini and Yekutieli 2001).

    Args:
        p: One-tailed rank p-values, shape (M,). NaN marks an image that was not assessed.

    Returns:
        Shape (M,); NaN stays NaN and does not count in M.

    >>> bh_adjusted(np.array([0.01, 0.04, 0.03]))
    array([0.03, 0.04, 0.04])
    """
    raw = np.asarray(p, dtype=np.float64)
    adjusted = np.full(raw.shape, np.nan)
    finite = np.flatnonzero(~np.isnan(raw))
    order = finite[np.argsort(raw[finite], kind="stable")]
    scaled = len(order) * raw[order] / np.arange(1, len(order) + 1)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return adjusted


def benjamini_hochberg(p: npt.NDArray[np.floating[Any]], *, q: float) -> npt.NDArray[np.bool_]:
    """Which images of a list are named unknown at false discovery rate q; see `bh_adjusted`.

    Args:
        p: One-tailed rank p-values, shape (M,), NaN where not assessed.
        q: In (0, 1).

    Returns:
        Shape (M,); False where not assessed.

    Raises:
        ConfigError: `q` is not in (0, 1).
    """
    if not 0.0 < q < 1.0:
        raise ConfigError(f"false discovery rate q is {q:g}; expected a number in (0, 1)")
    found: npt.NDArray[np.bool_] = bh_adjusted(p) <= q
    return found


def fewest_found(count: int, n: int, *, q: float) -> int:
    """How many images of a list must be as unusual as can be before any is named.

    The smallest p-value is 1/(n + 1), so fewer than ⌈M/(q(n + 1))⌉ images can never be named: a
    few unknown images in a long list are beyond what n calibration images can tell.

    Args:
        count: Number M of assessed images in the list.
        n: Number of calibration images.
        q: False discovery rate in (0, 1).

    Raises:
        ConfigError: `q` is not in (0, 1).
        NotCalibratedError: There are no calibration images.

    >>> fewest_found(1_000, 2_500, q=0.1)
    4
    """
    if not 0.0 < q < 1.0:
        raise ConfigError(f"false discovery rate q is {q:g}; expected a number in (0, 1)")
    if n < 1:
        raise NotCalibratedError("there are no calibration images to rank against: calibrate first")
    return max(1, math.ceil(count / (q * (n + 1)) - 1e-9))
