from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from jinja2 import Environment, StrictUndefined

from ibinn.model_report import model_report
from ibinn.selective_bootstrap import Ranking
from tests.training.tiny_material import material
from training.chapters import headline
from training.chapters.base import NotMeasured
from training.chapters.headline import POSTERIOR, RESNET, TEST, TRUST, Headline, compare
from training.chapters.registry import Chapter, fragment
from training.mix import NO_LABEL, Mix, MixConfig, make_mix
from training.ood_sets import OodCollection, OodSet
from training.report import filters

COUNT = 400


@pytest.fixture
def mix(rng: np.random.Generator) -> Mix:
    images = rng.integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)
    sets = [
        OodSet(name=name, description=f"{name}.", images=np.zeros((COUNT, 8, 8, 3), np.uint8))
        for name in ("tiny-imagenet", "digits")
    ]
    return make_mix(images, np.zeros(COUNT, np.int64), sets, MixConfig())


def ranking(
    name: str, mix: Mix, rng: np.random.Generator, *, known: float, wrong: float
) -> Ranking:
    """Errs on a share `wrong` of the known images; `known` is how far unknown ones sink."""
    unknown = mix.labels == NO_LABEL
    failures = unknown | (rng.random(len(unknown)) < wrong)
    confidence = rng.standard_normal(len(unknown)) - failures - known * unknown
    return Ranking(name=name, confidence=confidence, failures=failures)


def compared(mix: Mix, *rankings: Ranking, draws: int = 60) -> Headline:
    return compare(mix, rankings, draws=draws, seed=0, temperature=None, notes=())


def page(result: Headline) -> str:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(filters())
    return str(fragment(Chapter(name="headline", result=result), environment))


def test_a_ranking_that_finds_unknown_images_is_said_to_be_better(mix, rng):
    result = compared(
        mix,
        ranking(TRUST, mix, rng, known=3, wrong=0.1),
        ranking(POSTERIOR, mix, rng, known=0, wrong=0.1),
    )
    (found,) = result.mix.comparisons
    assert found.augrc.high < 0
    assert all(risk.high < 0 for risk in found.selective_risk)
    text = page(result)
    assert "is <b>lower</b>" in text
    assert "worse" not in text.split("<table>")[0]


def test_a_ranking_that_is_worse_is_said_to_be_worse(mix, rng):
    result = compared(
        mix,
        ranking(TRUST, mix, rng, known=0, wrong=0.3),
        ranking(RESNET, mix, rng, known=3, wrong=0.05),
    )
    assert result.mix.comparisons[0].augrc.low > 0
    assert "<b>higher, that is worse</b>" in page(result)


def test_no_difference_is_claimed_where_the_interval_holds_zero(mix, rng):
    same = ranking(TRUST, mix, rng, known=1, wrong=0.2)
    twin = Ranking(name=RESNET, confidence=same.confidence, failures=same.failures)
    result = compared(mix, same, twin)
    assert not result.mix.comparisons[0].augrc.excludes_zero
    assert "<b>not shown to differ</b>" in page(result)


def test_errors_of_the_components_add_up_to_the_selective_risk(mix, rng):
    result = compared(
        mix,
        ranking(TRUST, mix, rng, known=1, wrong=0.2),
        ranking(POSTERIOR, mix, rng, known=0, wrong=0.2),
    )
    for position, row in enumerate(result.mix.rankings):
        total = sum(dict(c.errors)[row.name] for c in result.components)
        assert total == pytest.approx(row.selective_risk[-1].value)
        accepted = sum(c.share * dict(c.accepted)[row.name] for c in result.components)
        assert accepted == pytest.approx(result.coverages[-1]), position


def test_the_ranking_is_judged_apart_from_the_classifier(mix, rng):
    result = compared(mix, ranking(TRUST, mix, rng, known=0, wrong=0.2))
    row = result.mix.rankings[0]
    e = row.error_rate
    assert row.failure_auroc is not None
    assert row.augrc.value == pytest.approx(e * (1 - e) * (1 - row.failure_auroc) + e**2 / 2)
    assert row.augrc.value >= row.best_augrc


def test_parts_hold_only_their_own_images(mix, rng):
    result = compared(mix, ranking(TRUST, mix, rng, known=1, wrong=0.2))
    by_name = {part.name: part for part in result.parts}
    assert by_name["clean test images only"].ood_share == 0.0
    near = by_name["clean and near-OoD"]
    assert near.ood_share == pytest.approx(0.125 / 0.625)
    assert near.rankings[0].error_rate > near.ood_share
    assert [m.ood_share for m in result.sensitivity] == pytest.approx([0.1, 0.25, 0.5])


def test_figures_for_the_manifest_follow_its_grammar(mix, rng):
    result = compared(
        mix,
        ranking(TRUST, mix, rng, known=2, wrong=0.2),
        ranking(POSTERIOR, mix, rng, known=0, wrong=0.2),
        ranking(TEST, mix, rng, known=3, wrong=0.2),
    )
    report = model_report(headline.headline(result))
    assert report is not None
    assert report.augrc is not None
    assert report.augrc.value == result.mix.rankings[0].augrc.value
    assert {risk.coverage for risk in report.selective_risks} == {0.95, 0.8}
    assert {c.comparator for c in report.comparisons} == {POSTERIOR}
    assert len(report.comparisons) == 3


def test_images_that_were_not_assessed_are_accepted_last():
    found = material()
    mix = make_mix(
        np.zeros((4, 8, 8, 3), np.uint8),
        np.zeros(4, np.int64),
        [OodSet(name="digits", description="", images=np.zeros((2, 8, 8, 3), np.uint8))],
        MixConfig(),
    )
    own = found.test_scores
    first = replace_p(own, np.nan)
    rankings = headline.own_rankings(mix, [part(first, 4), part(own, 4), part(own, 2)])
    assert (rankings[0].confidence[:4] == -np.inf).all()
    assert np.isfinite(rankings[0].confidence[4:]).all()


def replace_p(scored, value):
    nan = {name: np.full_like(p, value) for name, p in scored.p.items()}
    return replace(scored, p=nan)


def part(scored, count):
    from training.chapters.membership import taken

    return taken(scored, list(range(count)))


def test_the_chapter_measures_every_ranking_of_a_bundle():
    result = headline.measure(replace(material(), draws=10, limit=2))
    assert isinstance(result, Headline)
    assert [row.name for row in result.mix.rankings] == list(headline.TITLES)
    assert result.resnet_temperature is not None
    assert set(headline.figures(result)) == {"curves"}


def test_without_a_comparator_the_chapter_says_what_is_missing():
    result = headline.measure(replace(material(), comparator=None, draws=5, limit=2))
    assert isinstance(result, Headline)
    assert [row.name for row in result.mix.rankings] == [TRUST, POSTERIOR, TEST]
    assert any("There is no ResNet" in note for note in result.notes)
    assert "There is no ResNet" in page(result)


def test_without_unknown_images_the_chapter_is_not_measured():
    bare = replace(material(), sets=OodCollection(sets=(), left_out=()))
    assert isinstance(headline.measure(bare), NotMeasured)
