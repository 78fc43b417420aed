"""What the page says of an answer: verdict, classes, guarantee, decision, tests, evidence."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ibinn.console import markup
from ibinn.console.asking import Looked, record_id_of
from ibinn.console.markup import Cell, Html
from ibinn.console.plots import decision_space_figure
from ibinn.explain.overlays import deviations, overlay
from ibinn.rendering.words import p_value, percent
from ibinn.types import (
    Action,
    DecisionSpace,
    Guarantee,
    ModelInfo,
    NearbyClass,
    Prediction,
    TestResult,
    Verdict,
)

MAP_SIDE = 320
MOST_CLASSES = 20

_VERDICTS = {
    Verdict.NOT_FLAGGED: "good",
    Verdict.AMBIGUOUS: "doubt",
    Verdict.UNKNOWN: "bad",
    Verdict.NOT_ASSESSED: "none",
}
_ACTIONS = {Action.ACCEPT: "good", Action.DEFER: "doubt", Action.REJECT_INPUT: "bad"}
_TESTS = ("test", "responds to", "p", "p adjusted", "flag")


def model_html(info: ModelInfo, target: str) -> str:
    """Who answers."""
    calibrated = (
        f"{info.calibration_count:,} calibration images, α = {info.alpha:g}"
        if info.calibrated
        else "not calibrated"
    )
    return markup.notice(
        f"{info.name} at {target}: {len(info.classes)} classes, {calibrated}, "
        f"model {info.versions.weights[:12]}. {info.intended_use}",
        kind="plain",
    )


def guarantee_html(prediction: Prediction) -> str:
    """Whether what the tests promise holds for the images of late."""
    match prediction.guarantee:
        case Guarantee.HELD:
            return markup.notice(
                "Guarantee HELD: no drift alarm stands for the images of late.", kind="good"
            )
        case Guarantee.SUSPENDED:
            return markup.notice(
                f"Guarantee SUSPENDED: {prediction.guarantee_reason} Until it is acknowledged or "
                "the model is calibrated anew, false alarms may be more than α says.",
                kind="error",
            )
        case None:
            return markup.notice(
                "No guarantee is watched: this server does not look for drift.", kind="plain"
            )


def answer_html(looked: Looked) -> str:
    """Verdict with its reason, decision, prediction set, classes."""
    prediction = looked.prediction
    parts = [
        guarantee_html(prediction),
        _stated(
            "Verdict",
            markup.badge(_words(prediction.verdict), _VERDICTS[prediction.verdict]),
            prediction.reason,
            element="verdict",
        ),
        _decision(prediction),
        _conformal(prediction),
        classes_table(prediction),
        _figures(prediction),
    ]
    return "".join(parts)


def classes_table(prediction: Prediction) -> str:
    """The classes with their probabilities, the rest together."""
    rows: list[tuple[Cell, ...]] = [
        (
            score.name,
            Html(f"{markup.bar(score.probability).text}{percent(score.probability)}"),
            p_value(score.p_value),
        )
        for score in prediction.classes[:MOST_CLASSES]
    ]
    if rest := prediction.classes[MOST_CLASSES:]:
        share = math.fsum(score.probability for score in rest)
        rows.append((f"{len(rest):,} others", percent(share), "–"))
    return markup.table(
        "Classes, most probable first",
        ("class", "probability", "p of belonging"),
        rows,
        element="classes",
    )


def tests_table(prediction: Prediction) -> str:
    """The combined test, then every single one, the smallest p-value first."""
    listed = sorted(
        prediction.tests, key=lambda test: (test.p_value is None, test.p_value or 0.0, test.name)
    )
    combined = () if prediction.combined is None else (prediction.combined,)
    flagged = sum(test.flagged for test in listed)
    return markup.table(
        f"Tests of “this image is like those of calibration”; the combined one decides, "
        f"{flagged} of {len(listed)} single ones flag",
        _TESTS,
        [_test_row(test) for test in (*combined, *listed)],
        element="tests",
    )


def evidence_html(looked: Looked) -> str:
    """The image as it came, decision space and near classes; the heatmap is `heatmap_html`."""
    explanation = looked.explanation
    if explanation is None:
        why = (
            "The console's token may not ask for explanations."
            if looked.info.explainable
            else "This model has no heatmaps and no decision space: its network does not end in "
            "an orthonormal pooling."
        )
        return markup.notice(why, kind="plain")
    parts = []
    if (space := explanation.decision_space) is not None:
        parts.append(
            markup.drawing(
                decision_space_figure(space),
                shows=space_words(space),
                caption="Decision space, in standard deviations of a class. A circle holds 90 % "
                "of its class's images; on the dashed line the first two are equally probable. "
                f"Images of the first class lie about {(space.dims - 1) ** 0.5:.1f} away from "
                "the line, not on it.",
                element="decision-space",
            )
        )
    if explanation.nearby:
        parts.append(_nearby(prediction_name(looked), explanation.nearby))
    return "".join(parts)


def heatmap_html(looked: Looked, class_name: str) -> str:
    """What the network saw, and the heatmap of a class over it."""
    explanation, heatmap = looked.explanation, looked.heatmap(class_name)
    if explanation is None or heatmap is None:
        return ""
    side = explanation.image.shape[0]
    seen = markup.picture(
        explanation.image,
        shows=f"The image as the network saw it, {side} by {side} pixels",
        caption=f"As the network saw it, {side}×{side}",
        side=MAP_SIDE,
        element="seen",
    )
    scale = float(np.abs(deviations(heatmap.values)).max())
    drawn = overlay(explanation.image, heatmap.values, size=MAP_SIDE)
    reach = (
        ""
        if explanation.receptive_field_px is None
        else f" A cell responds to about {explanation.receptive_field_px:.0f} px around it."
    )
    over = markup.picture(
        drawn,
        shows=map_words(class_name, heatmap.values),
        caption=f"Evidence for {class_name}: red speaks for it more than an even share would, "
        f"blue less; full colour is {scale:.3g} nats per cell. All cells add up to "
        f"log q = {heatmap.log_posterior:.4g} nats (within {heatmap.completeness_error:.0e})."
        f"{reach}",
        side=MAP_SIDE,
        element="heatmap",
    )
    return f'<div class="pictures">{seen}{over}</div>'


def map_words(class_name: str, values: npt.NDArray[np.float64]) -> str:
    """A heatmap for whoever does not see it: where the evidence for and against is strongest."""
    off = deviations(values)
    return (
        f"Heatmap for {class_name}: most evidence for it {_place(int(off.argmax()), off.shape)}, "
        f"most against it {_place(int(off.argmin()), off.shape)}"
    )


def space_words(space: DecisionSpace) -> str:
    """A decision space for whoever does not see it."""
    first, second = space.means[0].class_name, space.means[1].class_name
    side = first if space.x < space.boundary else second
    return (
        f"Decision space: the image lies {abs(space.x - space.boundary):.1f} standard deviations "
        f"from the boundary between {first} and {second}, on the side of {side}, and "
        f"{space.y:.1f} away from the line between them"
    )


def prediction_name(looked: Looked) -> str:
    """The most probable class."""
    return looked.prediction.top.name


def _place(cell: int, shape: tuple[int, ...]) -> str:
    row, column = divmod(cell, shape[1])
    vertical = ("top", "middle", "bottom")[min(2, 3 * row // shape[0])]
    horizontal = ("left", "centre", "right")[min(2, 3 * column // shape[1])]
    return f"at the {vertical} {horizontal}"


def _stated(label: str, what: Html, sentence: str, *, element: str) -> str:
    return (
        f'<p id="{element}" class="stated"><strong>{markup.text_of(label)}</strong> {what.text} '
        f"{markup.text_of(sentence)}</p>"
    )


def _decision(prediction: Prediction) -> str:
    decision = prediction.decision
    if decision is None:
        return _stated(
            "Decision",
            markup.badge("NONE", "none"),
            "The server has no policy.",
            element="decision",
        )
    word = _words(decision.action)
    if decision.class_name is not None:
        word += f" {decision.class_name}"
    cost = (
        ""
        if decision.expected_cost is None
        else f" (expected cost of acting {decision.expected_cost:.3g})"
    )
    return _stated(
        "Decision",
        markup.badge(word, _ACTIONS[decision.action]),
        f"{decision.reason} Rule {decision.rule}{cost}.",
        element="decision",
    )


def _conformal(prediction: Prediction) -> str:
    found = prediction.conformal
    if found is None:
        return ""
    measured = (
        "" if found.measured_coverage is None else f", measured {percent(found.measured_coverage)}"
    )
    return _stated(
        "Prediction set",
        Html(markup.text_of("{" + ", ".join(found.classes) + "}")),
        f"holds the truth for {percent(found.target_coverage)} of images like those of "
        f"calibration{measured}.",
        element="conformal",
    )


def _figures(prediction: Prediction) -> str:
    observed = prediction.observed_accuracy
    accuracy = (
        ""
        if observed is None
        else f" Of {observed.count:,} calibration images with about this confidence, "
        f"{percent(observed.accuracy)} were right (95 % interval {100 * observed.low:.1f}–"
        f"{percent(observed.high)})."
    )
    return markup.paragraph(
        f"{prediction.bits_per_dim:.2f} bits/dim; record {record_id_of(prediction)}.{accuracy}",
        kind="dim",
    )


def _test_row(test: TestResult) -> tuple[Cell, ...]:
    flag = markup.badge("FLAG", "bad") if test.flagged else "–"
    return (test.name, test.group.value, p_value(test.p_value), p_value(test.p_adjusted), flag)


def _nearby(top: str, nearby: tuple[NearbyClass, ...]) -> str:
    return markup.table(
        f"Classes that the model places near {top}, whatever the image",
        ("class", "distance", "overlap"),
        [(near.class_name, f"{near.distance:.2f}", percent(near.overlap)) for near in nearby],
        element="nearby",
    )


def _words(value: str) -> str:
    return value.replace("_", " ")
