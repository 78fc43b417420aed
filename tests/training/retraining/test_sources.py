"""Whose statements count: what a source has to show before it contributes anything."""

from __future__ import annotations

import pytest

from ibinn.errors import ConfigError
from ibinn.types import Verdict
from tests.training.retraining.said import BASE, candidate, say
from training.retraining.sources import (
    Probation,
    SourceReport,
    Standing,
    judge,
    lower_bound,
    upper_bound,
)

SURE = {"answer": "bolt", "confidence": 0.999}


def standing(reports: tuple[SourceReport, ...], name: str) -> Standing:
    return next(report.standing for report in reports if report.name == name)


def judged(*candidates: object, trusted: tuple[str, ...] = ("anna",)) -> tuple[SourceReport, ...]:
    return judge(
        candidates,  # type: ignore[arg-type]
        trusted=trusted,
        base_weights=BASE,
        probation=Probation(),
    )


def test_a_source_that_nobody_listed_is_quarantined_until_it_was_checked() -> None:
    few = [candidate(i, say("ben", "bolt"), **SURE) for i in range(19)]
    assert standing(judged(*few), "ben") is Standing.QUARANTINED
    assert "19 of its images could be checked, 20 are needed" in judged(*few)[0].reason
    enough = [candidate(i, say("ben", "bolt"), **SURE) for i in range(20)]
    assert standing(judged(*enough), "ben") is Standing.RELEASED


def test_a_trusted_source_needs_no_check() -> None:
    assert standing(judged(candidate(0, say("anna", "nut"))), "anna") is Standing.TRUSTED


def test_a_source_that_flips_labels_stays_in_quarantine() -> None:
    flips = [candidate(i, say("eve", "nut"), **SURE) for i in range(200)]
    report = judged(*flips)[0]
    assert report.standing is Standing.QUARANTINED
    assert (report.checks, report.agreed) == (200, 0)


def test_a_source_that_lies_about_one_class_alone_stays_in_quarantine() -> None:
    honest = [candidate(i, say("eve", "bolt"), **SURE) for i in range(190)]
    flipped = [
        candidate(200 + i, say("eve", "bolt"), answer="nut", confidence=0.999) for i in range(10)
    ]
    report = judged(*honest, *flipped)[0]
    assert lower_bound(190, 200) > Probation().agreement
    assert report.standing is Standing.QUARANTINED
    assert "0 of 10 checked images of 'nut'" in report.reason


def test_a_source_is_held_against_a_trusted_one_before_the_model() -> None:
    both = [candidate(i, say("anna", "nut"), say("ben", "nut"), **SURE) for i in range(30)]
    assert standing(judged(*both), "ben") is Standing.RELEASED
    against = [candidate(i, say("anna", "nut"), say("ben", "bolt"), **SURE) for i in range(30)]
    assert standing(judged(*against), "ben") is Standing.QUARANTINED


@pytest.mark.parametrize(
    "about",
    [
        {"confidence": 0.98},
        {"confidence": 0.999, "verdict": Verdict.UNKNOWN},
        {"confidence": 0.999, "weights": "another"},
    ],
)
def test_only_sure_answers_of_the_base_check_anything(about: dict[str, object]) -> None:
    found = judged(*(candidate(i, say("ben", "bolt"), answer="bolt", **about) for i in range(50)))
    assert found[0].checks == 0


def test_an_image_counts_once_however_often_it_was_sent() -> None:
    same = [candidate(i, say("ben", "bolt"), id="same", **SURE) for i in range(50)]
    assert judged(*same)[0].checks == 1
    once_wrong = [*same, candidate(99, say("ben", "nut"), id="same", **SURE)]
    assert judged(*once_wrong)[0].agreed == 0


def test_bounds_enclose_the_share() -> None:
    assert lower_bound(0, 5) == 0.0
    assert upper_bound(5, 5) == 1.0
    assert lower_bound(18, 20) < 0.9 < upper_bound(18, 20)


@pytest.mark.parametrize("values", [{"checks": 0}, {"agreement": 0.0}, {"confidence": 1.5}])
def test_a_probation_out_of_range_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Probation(**values)  # type: ignore[arg-type]
