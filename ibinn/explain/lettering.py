"""Words on pictures: fonts, wrapping, and characters that a font lacks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Pillow's own font has no Greek and hardly any symbols.
_IN_ASCII: Mapping[int, str] = MappingProxyType(
    str.maketrans(
        {
            "α": "alpha",
            "γ": "gamma",
            "ε": "epsilon",
            "×": "x",
            "−": "-",
            "–": "-",
            "—": "-",
            "≤": "<=",
            "≥": ">=",
            "≈": "~",
            "±": "+/-",
            "→": "->",
            "·": ".",
            "…": "...",
        }
    )
)


@lru_cache(maxsize=32)
def font(size: int, weight: str = "regular") -> Font:
    """DejaVu Sans where matplotlib has brought it along, else Pillow's own font.

    Args:
        size: Height in pixels.
        weight: ``regular`` or ``bold``.
    """
    name = "DejaVuSans-Bold.ttf" if weight == "bold" else "DejaVuSans.ttf"
    spec = find_spec("matplotlib")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, "mpl-data", "fonts", "ttf", name)
        if path.is_file():
            return ImageFont.truetype(path, size)
    return ImageFont.load_default(size)


def drawable(text: str, letters: Font) -> str:
    """``text`` on one line, without control characters, in characters that the font has."""
    text = " ".join(text.split())
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    if isinstance(letters, ImageFont.FreeTypeFont) and letters.getname()[0] == "DejaVu Sans":
        return text
    return text.translate(_IN_ASCII)


def wrap(text: str, letters: Font, width: int, *, max_lines: int | None = None) -> list[str]:
    """Break ``text`` into lines of at most ``width`` pixels; the last one ends in … if cut.

    Words that are wider than a line are broken, so that no line sticks out.
    """
    lines: list[str] = []
    line = ""
    for word in drawable(text, letters).split():
        joined = f"{line} {word}" if line else word
        if letters.getlength(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        while letters.getlength(word) > width and len(word) > 1:
            head = _longest_prefix(word, letters, width)
            lines.append(head)
            word = word[len(head) :]
        line = word
    lines.append(line)
    if max_lines is not None and len(lines) > max_lines:
        lines = [*lines[: max_lines - 1], _cut(lines[max_lines - 1], letters, width)]
    return lines


def write(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    letters: Font,
    colour: tuple[int, int, int],
    *,
    width: int,
    max_lines: int = 1,
    anchor: str = "la",
) -> float:
    """Write ``text`` wrapped to ``width`` pixels from the top at ``at``.

    Returns:
        The vertical position below the last line.
    """
    x, y = at
    height = line_height(letters)
    for line in wrap(text, letters, width, max_lines=max_lines):
        draw.text((x, y), line, fill=colour, font=letters, anchor=anchor)
        y += height
    return y


def line_height(letters: Font) -> int:
    """Distance in pixels from line to line."""
    _, top, _, bottom = letters.getbbox("Äg")
    return round(1.25 * (bottom - top) + 1)


def _longest_prefix(word: str, letters: Font, width: int) -> str:
    count = 1
    while count < len(word) and letters.getlength(word[: count + 1]) <= width:
        count += 1
    return word[:count]


def _cut(line: str, letters: Font, width: int) -> str:
    dots = drawable("…", letters)
    while line and letters.getlength(line + dots) > width:
        line = line[:-1]
    return line.rstrip() + dots
