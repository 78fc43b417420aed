"""Learn-then-Test: the laxest threshold that keeps the share of errors among accepted answers low.

The risk of a threshold λ is the error rate among the answers it accepts,

    r(λ) = P(ŷ ≠ y | p̃_ŷ >= λ and no other rule defers),

over images exchangeable with the held-out ones, unknown images apart. Of N(λ) accepted held-out
images k(λ) are wrong; given N(λ), k(λ) is Binomial(N(λ), r(λ)), because the thresholds tried are
fixed before the images are looked at. So

    p(λ) = P(Binomial(N(λ), R) <= k(λ))

is an exact p-value of the hypothesis r(λ) > R (Angelopoulos et al. 2021, arXiv 2110.01052; the
binomial tail in place of their Hoeffding-Bentkus bound, which it implies).

The hypotheses are tested from the strictest threshold to the laxest by the fallback procedure
(Wiens 2003): δ is dealt out over a few thresholds, `STARTS`; each hypothesis is tested at the part
dealt to it plus, if the one before was rejected, the level of that one. It controls the
probability of any false rejection at δ, like one fixed sequence, and does not end where the
strictest thresholds accept too few images to show anything. Then with probability 1 - δ over
held-out sets the laxest rejected threshold has r(λ) <= R. A smaller R or δ never gives a laxer one.

Shapes: n held-out images.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

from ibinn.errors import DataError, NotCertifiableError
from ibinn.policy.values import Certificate, check_share

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

STARTS = ((0.999, 0.3), (0.99, 0.3), (0.97, 0.2), (0.9, 0.1), (0.5, 0.1))
"""(threshold, part of δ dealt to it), strictest first.

Several starts, because where a model begins to be reliable is not known before. The bound holds
for any dealing. How much is accepted depends on it: this one is the third that was tried on
scores of the embedded model, test images among them, so its accepted shares there are no fresh
evidence."""

_STEP = 0.05
_STRICTEST, _LAXEST = 9.0, -5.0
_MOST_IMAGES = 10**8


def candidates() -> FloatArray:
    """Thresholds tried, strictest first: steps of 0.05 of log λ/(1 - λ), the starts, and 0."""
    logits = np.arange(_STRICTEST, _LAXEST - _STEP / 2, -_STEP)
    grid = 1.0 / (1.0 + np.exp(-logits))
    return np.unique([*grid, *(start for start, _ in STARTS), 0.0])[::-1]


def certify(
    probability: FloatArray,
    wrong: BoolArray,
    eligible: BoolArray,
    *,
    max_risk: float,
    delta: float,
) -> Certificate:
    """The laxest threshold with r(λ) <= R, with confidence 1 - δ.

    Args:
        probability: p̃ of the class that would be acted on (n,); NaN counts as not accepted.
        wrong: Where that class is not the label (n,).
        eligible: Where no other rule defers or rejects (n,).
        max_risk: R in (0, 1).
        delta: δ in (0, 1).

    Raises:
        ConfigError: R or δ is not in (0, 1).
        DataError: Shapes that differ.
        NotCertifiableError: No threshold passes; it says how many images would be needed.

    >>> n = 1000
    >>> sure, right = np.full(n, 0.999), np.zeros(n, dtype=bool)
    >>> certify(sure, right, ~right, max_risk=0.01, delta=0.05).threshold
    0.0
    """
    check_share("max_risk R", max_risk)
    check_share("delta", delta)
    n = len(probability)
    if n == 0 or wrong.shape != (n,) or eligible.shape != (n,):
        raise DataError(
            f"probabilities have shape {probability.shape}, errors {wrong.shape}, eligible "
            f"{eligible.shape}; expected (n,) each, n >= 1"
        )
    thresholds = candidates()
    order = np.argsort(-probability[eligible], kind="stable")
    # -p ascends, so this counts the eligible images with p >= λ.
    counts = np.searchsorted(-probability[eligible][order], -thresholds, side="right")
    errors = np.concatenate([[0], np.cumsum(wrong[eligible][order])])[counts]
    p_values = np.where(errors < counts, bdtr(errors, np.maximum(counts, 1), max_risk), 1.0)
    dealt = dict(STARTS)
    level = 0.0
    best: Certificate | None = None
    tried: list[tuple[int, int, float]] = []
    for threshold, count, error, p_value in zip(
        thresholds.tolist(), counts.tolist(), errors.tolist(), p_values.tolist(), strict=True
    ):
        level = min(level + delta * dealt.get(threshold, 0.0), delta)
        if level == 0.0:
            continue
        if p_value <= level:
            best = Certificate(
                max_risk=max_risk,
                delta=delta,
                threshold=threshold,
                images=n,
                accepted=count,
                errors=error,
                p_value=p_value,
                level=level,
            )
        else:
            tried.append((count, error, level))
            level = 0.0
    if best is None:
        raise _not_certifiable(tried, n, max_risk, delta)
    return best


def fewest_without_error(risk: float, level: float) -> int:
    """The smallest count with (1 - R)^count <= level: what it takes if nothing is wrong.

    >>> fewest_without_error(0.02, 0.05)
    149
    """
    return math.ceil(math.log(level) / math.log1p(-risk))


def _needed(count: int, errors: int, n: int, risk: float, level: float) -> int | None:
    """Images needed if the same share is accepted and wrong; None where the share is too high."""
    if count == 0:
        return None
    rate = errors / count
    accepted = max(fewest_without_error(risk, level), count + 1)  # `count` was not enough
    while rate < risk and accepted <= _MOST_IMAGES:
        if bdtr(math.ceil(rate * accepted), accepted, risk) <= level:
            return math.ceil(accepted * n / count)
        accepted = math.ceil(accepted * 1.02)
    return None


def _not_certifiable(
    tried: list[tuple[int, int, float]], n: int, risk: float, delta: float
) -> NotCertifiableError:
    """The error, from (accepted, errors, level) of every threshold that failed."""
    rates = [(errors / count, -count) for count, errors, _ in tried if count]
    found = [needed for c, e, lv in tried if (needed := _needed(c, e, n, risk, lv)) is not None]
    aim = f"a risk of {risk:g} with confidence {1 - delta:g} cannot be certified on {n} images"
    if not rates:
        return NotCertifiableError(
            f"{aim}: the other rules accept none of them; lower α, raise the cost of deferring, or "
            "look at these images",
            count=n,
            needed=None,
        )
    if not found:
        rate, most = min(rates)
        return NotCertifiableError(
            f"{aim}: the best threshold accepts {-most} and is wrong in {rate:.2%} of them; more "
            "images alone do not help, allow a larger risk",
            count=n,
            needed=None,
        )
    return NotCertifiableError(
        f"{aim}: about {min(found)} are needed if they are answered as well as these; add "
        f"{min(found) - n}, or allow a larger risk or δ",
        count=n,
        needed=min(found),
    )
