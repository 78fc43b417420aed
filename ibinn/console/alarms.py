"""What the page says of α: false alarms beside misses, and what it would make of this image."""

from __future__ import annotations

import numpy as np

from ibinn.console import markup
from ibinn.console.markup import Cell
from ibinn.console.plots import Line, trade_off_figure
from ibinn.console.trade_off import (
    FalseAlarms,
    Misses,
    combined_test,
    false_alarms,
    measured_points,
    misses,
)
from ibinn.rendering.words import p_value
from ibinn.types import ModelInfo, Prediction, TestInfo

MOST_PER_1000 = 200
"""Right end of the slider."""
_PLACES = 40


def range_per_1000(info: ModelInfo) -> tuple[int, int]:
    """Ends of the slider in false alarms per 1,000: not below what the calibration can test."""
    test = combined_test(info)
    smallest = 0.0 if test is None else test.smallest_p
    return max(1, int(np.ceil(1000 * smallest - 1e-9))), MOST_PER_1000


def alarms_html(info: ModelInfo, prediction: Prediction | None, alpha: float) -> str:
    """False alarms beside misses at α, and whether this image would be called unknown.

    Args:
        info: The model.
        prediction: The answer shown, or None without one.
        alpha: The significance chosen.
    """
    test = combined_test(info)
    if test is None:
        return markup.notice("This model is not calibrated: there is no α to choose.", kind="plain")
    p = prediction.combined.p_value if prediction and prediction.combined else None
    found = misses(test, alpha)
    parts = [
        "" if prediction is None else markup.paragraph(image_words(p, alpha), kind="headline"),
        trade_off_table(false_alarms(info, alpha), found),
    ]
    if found:
        parts += [_figure(test, found, alpha, p, range_per_1000(info)), _note(found)]
    else:
        parts.append(markup.paragraph("The model's report measured no misses.", kind="dim"))
    return "".join(parts)


def image_words(p: float | None, alpha: float) -> str:
    """What α would make of an image with this p-value.

    >>> image_words(0.02, 0.05)
    'This image has p = 0.0200. At α = 0.05 it would be called UNKNOWN: p is at most α.'
    """
    if p is None:
        return "This image has no p-value, whatever α."
    if p <= alpha:
        what = "it would be called UNKNOWN: p is at most α."
    else:
        what = "it would not be called unknown: p is above α."
    return f"This image has p = {p_value(p)}. At α = {alpha:g} {what}"


def trade_off_table(alarms: FalseAlarms, found: tuple[Misses, ...]) -> str:
    """False alarms per 1,000 beside misses per 1,000."""
    rows: list[tuple[Cell, ...]] = [
        (
            "false alarms: images of known kinds",
            f"{1000 * alarms.alpha:g} on average, {1000 * alarms.low:.1f} to "
            f"{1000 * alarms.high:.1f} for 95 % of calibrations",
            "promised"
            if alarms.measured is None
            else f"promised; the report counted {1000 * alarms.measured:.1f}",
            "–",
        )
    ]
    rows += [(f"misses: {each.set_name}", *_told(each), _percentage(each.auroc)) for each in found]
    return markup.table(
        f"Per 1,000 images at α = {alarms.alpha:g}",
        ("of", "per 1,000", "how known", "AUROC"),
        rows,
        element="trade-off",
    )


def _told(found: Misses) -> tuple[str, str]:
    if found.measured:
        return f"{1000 * found.low:.0f}", "measured"
    between = f"between {1000 * found.low:.0f} and {1000 * found.high:.0f}"
    if found.estimate is None:
        return between, "bounds"
    return f"about {1000 * found.estimate:.0f}", f"estimated; surely {between}"


def _percentage(auroc: float | None) -> str:
    return "–" if auroc is None else f"{100 * auroc:.1f} %"


def _figure(
    test: TestInfo,
    found: tuple[Misses, ...],
    alpha: float,
    p: float | None,
    ends: tuple[int, int],
) -> str:
    places = tuple(float(place) for place in np.geomspace(*ends, _PLACES))
    at_places = [misses(test, place / 1000) for place in places]
    measured, guessed = [], []
    for number, each in enumerate(found):
        points = measured_points(test, each.set_name)
        measured.append(
            Line(
                name=each.set_name,
                x=tuple(1000 * at for at, _ in points),
                y=tuple(1000 * rate for _, rate in points),
            )
        )
        guesses = [at_place[number].estimate for at_place in at_places]
        guessed.append(
            Line(
                name=each.set_name,
                x=places,
                y=tuple(None if guess is None else 1000 * guess for guess in guesses),
            )
        )
    return markup.drawing(
        trade_off_figure(measured, guessed, alpha=alpha, p_value=p),
        shows="Misses per 1,000 over false alarms per 1,000; the same figures as in the table",
        caption="Markers were measured by the model's report; dashed lines are estimates between "
        "and beyond them.",
        element="trade-off-figure",
    )


def _note(found: tuple[Misses, ...]) -> str:
    guess = (
        ""
        if all(each.measured for each in found)
        else " An estimate is a line on normal quantiles through the nearest measured points."
    )
    return markup.paragraph(
        "False alarms are promised for images like those of calibration. Nothing is promised "
        "about misses: they are of the report's images, and another kind may be missed more "
        f"often.{guess} The server's own α is set by its operator, not here.",
        kind="dim",
    )
