from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from ibinn.assessment import COMBINED
from tests.training.evaluation_stub import StubClassifier, make_set, pictures
from training import plots, published, report
from training.checkpoint import CurvePoint
from training.evaluate import evaluate
from training.evaluation import Baseline, Evaluation, Rate
from training.ood_sets import LeftOut, OodCollection, OodSet
from training.report_figures import HeatmapExamples, Samples, figures
from training.svg import svg

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source"}


class Page(HTMLParser):
    """Collects what a browser would load, and checks that elements nest."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self._read(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._read(attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def _read(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "poster", "srcset", "action"):
                self.loads.append(value or "")
            if name == "id":
                self.ids.append(value or "")


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    rng = np.random.default_rng(1)
    model = StubClassifier(rng, jpeg=True)
    zeros = np.zeros(50, dtype=int)
    far = pictures(zeros, zeros, np.full(50, 255), np.full(50, 100))
    faint = [make_set(rng, 50).load(i) for i in range(50)]
    return evaluate(
        model,
        make_set(rng, 400),
        OodCollection(
            sets=(
                OodSet(name="rotation", description="Turned <b>colours</b>.", images=far),
                OodSet(
                    name="noise-0.015", description="Faint.", images=faint, barred=False,
                    caveat="No bar is set.",
                ),
            ),
            left_out=(LeftOut(name="digits", reason="no MNIST directory was given"),),
        ),
        test_name="made-up images",
        calibration=model.part_b,
        floor_draws=20,
        curve=[
            CurvePoint(
                step=step, epoch=step / 10, loss=1.0, nll_per_dim=1.0, log_posterior=-1.0,
                accuracy=0.5, learning_rate=0.1, images_per_s=1.0,
                validation_accuracy=0.5 if step % 10 == 0 else None,
            )
            for step in range(1, 21)
        ],
        baseline=Baseline(
            name="ResNet-20", accuracy=Rate.of(390, 400), train_seconds=600.0, description=""
        ),
        facts=(("Command", "ibinn-train fit <x>"),),
    )  # fmt: skip


@pytest.fixture(scope="module")
def samples() -> Samples:
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 8, 8, 3), dtype=np.uint8)
    return Samples(class_names=("bolt", "nut", "washer"), images=images, note="Seed 0.")


@pytest.fixture(scope="module")
def page_text(evaluation: Evaluation, samples: Samples) -> str:
    return report.render_html(evaluation, samples=samples)


@pytest.fixture(scope="module")
def page(page_text: str) -> Page:
    parsed = Page()
    parsed.feed(page_text)
    return parsed


def test_report_loads_nothing_from_anywhere(page_text: str, page: Page) -> None:
    assert all(load.startswith(("#", "data:image/png;base64,")) for load in page.loads)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert not re.search(r"@import|url\((?!#)", page_text)
    assert "default-src 'none'" in page_text
    elsewhere = set(re.findall(r"https?://[^\s\"'<>]+", page_text))
    assert elsewhere <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_report_is_well_formed_with_unique_ids(page: Page) -> None:
    assert page.open == []
    assert page.tags.count("html") == page.tags.count("h1") == 1
    # matplotlib repeats the ids of glyph-free groups within a figure at most for definitions.
    assert len(page.ids) == len(set(page.ids))


def test_report_escapes_what_it_is_given(page_text: str) -> None:
    assert "Turned &lt;b&gt;colours&lt;/b&gt;." in page_text
    assert "ibinn-train fit &lt;x&gt;" in page_text
    assert "Tests &lt;only&gt;." in page_text


def test_report_states_the_figures(evaluation: Evaluation, page: Page) -> None:
    text = " ".join(" ".join(page.text).split())
    assert "80.0 %" in text
    assert "digits: left out." in text
    assert "no MNIST directory was given" in text
    assert "ResNet-20" in text
    assert "97.5 %" in text
    assert "(no bar)" in text
    flags = next(f for f in evaluation.false_flags if f.test == COMBINED).at[0]
    assert f"{flags.low}–{flags.high}" in text
    for found in evaluation.false_flags:
        assert found.test in text


def test_every_table_says_how_its_figures_were_obtained(page: Page) -> None:
    assert page.tags.count("table") == page.tags.count("caption") > 5
    assert page.tags.count("figure") == page.tags.count("figcaption") > 4


def test_heatmaps_of_data_set_images_are_off_unless_given(
    evaluation: Evaluation, samples: Samples
) -> None:
    evaluation = dataclasses.replace(evaluation, histograms=(), curve=(), sets=())
    assert "heatmaps" not in figures(evaluation, samples=samples)
    examples = HeatmapExamples(
        titles=("bolt 0.9",), images=samples.images[0, :1], maps=np.ones((1, 2, 2))
    )
    assert "heatmaps" in figures(evaluation, heatmap_examples=examples)


def test_published_rows_stand_only_beside_cifar10(
    evaluation: Evaluation, page_text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not report.is_cifar10(evaluation)
    assert "Beside published results" not in page_text
    classes = tuple(
        dataclasses.replace(evaluation.classes[0], name=name)
        for name in sorted(published.CIFAR10_CLASSES)
    )
    cifar = dataclasses.replace(
        evaluation, classes=classes, histograms=(), curve=(), sets=evaluation.sets[:1]
    )
    monkeypatch.setattr(report, "figures", lambda *_, **__: {"reliability": Figure((1, 1))})
    text = report.render_html(cifar)
    assert "Not comparable as they stand." in text
    assert "CIFAR-10 (JPEG)" in text
    assert "78.80" in text


def test_own_rows_have_the_columns_of_the_published_table(evaluation: Evaluation) -> None:
    single, combined = report.own_rows(evaluation)
    assert combined.error == pytest.approx(20.0)
    assert combined.auroc[0] == 100.0
    assert combined.auroc[1] is None
    assert single.auroc == (None, None, None, None)  # the stub has no log q(x)
    assert combined.ece == pytest.approx(100 * evaluation.raw.thesis.with_centres.ece)


def test_published_table_averages_by_the_geometric_mean() -> None:
    assert report.mean_auroc(published.CIFAR10[0]) == pytest.approx(68.76, abs=0.01)
    assert report.mean_auroc(published.CIFAR10[-1]) is None


def test_write_report_leaves_a_page_and_its_figures_as_json(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    bare = dataclasses.replace(evaluation, histograms=(), curve=(), sets=())
    paths = report.write_report(bare, tmp_path / "new" / "folder")
    assert paths.html.read_text("utf-8").startswith("<!doctype html>")
    plain = json.loads(paths.json.read_text("utf-8"))
    assert plain["format"] == 1
    assert plain["accuracy"]["hits"] == 320


def test_the_same_figure_gives_the_same_text() -> None:
    edges = np.linspace(0, 1, 5)
    panel = plots.HistogramPanel(title="x", edges=edges, shares={"test": np.full(4, 0.25)})
    assert svg(plots.histograms([panel], {}), name="a") == svg(
        plots.histograms([panel], {}), name="a"
    )


def test_plots_touch_no_global_state() -> None:
    source = Path(plots.__file__).read_text("utf-8")
    assert "import pyplot" not in source
    assert "matplotlib.pyplot" not in source
    figure = plots.reliability([])
    assert isinstance(figure, Figure)
    assert svg(figure, name="x").startswith("<svg")


def test_numbers_are_written_for_people() -> None:
    assert report.percent(None) == "–"
    assert report.percent(0.1234, 2) == "12.34\u00a0%"
    assert report.number(12345.678) == "12,345.68"
    assert report.scientific(3.14e-6) == "3.1e-06"
    assert report.rate_text(Rate.of(0, 0)) == "–"
    assert report.miss_text(None) == "–"
