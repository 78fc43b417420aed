"""The commands `ibinn policy`, with a stub in place of the classifier."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from ibinn import cli, held_out, manifest, sources
from ibinn.assessment import Scores
from ibinn.errors import ImageDecodeError
from ibinn.policy import Costs, Origin, file
from ibinn.policy.forecast import forecast, known_misses
from ibinn.types import Verdict
from tests.ibinn import bundles
from tests.ibinn.answers import VERSIONS, make_info
from tests.ibinn.policies import CLASSES, K, draw_answers, draw_scores, make_policy

COSTS = "error = 1\ndefer = 0.5\nreject = 0.1\n"


class StubClassifier:
    """Scores images by their first pixel's red value, which is their class; 255 is broken."""

    def __init__(self, kept: held_out.HeldOutScores | None) -> None:
        self.info = make_info()
        self.model = SimpleNamespace(
            mixture=SimpleNamespace(log_weights=torch.full((K,), -float(np.log(K))))
        )
        self.reference = SimpleNamespace(
            temperature=1.0,
            quantile=lambda coverage: 0.8,
            count_b=2000,
            class_distances=tuple(np.zeros(400) for _ in range(K)),
            held_out=kept,
        )

    def prepare(self, path: Path) -> SimpleNamespace:
        pixels = np.asarray(Image.open(path))
        if pixels[0, 0, 0] == 255:
            raise ImageDecodeError("not an image")
        return SimpleNamespace(pixels=pixels)

    def score(self, pixels: np.ndarray) -> Scores:
        count = len(pixels)
        logits = np.where(np.arange(K) == pixels[:, 0, 0, :1], 8.0, 0.0)
        group = {name: np.full(count, 0.5) for name in ("pixel", "style", "semantic")}
        return Scores(
            logits=logits,
            probabilities=logits,
            views={},
            log_likelihoods=logits,
            bits_per_dim=np.zeros(count),
            statistics={},
            p_values={},
            combined_score=np.zeros(count),
            combined_p=np.full(count, 0.5),
            group_p=group,
            group_excess=group,
            class_p=np.full((count, K), 0.5),
            conformal=None,
            verdicts=(Verdict.NOT_FLAGGED,) * count,
        )


@pytest.fixture
def classifier(monkeypatch: pytest.MonkeyPatch) -> StubClassifier:
    stub = StubClassifier(draw_scores(3000))
    monkeypatch.setattr(sources, "load_classifier", lambda path, alpha: stub)
    return stub


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["policy", *map(str, arguments)])


def fit(folder: Path, *more: object, costs: str = COSTS, risk: float = 0.05) -> Result:
    (folder / "costs.toml").write_text(costs, encoding="utf-8")
    options = ("--costs", folder / "costs.toml", "--max-risk", risk, "--out", folder / "p.json")
    return run("fit", *options, *more)


@pytest.mark.usefixtures("classifier")
def test_fit_prints_what_to_expect_and_writes_the_policy(tmp_path: Path) -> None:
    result = fit(tmp_path, "--ood-share", 0.1, "--name", "careful")
    assert result.exit_code == 0, result.stderr
    for words in ("careful", "at most 5 % of accepted answers wrong", "per 1,000 images, 900 known",
                  "deferred to a person", "false alarms", "digits 25 %"):  # fmt: skip
        assert words in result.stdout
    policy = file.read(tmp_path / "p.json")
    assert policy.origin == Origin(weights=VERSIONS.weights, calibration=VERSIONS.calibration)
    assert policy.digest in result.stdout


def test_fit_takes_scores_or_a_folder_of_images(tmp_path: Path, classifier) -> None:
    classifier.reference.held_out = None
    held_out.save(draw_scores(3000), tmp_path / "scores", weights=VERSIONS.weights,
                  calibration=VERSIONS.calibration)  # fmt: skip
    assert fit(tmp_path, "--scores", tmp_path / "scores").exit_code == 0
    images = write_images(tmp_path / "images", count=60)
    result = fit(tmp_path, "--images", images, risk=0.2)
    assert result.exit_code == 0, result.stderr
    certificate = file.read(tmp_path / "p.json").certificate
    assert certificate is not None
    assert (certificate.images, certificate.errors) == (60, 0)


