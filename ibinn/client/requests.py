"""From options to the messages that ask for them."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from ibinn import types
from ibinn.v1 import classification_service_pb2 as service

_HEATMAP_SIZES = {
    types.HeatmapSize.GRID: service.HEATMAP_SIZE_GRID,
    types.HeatmapSize.IMAGE: service.HEATMAP_SIZE_IMAGE,
}
_TEST_DETAILS = {
    types.TestDetail.ALL: service.TEST_DETAIL_ALL,
    types.TestDetail.FLAGGED: service.TEST_DETAIL_FLAGGED,
    types.TestDetail.NONE: service.TEST_DETAIL_NONE,
}


def classify_request(
    image: bytes,
    *,
    request_id: str,
    model: str,
    options: types.AnswerOptions,
    group_id: str,
    timeout_s: float | None = None,
) -> service.ClassifyRequest:
    """The request for an answer.

    Args:
        image: Encoded.
        request_id: Its name.
        model: First digits of the weights digest; empty: the default model.
        options: How much the answer tells.
        group_id: Names what images belong together; empty: nothing does.
        timeout_s: Time since its arrival after which the image is not computed; None: the call's.
    """
    timeout = None
    if timeout_s is not None:
        timeout = Duration()
        timeout.FromNanoseconds(round(timeout_s * 1e9))
    return service.ClassifyRequest(
        image=image,
        request_id=request_id,
        model=model,
        options=_options(options),
        timeout=timeout,
        group_id=group_id,
    )


def explain_request(
    image: bytes,
    options: types.ExplainOptions,
    *,
    request_id: str,
    model: str,
    answer: types.AnswerOptions,
    group_id: str,
) -> service.ExplainRequest:
    """The request for an explanation; `answer` says how much the answer in it tells."""
    contrast = options.contrast
    return service.ExplainRequest(
        image=image,
        classes=options.classes,
        contrast=None
        if contrast is None
        else service.ContrastRequest(
            class_name=contrast.class_name or "", versus=contrast.versus or ""
        ),
        heatmap_size=_HEATMAP_SIZES[options.heatmap_size],
        request_id=request_id,
        model=model,
        options=_options(answer),
        group_id=group_id,
    )


def _options(options: types.AnswerOptions) -> service.AnswerOptions | None:
    if options == types.AnswerOptions():
        return None
    return service.AnswerOptions(
        top_classes=options.top_classes, tests=_TEST_DETAILS[options.tests]
    )
