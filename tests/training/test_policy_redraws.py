"""Acceptance: a policy keeps the risk that it was fitted for on calibration sets drawn again."""

from __future__ import annotations

import numpy as np
import pytest

from ibinn.errors import DataError
from ibinn.policy import Costs
from ibinn.policy.fitting import ModelFacts
from ibinn.policy.terms import Terms
from tests.training.policy_pool import TEMPERATURE, stored_pool
from training.policy_redraws import redraws

FACTS = ModelFacts(
    classes=tuple(str(k) for k in range(10)),
    weights="",
    calibration="",
    temperature=TEMPERATURE,
    alpha=0.01,
    coverage=0.95,
    quantile=None,
    priors=(0.1,) * 10,
    calibration_count=2_500,
    class_counts=(250,) * 10,
)
TERMS = Terms(costs=Costs.zero_one(10, defer=0.5, reject=0.1))


@pytest.mark.parametrize("max_risk", [0.02, 0.05])
def test_the_realised_risk_is_kept_in_at_least_180_of_200_calibration_sets(max_risk) -> None:
    found = list(
        redraws(
            stored_pool(),
            FACTS,
            TERMS,
            max_risk=max_risk,
            delta=0.05,
            calibration_count=2_500,
            draws=200,
        )
    )
    assert len(found) == 200
    assert sum(draw.risk <= max_risk for draw in found) >= 180
    # Kept not because nothing is accepted: most sets certify a threshold that accepts some.
    assert sum(draw.threshold is not None for draw in found) >= 120
    assert np.mean([draw.coverage for draw in found]) > 0.15


def test_draws_repeat_with_their_seed() -> None:
    options = {"max_risk": 0.05, "delta": 0.05, "calibration_count": 2_500, "draws": 2}
    once, again, other = (
        list(redraws(stored_pool(), FACTS, TERMS, **options, seed=seed)) for seed in (0, 0, 1)
    )
    assert once == again != other


def test_a_pool_without_held_out_images_is_refused() -> None:
    pool = stored_pool()
    with pytest.raises(DataError, match="fewer than all"):
        next(
            redraws(
                pool, FACTS, TERMS, max_risk=0.1, delta=0.1, calibration_count=len(pool), draws=1
            )
        )
