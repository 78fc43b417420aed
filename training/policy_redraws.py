"""How often a policy's certified risk holds: calibration sets drawn again and again.

Every draw deals a pool of labelled images into calibration and held-out images, calibrates on the
first as `training.calibrate` does on part B (reference ranks and conformal quantile; temperature
and density of states stay, they are part A's), fits a policy there, and counts its errors on the
second. The draws share images, so they show what to expect, but are not independent.

Shapes: N images of the pool, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ibinn.conformal import fit_quantile
from ibinn.errors import DataError, NotCertifiableError
from ibinn.held_out import HeldOutScores, leave_one_out
from ibinn.ood.p_values import p_values
from ibinn.policy.decision import decide_many
from ibinn.policy.fitting import ModelFacts, fit, model_answers
from ibinn.policy.terms import Terms
from ibinn.types import TestKind

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pool:
    """Labelled images that served neither training nor calibration part A.

    Attributes:
        logits: (N, K) at T = 1.
        labels: (N,).
        combined: Score of the combined test, high = unusual (N,), finite.
    """

    logits: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    combined: FloatArray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Redraw:
    """One draw.

    Attributes:
        threshold: λ, or None where nothing could be certified.
        accepted: Held-out images accepted; 0 where nothing could be certified.
        errors: How many of these are wrong.
        count: Held-out images.
    """

    threshold: float | None
    accepted: int
    errors: int
    count: int

    @property
    def risk(self) -> float:
        """errors / accepted, 0 where nothing is accepted."""
        return self.errors / self.accepted if self.accepted else 0.0

    @property
    def coverage(self) -> float:
        """Share of the held-out images accepted."""
        return self.accepted / self.count


def redraws(
    pool: Pool,
    facts: ModelFacts,
    terms: Terms,
    *,
    max_risk: float,
    delta: float,
    calibration_count: int,
    draws: int,
    seed: int = 0,
) -> Iterator[Redraw]:
    """Fit and judge a policy `draws` times.

    Args:
        pool: The images.
        facts: The model; its calibration's quantile and counts are replaced by each draw's.
        terms: Of the policy, without class shares and class-wise significances.
        max_risk: R.
        delta: δ.
        calibration_count: Images per calibration set.
        draws: Number of draws.
        seed: Of the draws.

    Raises:
        DataError: The pool leaves no held-out images.
    """
    if not 0 < calibration_count < len(pool):
        raise DataError(
            f"{calibration_count} of {len(pool)} images are for calibration; expected at least 1 "
            "and fewer than all"
        )
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        order = rng.permutation(len(pool))
        drawn, rest = order[:calibration_count], order[calibration_count:]
        calibration = _scores(pool, drawn, leave_one_out(pool.combined[drawn]))
        ranks = np.sort(pool.combined[drawn])
        fresh = p_values(pool.combined[rest], ranks, TestKind.HIGH_IS_UNUSUAL)
        held_out = _scores(pool, rest, fresh)
        own = replace(
            facts,
            calibration_count=calibration_count,
            quantile=fit_quantile(
                model_answers(calibration, facts).probabilities, calibration.labels, facts.coverage
            ),
        )
        try:
            policy = fit(terms, calibration, own, max_risk=max_risk, delta=delta, name="redraw")
        except NotCertifiableError:
            yield Redraw(threshold=None, accepted=0, errors=0, count=len(rest))
            continue
        made = decide_many(policy, model_answers(held_out, own))
        wrong = made.accepted & (made.classes != held_out.labels)
        yield Redraw(
            threshold=policy.certificate.threshold if policy.certificate else None,
            accepted=int(made.accepted.sum()),
            errors=int(wrong.sum()),
            count=len(rest),
        )


def _scores(pool: Pool, index: npt.NDArray[np.int64], p: FloatArray) -> HeldOutScores:
    return HeldOutScores(
        logits=pool.logits[index],
        labels=pool.labels[index],
        combined_p=p,
        # Which group stands out decides between DEFER and REJECT_INPUT, never what is accepted.
        drivers=np.zeros(len(index), dtype=np.int8),
    )
