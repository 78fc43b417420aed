"""The page of extreme images: its order is the statistic's, and it stays where the data are."""

import subprocess

import numpy as np
import pytest

from ibinn import bundle
from ibinn.assessment import COMBINED
from ibinn.errors import ConfigError
from tests.ibinn.bundles import make_manifest, write_bundle
from training.data import open_data
from training.extremes import FILE, check_private, extremes, write_page
from training.scoring import Scorer, fitted


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extremes") / "bundle"
    write_bundle(folder)
    return bundle.load(folder)


@pytest.fixture(scope="module")
def images():
    return open_data("digits").train.subset(range(60))


def test_both_ends_of_every_statistic_and_of_the_combined_test_are_shown(classifier, images):
    scorer = Scorer(model=classifier, reference=classifier.reference, batch_size=60)
    scored = scorer.images(fitted(images, classifier.preprocessing), "test", finish=True)
    found = extremes(classifier, images, scored, count=4)
    assert [e.statistic for e in found] == [COMBINED, *(s.name for s in classifier.statistics)]
    for ends in found:
        values = scored.unusual[COMBINED] if ends.statistic == COMBINED else None
        values = scored.statistics[ends.statistic] if values is None else values
        finite = np.sort(values[np.isfinite(values)])
        assert [e.value for e in ends.low] == finite[:4].tolist()
        assert [e.value for e in ends.high] == finite[::-1][:4].tolist()
    assert found[0].high[0].p_value == scored.p[COMBINED].min()


def test_the_page_names_the_images_and_says_that_they_are_not_to_be_passed_on(
    classifier, images, tmp_path
):
    path = write_page(classifier, make_manifest(), images, tmp_path / "out", count=2)
    page = path.read_text(encoding="utf-8")
    assert path == tmp_path / "out" / FILE
    assert "Not for redistribution" in page
    assert 'src="data:image/png;base64,' in page
    assert "http:" not in page
    assert "https:" not in page
    assert "digits/" in page


def test_folders_that_a_repository_tracks_are_refused(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("/runs/\n", encoding="utf-8")
    check_private(tmp_path / "runs" / "extremes")
    with pytest.raises(ConfigError, match="does not ignore"):
        check_private(tmp_path / "docs")
    with pytest.raises(ConfigError, match="runs/extremes"):
        check_private(tmp_path)


def test_folders_outside_of_any_repository_are_fine(tmp_path):
    check_private(tmp_path / "anywhere" / "at all")
