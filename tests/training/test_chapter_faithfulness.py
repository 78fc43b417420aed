"""The chapter on heatmaps: of a tiny model everything is measured, and what cannot be is said."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from jinja2 import Environment, StrictUndefined

from tests.training.tiny_material import LIMIT, material
from training import report
from training.attributions import HEATMAP, LABELS
from training.chapters import faithfulness
from training.chapters.base import NotMeasured
from training.chapters.faithfulness_results import Faithfulness
from training.chapters.registry import Chapter, fragment
from training.evaluation import _plain


@pytest.fixture(scope="module")
def chapter() -> Faithfulness:
    with pytest.MonkeyPatch.context() as patch:
        # An untrained model is sure of nothing.
        patch.setattr(faithfulness, "CONFIDENT", 1e-3)
        patch.setattr(faithfulness, "PATH_STEPS", 4)
        found = faithfulness.measure(material())
    assert isinstance(found, Faithfulness)
    return found


def rendered(result: object) -> str:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        pct=report.percent, rate=report.rate_text, num=report.number, sci=report.scientific
    )
    return str(fragment(Chapter(name="faithfulness", result=result), environment))


def test_every_method_stands_beside_the_heatmap_on_the_same_images(chapter):
    assert tuple(m.name for m in chapter.curves) == tuple(LABELS)
    assert chapter.count == LIMIT
    for method in chapter.curves:
        assert (method.insertion_gain is None) == (method.name == HEATMAP)
        # Insertion ends where deletion starts, at the whole image, and the reverse.
        assert method.insertion_curve[-1] == pytest.approx(method.deletion_curve[0], abs=1e-6)
        assert method.insertion_curve[-1] == pytest.approx(chapter.probability, abs=1e-6)
        assert method.insertion_curve[0] == pytest.approx(chapter.probability_blurred, abs=1e-6)


def test_gains_are_differences_of_the_means(chapter):
    ours = chapter.curves[0]
    for method in chapter.curves[1:]:
        assert method.insertion_gain.value == pytest.approx(
            ours.insertion.value - method.insertion.value
        )
        assert method.deletion_gain.value == pytest.approx(
            method.deletion.value - ours.deletion.value
        )


def test_one_option_of_each_method_is_chosen_and_it_is_the_best(chapter):
    for label in {choice.label for choice in chapter.choices}:
        options = [choice for choice in chapter.choices if choice.label == label]
        best = max(options, key=lambda choice: choice.score)
        assert [choice.chosen for choice in options] == [choice is best for choice in options]


def test_heatmaps_are_complete_on_every_image_used(chapter):
    assert chapter.completeness.right
    assert chapter.completeness.worst <= 1e-3
    planted = sum(group.count for group in chapter.patches)
    forgetful = len(chapter.stages) * chapter.forgetting_count
    assert chapter.completeness.maps == 10 * (chapter.count + planted + forgetful)


def test_every_comparison_with_captum_is_concluded_once(chapter):
    concluded = [*chapter.won, *chapter.lost, *chapter.undecided]
    measured = sum(1 for group in chapter.patches if group.count)
    assert measured > 0
    assert len(concluded) == len(set(concluded)) == 4 * (2 + measured)


def test_the_page_and_the_json_say_all_of_it(chapter):
    page = rendered(chapter)
    assert page.startswith("<h2>")
    assert page.count("<svg") == 2 + any(group.count for group in chapter.patches)
    assert "Where our maps lose" in page
    for label in LABELS.values():
        assert label in page
    text = json.dumps(_plain(chapter), allow_nan=False)
    assert json.loads(text)["curves"][0]["name"] == HEATMAP
    assert not re.search(r"<image|data:image", page)


def test_without_a_patch_that_decided_the_page_says_so(chapter):
    empty = dataclasses.replace(chapter.patches[0], count=0, methods=())
    page = rendered(dataclasses.replace(chapter, patches=(empty,)))
    assert "no patch decided" in page


def test_what_is_missing_is_told(chapter):
    without = dataclasses.replace(material(), validation=None)
    found = faithfulness.measure(without)
    assert isinstance(found, NotMeasured)
    assert "validation" in found.reason
