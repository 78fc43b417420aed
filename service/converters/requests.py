"""What a caller chose, as the library's options."""

from __future__ import annotations

from ibinn import types
from ibinn.errors import RequestError
from ibinn.v1 import classification_service_pb2 as service
from service.converters.names import HEATMAP_SIZES


def timeout_s(request: service.ClassifyRequest) -> float | None:
    """Seconds that the request allows, or None.

    Raises:
        RequestError: The time is not above zero.
    """
    if not request.HasField("timeout"):
        return None
    seconds = request.timeout.seconds + request.timeout.nanos * 1e-9
    if seconds <= 0:
        raise RequestError(
            f"timeout is {seconds:g} s; expected a time above 0, or leave it out", field="timeout"
        )
    return seconds


def explain_options(request: service.ExplainRequest) -> types.ExplainOptions:
    """What the caller chose of an explanation.

    Raises:
        RequestError: A size that this server does not know.
    """
    size = HEATMAP_SIZES.get(request.heatmap_size)
    if size is None:
        raise RequestError(
            f"heatmap_size is number {request.heatmap_size}, which this server does not know; "
            "expected HEATMAP_SIZE_GRID or HEATMAP_SIZE_IMAGE",
            field="heatmap_size",
        )
    contrast = None
    if request.HasField("contrast"):
        contrast = types.ContrastChoice(
            class_name=request.contrast.class_name or None, versus=request.contrast.versus or None
        )
    return types.ExplainOptions(
        classes=tuple(request.classes), contrast=contrast, heatmap_size=size
    )
