"""Sheets of explained answers: pictures, classes, verdict, reason and heatmaps on a page.

Everything here is a function of results; no model is asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ibinn.explain.lettering import drawable, font, line_height, write
from ibinn.explain.overlays import Colour, deviations, overlay, tinted
from ibinn.types import ClassScore, Explanation, Prediction, Verdict

__all__ = ["SheetRow", "deviations", "explanation_sheet", "overlay"]

Pixels = npt.NDArray[np.uint8]

_INK: Colour = (28, 32, 38)
_DIM: Colour = (104, 112, 122)
_RULE: Colour = (222, 226, 230)
_BAR: Colour = (58, 124, 165)
_BAR_BED: Colour = (234, 238, 241)
_VERDICTS: dict[Verdict, Colour] = {
    Verdict.NOT_FLAGGED: (38, 128, 72),
    Verdict.AMBIGUOUS: (176, 116, 0),
    Verdict.UNKNOWN: (190, 36, 40),
    Verdict.NOT_ASSESSED: (128, 62, 140),
}

_CELL = 192  # side of every picture on a sheet, in pixels
_GAP = 18
_MARGIN = 32
_WORDS = 430  # width of the column of words
_MAPS = 3  # heatmaps side by side
_CLASSES = 3
_WORDS_HEIGHT = 600  # more than a row's words can take


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetRow:
    """One explained image of a sheet.

    Attributes:
        title: What the image is, such as its file name.
        explanation: The answer with its heatmaps and what the network saw.
        original: The picture as it came, uint8 (height, width, 3), or None to leave it out.
    """

    title: str
    explanation: Explanation
    original: Pixels | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Panel:
    """A map with its words: what it is of, and the name of what it adds up to."""

    title: str
    total: str
    values: npt.NDArray[np.float64]


def explanation_sheet(rows: Sequence[SheetRow | tuple[str, Explanation]]) -> Image.Image:
    """A page with a row per image: pictures, classes, verdict, reason, p-value and heatmaps.

    Args:
        rows: What to show, from the top; (title, explanation) stands for a `SheetRow` without
            the original.

    Returns:
        An RGB image.
    """
    full = [
        row if isinstance(row, SheetRow) else SheetRow(title=row[0], explanation=row[1])
        for row in rows
    ]
    pictures = 2 if any(row.original is not None for row in full) else 1
    strips = [_head(pictures), *(_row(row, pictures) for row in full)]
    page = Image.new("RGB", (strips[0].width, sum(strip.height for strip in strips)), "white")
    y = 0
    for strip in strips:
        page.paste(strip, (0, y))
        y += strip.height
    return page


def _page_width(pictures: int) -> int:
    return 2 * _MARGIN + (pictures + _MAPS) * (_CELL + _GAP) + _WORDS


def _head(pictures: int) -> Image.Image:
    strip = Image.new("RGB", (_page_width(pictures), 104), "white")
    draw = ImageDraw.Draw(strip)
    width = strip.width - 2 * _MARGIN
    y = write(
        draw, (_MARGIN, 26), "Answers and their evidence", font(26, "bold"), _INK, width=width
    )
    write(
        draw,
        (_MARGIN, y + 4),
        "A heatmap adds up to log q(class | image). Red cells speak for the class more than an "
        "even share would, blue cells less; the heatmaps of a row share one scale.",
        font(15),
        _DIM,
        width=width,
    )
    return strip


def _row(row: SheetRow, pictures: int) -> Image.Image:
    lines = math.ceil(len(_panels(row.explanation)) / _MAPS)
    room = _WORDS_HEIGHT + lines * 2 * _CELL  # cut below to what is used
    strip = Image.new("RGB", (_page_width(pictures), room), "white")
    draw = ImageDraw.Draw(strip)
    draw.line((_MARGIN, 0, strip.width - _MARGIN, 0), fill=_RULE, width=2)
    x, top = _MARGIN, 24
    seen = row.explanation.image
    if pictures == 2:
        if row.original is not None:
            height, width, _ = row.original.shape
            _picture(strip, (x, top), row.original, f"original, {width}×{height}")
        x += _CELL + _GAP
    caption = f"as the network saw it, {seen.shape[1]}×{seen.shape[0]}"
    bottom = _picture(strip, (x, top), seen, caption)
    x += _CELL + _GAP
    bottom = max(bottom, _words(draw, (x + 4, top), row.title, row.explanation.prediction))
    x += _WORDS + _GAP
    bottom = max(bottom, _heatmaps(strip, (x, top), row.explanation))
    return strip.crop((0, 0, strip.width, min(math.ceil(bottom) + 22, strip.height)))


def _picture(strip: Image.Image, at: tuple[int, int], pixels: Pixels, caption: str) -> float:
    x, y = at
    image = Image.fromarray(pixels)
    # Small images keep their pixels visible, because they are what was judged.
    small = max(image.size) <= _CELL // 2
    factor = _CELL / max(image.size)
    width, height = (max(1, round(side * factor)) for side in image.size)
    method = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
    shown = image.resize((width, height), method)
    strip.paste(shown, (x + (_CELL - width) // 2, y + (_CELL - height) // 2))
    return write(
        ImageDraw.Draw(strip), (x, y + _CELL + 8), caption, font(12), _DIM, width=_CELL, max_lines=2
    )


def _words(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], title: str, prediction: Prediction
) -> float:
    x, y = at
    width = _WORDS - 8
    bottom = write(draw, (x, y), title, font(18, "bold"), _INK, width=width, max_lines=2) + 8
    for score in prediction.classes[:_CLASSES]:
        bottom = _class_bar(draw, (x, bottom), score, width)
    bottom = _verdict(draw, (x, bottom + 8), prediction.verdict) + 8
    bottom = write(draw, (x, bottom), prediction.reason, font(15), _INK, width=width, max_lines=6)
    for line in _figures(prediction):
        bottom = write(draw, (x, bottom + 4), line, font(13), _DIM, width=width, max_lines=2)
    return bottom


def _class_bar(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], score: ClassScore, width: int
) -> float:
    x, y = at
    letters = font(15)
    name_width, number_width, height = 128, 72, line_height(letters) + 6
    write(draw, (x, y), score.name, letters, _INK, width=name_width - 8)
    left, right = x + name_width, x + width - number_width
    box = (left, y + 2, right, y + height - 7)
    draw.rounded_rectangle(box, 3, fill=_BAR_BED)
    share = min(max(score.probability, 0.0), 1.0)
    if share * (right - left) >= 1:
        filled = (left, y + 2, left + share * (right - left), y + height - 7)
        draw.rounded_rectangle(filled, 3, fill=_BAR)
    number = drawable(_percent(score.probability), letters)
    draw.text((x + width, y), number, fill=_INK, font=letters, anchor="ra")
    return y + height


def _verdict(draw: ImageDraw.ImageDraw, at: tuple[float, float], verdict: Verdict) -> float:
    x, y = at
    letters = font(14, "bold")
    word = drawable(verdict.value.replace("_", " "), letters)
    box = (x, y, x + letters.getlength(word) + 22, y + 26)
    draw.rounded_rectangle(box, 13, fill=_VERDICTS[verdict])
    draw.text((x + 11, y + 13), word, fill="white", font=letters, anchor="lm")
    return box[3]


def _figures(prediction: Prediction) -> list[str]:
    combined = prediction.combined
    if combined is None:
        tested = "not tested: the model is not calibrated"
    elif combined.p_value is None:
        tested = f"combined test: no p-value (α = {combined.alpha:g})"
    else:
        relation = "≤" if combined.flagged else ">"
        tested = (
            f"combined test: p = {_p_value(combined.p_value)} {relation} α = {combined.alpha:g}"
        )
    lines = [f"{tested}; {prediction.bits_per_dim:.2f} bits/dim"]
    if prediction.conformal is not None:
        names = ", ".join(prediction.conformal.classes)
        lines.append(f"{100 * prediction.conformal.target_coverage:g} % class set: {names}")
    if (decision := prediction.decision) is not None:
        what = decision.action.value.replace("_", " ")
        if decision.class_name is not None:
            what += f" {decision.class_name}"
        lines.append(f"decision: {what} (rule {decision.rule})")
    return lines


def _heatmaps(strip: Image.Image, at: tuple[int, int], explanation: Explanation) -> float:
    """The maps, three side by side, on one scale, over their colour bar in nats."""
    left, y = at
    draw = ImageDraw.Draw(strip)
    maps = _panels(explanation)
    if not maps:
        width = _MAPS * (_CELL + _GAP) - _GAP
        return write(draw, (left, y), "no heatmap for this network", font(15), _DIM, width=width)
    scale = max(float(np.abs(deviations(panel.values)).max()) for panel in maps)
    bottom = float(y)
    for start in range(0, len(maps), _MAPS):
        ends = [
            _heatmap(
                strip,
                (left + place * (_CELL + _GAP), round(bottom)),
                panel,
                image=explanation.image,
                scale=scale,
            )
            for place, panel in enumerate(maps[start : start + _MAPS])
        ]
        bottom = max(ends) + 10
    return _colour_bar(strip, (left, round(bottom)), scale)


def _panels(explanation: Explanation) -> list[_Panel]:
    panels = [
        _Panel(title=heatmap.class_name, total="log q", values=heatmap.values)
        for heatmap in explanation.heatmaps
    ]
    if (contrast := explanation.contrast) is not None:
        title = f"{contrast.class_name} against {contrast.versus}"
        panels.append(_Panel(title=title, total="log-odds", values=contrast.values))
    return panels


def _heatmap(
    strip: Image.Image, at: tuple[int, int], panel: _Panel, *, image: Pixels, scale: float
) -> float:
    x, y = at
    drawn = overlay(image, panel.values, scale=scale, size=_CELL)
    strip.paste(Image.fromarray(drawn), (x, y))
    draw = ImageDraw.Draw(strip)
    bottom = write(draw, (x, y + _CELL + 8), panel.title, font(15, "bold"), _INK, width=_CELL)
    total = f"sum = {panel.total} = {_signed(float(np.sum(panel.values)))} nats"
    return write(draw, (x, bottom), total, font(13), _DIM, width=_CELL, max_lines=2)


def _colour_bar(strip: Image.Image, at: tuple[int, int], scale: float) -> float:
    x, y = at
    draw = ImageDraw.Draw(strip)
    letters = font(12)
    width, height = 2 * _CELL + _GAP, 12
    ramp = np.broadcast_to(np.linspace(-1, 1, width), (height, width))
    strip.paste(Image.fromarray(tinted(np.full((height, width), 150.0), ramp)), (x, y))
    marks = (
        (x, f"{_signed(-scale)}", "la"),
        (x + width / 2, "even share", "ma"),
        (x + width, f"{_signed(scale)}", "ra"),
    )
    for place, mark, anchor in marks:
        write(draw, (place, y + height + 4), mark, letters, _DIM, width=width, anchor=anchor)
    write(draw, (x + width + _GAP, y - 2), "nats per cell", letters, _DIM, width=_CELL)
    return y + height + 4 + line_height(letters)


def _signed(value: float) -> str:
    return (f"{value:+.4g}" if abs(value) >= 5e-4 else f"{value:+.1e}").replace("-", "−")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _p_value(value: float) -> str:
    return f"{value:.4f}" if value >= 1e-4 else f"{value:.1e}"
