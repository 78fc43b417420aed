"""The chapter on policies, with drawn scores in place of a model's."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from importlib import resources
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ibinn.assessment import COMBINED
from tests.ibinn.answers import make_info
from tests.ibinn.policies import K, draw_scores
from training.chapters import policy as chapter
from training.chapters.base import Material, NotMeasured
from training.evaluation import _plain
from training.ood_sets import LazyImages, OodCollection, OodSet
from training.report import filters
from training.scoring import Scored
from training.svg import svg

COUNT = 1200


def scored(count: int, *, seed: int) -> Scored:
    scores = draw_scores(count, seed=seed)
    return Scored(
        logits=scores.logits.astype(np.float64),
        probabilities=np.exp(scores.logits),
        bits_per_dim=np.zeros(count),
        p={COMBINED: scores.combined_p},
        unusual={COMBINED: 1 - scores.combined_p},
        views={},
        statistics={},
        verdicts=np.full(count, "NOT_FLAGGED"),
    )


def classifier(count_b: int = 800, *, kept: bool = True) -> SimpleNamespace:
    def score(pixels: np.ndarray) -> SimpleNamespace:
        # Even images stand out in their pixels.
        even = pixels[:, 0, 0, 0] % 2 == 0
        groups = {"pixel": np.where(even, 0.1, 0.9), "style": 0.5, "semantic": 0.5}
        found = {name: np.broadcast_to(p, even.shape) for name, p in groups.items()}
        return SimpleNamespace(group_p=found, group_excess=found)

    return SimpleNamespace(
        info=make_info(),
        model=SimpleNamespace(
            mixture=SimpleNamespace(log_weights=torch.full((K,), -float(np.log(K))))
        ),
        preprocessing=SimpleNamespace(fit_size=lambda x: x, finish=lambda x: x),
        score=score,
        reference=SimpleNamespace(
            temperature=1.0,
            quantile=lambda coverage: 0.8,
            count_b=count_b,
            class_distances=tuple(np.zeros(count_b // K) for _ in range(K)),
            held_out=draw_scores(count_b, seed=5) if kept else None,
        ),
    )


class Images:
    """Test images whose pixels are their index."""

    labels = draw_scores(COUNT, seed=1).labels

    def __len__(self) -> int:
        return COUNT

    def load(self, index: int) -> np.ndarray:
        return np.full((2, 2, 3), index % 256, dtype=np.uint8)


def material(**changes: Any) -> Material:
    images = LazyImages(count=300, make=lambda i: np.full((2, 2, 3), i % 256, dtype=np.uint8))
    entries: dict[str, Any] = {
        "classifier": classifier(),
        "manifest": None,
        "test": Images(),
        "train": None,
        "validation": None,
        "calibration_a": None,
        "calibration_b": None,
        "sets": OodCollection(
            sets=(OodSet(name="noise", description="", images=images),), left_out=()
        ),
        "scorer": None,
        "test_scores": scored(COUNT, seed=1),
        "set_scores": {"noise": scored(300, seed=2)},
        "comparator": None,
        "limit": 100,
    }
    return Material(**(entries | changes))


@pytest.fixture(scope="module")
def result() -> Iterator[chapter.PolicyChapter]:
    patch = pytest.MonkeyPatch()
    patch.setattr(chapter, "DRAWS", 20)
    patch.setattr(chapter, "MAX_RISK", 0.1)
    yield cast(chapter.PolicyChapter, chapter.measure(material()))
    patch.undo()


def render(result: chapter.PolicyChapter) -> str:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(filters())
    template = resources.files("training.chapters").joinpath("policy.html.j2").read_text("utf-8")
    drawn = {
        name: Markup(svg(figure, name=name)) for name, figure in chapter.figures(result).items()
    }
    return environment.from_string(template).render(c=result, figures=drawn)


def test_actions_are_shares_of_all_images(result: chapter.PolicyChapter) -> None:
    for actions in (result.test, *result.sets):
        hits = actions.accepted.hits + actions.deferred.hits + actions.rejected.hits
        assert hits == actions.count
        assert sum(share for _, share in actions.rules) == pytest.approx(1.0)
    assert result.test.count == COUNT
    assert result.sets[0].count == 100


def test_pictures_are_rejected_where_pixels_stand_out(result: chapter.PolicyChapter) -> None:
    rejected = dict(result.test.rules)["unknown_picture"]
    flagged = np.flatnonzero(scored(COUNT, seed=1).p[COMBINED] <= 0.01)
    assert rejected == pytest.approx(np.sum(flagged % 2 == 0) / COUNT)


def test_the_policy_is_certified_and_its_risk_counted(result: chapter.PolicyChapter) -> None:
    assert result.certified is not None
    assert result.refusal == ""
    assert result.risk.count == result.test.accepted.hits
    assert result.errors.hits == result.risk.hits
    redraws = result.redraws
    assert redraws is not None
    assert redraws.kept + redraws.exceeded.hits == redraws.draws == 20
    assert redraws.calibration_count + redraws.held_out_count == COUNT


def test_the_chapter_is_json_and_a_fragment_that_loads_nothing(result) -> None:
    text = json.dumps(_plain(result), allow_nan=False)
    assert json.loads(text)["certified"]["threshold"] == result.certified.threshold
    page = render(result)
    assert page.startswith("<h2>")
    assert "<svg" in page
    assert "http:" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "")


def test_a_risk_that_cannot_be_certified_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chapter, "DRAWS", 3)
    monkeypatch.setattr(chapter, "MAX_RISK", 0.0001)
    found = cast(chapter.PolicyChapter, chapter.measure(material()))
    assert found.certified is None
    assert "could not be certified" in render(found)
    assert found.redraws is not None
    assert found.redraws.refused == 3


def test_without_calibration_images_nothing_is_measured() -> None:
    found = chapter.measure(material(classifier=classifier(kept=False)))
    assert isinstance(found, NotMeasured)
    assert "part B" in found.reason


def test_part_b_is_scored_where_the_bundle_keeps_no_scores(monkeypatch) -> None:
    monkeypatch.setattr(chapter, "DRAWS", 2)
    part_b = scored(COUNT, seed=3)
    scorer = SimpleNamespace(images=lambda images, name, finish: part_b)
    images = Images()
    given = material(
        classifier=classifier(kept=False), calibration_b=images, scorer=scorer, limit=10
    )
    kept = chapter._part_b(dataclasses.replace(given))
    assert kept is not None
    among_others = np.maximum(part_b.p[COMBINED] * (COUNT + 1) - 1, 1)
    np.testing.assert_allclose(kept.combined_p * COUNT, among_others)
