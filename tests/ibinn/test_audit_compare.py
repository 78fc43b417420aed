"""An answer that was computed again is the one on record, or what differs is named."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest

from ibinn.audit_compare import STOPPED, compare
from ibinn.types import Action, Decision, Prediction, Verdict
from tests.ibinn import ledgers

RECORDED = ledgers.prediction()


def replaced(answer: Prediction, **changes: object) -> Prediction:
    return dataclasses.replace(answer, **changes)  # type: ignore[arg-type]


def scored(**changes: float | None) -> Prediction:
    first, *others = RECORDED.classes
    return replaced(RECORDED, classes=(dataclasses.replace(first, **changes), *others))


def combined(**changes: object) -> Prediction:
    only = RECORDED.combined
    assert only is not None
    return replaced(RECORDED, combined=dataclasses.replace(only, **changes))  # type: ignore[arg-type]


def measured(**changes: object) -> Prediction:
    (only,) = RECORDED.tests
    return replaced(RECORDED, tests=(dataclasses.replace(only, **changes),))  # type: ignore[arg-type]


def test_an_answer_is_the_same_as_itself_whatever_a_server_adds_to_it() -> None:
    found = compare(RECORDED, replaced(RECORDED, receipt=None, guarantee=None, reason="other"))
    assert found.differences == ()
    assert {each.largest for each in found.deviations} == {0.0}
    assert sum(each.count for each in found.deviations) == 5 * 4 + 3 + 2 * 3


@pytest.mark.parametrize(
    "within",
    [
        scored(log_likelihood=RECORDED.top.log_likelihood + 0.018),
        scored(probability=RECORDED.top.probability * math.exp(9e-4)),
        scored(p_value=0.3 + 1 / 2501),
        measured(p_adjusted=0.42 + 1 / 2501),
        replaced(RECORDED, bits_per_dim=RECORDED.bits_per_dim + 9e-6),
    ],
)
def test_what_the_order_of_sums_can_do_is_no_difference(within: Prediction) -> None:
    found = compare(RECORDED, within)
    assert found.differences == ()
    assert max(each.largest for each in found.deviations) > 0


@pytest.mark.parametrize(
    ("beyond", "what"),
    [
        (scored(log_likelihood=RECORDED.top.log_likelihood + 0.03), "log-likelihood of cat"),
        (scored(log_likelihood=math.nan), "log-likelihood of cat"),
        (scored(probability=RECORDED.top.probability * 1.002), "probability of cat"),
        (scored(probability=0.0), "probability of cat"),
        (scored(raw_probability=0.6), "uncalibrated probability of cat"),
        (scored(p_value=0.3 + 3 / 2501), "p-value of cat"),
        (scored(p_value=None), "p-value of cat"),
        (measured(statistic=3.51), "statistic of log_q_x.typicality"),
        (combined(statistic=RECORDED.combined.statistic + 0.01), "statistic of combined"),
        (combined(p_value=0.5), "p-value of combined"),
        (measured(p_value=0.5), "p-value of log_q_x.typicality"),
        (measured(p_adjusted=0.5), "adjusted p-value of log_q_x.typicality"),
        (measured(flagged=True), "flag of test log_q_x.typicality"),
        (replaced(RECORDED, combined=None), "tests"),
        (replaced(RECORDED, bits_per_dim=4.12), "bits per dimension"),
        (replaced(RECORDED, entropy=1.04), "entropy"),
        (replaced(RECORDED, temperature=1.3), "temperature"),
        (replaced(RECORDED, verdict=Verdict.AMBIGUOUS), "verdict"),
        (replaced(RECORDED, decision=None), "decision"),
        (replaced(RECORDED, conformal_sets=()), "plain set for 0.95"),
        (replaced(RECORDED, classes=RECORDED.classes[::-1]), "most probable class"),
        (replaced(RECORDED, classes=RECORDED.classes[:-1]), "classes"),
        (
            replaced(RECORDED, input=dataclasses.replace(RECORDED.input, sha256_pixels="22" * 32)),
            "pixels of the image (sha256)",
        ),
    ],
)
def test_whatever_else_differs_is_named(beyond: Prediction, what: str) -> None:
    (difference,) = compare(RECORDED, beyond).differences
    assert difference.what == what
    assert difference.recorded != difference.replayed
    (back,) = compare(beyond, RECORDED).differences or (difference,)
    assert back.what == what


def test_a_decision_of_the_stop_button_is_not_compared() -> None:
    stopped = Decision(
        action=Action.DEFER, class_name=None, rule=STOPPED, reason="drill", expected_cost=None
    )
    assert compare(replaced(RECORDED, decision=stopped), RECORDED).differences == ()


def test_figures_that_are_no_numbers_on_both_sides_agree() -> None:
    undefined: Callable[[], Prediction] = lambda: measured(  # noqa: E731
        statistic=math.nan, p_value=None, p_adjusted=None
    )
    assert compare(undefined(), undefined()).differences == ()
