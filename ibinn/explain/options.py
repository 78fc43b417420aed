"""What a caller chooses of an explanation: classes, a contrast of two of them, and the resolution.

A model makes heatmaps of classes; everything else here follows from these without another pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ibinn.errors import NotExplainableError, RequestError, UnknownClassError
from ibinn.explain.resolution import enlarged
from ibinn.types import (
    Contrast,
    ContrastChoice,
    ExplainOptions,
    Explanation,
    Heatmap,
    HeatmapSize,
    ModelInfo,
    Prediction,
)

DEFAULT_CLASSES = 3
"""Most probable classes that are explained where none is named."""
MAX_VALUES = 1_000_000
"""Most heatmap values of one explanation: 8 MB on the wire, against one request that holds up
everyone else's."""
_NAMES_TOLD = 20


def check(options: ExplainOptions, info: ModelInfo) -> None:
    """Refuse what the model cannot explain, before anything is decoded or computed.

    Raises:
        NotExplainableError: The model has no heatmaps.
        UnknownClassError: The model does not know a class.
        RequestError: A class is named twice, or against itself, or the maps would be too large.
    """
    if not info.explainable:
        raise NotExplainableError(
            f"model {info.name} ({info.architecture}) has no heatmaps: its network does not end "
            "in an orthonormal pooling; classify instead, or use a model that is explainable"
        )
    names = options.classes
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RequestError(
            f"class {twice!r} is named {names.count(twice)} times; name each class once",
            field="classes",
        )
    for name in names:
        _check_known(name, info)
    contrast = options.contrast
    if contrast is not None:
        _check_contrast(contrast, info)
    if options.heatmap_size is HeatmapSize.IMAGE:
        maps = (len(names) or DEFAULT_CLASSES) + (contrast is not None)
        if (values := maps * info.input_side**2) > MAX_VALUES:
            raise RequestError(
                f"{maps} heatmaps of {info.input_side}×{info.input_side} are {values:,} values; "
                f"the limit is {MAX_VALUES:,}; name fewer classes, or ask for the size of the grid",
                field="heatmap_size",
            )


def classes_to_compute(options: ExplainOptions, class_names: Sequence[str]) -> list[str] | None:
    """The classes that a model must explain for these options; None: those it chooses.

    A contrast may be of any two classes, which are known only with the answer.
    """
    if options.contrast is not None:
        return list(class_names)
    return list(options.classes) or None


def arranged(explanation: Explanation, options: ExplainOptions) -> Explanation:
    """The explanation that the options ask for.

    Args:
        explanation: Of `classes_to_compute`.
        options: As checked by `check`.
    """
    found = {heatmap.class_name: heatmap for heatmap in explanation.heatmaps}
    names = options.classes or tuple(found)
    if options.contrast is not None and not options.classes:
        names = tuple(score.name for score in explanation.prediction.classes[:DEFAULT_CLASSES])
    heatmaps = tuple(found[name] for name in names)
    contrast = None
    if options.contrast is not None:
        first, second = chosen_pair(options.contrast, explanation.prediction)
        contrast = contrast_of(found[first], found[second])
    if options.heatmap_size is HeatmapSize.IMAGE:
        side = explanation.image.shape[0]
        heatmaps = tuple(_enlarged_heatmap(heatmap, side) for heatmap in heatmaps)
        contrast = contrast and _enlarged_contrast(contrast, side)
    return dataclasses.replace(explanation, heatmaps=heatmaps, contrast=contrast)


def chosen_pair(choice: ContrastChoice, prediction: Prediction) -> tuple[str, str]:
    """The two classes of a contrast, the most probable ones where the choice names none."""
    ranked = [score.name for score in prediction.classes]
    first = choice.class_name or next(name for name in ranked if name != choice.versus)
    second = choice.versus or next(name for name in ranked if name != first)
    return first, second


def contrast_of(first: Heatmap, second: Heatmap) -> Contrast:
    """Where the evidence for one class over another lies: Q(first) - Q(second).

    It adds up to log q(first|x) - log q(second|x); the part S that all classes share cancels
    (Eq. 5.35-5.40).
    """
    return _contrast(
        first.class_name,
        second.class_name,
        first.values - second.values,
        first.log_posterior - second.log_posterior,
    )


def _check_contrast(contrast: ContrastChoice, info: ModelInfo) -> None:
    for name in (contrast.class_name, contrast.versus):
        if name is not None:
            _check_known(name, info)
    if contrast.class_name is not None and contrast.class_name == contrast.versus:
        raise RequestError(
            f"contrast is of {contrast.class_name!r} against itself; name two classes",
            field="contrast.versus",
        )
    if len(info.classes) < 2:
        raise RequestError(
            f"model {info.name} has one class; a contrast needs two", field="contrast"
        )


def _check_known(name: str, info: ModelInfo) -> None:
    if name not in info.classes:
        known = ", ".join(info.classes[:_NAMES_TOLD])
        raise UnknownClassError(
            f"model {info.name} does not know class {name!r}; it knows "
            f"{known}{', …' if len(info.classes) > _NAMES_TOLD else ''}"
        )


def _enlarged_heatmap(heatmap: Heatmap, side: int) -> Heatmap:
    values = enlarged(heatmap.values, side)
    return dataclasses.replace(
        heatmap,
        values=values,
        completeness_error=abs(float(values.sum()) - heatmap.log_posterior),
    )


def _enlarged_contrast(contrast: Contrast, side: int) -> Contrast:
    values = enlarged(contrast.values, side)
    return _contrast(contrast.class_name, contrast.versus, values, contrast.log_odds)


def _contrast(
    class_name: str, versus: str, values: npt.NDArray[np.float64], log_odds: float
) -> Contrast:
    return Contrast(
        class_name=class_name,
        versus=versus,
        values=values,
        log_odds=log_odds,
        completeness_error=abs(float(values.sum()) - log_odds),
    )
