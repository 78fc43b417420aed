from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ibinn.console import answering, damage
from ibinn.console.asking import Damaged, Looked
from ibinn.console.corruption import SEVERITIES, Corruption
from ibinn.types import (
    Action,
    ClassPoint,
    Decision,
    DecisionSpace,
    Explanation,
    Group,
    Guarantee,
    Heatmap,
    NearbyClass,
    Prediction,
    Verdict,
)
from tests.ibinn.answers import make_info, make_prediction

SPACE = DecisionSpace(
    x=-1.5,
    y=2.0,
    boundary=0.25,
    dims=5,
    means=(
        ClassPoint(class_name="cat", x=-1.0, y=0.0, radius=3.0, probability=0.7),
        ClassPoint(class_name="dog", x=1.0, y=0.0, radius=3.0, probability=0.2),
        ClassPoint(class_name="frog", x=0.1, y=1.5, radius=2.4, probability=0.1),
    ),
)


def looked(prediction: Prediction | None = None, *, explained: bool = True) -> Looked:
    prediction = prediction or make_prediction()
    values = np.zeros((4, 4))
    values[0, 3], values[3, 0] = 1.0, -1.5
    explanation = Explanation(
        prediction=prediction,
        heatmaps=(
            Heatmap(class_name="cat", values=values, log_posterior=-0.5, completeness_error=1e-13),
        ),
        image=np.full((32, 32, 3), 128, np.uint8),
        nearby=(NearbyClass(class_name="dog", distance=1.4, overlap=0.24),),
        receptive_field_px=14.9,
        decision_space=SPACE,
    )
    return Looked(
        name="photo.png",
        data=b"image",
        info=make_info(),
        prediction=prediction,
        explanation=explanation if explained else None,
    )


@pytest.mark.parametrize("verdict", Verdict)
def test_an_answer_is_shown_with_its_verdict_and_reason_in_words(verdict: Verdict) -> None:
    prediction = make_prediction(verdict=verdict)
    page = answering.answer_html(looked(prediction))
    assert verdict.value.replace("_", " ") in page
    assert prediction.reason.replace("'", "&#x27;") in page
    for score in prediction.classes:
        assert score.name in page
        assert f"{100 * score.probability:.1f} %" in page
    assert "{cat" in page


def test_of_many_classes_the_most_probable_are_listed_and_the_rest_added_up() -> None:
    prediction = make_prediction()
    many = tuple(
        dataclasses.replace(prediction.top, name=f"class-{number}", probability=0.01)
        for number in range(100)
    )
    page = answering.classes_table(dataclasses.replace(prediction, classes=many))
    assert "class-19<" in page
    assert "class-20<" not in page
    assert "80 others</th><td>80.0 %" in page


def test_a_decision_is_shown_with_its_rule_and_cost_and_its_absence_is_said() -> None:
    decision = Decision(
        action=Action.REJECT_INPUT,
        class_name=None,
        rule="unusual_pixels",
        reason="The picture itself is unusual.",
        expected_cost=0.25,
    )
    page = answering.answer_html(looked(dataclasses.replace(make_prediction(), decision=decision)))
    for words in ("REJECT INPUT", "unusual_pixels", "The picture itself", "0.25"):
        assert words in page
    assert "no policy" in answering.answer_html(looked())


@pytest.mark.parametrize(
    ("guarantee", "words"),
    [
        (Guarantee.HELD, "Guarantee HELD"),
        (Guarantee.SUSPENDED, "Guarantee SUSPENDED: Too many are unusual."),
        (None, "No guarantee is watched"),
    ],
)
def test_the_guarantee_is_a_banner(guarantee: Guarantee | None, words: str) -> None:
    reason = "Too many are unusual." if guarantee is Guarantee.SUSPENDED else ""
    prediction = dataclasses.replace(
        make_prediction(), guarantee=guarantee, guarantee_reason=reason
    )
    assert words in answering.guarantee_html(prediction)


def test_text_of_a_server_cannot_become_markup() -> None:
    prediction = make_prediction(reason="<img src=x onerror=alert(1)>")
    top = dataclasses.replace(prediction.top, name="<script>")
    prediction = dataclasses.replace(prediction, classes=(top, *prediction.classes[1:]))
    page = answering.answer_html(looked(prediction))
    assert "<script>" not in page
    assert "<img src=x" not in page


def test_tests_are_listed_with_the_combined_one_first_and_then_the_smallest() -> None:
    prediction = make_prediction(verdict=Verdict.UNKNOWN)
    test = prediction.tests[0]
    tests = (
        dataclasses.replace(test, name="dull", p_value=0.9, flagged=False),
        dataclasses.replace(test, name="broken", p_value=None, p_adjusted=None, flagged=False),
        dataclasses.replace(test, name="sharp", p_value=0.002, flagged=True),
    )
    page = answering.tests_table(dataclasses.replace(prediction, tests=tests))
    places = [page.index(f">{name}</th>") for name in ("combined", "sharp", "dull", "broken")]
    assert places == sorted(places)
    assert "1 of 3 single ones flag" in page


def test_a_heatmap_is_drawn_over_the_image_and_described_in_words() -> None:
    page = answering.heatmap_html(looked(), "cat")
    assert page.count("data:image/png;base64,") == 2
    assert "most evidence for it at the top right, most against it at the bottom left" in page
    assert "log q = -0.5 nats" in page
    assert "about 15 px" in page
    assert answering.heatmap_html(looked(), "truck") == ""
    assert answering.heatmap_html(looked(explained=False), "cat") == ""


def test_the_evidence_holds_the_decision_space_and_near_classes() -> None:
    page = answering.evidence_html(looked())
    assert "data:image/svg+xml;base64," in page
    assert "1.8 standard deviations from the boundary between cat and dog" in page
    assert "on the side of cat" in page
    assert "near cat, whatever the image" in page
    without = looked(explained=False)
    assert "token may not ask" in answering.evidence_html(without)
    without = dataclasses.replace(
        without, info=dataclasses.replace(without.info, explainable=False)
    )
    assert "no heatmaps" in answering.evidence_html(without)


def test_the_p_value_of_a_group_is_bonferronis() -> None:
    prediction = make_prediction()
    test = prediction.tests[0]
    tests = tuple(
        dataclasses.replace(test, name=name, p_value=value)
        for name, value in (("a", 0.02), ("b", 0.5), ("c", None))
    )
    prediction = dataclasses.replace(prediction, tests=tests)
    assert damage.group_p_value(prediction, Group.PIXEL) == pytest.approx(0.04)
    assert damage.group_p_value(prediction, Group.STYLE) is None


def test_damage_is_shown_with_its_answer_and_the_p_values_of_all_severities() -> None:
    answers = [make_prediction() for _ in SEVERITIES]
    answers[-1] = make_prediction(verdict=Verdict.UNKNOWN)
    damaged = Damaged(
        record_id="a" * 32,
        corruption=Corruption.JPEG,
        images=tuple(np.zeros((32, 32, 3), np.uint8) for _ in SEVERITIES),
        answers=tuple(answers),
    )
    page = damage.damage_html(damaged, 5)
    assert "Severity 5: UNKNOWN" in page
    assert "JPEG compression, severity 5: quality 8" in page
    assert "p pixel tests" in page
    assert "p style tests" not in page
    assert page.count("0.4200") >= 5
    assert "0.0004" in page
