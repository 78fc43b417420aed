"""Heatmaps over images, and the sheet of answers."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ibinn.explain import lettering
from ibinn.explain.drawing import SheetRow, deviations, explanation_sheet, overlay
from ibinn.types import (
    ClassScore,
    ConformalSet,
    Explanation,
    Group,
    Heatmap,
    InputInfo,
    Prediction,
    Region,
    TestKind,
    TestResult,
    Verdict,
    Versions,
)

GREY = np.full((32, 32, 3), 128, np.uint8)


def explanation(
    *,
    verdict: Verdict = Verdict.NOT_FLAGGED,
    reason: str = "Nothing unusual was found.",
    maps: int = 3,
    p_value: float | None = 0.4,
    names: tuple[str, ...] = ("cat", "dog", "ship", "deer", "frog", "bird", "horse"),
) -> Explanation:
    shares = np.array([0.5**place for place in range(1, len(names) + 1)])
    combined = TestResult(
        name="combined",
        group=Group.COMBINED,
        kind=TestKind.HIGH_IS_UNUSUAL,
        statistic=1.0,
        p_value=p_value,
        p_adjusted=p_value,
        smallest_p=0.0004,
        alpha=0.01,
        flagged=verdict is Verdict.UNKNOWN,
    )
    rng = np.random.default_rng(0)
    heatmaps = []
    for name, share in zip(names[:maps], shares, strict=False):
        noise = rng.normal(size=(4, 4))
        values = noise - noise.mean() + np.log(share) / 16
        heatmaps.append(
            Heatmap(
                class_name=name,
                values=values,
                log_posterior=float(np.log(share)),
                completeness_error=0.0,
            )
        )
    prediction = Prediction(
        classes=tuple(
            ClassScore(
                index=index,
                name=name,
                probability=float(share),
                raw_probability=float(share),
                log_likelihood=-9000.0,
            )
            for index, (name, share) in enumerate(zip(names, shares, strict=True))
        ),
        entropy=1.0,
        temperature=1.0,
        bits_per_dim=4.0,
        conformal=ConformalSet(classes=names[:2], target_coverage=0.95, measured_coverage=None),
        tests=(),
        combined=None if verdict is Verdict.NOT_ASSESSED else combined,
        verdict=verdict,
        reason=reason,
        observed_accuracy=None,
        versions=Versions(weights="w", calibration="c", policy="p", taxonomy="1", software="0"),
        calibration_count=2500,
        input=InputInfo(
            width=32,
            height=32,
            format="PNG",
            sha256_bytes="",
            sha256_pixels="",
            region=Region(left=0, top=0, width=32, height=32),
            reductions=(),
        ),
    )
    return Explanation(prediction=prediction, heatmaps=tuple(heatmaps), image=GREY)


# ------------------------------------------------------------------------------------ overlays


def test_overlay_has_the_size_asked_for() -> None:
    drawn = overlay(GREY, np.zeros((4, 4)), size=100)
    assert drawn.shape == (100, 100, 3)
    assert drawn.dtype == np.uint8


def test_even_heatmap_leaves_the_image_grey() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    drawn = overlay(image, np.full((4, 4), -0.3)).astype(int)
    assert np.ptp(drawn, axis=2).max() <= 1


def test_cells_above_the_mean_share_are_red_and_below_blue() -> None:
    values = np.full((4, 4), -1.0)  # all negative: what counts is the mean share, not zero
    values[0, 0], values[3, 3] = -0.5, -1.5
    drawn = overlay(GREY, values, size=64).astype(int)
    red_over_blue = drawn[..., 0] - drawn[..., 2]
    assert red_over_blue[4, 4] > 80
    assert red_over_blue[60, 60] < -80
    assert abs(red_over_blue[4, 60]) < 20


def test_colour_does_not_depend_on_a_constant_shared_by_all_cells() -> None:
    values = np.random.default_rng(1).normal(size=(4, 4))
    np.testing.assert_allclose(
        overlay(GREY, values).astype(int), overlay(GREY, values - 7.25), atol=1
    )


def test_shared_scale_makes_weak_heatmaps_pale() -> None:
    values = np.random.default_rng(1).normal(size=(4, 4))
    strong = np.ptp(overlay(GREY, values, scale=2.0).astype(int), axis=2).mean()
    weak = np.ptp(overlay(GREY, values / 10, scale=2.0).astype(int), axis=2).mean()
    assert weak < strong / 3


def test_top_left_cell_is_drawn_top_left() -> None:
    values = np.zeros((4, 4))
    values[0, 3] = 1.0
    drawn = overlay(GREY, values, size=64).astype(int)
    row, column = np.unravel_index(np.argmax(drawn[..., 0] - drawn[..., 2]), (64, 64))
    assert row < 20
    assert column > 44


def test_deviations_add_up_to_nothing() -> None:
    values = np.random.default_rng(2).normal(size=(3, 5))
    assert deviations(values).sum() == pytest.approx(0, abs=1e-12)


# -------------------------------------------------------------------------------------- sheets


@pytest.mark.parametrize("verdict", list(Verdict))
def test_sheet_shows_every_verdict(verdict: Verdict) -> None:
    sheet = explanation_sheet([("an image", explanation(verdict=verdict))])
    assert isinstance(sheet, Image.Image)
    assert sheet.mode == "RGB"
    assert np.asarray(sheet).std() > 10


def test_verdicts_look_different() -> None:
    sheets = {
        explanation_sheet([("an image", explanation(verdict=verdict))]).tobytes()
        for verdict in Verdict
    }
    assert len(sheets) == len(Verdict)


def test_every_row_takes_its_room() -> None:
    heights = [
        explanation_sheet([SheetRow(title="x", explanation=explanation())] * count).height
        for count in (0, 1, 2, 3)
    ]
    assert heights[2] - heights[1] == heights[3] - heights[2] == heights[1] - heights[0] > 200


def test_original_gets_a_column_of_its_own() -> None:
    original = np.zeros((30, 90, 3), np.uint8)
    without = explanation_sheet([("x", explanation())])
    row = SheetRow(title="x", explanation=explanation(), original=original)
    assert explanation_sheet([row, ("y", explanation())]).width > without.width


@pytest.mark.parametrize("maps", [0, 1, 3, 4, 7])
def test_all_heatmaps_asked_for_are_drawn(maps: int) -> None:
    heights = [explanation_sheet([("x", explanation(maps=maps))]).height for _ in range(2)]
    assert heights[0] == heights[1]
    if maps > 3:
        assert heights[0] > explanation_sheet([("x", explanation(maps=3))]).height + 150


def test_nothing_is_cut_off_at_the_right_edge() -> None:
    long = "a very long sentence without end " * 12
    sheet = np.asarray(
        explanation_sheet([("name" * 60, explanation(reason=long, names=("class" * 20, "b", "c")))])
    )
    assert (sheet[:, -30:] == 255).all()


@pytest.mark.parametrize(
    "text", ["", "two\nlines\tand a \x1b[31mtab", "α ≤ 0.01 · 日本語 🐈", "w" * 500]
)
def test_any_words_can_be_shown(text: str) -> None:
    assert explanation_sheet([(text, explanation(reason=text, p_value=None))]).height > 200


def test_sheet_is_drawn_without_matplotlib_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "find_spec", lambda name: None)
    lettering.font.cache_clear()
    try:
        letters = lettering.font(15)
        assert lettering.drawable("p ≤ α", letters) == "p <= alpha"
        assert explanation_sheet([("p ≤ α", explanation())]).height > 200
    finally:
        lettering.font.cache_clear()


def test_lines_never_exceed_the_width() -> None:
    letters = lettering.font(15)
    text = "Pixel statistics are unusual, and thisisoneextraordinarilylongwordwithoutanyspace here."
    lines = lettering.wrap(text, letters, 120)
    assert all(letters.getlength(line) <= 120 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    short = lettering.wrap(text, letters, 120, max_lines=2)
    assert len(short) == 2
    assert letters.getlength(short[-1]) <= 120


def test_drawing_needs_neither_torch_nor_matplotlib() -> None:
    program = (
        "import sys, ibinn.explain.drawing; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'matplotlib')))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