def write_images(folder: Path, *, count: int) -> Path:
    for i in range(count):
        path = folder / CLASSES[i % K] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((2, 2, 3), i % K, dtype=np.uint8)).save(path)
    return folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--images", "a", "--scores", "b"), "give one of them"),
        (("--images", "nowhere"), "is no folder"),
        (("--scores", "nowhere"), "not readable as a safetensors file"),
        (("--ood-share", "2"), "--ood-share is 2"),
        (("--delta", "0"), "delta is 0"),
        (("--max-risk", "0.0001"), "are needed"),
    ],
)
@pytest.mark.usefixtures("classifier")
def test_bad_options_of_fit_are_refused_by_name(tmp_path: Path, options, message) -> None:
    result = fit(tmp_path, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "p.json").exists()


@pytest.mark.usefixtures("classifier")
def test_bad_costs_are_refused_with_the_file_s_name(tmp_path: Path) -> None:
    result = fit(tmp_path, costs=COSTS + "[confusions.cow]\ncat = 1")
    assert result.exit_code == 2
    assert "costs.toml" in result.stderr
    assert "no class 'cow'" in result.stderr


def test_a_bundle_without_scores_says_how_to_give_some(tmp_path: Path, classifier) -> None:
    classifier.reference.held_out = None
    result = fit(tmp_path)
    assert result.exit_code == 2
    assert "give --images DIR or --scores FILE" in result.stderr


@pytest.mark.usefixtures("classifier")
def test_folders_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", count=5)
    (images / "cow").mkdir()
    assert "no class 'cow'" in fit(tmp_path, "--images", images).stderr
    (images / "cow").rmdir()
    Image.fromarray(np.full((2, 2, 3), 255, dtype=np.uint8)).save(images / "cat" / "broken.png")
    result = fit(tmp_path, "--images", images)
    assert "1 of 6 images cannot be read" in result.stderr
    assert "broken.png" in result.stderr
    (tmp_path / "empty").mkdir()
    assert "holds no images" in fit(tmp_path, "--images", tmp_path / "empty").stderr


def test_show_describes_a_policy(tmp_path: Path) -> None:
    file.write(make_policy(name="plain"), tmp_path / "p.json")
    result = run("show", tmp_path / "p.json")
    assert result.exit_code == 0
    assert "not certified" in result.stdout
    values = json.loads(run("show", tmp_path / "p.json", "--json").stdout)
    assert values["digest"] == make_policy(name="plain").digest
    assert run("show", tmp_path / "none").exit_code == 2


def test_check_tells_whether_a_policy_is_for_a_bundle(tmp_path: Path) -> None:
    bundles.write_bundle(tmp_path / "bundle")
    found = manifest.read(tmp_path / "bundle")
    origin = Origin(weights=found.weights_digest, calibration=found.calibration_digest)
    common = {
        "classes": bundles.CLASSES,
        "costs": Costs.zero_one(10, defer=1, reject=1),
        "alpha": 0.05,
        "coverage": 0.9,
    }
    path = tmp_path / "p.json"
    for changes, code, message in (
        ({"origin": origin}, 0, "fits tiny"),
        ({"origin": None}, 0, "no certified risk"),
        ({"origin": Origin(weights="w", calibration="c")}, 2, "fit it again"),
        ({"origin": origin, "alpha": 0.01}, 2, "fit it again for this bundle"),
    ):
        file.write(make_policy(**(common | changes)), path)
        result = run("check", path, "--bundle", tmp_path / "bundle")
        assert result.exit_code == code
        assert message in result.stdout + result.stderr


def test_a_forecast_counts_every_image_once() -> None:
    scores, answers = draw_scores(300), draw_answers(300)
    found = forecast(make_policy(), answers, scores.labels, unknown_share=0.25)
    assert found.accepted.hits + found.deferred.hits + found.rejected.hits == 300
    assert found.errors.hits <= found.accepted.hits
    assert found.per_thousand_known(1.0) + found.per_thousand_unknown(1.0) == pytest.approx(1000)
    assert found.mean_cost_low <= found.mean_cost <= found.mean_cost_high


def test_misses_are_those_of_the_next_smaller_significance() -> None:
    tests = make_info().tests
    assert known_misses(tests, 0.05) == (("digits", 0.125),)
    assert known_misses(tests, 0.02) == (("digits", 0.25),)
    assert known_misses(tests, 0.001) == ()
