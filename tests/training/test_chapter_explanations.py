"""The chapter on where images and classes lie: measured on a tiny model of the digits."""

import json
from importlib import resources

import numpy as np
import pytest
import torch
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ibinn import bundle
from ibinn.latent import MixtureConfig
from tests.ibinn.bundles import make_manifest, write_bundle
from tests.ibinn.networks import random_mixture
from training.chapters import explanations
from training.chapters.base import Material
from training.chapters.explanations_sheets import sheet
from training.chapters.explanations_similarity import similarity
from training.data import open_data
from training.evaluation import _plain
from training.ood_sets import OodCollection
from training.report import number, percent, rate_text, scientific
from training.scoring import Scorer, fitted
from training.svg import svg


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explanations") / "bundle"
    write_bundle(folder)
    classifier = bundle.load(folder)
    digits = open_data("digits").train
    order = np.random.default_rng(5).permutation(len(digits))
    test, part_a = digits.subset(order[:120]), digits.subset(order[120:320])
    scorer = Scorer(model=classifier, reference=classifier.reference, batch_size=60)
    scored = scorer.images(fitted(test, classifier.preprocessing), "test", finish=True)
    noise = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    return Material(
        classifier=classifier,
        manifest=make_manifest(),
        test=test,
        train=None,
        validation=None,
        calibration_a=part_a,
        calibration_b=None,
        sets=OodCollection(sets=(), left_out=()),
        scorer=scorer,
        test_scores=scored,
        set_scores={"noise": scorer.images(list(noise), "noise", finish=True)},
        comparator=None,
        limit=8,
        draws=50,
    )


@pytest.fixture(scope="module")
def result(material):
    return explanations.measure(material)


def test_every_part_is_measured_and_can_be_written_as_json(result):
    text = json.dumps(_plain(result), allow_nan=False)
    assert len(text) < 300_000
    assert len(result.maps) == 2
    assert [t.name for t in result.trajectories] == ["noise", "blur", "rotation", "contrast"]
    assert result.field is not None
    assert explanations.headline(result)["receptive_field_px"] == result.field.radius_90_px


def test_trajectories_start_at_the_answers_for_the_images_themselves(result):
    starts = {tuple(np.round((t.accuracy[0], t.confidence[0]), 9)) for t in result.trajectories}
    assert len(starts) == 1


def test_the_map_of_all_classes_is_no_better_than_chance_only_if_the_model_is(result):
    full = result.maps[0]
    assert full.accuracy.count == full.full_accuracy.count == 120
    assert full.accuracy.value is not None


def test_the_page_states_the_chapter_without_loading_anything(result):
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(pct=percent, rate=rate_text, num=number, sci=scientific)
    inline = {
        name: Markup(svg(figure, name=f"explanations-{name}"))
        for name, figure in explanations.figures(result).items()
    }
    source = resources.files("training.chapters").joinpath("explanations.html.j2")
    template = source.read_text("utf-8")
    page = environment.from_string(template).render(c=result, figures=inline)
    assert page.startswith("<h2>")
    assert len(page) < 600_000
    assert 'src="http' not in page
    assert {"similarity", "layout", "maps", "spaces", "samples", "field"} <= set(inline)


def test_similarity_ranks_confusions_where_codes_are_as_the_model_says():
    classes, names = 6, tuple("abcdef")
    mixture = random_mixture(classes, 12, MixtureConfig(initial_distance=2.0))
    means = mixture.means.detach().double().numpy() * np.linspace(0.3, 1.5, classes)[:, None]
    with torch.no_grad():
        mixture.means.copy_(torch.from_numpy(means))
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), 4_000)
    z = means[labels] + generator.standard_normal((len(labels), 12))
    products = z @ means.T
    found = similarity(
        products - 0.5 * (means**2).sum(axis=1),
        products,
        labels,
        subspaces=mixture.subspaces(),
        class_names=names,
        draws=100,
        seed=0,
    )
    assert found.rank_correlation.value > 0.85
    assert found.rank_correlation.low <= found.rank_correlation.value <= 1
    assert found.observed_error == pytest.approx(found.predicted_error, abs=0.01)
    assert found.separation == pytest.approx(1.0, abs=0.02)
    assert found.spread == pytest.approx(1.0, abs=0.02)
    assert found.sampled_deviation < 5


def test_a_sheet_gives_back_its_images_where_they_have_few_colours():
    images = np.zeros((2, 3, 8, 8, 3), np.uint8)
    images[1, 2] = (200, 30, 90)
    made = sheet(images, ("a", "b"), ("", "", ""))
    assert made.pixels().shape == (17, 26, 3)
    assert (made.pixels()[9:, 18:] == (200, 30, 90)).all()
