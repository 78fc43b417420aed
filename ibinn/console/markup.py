"""Fragments of HTML that every part of the page uses. Whatever is text is escaped here."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

_FIGURE_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "ibinn-console",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True, slots=True)
class Html:
    """Text that is HTML already."""

    text: str


Cell = str | Html


def text_of(cell: Cell) -> str:
    """HTML of a cell: text is escaped."""
    return cell.text if isinstance(cell, Html) else escape(cell)


def paragraph(text: str, *, kind: str = "") -> str:
    """A paragraph, of a class of the style sheet."""
    return f'<p class="{escape(kind)}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def badge(word: str, kind: str) -> Html:
    """A word in a box of a colour of the style sheet."""
    return Html(f'<span class="badge {escape(kind)}">{escape(word)}</span>')


def bar(share: float) -> Html:
    """A horizontal bar for a share in [0, 1]; the number stands beside it, so it is decoration."""
    width = 100 * min(max(share, 0.0), 1.0)
    return Html(
        f'<span class="bar" aria-hidden="true"><span style="width:{width:.1f}%"></span></span>'
    )


def table(
    caption: str, head: Sequence[str], rows: Sequence[Sequence[Cell]], *, element: str = ""
) -> str:
    """A table; the first cell of a row names it.

    Args:
        caption: What it shows, read out first.
        head: Names of the columns.
        rows: Cells of each row.
        element: Its id, empty for none.
    """
    named = f' id="{escape(element)}"' if element else ""
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "".join(
        f'<tr><th scope="row">{text_of(row[0])}</th>'
        + "".join(f"<td>{text_of(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f"<table{named}><caption>{escape(caption)}</caption><thead><tr>{columns}</tr></thead>"
        f"<tbody>{lines}</tbody></table></div>"
    )


def notice(text: str, *, kind: str = "error") -> str:
    """A message that screen readers read out at once."""
    role = "alert" if kind == "error" else "status"
    return f'<div class="notice {escape(kind)}" role="{role}">{escape(text)}</div>'


def picture(
    pixels: npt.NDArray[np.uint8], *, shows: str, caption: str, side: int = 320, element: str = ""
) -> str:
    """An image with its caption, inside the page.

    Args:
        pixels: uint8 (height, width, 3).
        shows: In words, for whoever does not see it.
        caption: Under it.
        side: Its longer side as drawn. Small images are enlarged without smoothing.
        element: Id of the image.
    """
    image = Image.fromarray(pixels)
    factor = side / max(image.size)
    # Small images keep their pixels visible, because they are what was judged.
    method = Image.Resampling.NEAREST if factor > 2 else Image.Resampling.LANCZOS
    width, height = (max(1, round(each * factor)) for each in image.size)
    buffer = BytesIO()
    image.resize((width, height), method).save(buffer, format="PNG")
    return _figure("image/png", buffer.getvalue(), shows=shows, caption=caption, element=element)


def drawing(figure: Figure, *, shows: str, caption: str = "", element: str = "") -> str:
    """A figure as SVG with its caption, inside the page; see `picture`."""
    buffer = BytesIO()
    with rc_context(_FIGURE_STYLE):
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    return _figure(
        "image/svg+xml", buffer.getvalue(), shows=shows, caption=caption, element=element
    )


def _figure(media: str, data: bytes, *, shows: str, caption: str, element: str) -> str:
    named = f' id="{escape(element)}"' if element else ""
    content = base64.b64encode(data).decode("ascii")
    under = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure><img{named} alt="{escape(shows)}" src="data:{media};base64,{content}">'
        f"{under}</figure>"
    )
